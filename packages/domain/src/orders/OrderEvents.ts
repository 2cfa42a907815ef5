import { DateTime, Effect, Result, Schema } from "effect"
import * as Event from "../kernel/Event.ts"
import { AttemptId, CartId, OrderId, ProductId, ReservationId, UserId } from "../kernel/Ids.ts"
import { Currency, fromDecimal, toDecimal } from "../kernel/Money.ts"
import type { Region } from "../kernel/Region.ts"
import { mayBecome, Order, type OrderStatus } from "./Order.ts"

const Item = Schema.Struct({ productId: ProductId, qty: Schema.Int, price: Schema.Finite })

const Placed = Schema.Struct({
  orderId: OrderId,
  userId: UserId,
  items: Schema.Array(Item),
  itemsAmount: Schema.Finite,
  discountAmount: Schema.Finite,
  taxAmount: Schema.Finite,
  shippingAmount: Schema.Finite,
  totalAmount: Schema.Finite,
  currency: Currency,
  reservationId: ReservationId
})

/** An order was placed and its stock reserved. */
export const OrderCreated = Event.define("ecommerce.order.order.created.v1", "order.events", Placed)

/** A payment attempt began; until it ends the order waits for it. */
export const OrderPaymentStarted = Event.define(
  "ecommerce.order.payment.started.v1",
  "order.events",
  Schema.Struct({ orderId: OrderId, userId: UserId, attemptId: AttemptId })
)

/** A payment attempt ended without money: declined, or its gateways were not to be reached. */
export const OrderPaymentFailed = Event.define(
  "ecommerce.order.payment.failed.v1",
  "order.events",
  Schema.Struct({ orderId: OrderId, userId: UserId, attemptId: AttemptId, reason: Schema.String })
)

/** The order's reservation expired while a payment was under way. */
export const OrderReservationLost = Event.define(
  "ecommerce.order.reservation.lost.v1",
  "order.events",
  Schema.Struct({ orderId: OrderId, userId: UserId, reservationId: ReservationId })
)

export const OrderPaid = Event.define(
  "ecommerce.order.order.paid.v1",
  "order.events",
  Schema.Struct({
    orderId: OrderId,
    userId: UserId,
    attemptId: AttemptId,
    items: Schema.Array(Item),
    totalAmount: Schema.Finite,
    currency: Currency,
    /** The cart that was checked out, when it was one. */
    cartId: Schema.optionalKey(CartId)
  })
)

/** Paying the order looked risky: somebody of the shop is to look at it first. */
export const OrderHeld = Event.define(
  "ecommerce.order.order.held.v1",
  "order.events",
  Schema.Struct({
    orderId: OrderId,
    userId: UserId,
    score: Schema.Int,
    /** The rules that spoke. */
    reasons: Schema.Array(Schema.String),
    items: Schema.Array(Item),
    cartId: Schema.optionalKey(CartId)
  })
)

/** Somebody of the shop looked at a held order and let it go on: it can be paid. */
export const OrderReleased = Event.define(
  "ecommerce.order.order.released.v1",
  "order.events",
  Schema.Struct({ orderId: OrderId, userId: UserId, releasedBy: UserId })
)

export const OrderCanceled = Event.define(
  "ecommerce.order.order.canceled.v1",
  "order.events",
  Schema.Struct({ orderId: OrderId, userId: UserId, reservationId: ReservationId, reason: Schema.String })
)

export const OrderFulfilled = Event.define(
  "ecommerce.order.order.fulfilled.v1",
  "order.events",
  Schema.Struct({ orderId: OrderId, userId: UserId })
)

export const events = [
  OrderCreated,
  OrderPaymentStarted,
  OrderPaymentFailed,
  OrderReservationLost,
  OrderPaid,
  OrderHeld,
  OrderReleased,
  OrderCanceled,
  OrderFulfilled
] as const

const becomes: Readonly<Record<string, OrderStatus>> = {
  [OrderCreated.type]: "PENDING",
  [OrderPaid.type]: "PAID",
  [OrderHeld.type]: "HELD",
  [OrderReleased.type]: "PENDING",
  [OrderCanceled.type]: "CANCELED",
  [OrderFulfilled.type]: "FULFILLED"
}

/** The status that an order takes on with an event; undefined where it keeps the one it has. */
export const statusAfter = (eventType: string): OrderStatus | undefined => becomes[eventType]

/** A stored event of an order, as the fold needs it. */
export interface StoredOrderEvent {
  readonly eventType: string
  readonly version: number
  readonly occurredAt: DateTime.Utc
  readonly region: Region
  readonly payload: unknown
}

/** An order's events do not tell a possible story: a defect of the writer, never of input. */
export class ImpossibleHistory extends Schema.TaggedError<ImpossibleHistory>()("ImpossibleHistory", {
  event: Schema.String,
  version: Schema.Int,
  reason: Schema.String
}) {}

