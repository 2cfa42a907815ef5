import { Cause, Clock, Effect, Exit, Result } from "effect"
import * as Ids from "@merkato/domain/kernel/Ids"
import { PaymentToken, type Rail } from "@merkato/domain/payments/Payment"
import type { Product } from "@merkato/domain/catalogue/Product"
import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { NotificationsRpc } from "@merkato/rpc/notifications/NotificationsRpc"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import type { Clients } from "../shop/Contracts.ts"
import { as, at, insist } from "./Asking.ts"
import * as Buying from "./Buying.ts"
import type { Asked, AskedRefund, CheckoutRequest, Memory, PayRequest, PlaceRequest } from "./Memory.ts"
import { administrators, type Command, shoppers } from "./Plan.ts"
import * as Refunding from "./Refunding.ts"
import * as Selling from "./Selling.ts"

/** Units of the scarce product that come in now and then, and how many want some of them at once. */
const fewUnits = 2
const rushing = 3

/** Payment tokens, with how often each is used. */
const paymentTokens = [
  "tok_ok",
  "tok_ok",
  "tok_ok",
  "tok_ok",
  "tok_ok",
  "tok_ok",
  "tok_declined",
  "tok_timeout",
  "tok_lost",
  "tok_soap_down",
  "tok_all_down"
] as const

