import { Result, Schema } from "effect"
import { type Price, ProductNotFound } from "../catalogue/Product.ts"
import { ProductId } from "../kernel/Ids.ts"
import { Currency, Minor } from "../kernel/Money.ts"

/** Units of one product: 1 to 99 a line. */
export const Quantity = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 99 }))

/** At most this many lines in a cart or an order. */
export const maxLines = 100

/** So many units of a product, not yet priced. */
export const Item = Schema.Struct({ productId: ProductId, qty: Quantity })
export type Item = typeof Item.Type

export const Items = Schema.Array(Item).check(Schema.isMinLength(1), Schema.isMaxLength(maxLines))

/** Units of one product in an order, after lines for the same product have been put together: at most 100 of 99. */
export const LineQuantity = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: maxLines * 99 }))

/** A priced line; `priceMinor` is the unit price. */
export const Line = Schema.Struct({ productId: ProductId, qty: LineQuantity, priceMinor: Minor })
export type Line = typeof Line.Type

/** What an order would cost now. Amounts in minor units of `currency`; `total = items - discount + tax + shipping`. */
export class Quote extends Schema.Class<Quote>("Quote")({
  lines: Schema.Array(Line),
  itemsMinor: Minor,
  discountMinor: Minor,
  taxMinor: Minor,
  shippingMinor: Minor,
  totalMinor: Minor,
  currency: Currency
}) {}

/** The order cannot be made in this currency: a product is sold in another. */
export class CurrencyNotSupported extends Schema.TaggedError<CurrencyNotSupported>()(
  "CurrencyNotSupported",
  { currency: Schema.String },
  { httpApiStatus: 422 }
) {
  override get message() {
    return `Not everything asked for is sold in ${this.currency}`
  }
}

/** The same product on two lines becomes one line, in the order of first appearance. */
export const mergeItems = (items: ReadonlyArray<Item>): ReadonlyArray<Item> => {
  const merged = new Map<ProductId, number>()
  for (const { productId, qty } of items) merged.set(productId, (merged.get(productId) ?? 0) + qty)
  return Array.from(merged, ([productId, qty]) => ({ productId, qty }))
}

/** What a unit costs while a sale of the product runs: nobody pays more for that. A sale in another currency is none. */
export const priceInSale = (shelf: Price, sale: Price | undefined): Price =>
  sale !== undefined && sale.currency === shelf.currency && sale.priceMinor < shelf.priceMinor ? sale : shelf

/**
 * Prices items, exactly: sums of integers, nothing is rounded. Shelf prices include tax (so tax is 0 apart), and there
 * is no discount or shipping fee yet. Without a `currency` the first product's is taken. `sales` are those that run now.
 */
export const quote = (
  items: ReadonlyArray<Item>,
  prices: ReadonlyMap<string, Price>,
  currency: Currency | undefined,
  sales: ReadonlyMap<string, Price> = new Map()
): Result.Result<Quote, ProductNotFound | CurrencyNotSupported> => {
  const missing = items.filter((item) => !prices.has(item.productId)).map((item) => item.productId)
  if (missing.length > 0) return Result.fail(new ProductNotFound({ productIds: missing }))
  const lines: Array<Line> = []
  let itemsMinor = 0
  let settled = currency
  for (const { productId, qty } of items) {
    const shelf = prices.get(productId)
    if (shelf === undefined) return Result.fail(new ProductNotFound({ productIds: [productId] }))
    const price = priceInSale(shelf, sales.get(productId))
    settled ??= price.currency
    if (price.currency !== settled) return Result.fail(new CurrencyNotSupported({ currency: settled }))
    itemsMinor += price.priceMinor * qty
    lines.push({ productId, qty, priceMinor: price.priceMinor })
  }
  if (settled === undefined) return Result.fail(new ProductNotFound({ productIds: [] }))
  return Result.succeed(
    new Quote({
      lines,
      itemsMinor,
      discountMinor: 0,
      taxMinor: 0,
      shippingMinor: 0,
      totalMinor: itemsMinor,
      currency: settled
    })
  )
}
