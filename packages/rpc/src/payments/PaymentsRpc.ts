import { Schema } from "effect"
import { RpcGroup } from "effect/rpc"
import { Day } from "@merkato/domain/kernel/Day"
import { AttemptId, OrderId, RefundId, UserId } from "@merkato/domain/kernel/Ids"
import { Currency, maxMinor, Minor } from "@merkato/domain/kernel/Money"
import { Forbidden, InvalidValue } from "@merkato/domain/kernel/Problem"
import { DailyRevenue } from "@merkato/domain/payments/DailyRevenue"
import {
  NotRefundable,
  Payment,
  PaymentDeclined,
  PaymentToken,
  PaymentUnavailable,
  PaymentUnknown,
  PaymentVoided,
  Rail,
  Refund,
  RefundDenied,
  RefundExceedsPayment,
  RefundIdReused
} from "@merkato/domain/payments/Payment"
import { Contract } from "../contract/Contract.ts"
import { command, query } from "../contract/Operation.ts"

/** What is paid, and the attempt to pay it. */
const attempt = {
  attemptId: AttemptId,
  orderId: OrderId,
  userId: UserId,
  amountMinor: Minor,
  currency: Currency
}

export const PaymentsGroup = RpcGroup.make(
  /**
   * Holds the money, at the first gateway that takes it. The attempt id is the idempotency key here and at the gateways: a
   * repeat asks first what became of it. `PaymentUnavailable`: certainly nothing was charged, and the attempt has ended.
   * `PaymentUnknown`: nobody can tell yet; a repeat, `Resolve` or the reconciler will.
   */
  command("Authorise", {
    payload: { ...attempt, paymentToken: PaymentToken, rail: Rail },
    success: Payment,
    errors: [Forbidden, PaymentDeclined, PaymentUnavailable, PaymentUnknown, PaymentVoided]
  }),
  /**
   * Finds out what became of an attempt. One that the gateway, or this context, never heard of is called off, so that it
   * cannot arrive late.
   */
  command("Resolve", {
    payload: attempt,
    success: Payment,
    errors: [Forbidden, PaymentDeclined, PaymentUnknown, PaymentVoided]
  }),
  /** Takes the money that is held. Repeats are harmless. */
  command("Capture", {
    payload: { attemptId: AttemptId },
    success: Payment,
    errors: [Forbidden, PaymentUnknown, PaymentVoided]
  }),
  /**
   * Gives the held money back; before an authorisation, it leaves a tombstone that refuses the late one. Money that was
   * taken stays taken: then the answer is a `CAPTURED` payment, and `Refund` is what is wanted.
   */
  command("Void", {
    payload: { attemptId: AttemptId, reason: Schema.String },
    success: Payment,
    errors: [Forbidden, PaymentUnknown]
  }),
  /**
   * Gives captured money back, all or a part, at the gateway that took it. The refund id is the idempotency key. Answers a
   * `REQUESTED` refund when the gateway does not answer: it is promised then, and asked for until it is done. The sum of
   * all refunds never exceeds what was captured.
   */
  command("Refund", {
    payload: {
      attemptId: AttemptId,
      refundId: RefundId,
      amountMinor: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: maxMinor })),
      reason: Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(200))
    },
    success: Refund,
    errors: [Forbidden, NotRefundable, RefundExceedsPayment, RefundIdReused, RefundDenied]
  }),
  /** What came in and was given back from the first day to the last one, by region and currency, out of a read model. */
  query("DailyRevenue", {
    payload: { first: Day, last: Day },
    success: Schema.Array(DailyRevenue),
    errors: [Forbidden, InvalidValue]
  })
)

export class PaymentsRpc extends Contract<PaymentsRpc>()("payments", PaymentsGroup) {}
