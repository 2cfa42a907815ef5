/** Money that came and went, a row for each payment and refund: what is read of a day is their sum. */
import { Effect, Option, Result } from "effect"
import { type Currency, fromDecimal } from "@merkato/domain/kernel/Money"
import type { Region } from "@merkato/domain/kernel/Region"
import { PaymentCaptured, PaymentInitiated, RefundCompleted } from "@merkato/domain/payments/PaymentEvents"
import { ClickHouse } from "@merkato/infra/clickhouse/ClickHouse"
import * as ClickHouseRows from "@merkato/infra/clickhouse/ClickHouseRows"
import * as Copy from "@merkato/infra/projection/Copy"
import * as Projection from "@merkato/infra/projection/Projection"

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

/** It lies in ClickHouse as well, where there is one. */
export const dailyRevenueCopy = Copy.make({
  name: "daily_revenue_clickhouse",
  projection: dailyRevenue,
  truth: "payments.daily_revenue",
  variable: "CLICKHOUSE_URL",
  store: Effect.map(Effect.serviceOption(ClickHouse), (server) =>
    Option.isSome(server) ? ClickHouseRows.make(dailyRevenue, server.value) : undefined
  )
})
