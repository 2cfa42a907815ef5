import { Schema } from "effect"
import { dayMs } from "../kernel/Day.ts"
import { AttemptId, OrderId, ReservationId, UserId } from "../kernel/Ids.ts"
import { Currency, Minor } from "../kernel/Money.ts"
import { Region } from "../kernel/Region.ts"
import { Line, type Quote } from "../pricing/Quote.ts"

/**
 * PENDING → PAID → FULFILLED; PENDING → CANCELED; HELD → PENDING | CANCELED (contracts: order). An order is held for
 * review when it is about to be paid, so PENDING → HELD too.
 */
export const OrderStatus = Schema.Literals(["PENDING", "PAID", "FULFILLED", "CANCELED", "HELD"])
export type OrderStatus = typeof OrderStatus.Type

const transitions: Record<OrderStatus, ReadonlyArray<OrderStatus>> = {
  HELD: ["PENDING", "CANCELED"],
  PENDING: ["PAID", "CANCELED", "HELD"],
  PAID: ["FULFILLED"],
  FULFILLED: [],
  CANCELED: []
}

export const mayBecome = (from: OrderStatus, to: OrderStatus): boolean => transitions[from].includes(to)

/** An order: what was bought, at which prices, and how far it has come. Amounts in minor units of `currency`. */
export class Order extends Schema.Class<Order>("Order")({
  orderId: OrderId,
  userId: UserId,
  region: Region,
  status: OrderStatus,
  items: Schema.Array(Line),
  itemsMinor: Minor,
  discountMinor: Minor,
  taxMinor: Minor,
  shippingMinor: Minor,
  totalMinor: Minor,
  currency: Currency,
  reservationId: ReservationId,
  /** The payment attempt under way; while there is one, the order is neither canceled nor paid a second time. */
  paymentAttemptId: Schema.NullOr(AttemptId),
  /** The reservation ended by itself while a payment was under way: if that fails, the order ends too. */
  reservationLost: Schema.Boolean,
  /** Somebody of the shop looked at the order and released it: paying it is not held up again. */
  reviewed: Schema.Boolean,
  /** Counts the order's events, from 1. */
  version: Schema.Int,
  createdAt: Schema.DateTimeUtcFromString,
  updatedAt: Schema.DateTimeUtcFromString
}) {}

/** What a quote becomes when it is ordered: an order that waits for its payment. */
export const ordered = (
  { currency, discountMinor, itemsMinor, lines, shippingMinor, taxMinor, totalMinor }: Quote,
  by: Pick<Order, "orderId" | "userId" | "region" | "reservationId" | "createdAt">
): Order =>
  new Order({
    ...by,
    status: "PENDING",
    items: lines,
    itemsMinor,
    discountMinor,
    taxMinor,
    shippingMinor,
    totalMinor,
    currency,
    paymentAttemptId: null,
    reservationLost: false,
    reviewed: false,
    version: 1,
    updatedAt: by.createdAt
  })

/** A change of status, or an attempt to pay, as people read it. */
export class OrderHistoryEntry extends Schema.Class<OrderHistoryEntry>("OrderHistoryEntry")({
  version: Schema.Int,
  status: OrderStatus,
  event: Schema.String,
  reason: Schema.NullOr(Schema.String),
  occurredAt: Schema.DateTimeUtcFromString
}) {}

export class OrderNotFound extends Schema.TaggedError<OrderNotFound>()(
  "OrderNotFound",
  { orderId: Schema.String },
  { httpApiStatus: 404 }
) {
  override get message() {
    return "No such order"
  }
}

export class NotYourOrder extends Schema.TaggedError<NotYourOrder>()("NotYourOrder", {}, { httpApiStatus: 403 }) {
  override get message() {
    return "This is not your order"
  }
}

/** The total is not what the shopper was shown (`expectedTotal`). */
export class PriceChanged extends Schema.TaggedError<PriceChanged>()(
  "PriceChanged",
  { expectedTotal: Schema.Finite, actualTotal: Schema.Finite, currency: Currency },
  { httpApiStatus: 409 }
) {
  override get message() {
    return `The total is ${this.actualTotal} ${this.currency} now, not ${this.expectedTotal}`
  }
}

export class NotPayable extends Schema.TaggedError<NotPayable>()(
  "NotPayable",
  { orderStatus: OrderStatus },
  { httpApiStatus: 409 }
) {
  override get message() {
    return `An order that is ${this.orderStatus} cannot be paid`
  }
}

export class NotCancelable extends Schema.TaggedError<NotCancelable>()(
  "NotCancelable",
  { orderStatus: OrderStatus },
  { httpApiStatus: 409 }
) {
  override get message() {
    return `An order that is ${this.orderStatus} cannot be canceled`
  }
}

export class NotFulfillable extends Schema.TaggedError<NotFulfillable>()(
  "NotFulfillable",
  { orderStatus: OrderStatus },
  { httpApiStatus: 409 }
) {
  override get message() {
    return `An order that is ${this.orderStatus} cannot be fulfilled`
  }
}

/** Only an order that is held for review can be released or rejected. */
export class NotHeld extends Schema.TaggedError<NotHeld>()(
  "NotHeld",
  { orderStatus: OrderStatus },
  { httpApiStatus: 409 }
) {
  override get message() {
    return `An order that is ${this.orderStatus} is not held for review`
  }
}

/** The purchase looks like fraud. Nothing more is told to whoever tries; operators see why. */
export class RiskBlocked extends Schema.TaggedError<RiskBlocked>()("RiskBlocked", {}, { httpApiStatus: 403 }) {
  override get message() {
    return "We cannot accept this purchase"
  }
}

/** A checkout of a cart with nothing in it. */
export class CartEmpty extends Schema.TaggedError<CartEmpty>()(
  "CartEmpty",
  { cartId: Schema.String },
  { httpApiStatus: 409 }
) {
  override get message() {
    return "The cart is empty"
  }
}

/** What is in the cart has become an order already, which lives: it is taken out soon, or once that order is paid. */
export class CartOrdered extends Schema.TaggedError<CartOrdered>()(
  "CartOrdered",
  { cartId: Schema.String, orderId: OrderId },
  { httpApiStatus: 409 }
) {
  override get message() {
    return `The cart has been ordered: ${this.orderId}`
  }
}

/** A payment for this order is under way. */
export class PaymentInProgress extends Schema.TaggedError<PaymentInProgress>()(
  "PaymentInProgress",
  { retryAfterSeconds: Schema.Int },
  { httpApiStatus: 409 }
) {
  override get message() {
    return "A payment for this order is under way"
  }
}

/** Milliseconds from a request to its order: a checkout that takes longer is undone, the goods of an order are looked at again. */
export const orderWithinMs = 60_000

/** Milliseconds the goods of a held order are kept for it: a reviewer has a day, and the shopper what is left of it. */
export const reviewHoldMs = dayMs
