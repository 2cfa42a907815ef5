import { Schema } from "effect"
import { Sku } from "@merkato/domain/catalogue/Product"
import * as Ids from "@merkato/domain/kernel/Ids"
import { Currency } from "@merkato/domain/kernel/Money"
import { Region } from "@merkato/domain/kernel/Region"
import { OrderStatus } from "@merkato/domain/orders/Order"
import { DeliveryStatus, SubscriptionStatus } from "@merkato/domain/partners/Webhook"
import { FlashSaleStatus } from "@merkato/domain/pricing/FlashSale"

/** A decimal amount of the currency beside it, exact to its minor unit. */
export const Amount = Schema.Finite

/** RFC 3339, UTC. */
export const Instant = Schema.String.annotate({ format: "date-time" })

export const ProductJson = Schema.Struct({
  productId: Ids.ProductId,
  sku: Sku,
  name: Schema.String,
  description: Schema.String,
  category: Schema.String,
  price: Amount,
  currency: Currency,
  version: Schema.Int,
  /** While a sale runs: what an order pays instead of `price`, until `endsAt`. */
  flashSale: Schema.optionalKey(Schema.Struct({ saleId: Ids.SaleId, price: Amount, endsAt: Instant }))
}).annotate({ identifier: "Product" })

export const FlashSaleJson = Schema.Struct({
  saleId: Ids.SaleId,
  productId: Ids.ProductId,
  price: Amount,
  currency: Currency,
  startsAt: Instant,
  endsAt: Instant,
  status: FlashSaleStatus,
  canceledAt: Schema.NullOr(Instant),
  createdAt: Instant
}).annotate({ identifier: "FlashSale" })

export const PricePeriodJson = Schema.Struct({
  price: Amount,
  currency: Currency,
  reason: Schema.String,
  validFrom: Instant,
  validTo: Schema.NullOr(Instant)
}).annotate({ identifier: "PricePeriod" })

export const CategoryJson = Schema.Struct({ category: Schema.String, products: Schema.Int }).annotate({
  identifier: "Category"
})

export const LevelsJson = Schema.Struct({
  productId: Ids.ProductId,
  onHand: Schema.Int,
  reserved: Schema.Int,
  available: Schema.Int
}).annotate({ identifier: "StockLevels" })

const cart = {
  cartId: Ids.CartId,
  userId: Schema.optionalKey(Ids.UserId),
  items: Schema.Array(Schema.Struct({ productId: Ids.ProductId, qty: Schema.Int })),
  currency: Currency
}
export const CartJson = Schema.Struct(cart).annotate({ identifier: "Cart" })
export const NewCartJson = Schema.Struct({ ...cart, guestToken: Schema.optionalKey(Schema.String) }).annotate({
  identifier: "NewCart"
})

export const OrderJson = Schema.Struct({
  orderId: Ids.OrderId,
  userId: Ids.UserId,
  region: Region,
  status: OrderStatus,
  items: Schema.Array(Schema.Struct({ productId: Ids.ProductId, qty: Schema.Int, price: Amount })),
  itemsAmount: Amount,
  discountAmount: Amount,
  taxAmount: Amount,
  shippingAmount: Amount,
  totalAmount: Amount,
  currency: Currency,
  createdAt: Instant,
  updatedAt: Instant
}).annotate({ identifier: "Order" })

export const OrderHistoryJson = Schema.Struct({
  version: Schema.Int,
  status: OrderStatus,
  event: Schema.String,
  reason: Schema.NullOr(Schema.String),
  occurredAt: Instant
}).annotate({ identifier: "OrderHistoryEntry" })

export const NotificationJson = Schema.Struct({
  notificationId: Schema.String,
  kind: Schema.String,
  orderId: Schema.optionalKey(Ids.OrderId),
  text: Schema.String,
  createdAt: Instant,
  readAt: Schema.NullOr(Instant)
}).annotate({ identifier: "Notification" })

export const SessionJson = Schema.Struct({
  userId: Ids.UserId,
  accessToken: Schema.String,
  refreshToken: Schema.String,
  expiresIn: Schema.Int
}).annotate({ identifier: "Session" })

const subscription = {
  subscriptionId: Ids.SubscriptionId,
  url: Schema.String,
  eventTypes: Schema.Array(Schema.String),
  status: SubscriptionStatus,
  createdAt: Instant
}
export const SubscriptionJson = Schema.Struct(subscription).annotate({ identifier: "WebhookSubscription" })
export const SecretShownJson = Schema.Struct({
  ...subscription,
  secret: Schema.String,
  previousSecretUntil: Schema.NullOr(Instant)
}).annotate({ identifier: "WebhookSubscriptionWithSecret" })

const delivery = {
  deliveryId: Ids.DeliveryId,
  subscriptionId: Ids.SubscriptionId,
  eventId: Schema.String,
  eventType: Schema.String,
  aggregateId: Schema.String,
  status: DeliveryStatus,
  attempts: Schema.Int,
  createdAt: Instant,
  deliveredAt: Schema.NullOr(Instant)
}
export const DeliveryJson = Schema.Struct(delivery).annotate({ identifier: "WebhookDelivery" })
export const DeliveryLogJson = Schema.Struct({
  ...delivery,
  /** What is sent, to the byte. */
  body: Schema.String,
  log: Schema.Array(
    Schema.Struct({
      attemptedAt: Instant,
      durationMs: Schema.Int,
      requestHeaders: Schema.Record(Schema.String, Schema.String),
      responseStatus: Schema.NullOr(Schema.Int),
      responseBody: Schema.NullOr(Schema.String),
      error: Schema.NullOr(Schema.String)
    })
  )
}).annotate({ identifier: "WebhookDeliveryLog" })

/** A page of a list. */
export const pageOf = <Item extends Schema.Top>(item: Item) =>
  Schema.Struct({ items: Schema.Array(item), nextCursor: Schema.NullOr(Schema.String) })
