import { Config, Context, DateTime, Effect, Layer, Result, Schema } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { graceMs, maxMinutes, RevenueMinute, RevenueStream } from "@merkato/domain/analytics/RevenueMinute"
import type { Envelope } from "@merkato/domain/kernel/Event"
import { Currency, fromDecimal, Minor } from "@merkato/domain/kernel/Money"
import { type Forbidden, InvalidValue, type ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { PaymentCaptured, RefundCompleted } from "@merkato/domain/payments/PaymentEvents"
import { authorize } from "@merkato/infra/authorizer/Authorizer"
import * as Provided from "@merkato/infra/context/Provided"
import * as Retention from "@merkato/infra/context/Retention"
import { orUnavailable } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

const minuteMs = 60_000

/** Minutes for which a closed minute is corrected: a day's unless `MERKATO_REVENUE_LATENESS_MINUTES` says otherwise, at most a year. */
const Lateness = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 525_600 }))
const latenessMinutes = Config.schema(Lateness, "MERKATO_REVENUE_LATENESS_MINUTES").pipe(Config.withDefault(1_440))

/** Older minutes are no news; what days brought, payments tell for good. */
export const oldMinutes: Retention.Passing = {
  table: "revenue_minutes",
  age: Retention.byTime("minute"),
  days: 90,
  setting: "MERKATO_KEEP_REVENUE_MINUTES_DAYS"
}

const Row = Schema.Struct({
  minute: Schema.DateTimeUtcFromDate,
  currency: Currency,
  state: RevenueMinute.fields.state,
  payments: Schema.Int,
  revenueMinor: Minor,
  refunds: Schema.Int,
  refundsMinor: Minor,
  corrections: Schema.Int,
  correctedAt: Schema.NullOr(Schema.DateTimeUtcFromDate),
  latePayments: Schema.Int,
  lateRevenueMinor: Minor,
  lateRefunds: Schema.Int,
  lateRefundsMinor: Minor
})
const decodeRows = Schema.decodeUnknownEffect(Schema.Array(Row))

/** Money that moved, as an event tells it. */
interface Movement {
  readonly occurredAt: string
  readonly currency: Currency
  readonly isRefund: boolean
  readonly amountMinor: number
}

const movement = Effect.fnUntraced(function* ({ eventType, occurredAt, payload }: Envelope) {
  const isRefund = eventType === RefundCompleted.type
  const { amount, currency } = yield* (isRefund ? RefundCompleted : PaymentCaptured).decode(payload)
  const amountMinor = Result.getOrThrow(fromDecimal(amount, currency))
  return { occurredAt, currency, isRefund, amountMinor } satisfies Movement
})

/** What each minute brings, kept as payments come in. */
export class RevenuePerMinute extends Context.Service<
  RevenuePerMinute,
  {
    /**
     * Takes in events, within the caller's transaction, so that they count once. Each is judged by how far the
     * stream was before: whether it came late, or too late.
     */
    readonly take: (events: ReadonlyArray<Envelope>) => Effect.Effect<void, Schema.SchemaError | SqlError.SqlError>
    readonly read: (range: {
      readonly from: DateTime.Utc
      readonly to: DateTime.Utc
    }) => Effect.Effect<RevenueStream, Forbidden | InvalidValue | ServiceUnavailable>
  }
