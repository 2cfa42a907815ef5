import { Context, Effect } from "effect"

/** What is to be looked at: groups of a `DelayQueue`, or all there are. */
export type Rung = ReadonlyArray<string> | "all"

export interface AlarmClock {
  /**
   * Lets these groups be looked at at a time or soon after. To be set when what makes them due is committed. It does not fail:
   * an alarm that was lost, or never set because a process died, is made up for by a look at all.
   */
  readonly set: (groups: ReadonlyArray<string>, at: Date) => Effect.Effect<void>
  /**
   * Waits until something rings, and lets it be looked at: no group at all when it rang too early. What was looked at without success
   * rings again.
   */
  readonly rung: <A, E, R>(look: (rung: Rung) => Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/** How soon what is due is seen by who looks from time to time, at most, in milliseconds. */
export const lookEveryMs = 500

/** Without a clock: everything is looked at all the time. */
export const polling: AlarmClock = {
  set: () => Effect.void,
  rung: (look) => Effect.andThen(Effect.sleep(lookEveryMs), look("all"))
}

/** When to look at what waits. It says nothing about what is due, and nobody relies on it alone. */
export const Alarms = Context.Reference<AlarmClock>("merkato/infra/Alarms", { defaultValue: () => polling })
