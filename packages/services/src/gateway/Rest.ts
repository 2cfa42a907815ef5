import { DateTime, Effect, Result, Schema } from "effect"
import { HttpServerResponse } from "effect/http"
import type { PricePeriod, Product } from "@merkato/domain/catalogue/Product"
import type { Cart } from "@merkato/domain/cart/Cart"
import type { StockLevels } from "@merkato/domain/inventory/Stock"
import { IdempotencyKey } from "@merkato/domain/kernel/Ids"
import { type Currency, fromDecimal, maxPriceMinor, toDecimal } from "@merkato/domain/kernel/Money"
import { InvalidValue } from "@merkato/domain/kernel/Problem"
import type { Notification } from "@merkato/domain/notifications/Notification"
import type { Order, OrderHistoryEntry } from "@merkato/domain/orders/Order"
import type * as Cursor from "@merkato/infra/paging/Cursor"
import type * as Json from "@merkato/rpc/rest/Json"
import type { Statuses } from "@merkato/rpc/rest/Problems"
import { ofError } from "./Problems.ts"

/** Domain values as the JSON of the REST surface; that they fit its schemas is checked by the compiler. */
export const productJson = (
  product: Product,
  flashSale?: (typeof Json.ProductJson.Encoded)["flashSale"]
): typeof Json.ProductJson.Encoded => ({
  productId: product.productId,
  sku: product.sku,
  name: product.name,
  description: product.description,
  category: product.category,
  price: toDecimal(product.priceMinor, product.currency),
  currency: product.currency,
  version: product.version,
  ...(flashSale === undefined ? {} : { flashSale })
})

export const pricePeriodJson = (period: PricePeriod): typeof Json.PricePeriodJson.Encoded => ({
  price: toDecimal(period.priceMinor, period.currency),
  currency: period.currency,
  reason: period.reason,
  validFrom: DateTime.formatIso(period.validFrom),
  validTo: period.validTo === null ? null : DateTime.formatIso(period.validTo)
})

export const levelsJson = ({
  productId,
  onHand,
  reserved,
  available
}: StockLevels): typeof Json.LevelsJson.Encoded => ({
  productId,
  onHand,
  reserved,
  available
})

export const cartJson = (cart: Cart): typeof Json.CartJson.Encoded => ({
  cartId: cart.cartId,
  ...(cart.guest ? {} : { userId: cart.ownerId }),
  items: cart.items,
  currency: cart.currency
})

export const orderJson = (order: Order): typeof Json.OrderJson.Encoded => {
  const decimal = (minor: number) => toDecimal(minor, order.currency)
  return {
    orderId: order.orderId,
    userId: order.userId,
    region: order.region,
    status: order.status,
    items: order.items.map(({ productId, qty, priceMinor }) => ({ productId, qty, price: decimal(priceMinor) })),
    itemsAmount: decimal(order.itemsMinor),
    discountAmount: decimal(order.discountMinor),
    taxAmount: decimal(order.taxMinor),
    shippingAmount: decimal(order.shippingMinor),
    totalAmount: decimal(order.totalMinor),
    currency: order.currency,
    createdAt: DateTime.formatIso(order.createdAt),
    updatedAt: DateTime.formatIso(order.updatedAt)
  }
}

export const orderHistoryJson = (entry: OrderHistoryEntry): typeof Json.OrderHistoryJson.Encoded => ({
  version: entry.version,
  status: entry.status,
  event: entry.event,
  reason: entry.reason,
  occurredAt: DateTime.formatIso(entry.occurredAt)
})

export const notificationJson = (notification: Notification): typeof Json.NotificationJson.Encoded => ({
  notificationId: notification.notificationId,
  kind: notification.kind,
  ...(notification.orderId === null ? {} : { orderId: notification.orderId }),
  text: notification.text,
  createdAt: DateTime.formatIso(notification.createdAt),
  readAt: notification.readAt === null ? null : DateTime.formatIso(notification.readAt)
})

export const pageJson = <A, B>(page: Cursor.Page<A>, item: (value: A) => B) => ({
  items: page.items.map(item),
  nextCursor: page.nextCursor
})

export const json = (body: unknown, status = 200, headers: Record<string, string> = {}) =>
  HttpServerResponse.jsonUnsafe(body, { status, headers })

/** A decimal amount of the request as minor units; one the currency cannot express is told by its path. */
const amountOf = (path: string, amount: number, currency: Currency) => {
  const minor = fromDecimal(amount, currency)
  return Result.isSuccess(minor)
    ? Effect.succeed(minor.success)
    : Effect.fail(new InvalidValue({ path, reason: minor.failure.message }))
}

/** A price for sale: an exact amount, not nothing, and not more than a price may be. */
export const priceOf = Effect.fnUntraced(function* (price: number, currency: Currency) {
  const minor = yield* amountOf("price", price, currency)
  if (minor === 0) return yield* new InvalidValue({ path: "price", reason: "a price is more than nothing" })
  if (minor > maxPriceMinor) return yield* new InvalidValue({ path: "price", reason: "too high a price" })
  return minor
})

interface Tagged {
  readonly _tag: string
  readonly message?: string
}

interface Replayed {
  readonly _tag: "Replayed"
  readonly refusal: Tagged
}

const isReplayed = (error: Tagged): error is Replayed => error._tag === "Replayed" && "refusal" in error

export const replayedHeader = { "idempotent-replayed": "true" }

const isKey = Schema.is(IdempotencyKey)

/** The request's Idempotency-Key: it need not have one, but one it has is heeded. */
export const heededKey = Effect.fnUntraced(function* (headers: { readonly "idempotency-key"?: string }) {
  const key = headers["idempotency-key"]
  if (key === undefined) return {}
  return isKey(key)
    ? { idempotencyKey: key }
    : yield* new InvalidValue({ path: "Idempotency-Key", reason: "not 1 to 255 printable ASCII characters" })
})

/** Every typed error of an operation becomes its problem; a refusal given again says that it is. */
export const answering = <R>(
  effect: Effect.Effect<HttpServerResponse.HttpServerResponse, Tagged, R>,
  statuses: Statuses = {}
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R> =>
  Effect.catch(effect, (error) =>
    isReplayed(error) ? ofError(error.refusal, { statuses, headers: replayedHeader }) : ofError(error, { statuses })
  )
