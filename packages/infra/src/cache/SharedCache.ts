import { Context, type Effect, Schema } from "effect"

/** The cache that processes share cannot be asked now. Whoever reads goes on without it. */
export class SharedCacheUnavailable extends Schema.TaggedError<SharedCacheUnavailable>()("SharedCacheUnavailable", {
  cause: Schema.Defect()
}) {}

export interface Kept {
  readonly version: number
  readonly value: string
}

/**
 * What processes keep together, by key and version. A lower version never replaces a higher one or the memory that it was
 * dropped, or else a slow reader would outlive the invalidation.
 */
export class SharedCache extends Context.Service<
  SharedCache,
  {
    readonly find: (key: string) => Effect.Effect<Kept | undefined, SharedCacheUnavailable>
    /** Keeps a value for `ttlMs` milliseconds, unless a later version is known. */
    readonly put: (
      key: string,
      version: number,
      value: string,
      ttlMs: number
    ) => Effect.Effect<void, SharedCacheUnavailable>
    /** Forgets every value before `version`, and refuses such values for `ttlMs` milliseconds. */
    readonly drop: (key: string, version: number, ttlMs: number) => Effect.Effect<void, SharedCacheUnavailable>
  }
>()("merkato/infra/SharedCache") {}
