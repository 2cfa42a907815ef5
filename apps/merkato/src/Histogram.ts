/** Latencies in buckets that grow by 2 %: any number of them in 8 kB, quantiles right to 2 %. */

const smallestMs = 0.01
const growth = Math.log(1.02)
const buckets = 1_024

export class Histogram {
  readonly #counts = new Float64Array(buckets)
  #count = 0
  #max = 0

  record(ms: number): void {
    const index = ms <= smallestMs ? 0 : Math.min(buckets - 1, Math.ceil(Math.log(ms / smallestMs) / growth))
    this.#counts[index] = (this.#counts[index] ?? 0) + 1
    this.#count += 1
    if (ms > this.#max) this.#max = ms
  }

  get count(): number {
    return this.#count
  }

  /** The longest, exactly; 0 when there is none. */
  get max(): number {
    return this.#max
  }

  /** Milliseconds that this share of all (0 to 1) did not exceed; 0 when there is none. */
  quantile(share: number): number {
    const wanted = Math.max(1, Math.ceil(share * this.#count))
    let seen = 0
    for (let index = 0; index < buckets; index++) {
      seen += this.#counts[index] ?? 0
      if (seen >= wanted) return Math.min(this.#max, smallestMs * Math.exp(index * growth))
    }
    return this.#max
  }

  /** Takes over what another has seen. */
  add(other: Histogram): void {
    for (let index = 0; index < buckets; index++) {
      this.#counts[index] = (this.#counts[index] ?? 0) + (other.#counts[index] ?? 0)
    }
    this.#count += other.#count
    this.#max = Math.max(this.#max, other.#max)
  }
}