export const itemsOf = (order: Pick<Order, "items" | "currency">) =>
  order.items.map((item) => ({
    productId: item.productId,
    qty: item.qty,
    price: toDecimal(item.priceMinor, order.currency)
  }))

/** The first event of an order, from the order as it begins. */
export const created = (order: Order): Event.NewEvent =>
  OrderCreated.of(order.orderId, 1, {
    orderId: order.orderId,
    userId: order.userId,
    items: itemsOf(order),
    itemsAmount: toDecimal(order.itemsMinor, order.currency),
    discountAmount: toDecimal(order.discountMinor, order.currency),
    taxAmount: toDecimal(order.taxMinor, order.currency),
    shippingAmount: toDecimal(order.shippingMinor, order.currency),
    totalAmount: toDecimal(order.totalMinor, order.currency),
    currency: order.currency,
    reservationId: order.reservationId
  })

const minor = (amount: number, currency: Currency) => Result.getOrThrow(fromDecimal(amount, currency))

/** What an event makes of an order: the only way an order changes. `undefined` is an order before its first event. */
export const evolve = Effect.fnUntraced(function* (order: Order | undefined, event: StoredOrderEvent) {
  const impossible = (reason: string) =>
    new ImpossibleHistory({ event: event.eventType, version: event.version, reason })
  if (event.version !== (order?.version ?? 0) + 1) {
    return yield* impossible(`expected version ${(order?.version ?? 0) + 1}`)
  }
  if (event.eventType === OrderCreated.type) {
    if (order !== undefined) return yield* impossible("created twice")
    const placed = yield* Effect.orDie(OrderCreated.decode(event.payload))
    return new Order({
      orderId: placed.orderId,
      userId: placed.userId,
      region: event.region,
      status: "PENDING",
      items: placed.items.map((item) => ({
        productId: item.productId,
        qty: item.qty,
        priceMinor: minor(item.price, placed.currency)
      })),
      itemsMinor: minor(placed.itemsAmount, placed.currency),
      discountMinor: minor(placed.discountAmount, placed.currency),
      taxMinor: minor(placed.taxAmount, placed.currency),
      shippingMinor: minor(placed.shippingAmount, placed.currency),
      totalMinor: minor(placed.totalAmount, placed.currency),
      currency: placed.currency,
      reservationId: placed.reservationId,
      paymentAttemptId: null,
      reservationLost: false,
      reviewed: false,
      version: 1,
      createdAt: event.occurredAt,
      updatedAt: event.occurredAt
    })
  }
  if (order === undefined) return yield* impossible("not created")
  const base = { ...order, version: event.version, updatedAt: event.occurredAt }
  const become = (status: OrderStatus) =>
    mayBecome(order.status, status)
      ? Effect.succeed(new Order({ ...base, status, paymentAttemptId: null }))
      : Effect.fail(impossible(`${order.status} cannot become ${status}`))
  switch (event.eventType) {
    case OrderPaymentStarted.type: {
      if (order.status !== "PENDING" || order.paymentAttemptId !== null) return yield* impossible("not payable")
      const { attemptId } = yield* Effect.orDie(OrderPaymentStarted.decode(event.payload))
      return new Order({ ...base, paymentAttemptId: attemptId })
    }
    case OrderPaymentFailed.type: {
      const { attemptId } = yield* Effect.orDie(OrderPaymentFailed.decode(event.payload))
      if (order.paymentAttemptId !== attemptId) return yield* impossible("another attempt is under way")
      return new Order({ ...base, paymentAttemptId: null })
    }
    case OrderReservationLost.type:
      return order.paymentAttemptId !== null
        ? new Order({ ...base, reservationLost: true })
        : yield* impossible("no payment is under way")
    case OrderPaid.type: {
      const { attemptId } = yield* Effect.orDie(OrderPaid.decode(event.payload))
      if (order.paymentAttemptId !== attemptId) return yield* impossible("paid by an attempt that is not under way")
      return yield* become("PAID")
    }
    case OrderHeld.type:
      return yield* become("HELD")
    case OrderReleased.type:
      return new Order({ ...(yield* become("PENDING")), reviewed: true })
    case OrderCanceled.type:
      return order.paymentAttemptId === null ? yield* become("CANCELED") : yield* impossible("a payment is under way")
    case OrderFulfilled.type:
      return yield* become("FULFILLED")
    default:
      return yield* impossible("unknown event")
  }
})

/** Folds a whole history, oldest first. */
export const rebuild = Effect.fnUntraced(function* (history: Iterable<StoredOrderEvent>) {
  let order: Order | undefined
  for (const event of history) order = yield* evolve(order, event)
  return order
})
