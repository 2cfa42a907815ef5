import { Schema } from "effect"
import * as Event from "../kernel/Event.ts"
import { ProductId, SaleId } from "../kernel/Ids.ts"
import { Currency } from "../kernel/Money.ts"

/** A sale: `price` is a decimal amount of `currency`, and holds from `startsAt` until before `endsAt`. */
const Sale = Schema.Struct({
  saleId: SaleId,
  productId: ProductId,
  price: Schema.Finite,
  currency: Currency,
  startsAt: Schema.DateTimeUtcFromString,
  endsAt: Schema.DateTimeUtcFromString
})

/** There will be a sale, or it begins at once. Who keeps a price map needs nothing else to know when its price holds. */
export const FlashSaleScheduled = Event.define("ecommerce.pricing.flash_sale.scheduled.v1", "promo.events", Sale)

/** A sale has begun. May come late, never early and never twice. */
export const FlashSaleStarted = Event.define("ecommerce.pricing.flash_sale.started.v1", "promo.events", Sale)

/** A sale that had begun is over, because its time was or because it was canceled. */
export const FlashSaleEnded = Event.define(
  "ecommerce.pricing.flash_sale.ended.v1",
  "promo.events",
  Schema.Struct({
    saleId: SaleId,
    productId: ProductId,
    endedAt: Schema.DateTimeUtcFromString,
    reason: Schema.Literals(["over", "canceled"])
  })
)

/** A sale was called off before it began. */
export const FlashSaleCanceled = Event.define(
  "ecommerce.pricing.flash_sale.canceled.v1",
  "promo.events",
  Schema.Struct({ saleId: SaleId, productId: ProductId, canceledAt: Schema.DateTimeUtcFromString })
)

export const events = [FlashSaleScheduled, FlashSaleStarted, FlashSaleEnded, FlashSaleCanceled] as const
