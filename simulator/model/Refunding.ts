/** What admins do about money that is to be given back. */
import { Effect, Result } from "effect"
import * as Ids from "@merkato/domain/kernel/Ids"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import { insist } from "./Asking.ts"
import type { AskedRefund, Memory } from "./Memory.ts"

/** How an order was paid, as an admin sees it; undefined when that cannot be seen. */
export const paymentOf = (orderId: string) =>
  Effect.gen(function* () {
    const orders = yield* OrdersRpc
    const process = yield* insist(orders.Process({ id: orderId }))
    const order = yield* insist(orders.Get({ orderId: Ids.OrderId.make(orderId) }))
    if (Result.isFailure(process) || Result.isFailure(order)) return undefined
    return { attemptId: process.success.attemptId, paidMinor: order.success.totalMinor }
  })

/** Asks for money to be given back, and complains of answers that cannot be right. */
export const refund = (memory: Memory, asked: AskedRefund, reason: string): Effect.Effect<void, never, PaymentsRpc> =>
  Effect.gen(function* () {
    const { refundId, attemptId, amountMinor, paidMinor } = asked
    memory.refunds.push(asked)
    const answer = yield* insist(
      (yield* PaymentsRpc).Refund({
        attemptId: Ids.AttemptId.make(attemptId),
        refundId: Ids.RefundId.make(refundId),
        amountMinor,
        reason
      })
    )
    const told = Result.isSuccess(answer) ? answer.success.status : answer.failure._tag
    memory.count(`refund: ${told}`)
    const wrong = (why: string) => memory.complaints.push(`refund ${refundId} of ${amountMinor}: ${told}, ${why}`)
    if (Result.isSuccess(answer)) {
      if (answer.success.amountMinor !== amountMinor || answer.success.attemptId !== attemptId) wrong("of another")
      return memory.note({ _tag: "Refund", refund: asked, status: answer.success.status })
    }
    if (told === "RefundDenied") memory.note({ _tag: "Refund", refund: asked, status: "REFUSED" })
    const underId = memory.refunds.filter((each) => each.refundId === refundId)
    if (told === "RefundIdReused" && underId.every((each) => each.amountMinor === amountMinor))
      wrong("never for another")
    if (told === "RefundExceedsPayment") {
      const ids = new Map(memory.refunds.map((each) => [each.refundId, each]))
      const all = [...ids.values()].filter((each) => each.attemptId === attemptId && each.refundId !== refundId)
      const sum = all.reduce((minor, each) => minor + each.amountMinor, amountMinor)
      if (sum <= paidMinor) wrong(`but all that was ever wanted of ${paidMinor} is ${sum}`)
    }
  })
