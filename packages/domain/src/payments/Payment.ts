import { Schema } from "effect"
import { AttemptId, OrderId, UserId } from "../kernel/Ids.ts"
import { Currency, Minor } from "../kernel/Money.ts"

/**
 * INITIATED: the gateway is about to be asked, or has not answered (then the outcome is unknown until it is asked
 * again). AUTHORISED: the money is held. CAPTURED: it is ours. DECLINED and VOIDED: it stays the shopper's.
 */
export const PaymentStatus = Schema.Literals(["INITIATED", "AUTHORISED", "CAPTURED", "DECLINED", "VOIDED"])
export type PaymentStatus = typeof PaymentStatus.Type

/** A token of a payment method, made by the gateway; card numbers never come here. */
export const PaymentToken = Schema.String.check(Schema.isPattern(/^tok_[A-Za-z0-9_-]{1,120}$/)).pipe(
  Schema.brand("PaymentToken")
)
export type PaymentToken = typeof PaymentToken.Type

/** The way the money takes. `auto` lets payments choose. */
export const Rail = Schema.Literals(["auto", "card", "wallet", "upi", "pix", "sepa"])
export type Rail = typeof Rail.Type

/** One attempt to pay an order. Its id goes with every call to a gateway, and with every repeat of it. */
export class Payment extends Schema.Class<Payment>("Payment")({
  attemptId: AttemptId,
  orderId: OrderId,
  userId: UserId,
  amountMinor: Minor,
  currency: Currency,
  status: PaymentStatus,
  reason: Schema.NullOr(Schema.String),
  version: Schema.Int,
  createdAt: Schema.DateTimeUtcFromString,
  updatedAt: Schema.DateTimeUtcFromString
}) {}

/** The gateway's bank refused. Final for this attempt. */
export class PaymentDeclined extends Schema.TaggedError<PaymentDeclined>()(
  "PaymentDeclined",
  { reason: Schema.String },
  { httpApiStatus: 402 }
) {
  override get message() {
    return `The payment was declined: ${this.reason}`
  }
}

/** No gateway could be asked, and it is certain that nothing was charged. The order can be paid later. */
export class PaymentUnavailable extends Schema.TaggedError<PaymentUnavailable>()(
  "PaymentUnavailable",
  { retryAfterSeconds: Schema.Int },
  { httpApiStatus: 503 }
) {
  override get message() {
    return "Payment is not available right now; the order stays open and can be paid later"
  }
}

/** The gateway was asked and did not answer: whether it holds the money has to be found out. */
export class PaymentUnknown extends Schema.TaggedError<PaymentUnknown>()("PaymentUnknown", {
  attemptId: AttemptId
}) {}

/** The attempt was voided before: it can no longer take money. */
export class PaymentVoided extends Schema.TaggedError<PaymentVoided>()("PaymentVoided", { attemptId: AttemptId }) {}