/** Does one command of the plan as its actor, and remembers what was answered. */
export const perform = (memory: Memory, command: Command): Effect.Effect<void, never, Clients> => {
  const { n, actor, kind, chances } = command
  const [a, b, c, d, e, f] = chances
  const correlationId = `command ${n}`
  const key = (suffix = "") => Ids.IdempotencyKey.make(`${kind}-${n}${suffix}`)

  const itemsOf = () => {
    const first = at(memory.products, a)
    const second = c < 0.7 ? at(memory.products, b) : undefined
    const third = c < 0.3 ? at(memory.products, f) : undefined
    const wanted = [
      { product: first, qty: 1 + Math.floor(d * 3) },
      { product: second, qty: 1 + Math.floor(e * 3) },
      { product: third, qty: 1 }
    ]
    return wanted.flatMap(({ product, qty }) => (product === undefined ? [] : [{ productId: product.productId, qty }]))
  }

  const { place, pay, checkout } = Buying.make(memory)
  const { startSale, cancelSale } = Selling.make(memory)

  /** Fills a cart; undefined when that did not work out. */
  const filledCart = Effect.gen(function* () {
    const carts = yield* CartRpc
    const { cart } = yield* carts.CreateCart({})
    for (const item of itemsOf()) {
      const set = yield* insist(carts.SetItem({ cartId: cart.cartId, ...item }))
      if (Result.isFailure(set)) return undefined
    }
    return cart.cartId
  }).pipe(as(actor, `${correlationId} fills a cart`))

  /** Changes a cart that was filled, as its owner may in another window. */
  const takesOneMore = (cartId: Ids.CartId) =>
    Effect.gen(function* () {
      const carts = yield* CartRpc
      for (const { productId, qty } of itemsOf().slice(0, 1)) {
        yield* insist(carts.SetItem({ cartId, productId, qty: qty + 1 }))
      }
    }).pipe(as(actor, `${correlationId} changes a cart`))

  /** Asks the same under the same key, as whoever asked before. */
  const again = (asked: Asked) => as(asked.userId, correlationId)(asking(asked))

  const asking = (asked: Asked): Effect.Effect<void, never, Clients> => {
    switch (asked.repeat) {
      case "place":
        return place(asked.request, asked.userId)
      case "pay":
        return pay(asked.request, asked.userId)
      case "checkout":
        return checkout(asked.request, asked.userId)
      case "sale":
        return startSale(asked.request, asked.userId)
    }
  }

  const adjust = (product: Product, delta: number) =>
    Effect.gen(function* () {
      const reason = `adjustment ${n}`
      const answer = yield* Effect.result((yield* InventoryRpc).Adjust({ productId: product.productId, delta, reason }))
      if (Result.isSuccess(answer)) memory.note({ _tag: "Adjusted", reason, delta })
    })

  const refund = (asked: AskedRefund) => Refunding.refund(memory, asked, `refund ${n}`)

  const cancel = (orderId: string) =>
    Effect.gen(function* () {
      const orders = yield* OrdersRpc
      const answer = yield* insist(orders.Cancel({ orderId: Ids.OrderId.make(orderId) }))
      memory.count(Result.isSuccess(answer) ? "canceled" : `cancel: ${answer.failure._tag}`)
      if (Result.isSuccess(answer)) memory.note({ _tag: "Canceled", orderId })
    })

  /** One of the actor's orders, rather a late one. */
  const mine = () => at(memory.of(actor).slice(-4), a)
  const rail: Rail = "auto"
  const paymentToken = () => PaymentToken.make(at(paymentTokens, f) ?? "tok_ok")
  const payment = (orderId: string, suffix?: string): PayRequest => ({
    idempotencyKey: key(suffix),
    orderId: Ids.OrderId.make(orderId),
    paymentToken: paymentToken(),
    rail
  })

  const act = Effect.gen(function* () {
    memory.begun.set(n, yield* Clock.currentTimeMillis)
    const orders = yield* OrdersRpc
    switch (kind) {
      case "rush": {
        const { scarce } = memory
        if (scarce === undefined) return
        const wanting = Array.from({ length: rushing }, (_, index) => {
          const userId = shoppers[(shoppers.indexOf(actor) + index) % shoppers.length] ?? actor
          const qty = 1 + Math.floor((chances[index] ?? 0) * fewUnits)
          const request = { idempotencyKey: key(`-${index}`), items: [{ productId: scarce.productId, qty }] }
          return as(userId, correlationId)(place(request, userId))
        })
        yield* as("ADMIN-1", correlationId)(adjust(scarce, fewUnits))
        yield* Effect.all(wanting, { concurrency: rushing, discard: true })
        return
      }
      case "putInCart": {
        const carts = yield* CartRpc
        let cartId = memory.carts.get(actor)
        if (cartId === undefined) {
          cartId = (yield* carts.CreateCart({})).cart.cartId
          memory.carts.set(actor, cartId)
        }
        for (const item of itemsOf()) yield* insist(carts.SetItem({ cartId: Ids.CartId.make(cartId), ...item }))
        return
      }
      case "readCart": {
        const cartId = memory.carts.get(actor)
        if (cartId !== undefined) yield* (yield* CartRpc).GetCart({ cartId: Ids.CartId.make(cartId) })
        return
      }
      case "place":
        return yield* place({ idempotencyKey: key(), items: itemsOf() }, actor)
      case "placeTwiceAtOnce": {
        const request: PlaceRequest = { idempotencyKey: key(), items: itemsOf() }
        yield* Effect.all([place(request, actor), place(request, actor)], { concurrency: 2, discard: true })
        return
      }
      case "placeForWrongTotal":
        return yield* place({ idempotencyKey: key(), items: itemsOf(), expectedTotal: 0.01 }, actor)
      case "checkout":
      case "checkoutTwiceAtOnce":
      case "checkoutUnderTwoKeys": {
        const cartId = yield* filledCart
        if (cartId === undefined) return
        const request: CheckoutRequest = { idempotencyKey: key(), cartId, paymentToken: paymentToken(), rail }
        if (kind === "checkout") return yield* checkout(request, actor)
        if (kind === "checkoutTwiceAtOnce") {
          return yield* Effect.all([checkout(request, actor), checkout(request, actor)], {
            concurrency: 2,
            discard: true
          })
        }
        const elsewhere = checkout({ ...request, idempotencyKey: key("-other") }, actor)
        const changed = e < 0.5 ? Effect.andThen(takesOneMore(cartId), elsewhere) : elsewhere
        yield* Effect.all([checkout(request, actor), changed], { concurrency: 2, discard: true })
        return
      }
      case "release":
      case "reject": {
        const orderId = at(memory.held, a)
        if (orderId === undefined) return
        const decide = kind === "release" ? orders.Release : orders.Reject
        const answer = yield* insist(decide({ orderId: Ids.OrderId.make(orderId) }))
        memory.count(`${kind}: ${Result.isSuccess(answer) ? "done" : answer.failure._tag}`)
        if (kind === "reject" && Result.isSuccess(answer)) memory.note({ _tag: "Canceled", orderId })
        return
      }
      case "pay": {
        const order = mine()
        if (order !== undefined) yield* pay(payment(order.orderId), actor)
        return
      }
      case "payAndCancelAtOnce": {
        const order = mine()
        if (order === undefined) return
        yield* Effect.all([pay(payment(order.orderId), actor), cancel(order.orderId)], {
          concurrency: 2,
          discard: true
        })
        return
      }
      case "payTwiceAtOnce": {
        const order = mine()
        if (order === undefined) return
        const second = b < 0.5 ? payment(order.orderId) : payment(order.orderId, "-other")
        yield* Effect.all([pay(payment(order.orderId), actor), pay(second, actor)], { concurrency: 2, discard: true })
        return
      }
      case "cancel": {
        const order = mine()
        if (order !== undefined) yield* cancel(order.orderId)
        return
      }
      case "repeatKey": {
        const before = at(memory.answered, a)
        if (before !== undefined) yield* again(before)
        return
      }
      case "askAgain": {
        const before = at(memory.unanswered, a)
        if (before !== undefined) yield* again(before)
        return
      }
      case "reuseKeyForSomethingElse": {
        const before = at(
          memory.answered.filter(({ repeat, userId }) => repeat === "place" && userId === actor),
          a
        )
        const product = at(memory.products, b)
        if (before === undefined || product === undefined) return
        const answer = yield* Effect.result(
          orders.Place({
            idempotencyKey: Ids.IdempotencyKey.make(before.key),
            items: [{ productId: product.productId, qty: 9 }]
          })
        )
        if (Result.isSuccess(answer)) memory.complaints.push(`${before.key} placed a second, different order`)
        return
      }
      case "readOrder": {
        const order = mine()
        if (order === undefined) return
        const answer = yield* Effect.result(orders.Get({ orderId: Ids.OrderId.make(order.orderId) }))
        if (Result.isFailure(answer) && answer.failure._tag !== "ServiceUnavailable") {
          memory.complaints.push(`${order.orderId} was acknowledged and cannot be read: ${answer.failure._tag}`)
        }
        return
      }
      case "readNotifications":
        yield* (yield* NotificationsRpc).List({ limit: 20 })
        return
      case "adjustStock": {
        const product = at(memory.products, a)
        if (product === undefined) return
        yield* adjust(product, b < 0.7 ? 1 + Math.floor(c * 12) : -1 - Math.floor(c * 12))
        return
      }
      case "changePrice": {
        const product = at(memory.products, a)
        if (product === undefined) return
        yield* insist(
          (yield* CatalogueRpc).SetPrice({
            productId: product.productId,
            priceMinor: 50 + Math.floor(b * 500),
            currency: "USD",
            reason: `change ${n}`
          })
        )
        return
      }
      case "fulfil": {
        const order = at(memory.orders, a)
        if (order === undefined) return
        const answer = yield* insist(orders.Fulfil({ orderId: Ids.OrderId.make(order.orderId) }))
        memory.count(Result.isSuccess(answer) ? "fulfilled" : `fulfil: ${answer.failure._tag}`)
        if (Result.isSuccess(answer)) memory.note({ _tag: "Fulfilled", orderId: order.orderId })
        return
      }
      case "cancelAsAdmin": {
        const order = at(memory.orders, a)
        if (order !== undefined) yield* cancel(order.orderId)
        return
      }
      case "refund":
      case "refundTwiceAtOnce":
      case "refundTwoAtOnce": {
        // Rather of one that is paid.
        const orderId = b < 0.9 ? at(memory.paid, a) : at(memory.orders, a)?.orderId
        const paid = orderId === undefined ? undefined : yield* Refunding.paymentOf(orderId)
        if (paid === undefined || paid.paidMinor === 0) return
        const { attemptId, paidMinor } = paid
        const of = (amountMinor: number, suffix = "") =>
          refund({ refundId: `REFUND-${n}${suffix}`, attemptId, amountMinor, paidMinor })
        const part = Math.max(1, Math.floor(paidMinor * d * 0.4))
        const more = paidMinor + part
        // Each alone would do; together they are more than was paid.
        const most = Math.floor(paidMinor / 2) + 1
        const refunds =
          kind === "refundTwoAtOnce"
            ? [of(most, "-1"), of(most, "-2")]
            : kind === "refundTwiceAtOnce"
              ? [of(part), of(part)]
              : [of(c < 0.2 ? paidMinor : c < 0.95 ? part : more)]
        yield* Effect.all(refunds, { concurrency: 2, discard: true })
        return
      }
      case "refundAgain": {
        const before = at(memory.refunds, a)
        if (before !== undefined) yield* refund(b < 0.8 ? before : { ...before, amountMinor: before.amountMinor + 1 })
        return
      }
      case "startSale": {
        const product = at(memory.products, a)
        if (product === undefined) return
        const now = yield* Clock.currentTimeMillis
        const sales = Selling.wanted({ product, now, key, chances: [b, c, d, e] })
        const other = administrators[(administrators.indexOf(actor) + 1) % administrators.length] ?? actor
        yield* Effect.forEach(
          sales,
          ({ request, byOther }) => {
            const admin = byOther ? other : actor
            return as(admin, correlationId)(startSale(request, admin))
          },
          { concurrency: 2, discard: true }
        )
        return
      }
      case "cancelSale": {
        const now = yield* Clock.currentTimeMillis
        const open = memory.sales.filter(({ endsAt }) => endsAt > now)
        const sale = at(open.length > 0 && c < 0.9 ? open : memory.sales.slice(-3), a)
        if (sale === undefined) return
        const times = b < 0.3 ? [sale, sale] : [sale]
        yield* Effect.forEach(times, ({ saleId }) => cancelSale(saleId), { concurrency: 2, discard: true })
        return
      }
    }
  })
  return act.pipe(
    as(actor, correlationId),
    Effect.exit,
    Effect.flatMap((exit) =>
      Effect.sync(() => {
        if (Exit.isSuccess(exit)) return
        memory.count(`${kind} came to nothing`)
        const defect = exit.cause.reasons.find(Cause.isDieReason)
        if (defect !== undefined)
          memory.complaints.push(`${kind} (command ${n}) met a defect: ${String(defect.defect)}`)
      })
    )
  )
}
