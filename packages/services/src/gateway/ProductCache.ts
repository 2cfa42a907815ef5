import { Context, Effect, Latch, Layer } from "effect"
import { ProductUpdated } from "@merkato/domain/catalogue/CatalogueEvents"
import * as VersionedCache from "@merkato/infra/cache/VersionedCache"
import { EventBus } from "@merkato/infra/events/EventBus"

/** A product as it goes over the wire. */
export interface CachedProduct {
  readonly etag: string
  readonly body: string
}

/** Milliseconds after which a cached product is read again even if no event said so. */
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

/** The cache in this process, kept right by the catalogue's events and by nothing else. */
export const layer = Layer.effectContext(
  Effect.gen(function* () {
    const bus = yield* EventBus
    const cache = yield* VersionedCache.make<CachedProduct>({ name: "product", capacity, ttlMs })
    const following = Latch.makeUnsafe(false)
    yield* Effect.forkScoped(
      bus.follow({
        topics: ["catalogue.events"],
        following: Effect.sync(() => following.openUnsafe()),
        handle: (batch) =>
          Effect.forEach(
            batch.filter(({ envelope }) => envelope.eventType === ProductUpdated.type),
            ({ envelope }) => cache.drop(envelope.partitionKey, envelope.aggregateVersion),
            { discard: true }
          )
      })
    )
    // Nothing may be cached before its changes are listened to.
    yield* following.await
    return Context.make(ProductCache, cache)
  })
)
