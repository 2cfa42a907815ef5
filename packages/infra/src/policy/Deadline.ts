import { Clock, Context, Effect } from "effect"
import { DeadlineExceeded } from "./PolicyError.ts"

/** When whoever waits for this stops waiting: milliseconds of the Clock; Infinity when nobody said. */
export const Deadline = Context.Reference<number>("merkato/infra/Deadline", { defaultValue: () => Infinity })

/**
 * What is left of the caller's time, in milliseconds, never negative; Infinity when nobody said. To be sent along with a
 * call to another process as it is: a duration, so that it does not matter what their clocks say.
 */
export const remainingMs: Effect.Effect<number> = Effect.flatMap(Deadline, (at) =>
  Effect.map(Clock.currentTimeMillis, (now) => Math.max(0, at - now))
)

/**
 * Gives the effect so much time and passes the deadline down. Never longer than what is left of an outer deadline. When
 * time is over the effect is interrupted, and has ended when this fails.
 */
export const within =
  (operation: string, limitMs: number | null) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | DeadlineExceeded, R> =>
    Effect.withFiber((fiber) => {
      const now = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
      const at = Math.min(fiber.getRef(Deadline), now + (limitMs ?? Infinity))
      if (at === Infinity) return effect
      const exceeded = () =>
        Effect.fail(new DeadlineExceeded({ operation, deadlineMs: Math.max(0, at - now), retryAfterSeconds: 1 }))
      return at <= now
        ? exceeded()
        : Effect.timeoutOrElse(Effect.provideService(effect, Deadline, at), { duration: at - now, orElse: exceeded })
    })
