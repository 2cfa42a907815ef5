import { Cause, Clock, Duration, Effect, Exit, Option, Schedule } from "effect"
import { RateLimiter } from "effect/persistence"
import * as Backoff from "./Backoff.ts"
import * as Breaker from "./Breaker.ts"
import { Bulkhead } from "./Bulkhead.ts"
import * as Deadline from "./Deadline.ts"
import type { Limits } from "./Limits.ts"
import {
  AttemptInterrupted,
  type AttemptError,
  isPolicyError,
  type PolicyError,
  RateLimited,
  RetryBudgetSpent,
  TimedOut
} from "./PolicyError.ts"
import { Meter, type Outcome, type Refusal, withFiber } from "./PolicyMetrics.ts"
import { RetryBudget } from "./RetryBudget.ts"

export interface CallOptions<E> {
  /** Which errors are failures of the other side: retried, and counted by the breaker. All others are answers. */
  readonly transient: (error: E) => boolean
  /**
   * Is told of every attempt that was made and did not succeed, in order, the last one included; an attempt that was cut
   * off because the caller's time was over is `AttemptInterrupted`. What a breaker refused was no attempt. Whoever needs to
   * know that no attempt can have had an effect looks at these.
   */
  readonly onAttemptFailed?: (error: AttemptError<E>) => Effect.Effect<void>
}

const refusals: Readonly<Record<Exclude<PolicyError["_tag"], "TimedOut">, Refusal>> = {
  DeadlineExceeded: "deadline_exceeded",
  BulkheadFull: "bulkhead_full",
  CircuitOpen: "circuit_open",
  RateLimited: "rate_limited",
  RetryBudgetSpent: "retry_budget_spent"
}

const secondsOf = (duration: Duration.Duration) => Math.max(1, Math.ceil(Duration.toSeconds(duration)))

