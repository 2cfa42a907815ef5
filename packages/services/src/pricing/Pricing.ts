import { Context, Effect, Layer } from "effect"
import type { ProductNotFound } from "@merkato/domain/catalogue/Product"
import type { Currency } from "@merkato/domain/kernel/Money"
import type { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { type CurrencyNotSupported, type Item, mergeItems, type Quote, quote } from "@merkato/domain/pricing/Quote"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"

/** The use cases of pricing: what something would cost, by the prices that hold now. */
export class Pricing extends Context.Service<
  Pricing,
  {
    quote(request: {
      readonly items: ReadonlyArray<Item>
      readonly currency?: Currency
    }): Effect.Effect<Quote, ProductNotFound | CurrencyNotSupported | ServiceUnavailable>
  }
>()("merkato/pricing/Pricing") {
  static readonly layer = Layer.effect(
    Pricing,
    Effect.gen(function* () {
      const catalogue = yield* CatalogueRpc
      return Pricing.of({
        quote: Tracing.fn("Pricing.quote")(function* ({ items, currency }) {
          const lines = mergeItems(items)
          const prices = yield* catalogue.PricesOf({ productIds: lines.map((line) => line.productId) })
          return yield* Effect.fromResult(
            quote(lines, new Map(prices.map((price) => [price.productId, price])), currency)
          )
        })
      })
    })
  )
}