>()("merkato/analytics/RevenuePerMinute") {
  static readonly layer = Layer.effect(
    RevenuePerMinute,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const provided = yield* Provided.provided
      const latenessMs = (yield* Effect.orDie(latenessMinutes)) * minuteMs

      /** Whether minutes were over for so long that nothing more is expected, or taken. */
      const over = (waitMs: number) =>
        sql`coalesce(minute + ${minuteMs + waitMs}::double precision * interval '1 millisecond' <= newest, false)`

      const take = Tracing.fn("RevenuePerMinute.take")(function* (events: ReadonlyArray<Envelope>) {
        const told = yield* Effect.forEach(events, movement)
        const now = yield* DateTime.nowAsDate
        yield* sql`
          with stream as materialized (
            select newest from analytics.streams where stream = 'revenue' for update
          ), told as (
            select date_trunc('minute', occurred_at) as minute, occurred_at, currency, is_refund, amount_minor
            from unnest(
              ${told.map((each) => each.occurredAt)}::text[]::timestamptz[], ${told.map((each) => each.currency)}::text[],
              ${told.map((each) => String(each.isRefund))}::text[]::boolean[],
              ${told.map((each) => String(each.amountMinor))}::text[]::bigint[]
            ) as t (occurred_at, currency, is_refund, amount_minor)
          ), advanced as (
            update analytics.streams set newest = greatest(stream.newest, (select max(occurred_at) from told))
            from stream where analytics.streams.stream = 'revenue'
          ), judged as (
            select minute, currency, is_refund, amount_minor, ${over(graceMs)} as closed, ${over(latenessMs)} as final
            from told cross join stream
          )
          insert into analytics.revenue_minutes as m
            (minute, currency, payments, revenue_minor, refunds, refunds_minor, corrections, corrected_at,
              late_payments, late_revenue_minor, late_refunds, late_refunds_minor)
          select minute, currency,
            count(*) filter (where not final and not is_refund),
            coalesce(sum(amount_minor) filter (where not final and not is_refund), 0),
            count(*) filter (where not final and is_refund),
            coalesce(sum(amount_minor) filter (where not final and is_refund), 0),
            count(*) filter (where closed and not final),
            case when bool_or(closed and not final) then ${now}::timestamptz end,
            count(*) filter (where final and not is_refund),
            coalesce(sum(amount_minor) filter (where final and not is_refund), 0),
            count(*) filter (where final and is_refund),
            coalesce(sum(amount_minor) filter (where final and is_refund), 0)
          from judged group by minute, currency order by minute, currency
          on conflict (minute, currency) do update set
            payments = m.payments + excluded.payments, revenue_minor = m.revenue_minor + excluded.revenue_minor,
            refunds = m.refunds + excluded.refunds, refunds_minor = m.refunds_minor + excluded.refunds_minor,
            corrections = m.corrections + excluded.corrections,
            corrected_at = coalesce(excluded.corrected_at, m.corrected_at),
            late_payments = m.late_payments + excluded.late_payments,
            late_revenue_minor = m.late_revenue_minor + excluded.late_revenue_minor,
            late_refunds = m.late_refunds + excluded.late_refunds,
            late_refunds_minor = m.late_refunds_minor + excluded.late_refunds_minor`
      })

      const read = Tracing.fn("RevenuePerMinute.read")(
        function* ({ from, to }: Parameters<RevenuePerMinute["Service"]["read"]>[0]) {
          yield* authorize("ops.read")
          const [first, last] = [from.epochMilliseconds, to.epochMilliseconds]
          if (last < first) return yield* new InvalidValue({ path: "to", reason: "before from" })
          if (last - first > maxMinutes * minuteMs) {
            return yield* new InvalidValue({ path: "to", reason: `more than ${maxMinutes} minutes after from` })
          }
          const rows = yield* sql`
            select minute, currency, case when ${over(latenessMs)} then 'final' when ${over(graceMs)} then 'closed' else 'open' end
                as state,
              payments, revenue_minor as "revenueMinor", refunds, refunds_minor as "refundsMinor", corrections,
              corrected_at as "correctedAt", late_payments as "latePayments", late_revenue_minor as "lateRevenueMinor",
              late_refunds as "lateRefunds", late_refunds_minor as "lateRefundsMinor"
            from analytics.revenue_minutes
            cross join (select newest from analytics.streams where stream = 'revenue') as stream
            where minute > ${new Date(first - minuteMs)} and minute < ${new Date(last)}
            order by minute, currency`
          const [stream] = yield* sql<{ newest: Date | null }>`
            select newest from analytics.streams where stream = 'revenue'`
          const items = (yield* Effect.orDie(decodeRows(rows))).map(
            ({ latePayments, lateRevenueMinor, lateRefunds, lateRefundsMinor, ...row }) =>
              new RevenueMinute({
                ...row,
                tooLate: {
                  payments: latePayments,
                  revenueMinor: lateRevenueMinor,
                  refunds: lateRefunds,
                  refundsMinor: lateRefundsMinor
                }
              })
          )
          const newest = stream?.newest ?? null
          return new RevenueStream({ newest: newest === null ? null : DateTime.fromDateUnsafe(newest), items })
        },
        orUnavailable("analytics"),
        provided
      )

      return RevenuePerMinute.of({ take, read })
    })
  )
}
