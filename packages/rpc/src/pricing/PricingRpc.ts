import { Schema } from "effect"
import { RpcGroup } from "effect/rpc"
import { PriceMinor, ProductNotFound } from "@merkato/domain/catalogue/Product"
import { IdempotencyKey, ProductId, SaleId } from "@merkato/domain/kernel/Ids"
import { Currency } from "@merkato/domain/kernel/Money"
import { Forbidden, IdempotencyKeyReused, InvalidValue, RequestInProgress } from "@merkato/domain/kernel/Problem"
import {
  FlashPrice,
  FlashSale,
  FlashSaleNotFound,
  FlashSaleOverlaps,
  FlashSaleStatus,
  PriceNotLower
} from "@merkato/domain/pricing/FlashSale"
import { CurrencyNotSupported, Items, Quote } from "@merkato/domain/pricing/Quote"
import { Contract } from "../contract/Contract.ts"
import { command, page, paging, query } from "../contract/Operation.ts"
import { answered, Replayed } from "../contract/Replayed.ts"

/** Why there is no such sale: kept as the answer of its key. */
export const ScheduleRefusal = Schema.Union([ProductNotFound, CurrencyNotSupported, PriceNotLower, FlashSaleOverlaps])

export const PricingGroup = RpcGroup.make(
  query("Quote", {
    payload: { items: Items, currency: Schema.optionalKey(Currency) },
    success: Quote,
    errors: [ProductNotFound, CurrencyNotSupported]
  }),
  /** The price holds from `startsAt` until before `endsAt`, or until the sale is canceled. */
  command("ScheduleFlashSale", {
    payload: {
      idempotencyKey: Schema.optionalKey(IdempotencyKey),
      productId: ProductId,
      priceMinor: PriceMinor,
      currency: Currency,
      startsAt: Schema.DateTimeUtcFromString,
      endsAt: Schema.DateTimeUtcFromString
    },
    success: answered(FlashSale),
    errors: [
      Forbidden,
      InvalidValue,
      ...ScheduleRefusal.members,
      Replayed(ScheduleRefusal),
      IdempotencyKeyReused,
      RequestInProgress
    ]
  }),
  /** No order is priced by the sale any more. Repeats are harmless; a sale that is over stays as it is. */
  command("CancelFlashSale", {
    payload: { saleId: SaleId },
    success: Schema.Void,
    errors: [Forbidden, FlashSaleNotFound]
  }),
  query("GetFlashSale", { payload: { saleId: SaleId }, success: FlashSale, errors: [FlashSaleNotFound] }),
  /** Newest first. */
  query("ListFlashSales", {
    payload: {
      ...paging,
      productId: Schema.optionalKey(ProductId),
      status: Schema.optionalKey(FlashSaleStatus)
    },
    success: page(FlashSale),
    errors: [InvalidValue]
  }),
  /**
   * What is on sale and will be, or what is on sale now of given products; for who shows prices. Orders are priced by
   * `Quote` alone.
   */
  query("PriceMap", {
    payload: { ...paging, productIds: Schema.optionalKey(Schema.Array(ProductId)) },
    success: page(FlashPrice),
    errors: [InvalidValue]
  })
)

export class PricingRpc extends Contract<PricingRpc>()("pricing", PricingGroup) {}
