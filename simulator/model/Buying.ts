/** What shoppers do about orders under a key: they place one, pay for it, or both at once for a cart. */
import { Clock, Effect, Result } from "effect"
import type { Order } from "@merkato/domain/orders/Order"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { insist, notAnswered } from "./Asking.ts"
import type { Asked, CheckoutRequest, Memory, PayRequest, PlaceRequest } from "./Memory.ts"

interface Tagged {
  readonly _tag: string
}

/** A refusal, whether it is given for the first time or again. */
const refusalOf = <E extends Tagged>(failure: E | { readonly _tag: "Replayed"; readonly refusal: E }): Tagged =>
  "refusal" in failure ? failure.refusal : failure

export const make = (memory: Memory) => {
  /** Remembers what an order costs, as it was told now for the first time under its key. */
  const tellPrices = (order: Order, askedAt: number) =>
    Effect.map(Clock.currentTimeMillis, (answeredAt) => void memory.prices.push({ order, askedAt, answeredAt }))

  /** Remembers what was refused, or that there is no answer yet. */
  const refused = (asked: Asked, { _tag }: Tagged): void => {
    if (_tag === "IdempotencyKeyReused") return
    if (notAnswered.has(_tag)) return void memory.unanswered.push(asked)
    memory.compare(asked.userId, asked.key, _tag, () => memory.answered.push({ ...asked, answer: _tag }))
  }

  const place = (request: PlaceRequest, userId: string): Effect.Effect<void, never, OrdersRpc> =>
    Effect.gen(function* () {
      const { idempotencyKey: key } = request
      const orders = yield* OrdersRpc
      const asked: Asked = { key, userId, repeat: "place", request }
      const askedAt = memory.ask(userId, key, yield* Clock.currentTimeMillis)
      const answer = yield* insist(orders.Place(request))
      if (Result.isSuccess(answer)) {
        const order = answer.success.answer
        memory.count("placed")
        yield* tellPrices(order, askedAt)
        const told = `order ${order.orderId} over ${order.totalMinor}`
        return memory.compare(userId, key, told, () => {
          memory.answered.push({ ...asked, answer: told })
          memory.note({ _tag: "Placed", key, userId, order })
          memory.orders.push({ orderId: order.orderId, userId })
        })
      }
      const refusal = refusalOf(answer.failure)
      memory.count(refusal._tag)
      refused(asked, refusal)
    })

  /** Asks for money to be taken, for an order that is there or for a cart. */
  const buy = <E extends Tagged>(
    asked: Extract<Asked, { readonly repeat: "pay" | "checkout" }>,
    ask: Effect.Effect<{ readonly answer: Order }, E | { readonly _tag: "Replayed"; readonly refusal: E }, OrdersRpc>
  ): Effect.Effect<void, never, OrdersRpc> =>
    Effect.gen(function* () {
      const { key, userId, repeat } = asked
      const askedAt = memory.ask(userId, key, yield* Clock.currentTimeMillis)
      const answer = yield* insist(ask)
      if (Result.isSuccess(answer)) {
        const order = answer.success.answer
        memory.count(`${repeat}: ${order.status}`)
        if (repeat === "checkout") yield* tellPrices(order, askedAt)
        const told = `${order.status} ${order.orderId}`
        return memory.compare(userId, key, told, () => {
          memory.answered.push({ ...asked, answer: told })
          if (order.status === "HELD") memory.held.push(order.orderId)
          else memory.note({ _tag: "Paid", orderId: order.orderId })
          if (repeat === "checkout") memory.orders.push({ orderId: order.orderId, userId })
        })
      }
      const refusal = refusalOf(answer.failure)
      memory.count(`${repeat}: ${refusal._tag}`)
      refused(asked, refusal)
    })

  const pay = (request: PayRequest, userId: string) =>
    buy(
      { key: request.idempotencyKey, userId, repeat: "pay", request },
      Effect.flatMap(OrdersRpc, (orders) => orders.Pay(request))
    )

  const checkout = (request: CheckoutRequest, userId: string) =>
    buy(
      { key: request.idempotencyKey, userId, repeat: "checkout", request },
      Effect.flatMap(OrdersRpc, (orders) => orders.Checkout(request))
    )

  return { place, pay, checkout }
}
