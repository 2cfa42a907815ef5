import { Context, Effect, Latch, Layer, Metric, Option, Schema } from "effect"
import { ProductUpdated } from "@merkato/domain/catalogue/CatalogueEvents"
import { Price, Product } from "@merkato/domain/catalogue/Product"
import type { FlashPrice } from "@merkato/domain/pricing/FlashSale"
import * as PageCache from "@merkato/infra/cache/PageCache"
import { SharedCache } from "@merkato/infra/cache/SharedCache"
import * as VersionedCache from "@merkato/infra/cache/VersionedCache"
import * as Lag from "@merkato/infra/events/Lag"
import { BusUnavailable, EventBus } from "@merkato/infra/events/EventBus"
import { Policies } from "@merkato/infra/policy/Policies"
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
  { defaultValue: () => VersionedCache.none<CachedProduct>() }
)

/** Products as the graph asks for them (`gql:product:{id}` of the caches), for half a minute. */
export const GraphProducts = Context.Reference<VersionedCache.VersionedCache<Product>>(
  "merkato/gateway/GraphProducts",
  { defaultValue: () => VersionedCache.none<Product>() }
)
const graphTtlMs = 30_000

/** Characters of cached pages: a few thousand of the usual size. */
const pageCharacters = 16_000_000

/**
 * Pages of the catalogue's lists and searches as JSON, by path and query. Any change of the catalogue drops them: its
 * events, and the change itself in the process that makes it, so that who changed something finds it changed.
 */
export const ProductPages = Context.Reference<PageCache.PageCache<CachedJson>>("merkato/gateway/ProductPages", {
  defaultValue: () => PageCache.none<CachedJson>()
})

/** What is kept of products in the cache that processes share: under which key, in which form, and for how long. */
const sharedForms = {
  rest: {
    keyOf: (productId: string) => `product:${productId}`,
    form: Schema.fromJsonString(Schema.Struct({ etag: Schema.String, body: Schema.String, shelf: Price })),
    ttlMs
  },
  graph: {
    keyOf: (productId: string) => `gql:product:${productId}`,
    form: Schema.fromJsonString(Product),
    ttlMs: graphTtlMs
  }
} as const

interface SharedForm<A> {
  readonly keyOf: (productId: string) => string
  readonly form: Schema.Codec<A, string>
  readonly ttlMs: number
}

const sharedRatio = Metric.gauge("product_shared_cache_hit_ratio", {
  description: "Share of the reads that missed this process's cache and were answered from the shared one"
})

/**
 * Products that other processes have read, under their policy: without an answer in time there is nothing behind. What is
 * there in a form that this release does not know is read anew.
 */
const behind = <A>(
  { keyOf, form, ttlMs }: SharedForm<A>,
  cache: typeof SharedCache.Service,
  policies: typeof Policies.Service,
  count: { hits: number; reads: number }
) => {
  const encode = Schema.encodeSync(form)
  const decode = Schema.decodeUnknownOption(form)
  const guarded = policies.guard<unknown>("cache.shared", { transient: () => true })
  return {
    find: (productId: string) =>
      cache.find(keyOf(productId)).pipe(
        guarded,
        Effect.orElseSucceed(() => undefined),
        Effect.map((found) => {
          const value = found === undefined ? Option.none() : decode(found.value)
          return found !== undefined && Option.isSome(value)
            ? { version: found.version, value: value.value }
            : undefined
        }),
        Effect.tap((found) => {
          count.reads += 1
          if (found !== undefined) count.hits += 1
          return Metric.update(sharedRatio, count.hits / count.reads)
        })
      ),
    put: (productId: string, version: number, product: A) =>
      cache.put(keyOf(productId), version, encode(product), ttlMs).pipe(guarded, Effect.ignore)
  }
}

const sharedProducts = { group: "edge.shared-products", topic: "catalogue.events" } as const

/**
 * Drops what changed from the shared cache: each event once for all processes, and again until it is done, so that a cache
 * that was away does not come back with what is out of date.
 */
const dropFromShared = (cache: typeof SharedCache.Service, bus: typeof EventBus.Service) =>
  bus.subscribe({
    consumerGroup: sharedProducts.group,
    topics: [sharedProducts.topic],
    eventTypes: [ProductUpdated.type],
    batchSize: 100,
    handle: (batch) =>
      Effect.forEach(
        batch,
        // Each in its time: a busy process would never come to the end of a big batch in one, and begin it again and again.
        ({ envelope }) =>
          Effect.forEach(
            Object.values(sharedForms),
            ({ keyOf }) =>
              Effect.timeout(cache.drop(keyOf(envelope.partitionKey), envelope.aggregateVersion, ttlMs), "5 seconds"),
            { discard: true }
          ),
        { discard: true }
      ).pipe(Effect.mapError((cause) => new BusUnavailable({ cause })))
  })

/**
 * The caches in this process, kept right by the events of catalogue and pricing and by nothing else; behind that of products
 * the one that processes share, if there is one.
 */
export const layer = Layer.effectContext(
  Effect.gen(function* () {
    const bus = yield* EventBus
    const sharedCache = yield* Effect.serviceOption(SharedCache)
    const policies = yield* Policies
    const count = { hits: 0, reads: 0 }
    const shared = <A>(form: SharedForm<A>) =>
      Option.isSome(sharedCache) ? behind(form, sharedCache.value, policies, count) : undefined
    const cache = yield* VersionedCache.make<CachedProduct>({
      name: "product",
      capacity,
      ttlMs,
      behind: shared(sharedForms.rest)
    })
    const graph = yield* VersionedCache.make<Product>({
      name: "graph_product",
      capacity,
      ttlMs: graphTtlMs,
      behind: shared(sharedForms.graph)
    })
    if (Option.isSome(sharedCache)) {
      yield* Effect.forkScoped(dropFromShared(sharedCache.value, bus))
      yield* Effect.forkScoped(Lag.watch([sharedProducts]))
    }
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
                    ? Effect.andThen(
                        cache.drop(envelope.partitionKey, envelope.aggregateVersion),
                        graph.drop(envelope.partitionKey, envelope.aggregateVersion)
                      )
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
      Context.add(GraphProducts, graph),
      Context.add(ProductPages, pages),
      Context.add(FlashPrices.KeptFlashPrices, flashPrices)
    )
  })
)
