import { Schema } from "effect"
import { AttemptId, OrderId, RefundId, UserId } from "../kernel/Ids.ts"
import { Currency, Minor } from "../kernel/Money.ts"
import { looksLikeCardNumber } from "./CardNumber.ts"

/**
 * INITIATED: the gateway is about to be asked, or has not answered (then the outcome is unknown until it is asked
 * again). AUTHORISED: the money is held. CAPTURED: it is ours. DECLINED and VOIDED: it stays the shopper's.
 */
export const PaymentStatus = Schema.Literals(["INITIATED", "AUTHORISED", "CAPTURED", "DECLINED", "VOIDED"])
export type PaymentStatus = typeof PaymentStatus.Type

/** A token of a payment method, made by the gateway; card numbers never come here, not even dressed up as one. */
export const PaymentToken = Schema.String.check(
  Schema.isPattern(/^tok_[A-Za-z0-9_-]{1,120}$/u),
  Schema.makeFilter((token: string) =>
    looksLikeCardNumber(token) ? "a payment token, not a card number, which must never be sent here" : undefined
  )
).pipe(Schema.brand("PaymentToken"))
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
  /** The one gateway that may hold this money; those that it was at before certainly do not. */
  gateway: Schema.String,
  /** Of what was captured: on its way back, or back. */
  refundingMinor: Minor,
  refundedMinor: Minor,
  version: Schema.Int,
  createdAt: Schema.DateTimeUtcFromString,
  updatedAt: Schema.DateTimeUtcFromString
}) {}

/** What can still be given back. */
export const refundableMinor = (payment: Payment): number =>
  payment.status === "CAPTURED" ? payment.amountMinor - payment.refundingMinor - payment.refundedMinor : 0

/**
 * REQUESTED: promised, and asked for at the gateway until it is done. REFUNDED: the shopper has it back. REFUSED: the
 * gateway will not do it, for good.
 */
export const RefundStatus = Schema.Literals(["REQUESTED", "REFUNDED", "REFUSED"])
export type RefundStatus = typeof RefundStatus.Type

/** Captured money on its way back, all or a part. Its id goes with every call to the gateway, and with every repeat. */
export class Refund extends Schema.Class<Refund>("Refund")({
  refundId: RefundId,
  attemptId: AttemptId,
  orderId: OrderId,
  amountMinor: Minor,
  currency: Currency,
  status: RefundStatus,
  /** Why it is given back. */
  reason: Schema.String,
  /** Why the gateway refused. */
  refusal: Schema.NullOr(Schema.String),
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
  {
    retryAfterSeconds: Schema.Int,
    /** The order that waits for its payment, when the caller does not know it yet. */
    orderId: Schema.optionalKey(OrderId)
  },
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

/** There is nothing to give back: the attempt is not there, or its money was not taken. */
export class NotRefundable extends Schema.TaggedError<NotRefundable>()(
  "NotRefundable",
  { attemptId: AttemptId, paymentStatus: Schema.NullOr(PaymentStatus) },
  { httpApiStatus: 409 }
) {
  override get message() {
    return "The payment was not taken, so there is nothing to give back"
  }
}

/** More than what is left of the payment. */
export class RefundExceedsPayment extends Schema.TaggedError<RefundExceedsPayment>()(
  "RefundExceedsPayment",
  { attemptId: AttemptId, refundableMinor: Minor },
  { httpApiStatus: 409 }
) {
  override get message() {
    return "More would be given back than is left of the payment"
  }
}

/** The refund id came before, for another attempt or another amount. */
export class RefundIdReused extends Schema.TaggedError<RefundIdReused>()(
  "RefundIdReused",
  { refundId: RefundId },
  { httpApiStatus: 422 }
) {
  override get message() {
    return "This refund id was used before for something else"
  }
}

/** The gateway refused to give the money back, for good. */
export class RefundDenied extends Schema.TaggedError<RefundDenied>()(
  "RefundDenied",
  { refundId: RefundId, reason: Schema.String },
  { httpApiStatus: 409 }
) {
  override get message() {
    return `The refund was refused: ${this.reason}`
  }
}
