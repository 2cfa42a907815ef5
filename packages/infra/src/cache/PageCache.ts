import { Clock, Context, Effect, Metric } from "effect"

export interface Limits {
  /** Names the gauge `<name>_cache_hit_ratio`. */
  readonly name: string
  /** Characters of all pages together; a page of more than a hundredth of that is not kept. */
  readonly characters: number
  /** Milliseconds after which a page is read again even if nothing dropped it. */
  readonly ttlMs: number
}

interface Entry<A> {
  readonly page: A
  readonly expiresAt: number
}

/**
 * Pages of lists in this process, by what was asked for. A page depends on everything that may come into its list, so any
 * change drops them all, and a page that was asked for before the change and comes after it is not kept.
 */
export interface PageCache<A> {
  /** What a page has to be put with: asked for before the page is read. */
  readonly moment: () => number
  readonly put: (key: string, moment: number, page: A, services: Context.Context<never>) => void
  /** Uncounted: who makes use of a page says so with `hit`. */
  readonly peek: (key: string, services: Context.Context<never>) => A | undefined
  readonly hit: (services: Context.Context<never>) => void
  readonly dropAll: () => void
}

/** Keeps nothing. */
export const none = <A>(): PageCache<A> => ({
  moment: () => 0,
  put: () => {},
  peek: () => undefined,
  hit: () => {},
  dropAll: () => {}
})

/** Every page that is put was a miss, every hit is one: so much for the gauge. The page that was put longest ago makes room. */
export const make = <A extends { readonly body: string }>({ name, characters, ttlMs }: Limits) =>
  Effect.sync((): PageCache<A> => {
    const entries = new Map<string, Entry<A>>()
    const ratio = Metric.gauge(`${name}_cache_hit_ratio`, { description: "Share of reads answered from the cache" })
    let size = 0
    let moment = 0
    let hits = 0
    let misses = 0

    const sizeOf = (key: string, { page }: Entry<A>) => key.length + page.body.length
    const remove = (key: string) => {
      const entry = entries.get(key)
      if (entry === undefined) return
      entries.delete(key)
      size -= sizeOf(key, entry)
    }
    const tell = (services: Context.Context<never>) => {
      if (((hits + misses) & 63) <= 1) ratio.updateUnsafe(hits / (hits + misses), services)
    }

    return {
      moment: () => moment,
      put: (key, asked, page, services) => {
        misses += 1
        tell(services)
        const entry = { page, expiresAt: Context.get(services, Clock.Clock).currentTimeMillisUnsafe() + ttlMs }
        if (asked !== moment || sizeOf(key, entry) > characters / 100) return
        remove(key)
        entries.set(key, entry)
        size += sizeOf(key, entry)
        for (const oldest of entries.keys()) {
          if (size <= characters) break
          remove(oldest)
        }
      },
      peek: (key, services) => {
        const entry = entries.get(key)
        if (entry === undefined) return undefined
        return entry.expiresAt <= Context.get(services, Clock.Clock).currentTimeMillisUnsafe() ? undefined : entry.page
      },
      hit: (services) => {
        hits += 1
        tell(services)
      },
      dropAll: () => {
        moment += 1
        entries.clear()
        size = 0
      }
    }
  })
