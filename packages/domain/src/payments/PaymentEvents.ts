import { DateTime, Effect, Result, Schema } from "effect"
import * as Event from "../kernel/Event.ts"
import { AttemptId, OrderId, UserId } from "../kernel/Ids.ts"
import { Currency, fromDecimal } from "../kernel/Money.ts"
import { Payment, type PaymentStatus } from "./Payment.ts"

const attempt = { attemptId: AttemptId, orderId: OrderId, userId: UserId, amount: Schema.Finite, currency: Currency }

/** An attempt was recorded; the gateway is asked next. */
export const PaymentInitiated = Event.define(
  "ecommerce.payment.payment.initiated.v1",
  "payment.events",
  Schema.Struct(attempt)
)
/** The gateway holds the money for us. */
export const PaymentAuthorised = Event.define(
  "ecommerce.payment.payment.authorised.v1",
  "payment.events",
  Schema.Struct(attempt)
)
/** The money is ours. */
export const PaymentCaptured = Event.define(
  "ecommerce.payment.payment.captured.v1",
  "payment.events",
  Schema.Struct(attempt)
)
/** The gateway's bank refused. */
export const PaymentWasDeclined = Event.define(
  "ecommerce.payment.payment.declined.v1",
  "payment.events",
  Schema.Struct({ ...attempt, reason: Schema.String })
)
/** The attempt was called off; the gateway will not take its money any more. */
export const PaymentWasVoided = Event.define(
  "ecommerce.payment.payment.voided.v1",
  "payment.events",
  Schema.Struct({ ...attempt, reason: Schema.String })
)

export const events = [
  PaymentInitiated,
  PaymentAuthorised,
  PaymentCaptured,
  PaymentWasDeclined,
  PaymentWasVoided
] as const

/** A stored event of a payment, as the fold needs it. */
export interface StoredPaymentEvent {
  readonly eventType: string
  readonly version: number
  readonly occurredAt: DateTime.Utc
  readonly payload: unknown
}

/** A payment's events do not tell a possible story: a defect of the writer, never of input. */
export class ImpossiblePayment extends Schema.TaggedError<ImpossiblePayment>()("ImpossiblePayment", {
  event: Schema.String,
  version: Schema.Int
}) {}

const becomes: ReadonlyMap<string, { readonly from: ReadonlyArray<PaymentStatus>; readonly to: PaymentStatus }> =
  new Map([
    [PaymentAuthorised.type, { from: ["INITIATED"], to: "AUTHORISED" }],
    [PaymentCaptured.type, { from: ["AUTHORISED"], to: "CAPTURED" }],
    [PaymentWasDeclined.type, { from: ["INITIATED"], to: "DECLINED" }],
    [PaymentWasVoided.type, { from: ["INITIATED", "AUTHORISED"], to: "VOIDED" }]
  ])

const Reason = Schema.Struct({ reason: Schema.String })

/** What an event makes of a payment: the only way a payment changes. */
export const evolve = Effect.fnUntraced(function* (payment: Payment | undefined, event: StoredPaymentEvent) {
  const impossible = new ImpossiblePayment({ event: event.eventType, version: event.version })
  if (event.version !== (payment?.version ?? 0) + 1) return yield* impossible
  if (payment === undefined) {
    if (event.eventType !== PaymentInitiated.type) return yield* impossible
    const { amount, ...started } = yield* Effect.orDie(PaymentInitiated.decode(event.payload))
    return new Payment({
      ...started,
      amountMinor: Result.getOrThrow(fromDecimal(amount, started.currency)),
      status: "INITIATED",
      reason: null,
      version: 1,
      createdAt: event.occurredAt,
      updatedAt: event.occurredAt
    })
  }
  const step = becomes.get(event.eventType)
  if (step === undefined || !step.from.includes(payment.status)) return yield* impossible
  return new Payment({
    ...payment,
    status: step.to,
    reason: Schema.is(Reason)(event.payload) ? event.payload.reason : payment.reason,
    version: event.version,
    updatedAt: event.occurredAt
  })
})

/** Folds a whole history, oldest first. */
export const rebuild = Effect.fnUntraced(function* (history: Iterable<StoredPaymentEvent>) {
  let payment: Payment | undefined
  for (const event of history) payment = yield* evolve(payment, event)
  return payment
})
