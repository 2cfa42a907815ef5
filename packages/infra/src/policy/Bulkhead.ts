import { Effect, Semaphore } from "effect"
import type { BulkheadLimits } from "./Limits.ts"
import { BulkheadFull } from "./PolicyError.ts"

/**
 * Lets so many calls run at once and so many more wait, first come first served; refuses the rest at once. Without limits
 * it only counts. How long they wait is the deadline's to say.
 */
export class Bulkhead {
  private present = 0
  private running = 0
  private readonly permits: Semaphore.Semaphore

  constructor(
    readonly operation: string,
    private limits: BulkheadLimits | null,
    private readonly changed: (bulkhead: Bulkhead) => Effect.Effect<void>
  ) {
    this.permits = Semaphore.makeUnsafe(limits?.concurrent ?? 1)
  }

  get inFlight() {
    return this.running
  }

  get waiting() {
    return this.present - this.running
  }

  /** Those who run already go on; new limits hold for whoever comes next, and more room lets in who waits. */
  change(limits: BulkheadLimits | null): Effect.Effect<void> {
    this.limits = limits
    return limits === null ? Effect.void : this.permits.resize(limits.concurrent)
  }

  readonly run = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | BulkheadFull, R> =>
    Effect.suspend((): Effect.Effect<A, E | BulkheadFull, R> => {
      const { limits, operation } = this
      if (limits !== null && this.present >= limits.concurrent + limits.waiting) {
        return Effect.fail(new BulkheadFull({ operation, ...limits, retryAfterSeconds: 1 }))
      }
      const inside = Effect.acquireUseRelease(
        this.count(() => (this.running += 1)),
        () => effect,
        () => this.count(() => (this.running -= 1))
      )
      return Effect.acquireUseRelease(
        this.count(() => (this.present += 1)),
        () => (limits === null ? inside : this.permits.withPermit(inside)),
        () => this.count(() => (this.present -= 1))
      )
    })

  private count(change: () => void): Effect.Effect<void> {
    return Effect.suspend(() => {
      change()
      return this.changed(this)
    })
  }
}
