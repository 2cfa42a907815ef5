import { Schema } from "effect"
import { RpcGroup } from "effect/rpc"
import { ProductNotFound } from "@merkato/domain/catalogue/Product"
import { OutOfStock } from "@merkato/domain/inventory/Stock"
import { CartNotFound } from "@merkato/domain/cart/Cart"
import { CartId, IdempotencyKey, OrderId, UserId } from "@merkato/domain/kernel/Ids"
import { Currency } from "@merkato/domain/kernel/Money"
import { Forbidden, IdempotencyKeyReused, InvalidValue, RequestInProgress } from "@merkato/domain/kernel/Problem"
import { CustomerOrder } from "@merkato/domain/orders/CustomerOrder"
import {
  CartEmpty,
  CartOrdered,
  NotCancelable,
  NotFulfillable,
  NotHeld,
  NotPayable,
  NotYourOrder,
  Order,
  OrderHistoryEntry,
  OrderNotFound,
  PaymentInProgress,
  PriceChanged,
  RiskBlocked
} from "@merkato/domain/orders/Order"
import { OrderProcessNotFound, OrderProcessState } from "@merkato/domain/orders/OrderProcess"
import { PaymentDeclined, PaymentToken, PaymentUnavailable, Rail } from "@merkato/domain/payments/Payment"
import { CurrencyNotSupported, Items } from "@merkato/domain/pricing/Quote"
import { Contract } from "../contract/Contract.ts"
import { command, page, paging, query } from "../contract/Operation.ts"
import { answered, Replayed } from "../contract/Replayed.ts"

/** What the domain can answer to a placement; kept with its Idempotency-Key. */
export const PlaceRefusal = Schema.Union([OutOfStock, PriceChanged, CurrencyNotSupported, ProductNotFound])

/** What the domain can answer to a payment; kept with its Idempotency-Key. */
export const PayRefusal = Schema.Union([PaymentDeclined, NotPayable, OrderNotFound, NotYourOrder, RiskBlocked])

/** What the domain can answer to a checkout; kept with its Idempotency-Key. */
export const CheckoutRefusal = Schema.Union([
  CartNotFound,
  CartEmpty,
  CartOrdered,
  ...PlaceRefusal.members,
  RiskBlocked,
  PaymentDeclined,
  NotPayable
])

/** A name for the shopper's device, made by the device; at most 128 characters. */
export const DeviceId = Schema.String.check(Schema.isPattern(/^[\x21-\x7e]{1,128}$/u))

export const OrdersGroup = RpcGroup.make(
  command("Place", {
    payload: {
      idempotencyKey: IdempotencyKey,
      items: Items,
      currency: Schema.optionalKey(Currency),
      /** The total the shopper was shown, as a decimal of the order's currency. */
      expectedTotal: Schema.optionalKey(Schema.Finite)
    },
    success: answered(Order),
    errors: [Forbidden, ...PlaceRefusal.members, Replayed(PlaceRefusal), IdempotencyKeyReused, RequestInProgress]
  }),
  /** The order is PAID, or HELD when its risk is to be looked at. */
  command("Pay", {
    payload: {
      idempotencyKey: IdempotencyKey,
      orderId: OrderId,
      paymentToken: PaymentToken,
      rail: Rail,
      deviceId: Schema.optionalKey(DeviceId)
    },
    success: answered(Order),
    errors: [
      Forbidden,
      ...PayRefusal.members,
      Replayed(PayRefusal),
      PaymentInProgress,
      PaymentUnavailable,
      IdempotencyKeyReused,
      RequestInProgress
    ]
  }),
  /**
   * Buys what is in a cart: the order is PAID, or HELD when its risk is to be looked at. When no gateway is to be reached
   * the order is there and PENDING, and `PaymentUnavailable` names it. A declined payment ends the order.
   */
  command("Checkout", {
    payload: {
      idempotencyKey: IdempotencyKey,
      cartId: CartId,
      paymentToken: PaymentToken,
      rail: Rail,
      /** The total the shopper was shown, as a decimal of the order's currency. */
      expectedTotal: Schema.optionalKey(Schema.Finite),
      deviceId: Schema.optionalKey(DeviceId)
    },
    success: answered(Order),
    errors: [
      Forbidden,
      ...CheckoutRefusal.members,
      Replayed(CheckoutRefusal),
      PaymentInProgress,
      PaymentUnavailable,
      IdempotencyKeyReused,
      RequestInProgress
    ]
  }),
  /** Lets a held order go on: it is PENDING, and paying it is not held up again. */
  command("Release", {
    payload: { orderId: OrderId },
    success: Order,
    errors: [Forbidden, OrderNotFound, NotHeld]
  }),
  /** Ends a held order; its stock goes back. */
  command("Reject", {
    payload: { orderId: OrderId },
    success: Order,
    errors: [Forbidden, OrderNotFound, NotHeld]
  }),
  command("Cancel", {
    payload: { orderId: OrderId },
    success: Order,
    errors: [Forbidden, OrderNotFound, NotYourOrder, NotCancelable, PaymentInProgress]
  }),
  command("Fulfil", {
    payload: { orderId: OrderId },
    success: Order,
    errors: [Forbidden, OrderNotFound, NotFulfillable]
  }),
  query("Get", { payload: { orderId: OrderId }, success: Order, errors: [Forbidden, OrderNotFound] }),
  query("List", { payload: paging, success: page(Order), errors: [Forbidden, InvalidValue] }),
  /** A customer's orders, newest first, out of a read model: one that was just placed may not be in it yet. */
  query("ListOfCustomer", {
    payload: { userId: UserId, ...paging },
    success: page(CustomerOrder),
    errors: [Forbidden, InvalidValue]
  }),
  /** Where an order process stands, by its own id or by its order's. */
  query("Process", {
    payload: { id: Schema.String.check(Schema.isMaxLength(64)) },
    success: OrderProcessState,
    errors: [Forbidden, OrderProcessNotFound]
  }),
  query("History", {
    payload: { orderId: OrderId },
    success: Schema.Array(OrderHistoryEntry),
    errors: [Forbidden, OrderNotFound]
  })
)

export class OrdersRpc extends Contract<OrdersRpc>()("orders", OrdersGroup) {}
