/** What there is to tell of a flash sale, and under which versions; each of it once. */
import { DateTime } from "effect"
import { toDecimal } from "@merkato/domain/kernel/Money"
import type { FlashSale } from "@merkato/domain/pricing/FlashSale"
import {
  FlashSaleCanceled,
  FlashSaleEnded,
  FlashSaleScheduled,
  FlashSaleStarted
} from "@merkato/domain/pricing/PricingEvents"
import type { Told } from "./PricingStore.ts"

const told = (sale: Pick<FlashSale, "saleId" | "productId" | "priceMinor" | "currency" | "startsAt" | "endsAt">) => ({
  saleId: sale.saleId,
  productId: sale.productId,
  price: toDecimal(sale.priceMinor, sale.currency),
  currency: sale.currency,
  startsAt: sale.startsAt,
  endsAt: sale.endsAt
})

/** Of a new sale: that there will be one, and that it begins, if it does so at once. */
export const ofNew = (sale: FlashSale) => [
  FlashSaleScheduled.of(sale.saleId, 1, told(sale)),
  ...(sale.version > 1 ? [FlashSaleStarted.of(sale.saleId, 2, told(sale))] : [])
]

const start = (sale: Told) => (sale.startTold ? [] : [FlashSaleStarted.of(sale.saleId, sale.version + 1, told(sale))])

const startAndEnd = (sale: Told, endedAt: DateTime.Utc, reason: "over" | "canceled") => {
  const { saleId, productId, version } = sale
  const started = start(sale)
  return [...started, FlashSaleEnded.of(saleId, version + started.length + 1, { saleId, productId, endedAt, reason })]
}

/** Whether the time of a sale is over. */
export const isOver = (sale: Pick<FlashSale, "endsAt">, at: DateTime.Utc): boolean =>
  !DateTime.isLessThan(at, sale.endsAt)

/** Of a sale whose time has come: its start, unless that was told, and its end, if it is over. */
export const ofDue = (sale: Told, at: DateTime.Utc) =>
  isOver(sale, at) ? startAndEnd(sale, sale.endsAt, "over") : start(sale)

/** Of a sale that is canceled before its time is over: its end, or that it will not be. */
export const ofCanceled = (sale: Told, canceledAt: DateTime.Utc) => {
  const { saleId, productId, version } = sale
  return sale.startTold || !DateTime.isLessThan(canceledAt, sale.startsAt)
    ? startAndEnd(sale, canceledAt, "canceled")
    : [FlashSaleCanceled.of(saleId, version + 1, { saleId, productId, canceledAt })]
}
