import { Schema } from "effect"
import { RpcGroup } from "effect/rpc"
import { ProductNotFound } from "@merkato/domain/catalogue/Product"
import { OutOfStock } from "@merkato/domain/inventory/Stock"
import { IdempotencyKey, OrderId } from "@merkato/domain/kernel/Ids"
import { Currency } from "@merkato/domain/kernel/Money"
import { Forbidden, IdempotencyKeyReused, InvalidValue, RequestInProgress } from "@merkato/domain/kernel/Problem"
import {
  NotCancelable,
  NotFulfillable,
  NotPayable,
  NotYourOrder,
  Order,
  OrderHistoryEntry,
  OrderNotFound,
  PaymentInProgress,
  PriceChanged
} from "@merkato/domain/orders/Order"
import { PaymentDeclined, PaymentToken, PaymentUnavailable, Rail } from "@merkato/domain/payments/Payment"
import { CurrencyNotSupported, Items } from "@merkato/domain/pricing/Quote"
import { Contract } from "../contract/Contract.ts"
import { command, page, paging, query } from "../contract/Operation.ts"
import { answered, Replayed } from "../contract/Replayed.ts"

/** What the domain can answer to a placement; kept with its Idempotency-Key. */
export const PlaceRefusal = Schema.Union([OutOfStock, PriceChanged, CurrencyNotSupported, ProductNotFound])

/** What the domain can answer to a payment; kept with its Idempotency-Key. */
export const PayRefusal = Schema.Union([PaymentDeclined, NotPayable, OrderNotFound, NotYourOrder])

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
  command("Pay", {
    payload: { idempotencyKey: IdempotencyKey, orderId: OrderId, paymentToken: PaymentToken, rail: Rail },
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
  query("History", {
    payload: { orderId: OrderId },
    success: Schema.Array(OrderHistoryEntry),
    errors: [Forbidden, OrderNotFound]
  })
)

export class OrdersRpc extends Contract<OrdersRpc>()("orders", OrdersGroup) {}
