import { Schema } from "effect"
import { RpcGroup } from "effect/rpc"
import { AttemptId, OrderId, UserId } from "@merkato/domain/kernel/Ids"
import { Currency, Minor } from "@merkato/domain/kernel/Money"
import { Forbidden } from "@merkato/domain/kernel/Problem"
import {
  Payment,
  PaymentDeclined,
  PaymentToken,
  PaymentUnavailable,
  PaymentUnknown,
  PaymentVoided,
  Rail
} from "@merkato/domain/payments/Payment"
import { Contract } from "../contract/Contract.ts"
import { command } from "../contract/Operation.ts"

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
   * Holds the money. The attempt id is the idempotency key here and at the gateway: a repeat asks, it never charges
   * again. `PaymentUnavailable`: certainly nothing was charged. `PaymentUnknown`: nobody can tell yet; `Resolve` will.
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
  /** Gives the held money back; before an authorisation, it leaves a tombstone that refuses the late one. */
  command("Void", {
    payload: { attemptId: AttemptId, reason: Schema.String },
    success: Payment,
    errors: [Forbidden, PaymentUnknown]
  })
)

export class PaymentsRpc extends Contract<PaymentsRpc>()("payments", PaymentsGroup) {}
