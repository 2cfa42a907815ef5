import { Schema } from "effect"
import { MinuteState } from "@merkato/domain/analytics/RevenueMinute"
import { Currency } from "@merkato/domain/kernel/Money"
import { OrderProcessState } from "@merkato/domain/orders/OrderProcess"
import { Assessment } from "@merkato/domain/risk/Assessment"
import { Amount, Instant } from "./Json.ts"

const milliseconds = Schema.NullOr(Schema.Int)

/** The limits of an operation; null is "without". */
export const LimitsJson = Schema.Struct({
  deadlineMs: milliseconds,
  attemptTimeoutMs: milliseconds,
  attempts: Schema.NullOr(Schema.Int),
  backoff: Schema.NullOr(
    Schema.Union([
      Schema.Struct({
        kind: Schema.Literal("exponential"),
        firstMs: Schema.Int,
        factor: Schema.Finite,
        maxMs: Schema.Int,
        jitter: Schema.Boolean
      }),
      Schema.Struct({ kind: Schema.Literal("exactly"), delaysMs: Schema.Array(Schema.Int) })
    ])
  ),
  breaker: Schema.NullOr(
    Schema.Struct({
      failuresInARow: Schema.Int,
      failingRate: Schema.Struct({ share: Schema.Finite, ofLast: Schema.Int, atLeast: Schema.Int }),
      openMs: Schema.Int
    })
  ),
  bulkhead: Schema.NullOr(Schema.Struct({ concurrent: Schema.Int, waiting: Schema.Int })),
  rateLimit: Schema.NullOr(Schema.Struct({ calls: Schema.Int, perMs: Schema.Int })),
  retryBudget: Schema.NullOr(Schema.Struct({ tokens: Schema.Int, refund: Schema.Finite }))
})

/** A guarded operation as it stands in a process. Counts are since that process started. */
export const PolicyJson = Schema.Struct({
  operation: Schema.String,
  about: Schema.String,
  usedBy: Schema.String,
  /** Nobody calls it yet. */
  later: Schema.Boolean,
  limits: LimitsJson,
  /** Limits that are not those of the code, and what they come from; all others are the code's. */
  origins: Schema.Record(Schema.String, Schema.Literals(["environment", "configured"])),
  breaker: Schema.NullOr(
    Schema.Struct({
      state: Schema.Literals(["closed", "open", "half_open"]),
      since: Schema.String,
      /** Until an open circuit lets a call through to try; 0: the next one is. */
      retryAfterSeconds: Schema.Int,
      failuresInARow: Schema.Int
    })
  ),
  inFlight: Schema.Int,
  waiting: Schema.Int,
  retryTokens: Schema.NullOr(Schema.Finite),
  counts: Schema.Struct({
    calls: Schema.Int,
    retries: Schema.Int,
    attempts: Schema.Record(Schema.String, Schema.Int),
    refusals: Schema.Record(Schema.String, Schema.Int)
  }),
  /** The contexts of the process that says so: each process has circuits of its own. */
  contexts: Schema.Array(Schema.String)
}).annotate({ identifier: "Policy" })

/** What a process tells about its policies. */
export const PoliciesOfProcess = Schema.Struct({ items: Schema.Array(PolicyJson) })

/** What all processes tell; those that did not answer are named. */
export const PoliciesJson = Schema.Struct({
  items: Schema.Array(PolicyJson),
  unreachable: Schema.Array(Schema.Struct({ contexts: Schema.Array(Schema.String) }))
}).annotate({ identifier: "Policies" })

/** Where an order process stands. */
export const OrderProcessJson = Schema.toEncoded(OrderProcessState).annotate({ identifier: "OrderProcess" })

/** What was decided about an attempt to pay, and why. */
export const AssessmentJson = Schema.toEncoded(Assessment).annotate({ identifier: "Assessment" })

const flow = { payments: Schema.Int, revenue: Amount, refunds: Schema.Int, refunded: Amount }

/** What a minute brought in a currency. */
export const RevenueMinuteJson = Schema.Struct({
  minute: Instant,
  currency: Currency,
  state: MinuteState,
  ...flow,
  corrections: Schema.Int,
  correctedAt: Schema.NullOr(Instant),
  tooLate: Schema.Struct(flow)
}).annotate({ identifier: "RevenueMinute" })

/** Minutes, and the time of the newest payment or refund that is known. */
export const RevenueStreamJson = Schema.Struct({
  newest: Schema.NullOr(Instant),
  items: Schema.Array(RevenueMinuteJson)
}).annotate({ identifier: "RevenueStream" })
