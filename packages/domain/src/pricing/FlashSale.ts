import { DateTime, Schema } from "effect"
import { PriceMinor } from "../catalogue/Product.ts"
import { ProductId, SaleId } from "../kernel/Ids.ts"
import { Currency } from "../kernel/Money.ts"

/** Where a sale stands by the clock, whatever has been told of it yet. */
export const FlashSaleStatus = Schema.Literals(["SCHEDULED", "RUNNING", "ENDED", "CANCELED"])
export type FlashSaleStatus = typeof FlashSaleStatus.Type

/** When a sale's price holds: from `startsAt` (inclusive) to `endsAt` (exclusive). */
const window = { startsAt: Schema.DateTimeUtcFromString, endsAt: Schema.DateTimeUtcFromString }

/** One product, cheaper for a while. `version` counts what became of the sale, from 1. */
export class FlashSale extends Schema.Class<FlashSale>("FlashSale")({
  saleId: SaleId,
  productId: ProductId,
  priceMinor: PriceMinor,
  currency: Currency,
  ...window,
  status: FlashSaleStatus,
  canceledAt: Schema.NullOr(Schema.DateTimeUtcFromString),
  createdAt: Schema.DateTimeUtcFromString,
  version: Schema.Int
}) {}

/** An entry of the price map: what a product costs in a window that is not over. A product's windows never overlap. */
export class FlashPrice extends Schema.Class<FlashPrice>("FlashPrice")({
  saleId: SaleId,
  productId: ProductId,
  priceMinor: PriceMinor,
  currency: Currency,
  ...window
}) {}

/** Where a sale stands at a moment. */
export const statusAt = (
  sale: Pick<FlashSale, "startsAt" | "endsAt" | "canceledAt">,
  at: DateTime.DateTime
): FlashSaleStatus => {
  if (sale.canceledAt !== null) return "CANCELED"
  if (DateTime.isLessThan(at, sale.startsAt)) return "SCHEDULED"
  return DateTime.isLessThan(at, sale.endsAt) ? "RUNNING" : "ENDED"
}

export class FlashSaleNotFound extends Schema.TaggedError<FlashSaleNotFound>()(
  "FlashSaleNotFound",
  { saleId: Schema.String },
  { httpApiStatus: 404 }
) {
  override get message() {
    return `No such flash sale: ${this.saleId}`
  }
}

/** Another sale of the product holds in a part of the window. */
export class FlashSaleOverlaps extends Schema.TaggedError<FlashSaleOverlaps>()(
  "FlashSaleOverlaps",
  { saleId: SaleId },
  { httpApiStatus: 409 }
) {
  override get message() {
    return `The product is in another flash sale then: ${this.saleId}`
  }
}

/** A sale has to be cheaper than the shelf. */
export class PriceNotLower extends Schema.TaggedError<PriceNotLower>()(
  "PriceNotLower",
  { price: Schema.Finite, currency: Currency },
  { httpApiStatus: 422 }
) {
  override get message() {
    return `The price of a flash sale has to be below the product's, which is ${this.price} ${this.currency}`
  }
}
