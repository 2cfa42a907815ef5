import { Schema } from "effect"

/** What every policy says when it refuses: which operation, and when it may be worth asking again. */
const refusal = { operation: Schema.String, retryAfterSeconds: Schema.Int }

const unavailable = { httpApiStatus: 503 }

/** The whole call took as long as it may. An attempt that was under way then may still have had its effect. */
export class DeadlineExceeded extends Schema.TaggedError<DeadlineExceeded>()(
  "DeadlineExceeded",
  { ...refusal, deadlineMs: Schema.Finite },
  unavailable
) {
  override get message() {
    return `${this.operation} did not end within ${this.deadlineMs} ms`
  }
}

/** One attempt took as long as it may. For a write this means "unknown", not "failed". */
export class TimedOut extends Schema.TaggedError<TimedOut>()(
  "TimedOut",
  { ...refusal, timeoutMs: Schema.Finite },
  unavailable
) {
  override get message() {
    return `${this.operation} did not answer within ${this.timeoutMs} ms`
  }
}

/** As many calls as may be are running, and as many as may be are waiting. Nothing was tried. */
export class BulkheadFull extends Schema.TaggedError<BulkheadFull>()(
  "BulkheadFull",
  { ...refusal, concurrent: Schema.Int, waiting: Schema.Int },
  unavailable
) {
  override get message() {
    return `${this.operation} has ${this.concurrent} calls running and ${this.waiting} waiting already`
  }
}

/** The circuit lets nobody through (`open`), or only the one that tries whether all is well again (`half_open`). */
export class CircuitOpen extends Schema.TaggedError<CircuitOpen>()(
  "CircuitOpen",
  { ...refusal, state: Schema.Literals(["open", "half_open"]) },
  unavailable
) {
  override get message() {
    return `The circuit of ${this.operation} is ${this.state === "open" ? "open" : "half-open"}`
  }
}

/** As many calls as may be were made lately. Nothing was tried. */
export class RateLimited extends Schema.TaggedError<RateLimited>()(
  "RateLimited",
  { ...refusal, calls: Schema.Int, perMs: Schema.Int },
  unavailable
) {
  override get message() {
    return `${this.operation} is called more than ${this.calls} times in ${this.perMs} ms`
  }
}

/** It failed, and there were so many retries lately that one more would only add to the trouble. */
export class RetryBudgetSpent extends Schema.TaggedError<RetryBudgetSpent>()(
  "RetryBudgetSpent",
  { ...refusal, attempts: Schema.Int },
  unavailable
) {
  override get message() {
    return `${this.operation} failed, and its retries are spent for now`
  }
}

export const PolicyError = Schema.Union([
  DeadlineExceeded,
  TimedOut,
  BulkheadFull,
  CircuitOpen,
  RateLimited,
  RetryBudgetSpent
])
export type PolicyError = typeof PolicyError.Type

export const isPolicyError = Schema.is(PolicyError)

/**
 * An attempt was under way when its caller's time was over, or its caller went away: what came of it is unknown. Only
 * those see it who watch attempts.
 */
export class AttemptInterrupted extends Schema.TaggedError<AttemptInterrupted>()("AttemptInterrupted", {
  operation: Schema.String
}) {
  override get message() {
    return `An attempt at ${this.operation} was interrupted`
  }
}

/** How an attempt may fail, for those who watch them. */
export type AttemptError<E> = E | TimedOut | AttemptInterrupted
