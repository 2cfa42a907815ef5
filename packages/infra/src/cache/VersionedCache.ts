import { Clock, Context, Effect, Metric } from "effect"

/** What is kept of one key: a value, or the memory that everything up to `version` is out of date. */
interface Entry<A> {
  readonly version: number
  readonly value: A | undefined
  readonly expiresAt: number
}

export interface VersionedCache<A> {
  /** The value, unless it is unknown, out of date or too old. */
  readonly get: (key: string) => Effect.Effect<A | undefined>
  /** The same at once and uncounted, for whoever has a fiber's services and no fiber; who makes use of it says so with `hit`. */
  readonly peek: (key: string, services: Context.Context<never>) => A | undefined
  readonly hit: (services: Context.Context<never>) => void
  /** Keeps a value of a version. One that is older than what is known already (or was dropped) is ignored. */
  readonly put: (key: string, version: number, value: A) => Effect.Effect<void>
  /** Forgets everything before `version`: a slow reader that comes with an older value later is ignored. */
  readonly drop: (key: string, version: number) => Effect.Effect<void>
}

/** Keeps nothing. */
export const none = <A>(): VersionedCache<A> => ({
  get: () => Effect.undefined,
  peek: () => undefined,
  hit: () => {},
  put: () => Effect.void,
  drop: () => Effect.void
})

/** What stands behind a cache: slower, and shared with others. It fails as if it knew nothing. */
export interface Behind<A> {
  readonly find: (key: string) => Effect.Effect<{ readonly version: number; readonly value: A } | undefined>
  readonly put: (key: string, version: number, value: A) => Effect.Effect<void>
}

interface Options<A> {
  readonly name: string
  readonly capacity: number
  readonly ttlMs: number
  readonly behind?: Behind<A> | undefined
}

/**
 * A cache in this process: bounded (the entry that was put longest ago goes first), and no entry older than `ttlMs` is
 * given out, whatever happens to the events that drop entries. Counts hits and misses, and the ratio as
 * `<name>_cache_hit_ratio`. What is not here is looked for `behind` it, and kept here as long as if it were new; nothing is
 * dropped there.
 */
export const make = <A>({ name, capacity, ttlMs, behind }: Options<A>) =>
  Effect.sync((): VersionedCache<A> => {
    const entries = new Map<string, Entry<A>>()
    const ratio = Metric.gauge(`${name}_cache_hit_ratio`, { description: "Share of reads answered from the cache" })
    let hits = 0
    let reads = 0

    const peek = (key: string, services: Context.Context<never>) => {
      const entry = entries.get(key)
      const now = Context.get(services, Clock.Clock).currentTimeMillisUnsafe()
      return entry === undefined || entry.expiresAt <= now ? undefined : entry.value
    }

    /** The gauge follows in steps of 64 reads, so that a hit costs next to nothing. */
    const count = (hit: boolean, services: Context.Context<never>) => {
      reads += 1
      if (hit) hits += 1
      if ((reads & 63) === 0 || reads === 1) ratio.updateUnsafe(hits / reads, services)
    }

    const keep = (key: string, entry: Entry<A>) => {
      const known = entries.get(key)
      if (known !== undefined && known.version > entry.version) return
      entries.delete(key)
      entries.set(key, entry)
      if (entries.size <= capacity) return
      const [oldest] = entries.keys()
      if (oldest !== undefined) entries.delete(oldest)
    }

    const keepFrom = (key: string, version: number, value: A) =>
      Effect.map(Clock.currentTimeMillis, (now) => keep(key, { version, value, expiresAt: now + ttlMs }))

    /** What stands behind may not have heard yet of what was dropped here. */
    const findBehind = ({ find }: Behind<A>, key: string) =>
      Effect.flatMap(find(key), (found) => {
        const known = entries.get(key)?.version ?? 0
        if (found === undefined || found.version < known) return Effect.undefined
        return Effect.as(keepFrom(key, found.version, found.value), found.value)
      })

    return {
      get: (key) =>
        Effect.withFiber((fiber) => {
          const value = peek(key, fiber.context)
          count(value !== undefined, fiber.context)
          return value === undefined && behind !== undefined ? findBehind(behind, key) : Effect.succeed(value)
        }),
      peek,
      hit: (services) => count(true, services),
      put: (key, version, value) =>
        behind === undefined
          ? keepFrom(key, version, value)
          : Effect.andThen(keepFrom(key, version, value), behind.put(key, version, value)),
      drop: (key, version) => Effect.sync(() => keep(key, { version, value: undefined, expiresAt: 0 }))
    }
  })
