import { DateTime, Effect, Result, Schema } from "effect"
import * as Event from "../kernel/Event.ts"
import { AttemptId, OrderId, RefundId, UserId } from "../kernel/Ids.ts"
import { Currency, fromDecimal } from "../kernel/Money.ts"
import { Payment, type PaymentStatus, Refund, refundableMinor, type RefundStatus } from "./Payment.ts"

const attempt = { attemptId: AttemptId, orderId: OrderId, userId: UserId, amount: Schema.Finite, currency: Currency }

/** An attempt was recorded; the gateway is asked next. */
export const PaymentInitiated = Event.define(
  "ecommerce.payment.payment.initiated.v1",
  "payment.events",
  // Optional, since the first attempts did not say where they went.
  Schema.Struct({ ...attempt, gateway: Schema.optionalKey(Schema.String) })
)
/** The attempt left a gateway that certainly holds none of its money, for the next one. Stored before that one is asked. */
export const PaymentRerouted = Event.define(
  "ecommerce.payment.payment.rerouted.v1",
  "payment.events",
  Schema.Struct({ ...attempt, from: Schema.String, to: Schema.String, reason: Schema.String })
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

const refund = {
  attemptId: AttemptId,
  refundId: RefundId,
  orderId: OrderId,
  userId: UserId,
  amount: Schema.Finite,
  currency: Currency
}

/** Captured money is promised back, all or a part; the gateway is asked next. */
export const RefundRequested = Event.define(
  "ecommerce.payment.refund.requested.v1",
  "payment.events",
  Schema.Struct({ ...refund, reason: Schema.String })
)
/** The shopper has it back. */
export const RefundCompleted = Event.define(
  "ecommerce.payment.refund.completed.v1",
  "payment.events",
  Schema.Struct(refund)
)
/** The gateway refused to give it back. */
export const RefundWasRefused = Event.define(
  "ecommerce.payment.refund.refused.v1",
  "payment.events",
  Schema.Struct({ ...refund, reason: Schema.String })
)

export const events = [
  PaymentInitiated,
  PaymentRerouted,
  PaymentAuthorised,
  PaymentCaptured,
  PaymentWasDeclined,
  PaymentWasVoided,
  RefundRequested,
  RefundCompleted,
  RefundWasRefused
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

/** Where the attempts went that do not say so: there was one gateway then. */
const onlyGatewayThen = "rest"

const minorOf = ({ amount, currency }: { readonly amount: number; readonly currency: Currency }) =>
  Result.getOrThrow(fromDecimal(amount, currency))

/** What a step changes; nothing when it cannot follow on what there is. */
type Change = Partial<Pick<Payment, "status" | "reason" | "gateway" | "refundingMinor" | "refundedMinor">>
type Step = (payment: Payment, payload: unknown) => Effect.Effect<Change | undefined>

const decoded = <A>(definition: Pick<Event.EventDefinition<A>, "decode">, payload: unknown) =>
  Effect.orDie(definition.decode(payload))

const becomes =
  (to: PaymentStatus, ...from: ReadonlyArray<PaymentStatus>): Step =>
  ({ status }) =>
    Effect.succeed(from.includes(status) ? { status: to } : undefined)

const endsAs =
  (
    definition: Pick<Event.EventDefinition<{ readonly reason: string }>, "decode">,
    to: PaymentStatus,
    ...from: ReadonlyArray<PaymentStatus>
  ): Step =>
  ({ status }, payload) =>
    from.includes(status)
      ? Effect.map(decoded(definition, payload), ({ reason }) => ({ status: to, reason }))
      : Effect.succeed(undefined)

const steps: ReadonlyMap<string, Step> = new Map<string, Step>([
  [
    PaymentRerouted.type,
    ({ status, gateway }, payload) =>
      Effect.map(decoded(PaymentRerouted, payload), ({ from, to }) =>
        status === "INITIATED" && from === gateway && to !== from ? { gateway: to } : undefined
      )
  ],
  [PaymentAuthorised.type, becomes("AUTHORISED", "INITIATED")],
  [PaymentCaptured.type, becomes("CAPTURED", "AUTHORISED")],
  [PaymentWasDeclined.type, endsAs(PaymentWasDeclined, "DECLINED", "INITIATED")],
  [PaymentWasVoided.type, endsAs(PaymentWasVoided, "VOIDED", "INITIATED", "AUTHORISED")],
  [
    RefundRequested.type,
    (payment, payload) =>
      Effect.map(decoded(RefundRequested, payload), (requested) => {
        const amountMinor = minorOf(requested)
        return amountMinor > 0 && amountMinor <= refundableMinor(payment)
          ? { refundingMinor: payment.refundingMinor + amountMinor }
          : undefined
      })
  ],
  [
    RefundCompleted.type,
    ({ refundingMinor, refundedMinor }, payload) =>
      Effect.map(decoded(RefundCompleted, payload), (completed) => {
        const amountMinor = minorOf(completed)
        return amountMinor > 0 && amountMinor <= refundingMinor
          ? { refundingMinor: refundingMinor - amountMinor, refundedMinor: refundedMinor + amountMinor }
          : undefined
      })
  ],
  [
    RefundWasRefused.type,
    ({ refundingMinor }, payload) =>
      Effect.map(decoded(RefundWasRefused, payload), (refused) => {
        const amountMinor = minorOf(refused)
        return amountMinor > 0 && amountMinor <= refundingMinor
          ? { refundingMinor: refundingMinor - amountMinor }
          : undefined
      })
  ]
])

/** What an event makes of a payment: the only way a payment changes. */
export const evolve = Effect.fnUntraced(function* (payment: Payment | undefined, event: StoredPaymentEvent) {
  // An error is dear to make, and this happens at every event.
  const impossible = () => new ImpossiblePayment({ event: event.eventType, version: event.version })
  if (event.version !== (payment?.version ?? 0) + 1) return yield* impossible()
  if (payment === undefined) {
    if (event.eventType !== PaymentInitiated.type) return yield* impossible()
    const { amount, gateway, ...started } = yield* Effect.orDie(PaymentInitiated.decode(event.payload))
    return new Payment({
      ...started,
      amountMinor: minorOf({ amount, currency: started.currency }),
      status: "INITIATED",
      reason: null,
      gateway: gateway ?? onlyGatewayThen,
      refundingMinor: 0,
      refundedMinor: 0,
      version: 1,
      createdAt: event.occurredAt,
      updatedAt: event.occurredAt
    })
  }
  const change = yield* steps.get(event.eventType)?.(payment, event.payload) ?? Effect.succeed(undefined)
  if (change === undefined) return yield* impossible()
  return new Payment({ ...payment, ...change, version: event.version, updatedAt: event.occurredAt })
})

/** Folds a whole history, oldest first. */
export const rebuild = Effect.fnUntraced(function* (history: Iterable<StoredPaymentEvent>) {
  let payment: Payment | undefined
  for (const event of history) payment = yield* evolve(payment, event)
  return payment
})

/** The refunds of a payment, from its whole history, in the order in which they were requested. */
export const rebuildRefunds = Effect.fnUntraced(function* (history: Iterable<StoredPaymentEvent>) {
  const refunds = new Map<string, Refund>()
  const ended = (refundId: string, event: StoredPaymentEvent, status: RefundStatus, refusal: string | null) => {
    const before = refunds.get(refundId)
    if (before?.status !== "REQUESTED") return false
    refunds.set(refundId, new Refund({ ...before, status, refusal, updatedAt: event.occurredAt }))
    return true
  }
  for (const event of history) {
    const impossible = new ImpossiblePayment({ event: event.eventType, version: event.version })
    switch (event.eventType) {
      case RefundRequested.type: {
        const { amount, userId: _, ...requested } = yield* decoded(RefundRequested, event.payload)
        if (refunds.has(requested.refundId)) return yield* impossible
        const refund = new Refund({
          ...requested,
          amountMinor: minorOf({ amount, currency: requested.currency }),
          status: "REQUESTED",
          refusal: null,
          createdAt: event.occurredAt,
          updatedAt: event.occurredAt
        })
        refunds.set(refund.refundId, refund)
        break
      }
      case RefundCompleted.type: {
        const { refundId } = yield* decoded(RefundCompleted, event.payload)
        if (!ended(refundId, event, "REFUNDED", null)) return yield* impossible
        break
      }
      case RefundWasRefused.type: {
        const { refundId, reason } = yield* decoded(RefundWasRefused, event.payload)
        if (!ended(refundId, event, "REFUSED", reason)) return yield* impossible
        break
      }
    }
  }
  return [...refunds.values()]
})