/** All policies of one operation in their one order, with what they remember between calls. */
export const make = Effect.fnUntraced(function* (operation: string, initial: Limits) {
  let limits = initial
  let retries = Backoff.schedule(limits.backoff, limits.attempts)
  const limiter = yield* RateLimiter.RateLimiter
  const meter = new Meter(operation)
  const budget = new RetryBudget(limits.retryBudget)
  const bulkhead = new Bulkhead(operation, limits.bulkhead, ({ inFlight, waiting }) =>
    withFiber((fiber) => meter.occupied(fiber, inFlight, waiting))
  )
  const breaker = yield* Breaker.make({
    operation,
    limits: () => limits.breaker,
    turned: (from, to) =>
      Effect.andThen(
        withFiber((fiber) => meter.turned(fiber, from, to)),
        to === "half_open" ? Effect.void : Effect.logWarning(`The circuit of ${operation} is ${to}, it was ${from}`)
      )
  })
  yield* withFiber((fiber) => meter.stands(fiber, "closed"))

  const attemptTimeout = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | TimedOut, R> => {
    const { attemptTimeoutMs } = limits
    return attemptTimeoutMs === null
      ? effect
      : Effect.timeoutOrElse(effect, {
          duration: attemptTimeoutMs,
          orElse: () => Effect.fail(new TimedOut({ operation, timeoutMs: attemptTimeoutMs, retryAfterSeconds: 1 }))
        })
  }

  /** Calls are limited, not attempts: who has been let in is not turned away halfway. */
  const rateLimit = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | RateLimited, R> => {
    const { rateLimit } = limits
    if (rateLimit === null) return effect
    const { calls, perMs } = rateLimit
    return limiter
      .consume({ algorithm: "token-bucket", onExceeded: "fail", key: operation, limit: calls, window: perMs })
      .pipe(
        Effect.catch(({ reason }) =>
          reason._tag === "RateLimitExceeded"
            ? Effect.fail(
                new RateLimited({
                  operation,
                  calls,
                  perMs,
                  retryAfterSeconds: secondsOf(reason.retryAfter)
                })
              )
            : Effect.die(reason)
        ),
        Effect.andThen(effect)
      )
  }

  /** Whether the circuit would refuse an attempt so many milliseconds from now. */
  const willRefuse = (delayMs: number) =>
    limits.breaker === null
      ? Effect.succeed(false)
      : Effect.map(breaker.standing, ({ state, retryAfterMs }) => state === "open" && retryAfterMs > delayMs)

  /** Why it is not worth waiting so long for another attempt. */
  const obstacle = (delayMs: number): Effect.Effect<Refusal | undefined> =>
    Effect.withFiber((fiber) =>
      fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() + delayMs >= fiber.getRef(Deadline.Deadline)
        ? Effect.succeed("no_time_for_a_retry" as const)
        : Effect.map(willRefuse(delayMs), (refused) => (refused ? "circuit_open" : undefined))
    )

  const mayRetry = (nth: number, delayMs: number): Effect.Effect<boolean, RetryBudgetSpent> =>
    Effect.flatMap(obstacle(delayMs), (reason) =>
      Effect.withFiber((fiber) => {
        if (reason !== undefined) {
          meter.refused(fiber, reason)
          return Effect.succeed(false)
        }
        if (!budget.take()) {
          return Effect.fail(new RetryBudgetSpent({ operation, attempts: nth, retryAfterSeconds: 1 }))
        }
        meter.retried(fiber, nth + 1, delayMs)
        return Effect.succeed(true)
      })
    )

  /**
   * Nothing is waited for that would be cut off or refused anyway: the last error is told at once instead. The schedule
   * begins with the first error worth a retry, so that a call without one does without it.
   */
  const retry =
    <E>(isTransient: (error: E) => boolean) =>
    <A, R>(attempt: Effect.Effect<A, E, R>): Effect.Effect<A, E | RetryBudgetSpent, R> =>
      Effect.catch(attempt, (error) => (isTransient(error) ? again(isTransient, attempt, error) : Effect.fail(error)))

  const again = <A, E, R>(
    isTransient: (error: E) => boolean,
    attempt: Effect.Effect<A, E, R>,
    first: E
  ): Effect.Effect<A, E | RetryBudgetSpent, R> => {
    let begun = false
    return Effect.retry(
      Effect.suspend(() => {
        if (begun) return attempt
        begun = true
        return Effect.fail(first)
      }),
      retries.pipe(
        Schedule.setInputType<E>(),
        Schedule.while(({ input, attempt, duration }) =>
          isTransient(input) ? mayRetry(attempt, Duration.toMillis(duration)) : false
        )
      )
    )
  }

  /** Refused or timed out by the policies of this operation, not by those of one further in. */
  const isOwn = (error: unknown): error is PolicyError => isPolicyError(error) && error.operation === operation

  const outcomeOf = <E>(exit: Exit.Exit<unknown, E>, isTransient: (error: E) => boolean): Outcome => {
    if (Exit.isSuccess(exit)) return "success"
    if (Cause.hasInterruptsOnly(exit.cause)) return "interrupted"
    const error = Cause.findErrorOption(exit.cause)
    if (Option.isNone(error)) return "failure"
    if (isOwn(error.value)) return "timed_out"
    return isTransient(error.value) ? "failure" : "answer"
  }

  /** Counts attempts, and tells whoever watches them. */
  const watched = <E>(isTransient: (error: E | TimedOut) => boolean, tell: CallOptions<E>["onAttemptFailed"]) => {
    let nth = 0
    return <A, R>(attempt: Effect.Effect<A, E | TimedOut, R>): Effect.Effect<A, E | TimedOut, R> =>
      Effect.suspend(() => {
        nth += 1
        return Effect.onExit(attempt, (exit) =>
          Effect.withFiber((fiber) => {
            const outcome = outcomeOf(exit, isTransient)
            meter.attempted(fiber, nth, outcome)
            if (tell === undefined || Exit.isSuccess(exit)) return Effect.void
            if (outcome === "interrupted") return tell(new AttemptInterrupted({ operation }))
            const error = Cause.findErrorOption(exit.cause)
            return Option.isSome(error) ? tell(error.value) : Effect.void
          })
        )
      })
  }

  /** Counts calls; what ends well or with an answer gives to the retry budget. */
  const counted =
    <E>(isTransient: (error: E | PolicyError) => boolean) =>
    <A, R>(call: Effect.Effect<A, E | PolicyError, R>): Effect.Effect<A, E | PolicyError, R> =>
      Effect.withFiber((fiber) => {
        const clock = fiber.getRef(Clock.Clock)
        const begun = clock.currentTimeMillisUnsafe()
        meter.called(fiber)
        return Effect.onExit(call, (exit) =>
          withFiber((fiber) => {
            meter.ended(fiber, clock.currentTimeMillisUnsafe() - begun)
            if (Exit.isSuccess(exit)) return budget.refund()
            const error = Cause.findErrorOption(exit.cause)
            if (Option.isNone(error)) return
            if (!isOwn(error.value)) return isTransient(error.value) ? undefined : budget.refund()
            if (error.value._tag !== "TimedOut") meter.refused(fiber, refusals[error.value._tag])
          })
        )
      })

  const guard =
    <E>({ transient, onAttemptFailed }: CallOptions<E>) =>
    <A, R>(call: Effect.Effect<A, E, R>): Effect.Effect<A, E | PolicyError, R> => {
      // What this circuit refuses is for the caller's fallback; a retry would only stand in line.
      const isTransient = (error: E | PolicyError) => (isOwn(error) ? error._tag === "TimedOut" : transient(error))
      return Effect.suspend(() =>
        call.pipe(
          attemptTimeout,
          watched(isTransient, onAttemptFailed),
          breaker.attempt(isTransient),
          retry(isTransient),
          bulkhead.run,
          rateLimit,
          Deadline.within(operation, limits.deadlineMs),
          counted(isTransient)
        )
      )
    }

  /** New limits, from the next call on. Where the circuit stands, who waits and what is spent stays as it is. */
  const change = (next: Limits): Effect.Effect<void> =>
    Effect.suspend(() => {
      limits = next
      retries = Backoff.schedule(next.backoff, next.attempts)
      budget.change(next.retryBudget)
      return bulkhead.change(next.bulkhead)
    })

  const standing = Effect.map(breaker.standing, (circuit) => ({
    limits,
    breaker: limits.breaker === null ? null : circuit,
    inFlight: bulkhead.inFlight,
    waiting: bulkhead.waiting,
    retryTokens: budget.tokens,
    counts: meter.counts
  }))

  return { guard, change, standing, limits: Effect.sync(() => limits) }
})
