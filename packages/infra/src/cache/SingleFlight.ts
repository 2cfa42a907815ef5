import { Cache, Effect } from "effect"

/**
 * Keeps a crowd that misses the same key at the same moment from all asking for it: while a read of a key is under way, its
 * outcome is that of all who ask, as long as one of them waits. Nothing is kept of it: it is a cache of no duration.
 */
export const make = <Key, A, E, R>(read: (key: Key) => Effect.Effect<A, E, R>) =>
  Effect.map(
    Cache.makeWith(read, {
      capacity: Number.POSITIVE_INFINITY,
      timeToLive: () => 0,
      requireServicesAt: "lookup"
    }),
    (reads) => (key: Key) => Cache.get(reads, key)
  )
