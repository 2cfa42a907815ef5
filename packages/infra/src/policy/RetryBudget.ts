import type { RetryBudgetLimits } from "./Limits.ts"

/**
 * Bounds what retries add to the load of somebody who is in trouble: over all callers, not by call. Full at first, so
 * that a hiccup is retried freely; in a long outage what is left is a share of the calls that still succeed.
 */
export class RetryBudget {
  private left: number

  constructor(private limits: RetryBudgetLimits | null) {
    this.left = limits?.tokens ?? 0
  }

  get tokens(): number | null {
    return this.limits === null ? null : this.left
  }

  /** What has been spent stays spent. */
  change(limits: RetryBudgetLimits | null) {
    const spent = this.limits === null ? 0 : this.limits.tokens - this.left
    this.limits = limits
    this.left = limits === null ? 0 : Math.max(0, limits.tokens - spent)
  }

  /** Whether there may be one more retry; then it is taken. */
  take(): boolean {
    if (this.limits === null) return true
    if (this.left < 1) return false
    this.left -= 1
    return true
  }

  refund() {
    if (this.limits !== null) this.left = Math.min(this.limits.tokens, this.left + this.limits.refund)
  }
}
