/** The REST surface of a payment gateway, in types: for the client and the test gateway alike. */
import { Schema } from "effect"
import { Id } from "@merkato/domain/kernel/Ids"
import { Currency } from "@merkato/domain/kernel/Money"
import { PaymentToken } from "@merkato/domain/payments/Payment"

/** How an attempt stands. A captured one stays captured when some or all of it is refunded. */
export const AttemptStatus = Schema.Literals(["authorised", "captured", "declined", "voided"])
export type AttemptStatus = typeof AttemptStatus.Type

/** `POST /v1/attempts/{attemptId}/authorise`. Amounts are decimal numbers. */
export const Authorise = Schema.Struct({
  orderId: Id,
  amount: Schema.Finite,
  currency: Currency,
  token: PaymentToken
})

/** `POST /v1/attempts/{attemptId}/refunds` */
export const Refund = Schema.Struct({ refundId: Id, amount: Schema.Finite, currency: Currency })

/** The answer to everything but a refund. What was voided before it arrived has no order, amount and currency. */
export const Attempt = Schema.Struct({
  attemptId: Id,
  orderId: Schema.NullOr(Id),
  amount: Schema.NullOr(Schema.Finite),
  currency: Schema.NullOr(Currency),
  status: AttemptStatus,
  reason: Schema.NullOr(Schema.String),
  refundedAmount: Schema.NullOr(Schema.Finite)
})
export type Attempt = typeof Attempt.Type

export const Refunded = Schema.Struct({ attemptId: Id, refundId: Id, amount: Schema.Finite, currency: Currency })

/**
 * unavailable (503): nothing was done, it may be tried again or elsewhere. invalid_request (400): nothing was done, and
 * never will be for this request. unknown_attempt (404): the gateway has never heard of it. conflicting_repeat (409): the
 * key was used before, for something else. refund_refused (422): more than was captured and is not given back yet, or
 * nothing was captured.
 */
export const Refusal = Schema.Struct({
  code: Schema.Literals(["unavailable", "invalid_request", "unknown_attempt", "conflicting_repeat", "refund_refused"]),
  message: Schema.String
})
export type Refusal = typeof Refusal.Type
