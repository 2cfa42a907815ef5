import { Schema } from "effect"
import { ProductId } from "../kernel/Ids.ts"
import { Currency, maxPriceMinor } from "../kernel/Money.ts"
import { optionalText, text } from "../kernel/Text.ts"

/** Stock keeping unit: unique in the shop, 1 to 64 of letters, digits, `.`, `_`, `-`. */
export const Sku = Schema.String.check(Schema.isPattern(/^[A-Za-z0-9._-]{1,64}$/u)).pipe(Schema.brand("Sku"))
export type Sku = typeof Sku.Type

export const ProductName = text(200)
export const ProductDescription = optionalText(4_000)
export const Category = text(100)
export const PriceReason = text(200)

/** A price for sale: at least one minor unit, at most 10^9. */
export const PriceMinor = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: maxPriceMinor }))

/** Something on the shelf. `version` counts its changes, from 1. */
export class Product extends Schema.Class<Product>("Product")({
  productId: ProductId,
  sku: Sku,
  name: ProductName,
  description: ProductDescription,
  category: Category,
  priceMinor: PriceMinor,
  currency: Currency,
  version: Schema.Int
}) {}

/** A price and the time it held: from `validFrom` (inclusive) to `validTo` (exclusive; null while it holds). */
export class PricePeriod extends Schema.Class<PricePeriod>("PricePeriod")({
  priceMinor: PriceMinor,
  currency: Currency,
  reason: Schema.String,
  validFrom: Schema.DateTimeUtcFromString,
  validTo: Schema.NullOr(Schema.DateTimeUtcFromString)
}) {}

/** The part of a product that an order needs. */
export class Price extends Schema.Class<Price>("Price")({
  productId: ProductId,
  priceMinor: PriceMinor,
  currency: Currency
}) {}

export class ProductNotFound extends Schema.TaggedError<ProductNotFound>()(
  "ProductNotFound",
  { productIds: Schema.Array(Schema.String) },
  { httpApiStatus: 404 }
) {
  override get message() {
    return `No such product: ${this.productIds.join(", ")}`
  }
}

export class SkuTaken extends Schema.TaggedError<SkuTaken>()("SkuTaken", { sku: Sku }, { httpApiStatus: 409 }) {
  override get message() {
    return `Another product has the SKU ${this.sku}`
  }
}

/** Somebody else changed the product since the version that the caller saw (If-Match). */
export class VersionConflict extends Schema.TaggedError<VersionConflict>()(
  "VersionConflict",
  { current: Schema.Int },
  { httpApiStatus: 412 }
) {
  override get message() {
    return `The product is at version ${this.current} now; read it again`
  }
}
