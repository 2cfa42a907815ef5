import { Effect, Metric } from "effect"

/** Counts reads, and how many of them a cache answered, as the gauge `<name>_cache_hit_ratio`; in steps of 64, since it is on hot paths. */
export const make = (name: string, description: string) => {
  const ratio = Metric.gauge(`${name}_cache_hit_ratio`, { description })
  let [hits, reads] = [0, 0]
  return (hit: boolean): Effect.Effect<void> => {
    reads += 1
    if (hit) hits += 1
    return (reads & 63) === 0 || reads === 1 ? Metric.update(ratio, hits / reads) : Effect.void
  }
}
