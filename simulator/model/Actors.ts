import { Cause, Effect, Exit, Result } from "effect"
import * as Ids from "@merkato/domain/kernel/Ids"
import { defaultRegion } from "@merkato/domain/kernel/Region"
import { emptyTraceParent, Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"
import type { Order } from "@merkato/domain/orders/Order"
import { PaymentToken, type Rail } from "@merkato/domain/payments/Payment"
import { Sku } from "@merkato/domain/catalogue/Product"
import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { NotificationsRpc } from "@merkato/rpc/notifications/NotificationsRpc"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import type { Clients } from "../shop/Contracts.ts"
import type { Memory } from "./Memory.ts"
import type { Command } from "./Plan.ts"

const productCount = 4
const firstUnits = 30

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

/** How often somebody asks again before they let it be. What nobody can answer yet ends by itself. */
const patience = 4

/** Virtual milliseconds before somebody asks again. */
const againMs = 300

/** Answers that are none: the same request is sent again, under the same key. */
const notAnswered: ReadonlySet<string> = new Set([
  "ServiceUnavailable",
  "RequestInProgress",
  "PaymentInProgress",
  "PaymentUnavailable"
])

const at = <A>(list: ReadonlyArray<A>, chance: number): A | undefined => list[Math.floor(chance * list.length)]

const as =
  (userId: string) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.provideService(effect, RequestContext, {
      principal: new Principal({
        userId: Ids.UserId.make(userId),
        role: userId.startsWith("ADMIN") ? "admin" : "shopper",
        region: defaultRegion
      }),
      correlationId: "simulated",
      traceParent: emptyTraceParent
    })

const tagOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "_tag" in error ? String(error._tag) : "unknown"

/** Asks until there is an answer, or patience ends. Nothing more is known then than before. */
const insist = <A, E, R>(request: Effect.Effect<A, E, R>): Effect.Effect<Result.Result<A, E>, never, R> =>
  Effect.gen(function* () {
    for (let tries = 1; ; tries++) {
      const answer = yield* Effect.result(request)
      if (Result.isSuccess(answer) || tries === patience || !notAnswered.has(tagOf(answer.failure))) return answer
      yield* Effect.sleep(againMs)
    }
  })

/** Fills the shop before anything goes wrong. */
export const furnish = (memory: Memory): Effect.Effect<void, unknown, Clients> =>
  Effect.gen(function* () {
    const catalogue = yield* CatalogueRpc
    const inventory = yield* InventoryRpc
    for (let nth = 1; nth <= productCount; nth++) {
      const product = yield* catalogue.AddProduct({
        sku: Sku.make(`SKU-${nth}`),
        name: `Product ${nth}`,
        description: "",
        category: "All",
        priceMinor: 100 * nth + 99,
        currency: "USD"
      })
      yield* inventory.Adjust({ productId: product.productId, delta: firstUnits, reason: "first stock" })
      memory.products.push(product)
    }
  }).pipe(as("ADMIN-1"))

type PlaceRequest = Parameters<typeof OrdersRpc.Service.Place>[0]
type PayRequest = Parameters<typeof OrdersRpc.Service.Pay>[0]
type CheckoutRequest = Parameters<typeof OrdersRpc.Service.Checkout>[0]

/** Ends the orders whose goods are kept for a day because of a review: at the end of a run nobody comes any more. */
export const tidyUp = (memory: Memory, orderIds: ReadonlyArray<string>): Effect.Effect<void, never, Clients> =>
  Effect.flatMap(OrdersRpc, (orders) =>
    Effect.forEach(
      orderIds,
      (orderId) =>
        Effect.gen(function* () {
          const order = { orderId: Ids.OrderId.make(orderId) }
          const ended =
            Result.isSuccess(yield* insist(orders.Reject(order))) ||
            Result.isSuccess(yield* insist(orders.Cancel(order)))
          if (ended) memory.note({ _tag: "Canceled", orderId })
        }),
      { discard: true }
    )
  ).pipe(as("ADMIN-1"))

/** Does one command of the plan as its actor, and remembers what was answered. */
export const perform = (memory: Memory, command: Command): Effect.Effect<void, never, Clients> => {
  const { n, actor, kind, chances } = command
  const [a, b, c, d, e, f] = chances
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

  /** Compares an answer with the first one under its key. */
  const compare = (userId: string, requestKey: string, answer: string, first: () => void) => {
    const before = memory.answered.find((each) => each.userId === userId && each.key === requestKey)
    if (before === undefined) return first()
    if (before.answer !== answer) {
      memory.complaints.push(`${userId} asked again with ${requestKey} and got ${answer} instead of ${before.answer}`)
    }
  }

  const place = (request: PlaceRequest, userId = actor) =>
    Effect.gen(function* () {
      const orders = yield* OrdersRpc
      const answer = yield* insist(orders.Place(request))
      if (Result.isSuccess(answer)) {
        const order = answer.success.answer
        memory.count("placed")
        const told = `order ${order.orderId} over ${order.totalMinor}`
        compare(userId, request.idempotencyKey, told, () => {
          memory.answered.push({ key: request.idempotencyKey, userId, repeat: "place", request, answer: told })
          memory.note({ _tag: "Placed", key: request.idempotencyKey, userId, order })
          memory.orders.push({ orderId: order.orderId, userId })
        })
        return
      }
      const refusal = answer.failure._tag === "Replayed" ? answer.failure.refusal : answer.failure
      memory.count(refusal._tag)
      if (notAnswered.has(refusal._tag) || refusal._tag === "IdempotencyKeyReused") return
      compare(userId, request.idempotencyKey, refusal._tag, () => {
        memory.answered.push({ key: request.idempotencyKey, userId, repeat: "place", request, answer: refusal._tag })
      })
    })

  /** Asks for money to be taken, for an order that is there or for a cart. */
  const buy = <E extends { readonly _tag: string }>(
    repeat: "pay" | "checkout",
    request: PayRequest | CheckoutRequest,
    userId: string,
    ask: Effect.Effect<{ readonly answer: Order }, E | { readonly _tag: "Replayed"; readonly refusal: E }, OrdersRpc>
  ) =>
    Effect.gen(function* () {
      const answer = yield* insist(ask)
      const { idempotencyKey: requestKey } = request
      if (Result.isSuccess(answer)) {
        const order = answer.success.answer
        memory.count(`${repeat}: ${order.status}`)
        const told = `${order.status} ${order.orderId}`
        compare(userId, requestKey, told, () => {
          memory.answered.push({ key: requestKey, userId, repeat, request, answer: told })
          if (order.status === "HELD") memory.held.push(order.orderId)
          else memory.note({ _tag: "Paid", orderId: order.orderId })
          if (repeat === "checkout") memory.orders.push({ orderId: order.orderId, userId })
        })
        return
      }
      const { failure } = answer
      const refusal = "refusal" in failure ? failure.refusal : failure
      memory.count(`${repeat}: ${refusal._tag}`)
      if (notAnswered.has(refusal._tag) || refusal._tag === "IdempotencyKeyReused") return
      compare(userId, requestKey, refusal._tag, () => {
        memory.answered.push({ key: requestKey, userId, repeat, request, answer: refusal._tag })
      })
    })

  const pay = (request: PayRequest, userId = actor) =>
    buy(
      "pay",
      request,
      userId,
      Effect.flatMap(OrdersRpc, (orders) => orders.Pay(request))
    )

  const checkout = (request: CheckoutRequest, userId = actor) =>
    buy(
      "checkout",
      request,
      userId,
      Effect.flatMap(OrdersRpc, (orders) => orders.Checkout(request))
    )

  /** Fills a cart; undefined when that did not work out. */
  const filledCart = Effect.gen(function* () {
    const carts = yield* CartRpc
    const { cart } = yield* carts.CreateCart({})
    for (const item of itemsOf()) {
      const set = yield* insist(carts.SetItem({ cartId: cart.cartId, ...item }))
      if (Result.isFailure(set)) return undefined
    }
    return cart.cartId
  })

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
    const orders = yield* OrdersRpc
    switch (kind) {
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
        return yield* place({ idempotencyKey: key(), items: itemsOf() })
      case "placeTwiceAtOnce": {
        const request: PlaceRequest = { idempotencyKey: key(), items: itemsOf() }
        yield* Effect.all([place(request), place(request)], { concurrency: 2, discard: true })
        return
      }
      case "placeForWrongTotal":
        return yield* place({ idempotencyKey: key(), items: itemsOf(), expectedTotal: 0.01 })
      case "checkout":
      case "checkoutTwiceAtOnce": {
        const cartId = yield* filledCart
        if (cartId === undefined) return
        const request: CheckoutRequest = { idempotencyKey: key(), cartId, paymentToken: paymentToken(), rail }
        const times = kind === "checkout" ? [request] : [request, request]
        yield* Effect.forEach(times, (each) => checkout(each), { concurrency: 2, discard: true })
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
        if (order !== undefined) yield* pay(payment(order.orderId))
        return
      }
      case "payAndCancelAtOnce": {
        const order = mine()
        if (order === undefined) return
        yield* Effect.all([pay(payment(order.orderId)), cancel(order.orderId)], { concurrency: 2, discard: true })
        return
      }
      case "payTwiceAtOnce": {
        const order = mine()
        if (order === undefined) return
        const second = b < 0.5 ? payment(order.orderId) : payment(order.orderId, "-other")
        yield* Effect.all([pay(payment(order.orderId)), pay(second)], { concurrency: 2, discard: true })
        return
      }
      case "cancel": {
        const order = mine()
        if (order !== undefined) yield* cancel(order.orderId)
        return
      }
      case "repeatKey": {
        const before = at(memory.answered, a)
        if (before === undefined) return
        const again =
          before.repeat === "place"
            ? place(before.request as PlaceRequest, before.userId)
            : before.repeat === "pay"
              ? pay(before.request as PayRequest, before.userId)
              : checkout(before.request as CheckoutRequest, before.userId)
        return yield* as(before.userId)(again)
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
        const delta = b < 0.7 ? 1 + Math.floor(c * 12) : -1 - Math.floor(c * 12)
        const reason = `adjustment ${n}`
        const answer = yield* Effect.result(
          (yield* InventoryRpc).Adjust({ productId: product.productId, delta, reason })
        )
        if (Result.isSuccess(answer)) memory.note({ _tag: "Adjusted", reason, delta })
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
    }
  })
  return act.pipe(
    as(actor),
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
