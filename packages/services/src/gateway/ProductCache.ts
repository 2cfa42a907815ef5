import { Context, Effect, Latch, Layer } from "effect"
import { ProductUpdated } from "@merkato/domain/catalogue/CatalogueEvents"
import type { Price } from "@merkato/domain/catalogue/Product"
import type { FlashPrice } from "@merkato/domain/pricing/FlashSale"
import * as PageCache from "@merkato/infra/cache/PageCache"
import * as VersionedCache from "@merkato/infra/cache/VersionedCache"
import { EventBus } from "@merkato/infra/events/EventBus"
import * as FlashPrices from "./FlashPrices.ts"

/** A product, or a page of them, as it goes over the wire. */
export interface CachedJson {
  readonly etag: string
  readonly body: string
}

/** A product with the price of the shelf; a sale that runs is put in when it is sent. */
export interface CachedProduct extends CachedJson {
  readonly shelf: Price
}

/** A cached product as it is while a sale of it runs: with another entity tag, too. */
export const onSale = (product: CachedProduct, sale: FlashPrice | undefined): CachedJson => {
  if (sale === undefined) return product
  const flashSale = FlashPrices.flashSaleJson(product.shelf, sale)
  if (flashSale === undefined) return product
  return {
    etag: `${product.etag.slice(0, -1)}.${sale.saleId}"`,
    body: `${product.body.slice(0, -1)},"flashSale":${JSON.stringify(flashSale)}}`
  }
}

/** Milliseconds after which what is cached is read again even if no event said so. */
const ttlMs = 60_000

const capacity = 20_000

/** Products as JSON, ready to be sent (`product:{id}` of the caches). Without a bus there is no cache: nothing would drop what is stale. */
export const ProductCache = Context.Reference<VersionedCache.VersionedCache<CachedProduct>>(
  "merkato/gateway/ProductCache",
  {
    defaultValue: () => ({
      get: () => Effect.undefined,
      peek: () => undefined,
      hit: () => {},
      put: () => Effect.void,
      drop: () => Effect.void
    })
  }
)

/** Characters of cached pages: a few thousand of the usual size. */
const pageCharacters = 16_000_000

/**
 * Pages of the catalogue's lists and searches as JSON, by path and query. Any change of the catalogue drops them: its
 * events, and the change itself in the process that makes it, so that who changed something finds it changed.
 */
export const ProductPages = Context.Reference<PageCache.PageCache<CachedJson>>("merkato/gateway/ProductPages", {
  defaultValue: () => PageCache.none<CachedJson>()
})

/** The caches in this process, kept right by the events of catalogue and pricing and by nothing else. */
export const layer = Layer.effectContext(
  Effect.gen(function* () {
    const bus = yield* EventBus
    const cache = yield* VersionedCache.make<CachedProduct>({ name: "product", capacity, ttlMs })
    const pages = yield* PageCache.make<CachedJson>({ name: "product_page", characters: pageCharacters, ttlMs })
    const flashPrices = FlashPrices.make()
    const following = Latch.makeUnsafe(false)
    yield* Effect.forkScoped(
      bus.follow({
        topics: ["catalogue.events", "promo.events"],
        following: Effect.sync(() => following.openUnsafe()),
        handle: (batch) =>
          Effect.andThen(
            Effect.forEach(
              batch,
              ({ topic, envelope }) =>
                topic === "promo.events"
                  ? Effect.ignore(FlashPrices.follow(flashPrices, envelope))
                  : envelope.eventType === ProductUpdated.type
                    ? cache.drop(envelope.partitionKey, envelope.aggregateVersion)
                    : Effect.void,
              { discard: true }
            ),
            Effect.sync(pages.dropAll)
          )
      })
    )
    // Nothing may be cached before its changes are listened to.
    yield* following.await
    return Context.make(ProductCache, cache).pipe(
      Context.add(ProductPages, pages),
      Context.add(FlashPrices.KeptFlashPrices, flashPrices)
    )
  })
)
