import { Context, Effect, Layer, Option, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { beginOf, dayMs } from "@merkato/domain/kernel/Day"
import type { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { regionTimeZone } from "@merkato/domain/kernel/Region"
import { DailyRevenue } from "@merkato/domain/payments/DailyRevenue"
import { ClickHouse, type ClickHouseError } from "@merkato/infra/clickhouse/ClickHouse"
import * as ClickHouseRows from "@merkato/infra/clickhouse/ClickHouseRows"
import { Policies } from "@merkato/infra/policy/Policies"
import { orUnavailable } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { dailyRevenue } from "./RevenueEntries.ts"

/** What days brought, as far as the read model has come. */
export class RevenueByDay extends Context.Service<
  RevenueByDay,
  {
    /** From the first day to the last one, both included, in their order; of each its regions and currencies. */
    readonly between: (first: string, last: string) => Effect.Effect<ReadonlyArray<DailyRevenue>, ServiceUnavailable>
  }
>()("merkato/payments/RevenueByDay") {}

type Side = typeof RevenueByDay.Service

const decode = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct(DailyRevenue.fields)))

const daysIn = (rows: ReadonlyArray<unknown>) =>
  Effect.map(Effect.orDie(decode(rows)), (days) => days.map((day) => new DailyRevenue(day)))

const zones = Object.entries(regionTimeZone)

/** When some region's first day begins, and some region's last one ends: a day before and after those of UTC, at most. */
const around = (first: string, last: string) => ({
  begins: new Date(beginOf(first) - dayMs),
  ends: new Date(beginOf(last) + 2 * dayMs)
})

const inPostgres = (sql: SqlClient.SqlClient): Side =>
  RevenueByDay.of({
    between: Tracing.fn("RevenueByDay.between")(function* (first, last) {
      const { begins, ends } = around(first, last)
      const rows = yield* sql`
        select day, region, currency, count(*) filter (where entry = '')::int as orders,
          coalesce(sum(amount_minor) filter (where entry = ''), 0)::bigint as "revenueMinor",
          coalesce(sum(amount_minor) filter (where entry <> ''), 0)::bigint as "refundsMinor"
        from (
          select to_char(e.booked_at at time zone zone, 'YYYY-MM-DD') as day, z.region, e.currency, e.entry, e.amount_minor
          from payments.daily_revenue e
          join payments.daily_revenue payment on payment.attempt_id = e.attempt_id and payment.entry = ''
          join unnest(${zones.map(([region]) => region)}::text[], ${zones.map(([, zone]) => zone)}::text[]) as z (region, zone)
            on z.region = payment.region
          where e.booked_at >= ${begins} and e.booked_at < ${ends}
        ) as booked
        where day between ${first} and ${last}
        group by day, region, currency order by day, region, currency`
      return yield* daysIn(rows)
    }, orUnavailable("payments"))
  })

/** The day of a moment where the region is; zones come from the code, and have to be constants for ClickHouse. */
const dayThere = `multiIf(${zones.map(([region, zone]) => `region = '${region}', toDate(booked_at, '${zone}')`).join(", ")}, null)`

const { live } = ClickHouseRows.tablesOf(dailyRevenue)

/** All entries of the payments that had one in this time. */
const entries = ClickHouseRows.rowsIn(
  dailyRevenue,
  live,
  `t.attempt_id in (
    select attempt_id from ${live}
    where booked_at >= parseDateTime64BestEffort({begins:String}, 3, 'UTC')
      and booked_at < parseDateTime64BestEffort({ends:String}, 3, 'UTC')
  )`
)

/** The region is known to a payment's own entry alone. */
const sums = `
  select toString(assumeNotNull(booked_day)) as day, assumeNotNull(booked_in) as region, assumeNotNull(money) as currency,
    toInt32(countIf(entry = '')) as orders, sumIf(amount_minor, entry = '') as "revenueMinor",
    sumIf(amount_minor, entry <> '') as "refundsMinor"
  from (
    select ${dayThere} as booked_day, region as booked_in, currency as money, entry, assumeNotNull(amount_minor) as amount_minor
    from (
      select e.entry as entry, e.booked_at as booked_at, e.currency as currency, e.amount_minor as amount_minor,
        maxIf(e.region, e.entry = '') over (partition by e.attempt_id) as region
      from (${entries}) as e
    ) as b
    where booked_at is not null and region is not null
  ) as booked
  where booked_day between toDate({first:String}) and toDate({last:String})
  group by booked_day, booked_in, money order by day, region, currency`

/** In ClickHouse; while it is away, or not built yet, in Postgres, which has the same. */
const inClickHouse = Effect.fnUntraced(function* (clickhouse: typeof ClickHouse.Service, postgres: Side) {
  const policies = yield* Policies
  const guarded = policies.guard<ClickHouseError>("revenue.daily", {
    transient: ({ _tag }) => _tag === "ClickHouseUnavailable"
  })
  return RevenueByDay.of({
    between: (first, last) => {
      const { begins, ends } = around(first, last)
      const between = { first, last, begins: begins.toISOString(), ends: ends.toISOString() }
      return guarded(clickhouse.select(sums, between)).pipe(
        Tracing.withSpan("RevenueByDay.between"),
        Effect.flatMap(daysIn),
        Effect.catch(() => postgres.between(first, last))
      )
    }
  })
})

/** In ClickHouse where there is one, else in Postgres. */
export const layer = Layer.effect(
  RevenueByDay,
  Effect.gen(function* () {
    const postgres = inPostgres(yield* SqlClient.SqlClient)
    const clickhouse = yield* Effect.serviceOption(ClickHouse)
    return Option.isSome(clickhouse) ? yield* inClickHouse(clickhouse.value, postgres) : postgres
  })
)
