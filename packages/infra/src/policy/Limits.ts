import { Schema } from "effect"
import { dayMs } from "@merkato/domain/kernel/Day"

const positive = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 1, maximum }))
const milliseconds = positive(dayMs)

/** `firstMs`, then each `factor` times the one before, never more than `maxMs`; with jitter 80 % to 120 % of that. */
const Exponential = Schema.Struct({
  kind: Schema.Literal("exponential"),
  firstMs: milliseconds,
  factor: Schema.Finite.check(Schema.isBetween({ minimum: 1, maximum: 10 })),
  maxMs: milliseconds,
  jitter: Schema.Boolean
})

/** These delays, one before each retry. */
const Exactly = Schema.Struct({
  kind: Schema.Literal("exactly"),
  delaysMs: Schema.Array(milliseconds).check(Schema.isMinLength(1), Schema.isMaxLength(99))
})

export const Backoff = Schema.Union([Exponential, Exactly])
export type Backoff = typeof Backoff.Type

/**
 * Opens after so many failed attempts in a row, or when `failingRate.share` of the last `ofLast` attempts failed (once
 * there were `atLeast` of them); lets one attempt through after `openMs`.
 */
export const BreakerLimits = Schema.Struct({
  failuresInARow: positive(1_000),
  failingRate: Schema.Struct({
    share: Schema.Finite.check(Schema.isBetween({ minimum: 0.01, maximum: 1 })),
    ofLast: positive(10_000),
    atLeast: positive(10_000)
  }).check(
    Schema.makeFilter(({ atLeast, ofLast }) => (atLeast <= ofLast ? undefined : "atLeast is larger than ofLast"))
  ),
  openMs: milliseconds
})
export type BreakerLimits = typeof BreakerLimits.Type

/** So many calls at once, and so many more that wait for their turn; who comes then is refused. */
export const BulkheadLimits = Schema.Struct({
  concurrent: positive(10_000),
  waiting: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100_000 }))
})
export type BulkheadLimits = typeof BulkheadLimits.Type

/** So many calls in so much time; unused ones gather up to that number. */
export const RateLimits = Schema.Struct({ calls: positive(1_000_000), perMs: milliseconds })
export type RateLimits = typeof RateLimits.Type

/** Retries take a token each, calls that end well give `refund` of one back: so retries are never more than a share of calls. */
export const RetryBudgetLimits = Schema.Struct({
  tokens: positive(100_000),
  refund: Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
})
export type RetryBudgetLimits = typeof RetryBudgetLimits.Type

const fields = {
  /** From the first moment to the answer: waiting, attempts and the time between them. null: as long as the caller has. */
  deadlineMs: Schema.NullOr(milliseconds),
  attemptTimeoutMs: Schema.NullOr(milliseconds),
  /** How often it is tried at most, the first time included. null: until it succeeds. */
  attempts: Schema.NullOr(positive(100)),
  backoff: Schema.NullOr(Backoff),
  breaker: Schema.NullOr(BreakerLimits),
  bulkhead: Schema.NullOr(BulkheadLimits),
  rateLimit: Schema.NullOr(RateLimits),
  retryBudget: Schema.NullOr(RetryBudgetLimits)
}

/** What is wrong with limits that are each right for themselves. */
const contradiction = (limits: Schema.Schema.Type<Schema.Struct<typeof fields>>): string | undefined => {
  const { attempts, backoff, bulkhead, deadlineMs } = limits
  if (attempts !== 1 && backoff === null) return "more than one attempt needs a backoff"
  if (backoff?.kind === "exactly" && attempts !== backoff.delaysMs.length + 1)
    return "attempts is one more than there are delays"
  if (bulkhead !== null && bulkhead.waiting > 0 && deadlineMs === null)
    return "who waits in a bulkhead needs a deadline, so that waiting ends"
  return undefined
}

/** The limits of one operation. null is "without". */
export const Limits = Schema.Struct(fields).check(Schema.makeFilter(contradiction))
export type Limits = typeof Limits.Type

export type LimitName = keyof Limits
export const limitNames = Object.keys(fields).filter((name): name is LimitName => name in fields)

/** An operation as it is written down: its limits, what for and by whom. */
export interface PolicyOptions extends Limits {
  /** The row of the contracts' table, or what the operation is. */
  readonly about: string
  /** The context that makes the call; "every context" where all do. */
  readonly usedBy: string
  /** The context does not exist yet: declared and tested, and nobody calls it. */
  readonly later?: true
}
