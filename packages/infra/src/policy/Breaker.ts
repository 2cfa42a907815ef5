import { Cause, Clock, Duration, Effect, type Exit } from "effect"
import { CircuitBreaker } from "effect/persistence"
import type { BreakerLimits } from "./Limits.ts"
import { CircuitOpen } from "./PolicyError.ts"
import type { CircuitState } from "./PolicyMetrics.ts"

const states = { Closed: "closed", Open: "open", HalfOpen: "half_open" } as const

export interface CircuitStanding {
  readonly state: CircuitState
  /** Milliseconds of the Clock. */
  readonly sinceMs: number
  /** Of an open circuit: until the next call is let through to try. 0: the next one is. */
  readonly retryAfterMs: number
  readonly failuresInARow: number
}

interface Options {
  readonly operation: string
  readonly limits: () => BreakerLimits | null
  readonly turned: (from: CircuitState, to: CircuitState) => Effect.Effect<void>
}

const secondsOf = (duration: Duration.Duration) => Math.max(1, Math.ceil(Duration.toSeconds(duration)))

/**
 * A circuit of effect/persistence, whose store is given the limits that are in force at the moment: so they change
 * without the circuit forgetting where it stands. It opens by failures in a row or by the failing rate, whichever comes
 * first: the store knows one rule at a time, so the failures in a row are counted here, and the failure that completes
 * them is recorded under that rule. Who is interrupted says nothing about the other side and is not counted.
 */
export const make = Effect.fnUntraced(function* ({ operation, limits, turned }: Options) {
  const inner = yield* CircuitBreaker.CircuitBreakerStore
  let sinceMs = yield* Clock.currentTimeMillis
  let row = { generation: -1, failures: 0 }

  const note = (transition: CircuitBreaker.Transition | undefined) =>
    transition === undefined
      ? Effect.void
      : Effect.flatMap(Clock.currentTimeMillis, (now) => {
          sinceMs = now
          return turned(states[transition.from], states[transition.to])
        })

  /** Failures in a row, this one included. Outcomes of calls from before the circuit last changed do not count. */
  const inARow = (generation: number, outcome: CircuitBreaker.Outcome["_tag"]): number => {
    if (generation < row.generation || outcome === "Ignored") return 0
    const before = generation === row.generation ? row.failures : 0
    row = { generation, failures: outcome === "Failure" ? before + 1 : 0 }
    return row.failures
  }

  const rule = (limits: BreakerLimits, failures: number) =>
    failures >= limits.failuresInARow
      ? CircuitBreaker.consecutive(1)
      : CircuitBreaker.rate({
          threshold: limits.failingRate.share,
          size: limits.failingRate.ofLast,
          minimumCalls: limits.failingRate.atLeast
        })

  const store = CircuitBreaker.CircuitBreakerStore.of({
    admit: (key) => Effect.tap(inner.admit(key), ({ transition }) => note(transition)),
    record: (outcome) => {
      const now = limits()
      const failures = inARow(outcome.generation, outcome.outcome)
      return inner
        .record(
          now === null ? outcome : { ...outcome, tripPolicy: rule(now, failures), openFor: Duration.millis(now.openMs) }
        )
        .pipe(Effect.tap(note))
    },
    state: inner.state
  })

  const breaker = yield* CircuitBreaker.make({
    // Only so that there is one: the store records under the limits in force.
    tripPolicy: CircuitBreaker.rate({ size: 1 }),
    openDuration: "30 seconds"
  }).pipe(Effect.provideService(CircuitBreaker.CircuitBreakerStore, store))

  const refusal = ({ reason }: CircuitBreaker.CircuitBreakerError) =>
    reason._tag === "CircuitBreakerStoreError"
      ? Effect.die(reason)
      : Effect.fail(
          reason._tag === "CircuitOpen"
            ? new CircuitOpen({ operation, state: "open", retryAfterSeconds: secondsOf(reason.retryAfter) })
            : new CircuitOpen({ operation, state: "half_open", retryAfterSeconds: 1 })
        )

  /** Lets an attempt through, or refuses it; `isFailure` says which errors count against the other side. */
  const attempt =
    <E>(isFailure: (error: E) => boolean) =>
    <A, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | CircuitOpen, R> =>
      Effect.suspend(() =>
        limits() === null
          ? effect
          : breaker
              .execute(effect, {
                key: operation,
                classify: (exit: Exit.Exit<A, E>) =>
                  exit._tag === "Success" || !countsAgainst(exit.cause, isFailure)
                    ? CircuitBreaker.success
                    : CircuitBreaker.failure()
              })
              .pipe(
                Effect.catchIf(
                  (error): error is CircuitBreaker.CircuitBreakerError =>
                    error instanceof CircuitBreaker.CircuitBreakerError,
                  refusal
                )
              )
      )

  const standing = breaker.state(operation).pipe(
    Effect.orDie,
    Effect.map(
      (state): CircuitStanding => ({
        state: states[state._tag],
        sinceMs,
        retryAfterMs: state._tag === "Open" ? Duration.toMillis(state.retryAfter) : 0,
        failuresInARow: row.failures
      })
    )
  )

  return { attempt, standing }
})

/** A defect is no answer, either. */
const countsAgainst = <E>(cause: Cause.Cause<E>, isFailure: (error: E) => boolean): boolean =>
  cause.reasons.some((reason) => Cause.isDieReason(reason) || (Cause.isFailReason(reason) && isFailure(reason.error)))
