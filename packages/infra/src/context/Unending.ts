import { Effect } from "effect"

/**
 * Work that goes on by itself does not end, whatever it stumbles over: that is told as the mistake it is, and it begins
 * anew a second later. Else reservations would be held, or payments stay open, until somebody starts the process again.
 */
export const unending = <R>(name: string, work: Effect.Effect<unknown, never, R>): Effect.Effect<never, never, R> =>
  Effect.forever(
    Effect.catchCause(work, (cause) =>
      Effect.andThen(
        Effect.logError(`What ${name} does by itself broke off; it begins anew`, cause),
        Effect.sleep("1 second")
      )
    )
  )
