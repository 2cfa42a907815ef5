/** How long operations took. */
export interface Latencies {
  readonly operations: number
  readonly perSecond: number
  /** Milliseconds of a whole operation. */
  readonly p50: number
  readonly p95: number
  readonly p99: number
  readonly max: number
}

/** Of operations that took so many milliseconds each, within so many seconds. */
export const of = (taken: ReadonlyArray<number>, seconds: number): Latencies => {
  const sorted = Float64Array.from(taken).toSorted()
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
  return {
    operations: sorted.length,
    perSecond: sorted.length / seconds,
    p50: at(0.5),
    p95: at(0.95),
    p99: at(0.99),
    max: at(1)
  }
}
