import { Context, Effect, Layer, Result, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { type Currency, fromDecimal } from "@merkato/domain/kernel/Money"
import { type Forbidden, InvalidValue, type ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { Region, regionTimeZone } from "@merkato/domain/kernel/Region"
import { DailyRevenue, maxDays } from "@merkato/domain/payments/DailyRevenue"
import { PaymentCaptured, PaymentInitiated, RefundCompleted } from "@merkato/domain/payments/PaymentEvents"
import { authorize } from "@merkato/infra/authorizer/Authorizer"
import * as Provided from "@merkato/infra/context/Provided"
import { orUnavailable } from "@merkato/infra/postgres/Database"
import * as Projection from "@merkato/infra/projection/Projection"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

interface OfAttempt {
  readonly attemptId: string
  readonly amount: number
  readonly currency: Currency
}

const entry = (
  { attemptId, amount, currency }: OfAttempt,
  { aggregateVersion }: Projection.ProjectedEvent,
  known: { readonly refundId?: string; readonly region?: Region; readonly bookedAt?: string }
): Projection.Row => ({
  attempt_id: attemptId,
  entry: known.refundId ?? "",
  region: known.region ?? null,
  booked_at: known.bookedAt ?? null,
  amount_minor: Result.getOrThrow(fromDecimal(amount, currency)),
  currency,
  version: aggregateVersion
})

/** Money that came and went, a row each: what the revenue of a day is the sum of. */
export const dailyRevenue = Projection.make({
  name: "daily_revenue",
  context: "payments",
  topic: "payment.events",
  key: { attempt_id: "text", entry: "text" },
  once: { region: "text", booked_at: "timestamptz" },
  latest: { amount_minor: "bigint", currency: "text" },
  events: [
    Projection.on(PaymentInitiated, (payment, event) => [entry(payment, event, { region: event.region })]),
    Projection.on(PaymentCaptured, (payment, event) => [entry(payment, event, { bookedAt: event.occurredAt })]),
    Projection.on(RefundCompleted, (refund, event) => [
      entry(refund, event, { refundId: refund.refundId, bookedAt: event.occurredAt })
    ])
  ]
})

const decode = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct(DailyRevenue.fields)))

const dayMs = 24 * 60 * 60_000
const zones = Object.entries(regionTimeZone)

/** Tells what days brought; as old as events need to arrive. */
export class Revenue extends Context.Service<
  Revenue,
  {
    /** From the first day to the last one, both included, by region and currency; days without any are left out. */
    readonly daily: (days: {
      readonly first: string
      readonly last: string
    }) => Effect.Effect<ReadonlyArray<DailyRevenue>, Forbidden | InvalidValue | ServiceUnavailable>
  }
>()("merkato/payments/Revenue") {
  static readonly layer = Layer.effect(
    Revenue,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const provided = yield* Provided.provided

      const daily = Tracing.fn("Revenue.daily")(
        function* ({ first, last }: Parameters<Revenue["Service"]["daily"]>[0]) {
          yield* authorize("ops.read")
          const [begins, ends] = [Date.parse(`${first}T00:00:00Z`), Date.parse(`${last}T00:00:00Z`)]
          if (ends - begins >= maxDays * dayMs) {
            return yield* new InvalidValue({ path: "last", reason: `more than ${maxDays} days after the first` })
          }
          // Some region's day may begin a day before or end a day after that of UTC: what is too much falls out below.
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
              where e.booked_at >= ${new Date(begins - dayMs)} and e.booked_at < ${new Date(ends + 2 * dayMs)}
            ) as booked
            where day between ${first} and ${last}
            group by day, region, currency order by day, region, currency`
          return (yield* Effect.orDie(decode(rows))).map((row) => new DailyRevenue(row))
        },
        orUnavailable("payments"),
        provided
      )

      return Revenue.of({ daily })
    })
  )
}
