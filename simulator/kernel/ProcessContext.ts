import { Cause, Clock, Context, Duration, Effect, Logger, Random, References, Scheduler } from "effect"
import { stream } from "./Prng.ts"
import type { SimProcess, World } from "./World.ts"

/**
 * How late a timer may be, by how long it is, in milliseconds. Short ones are back-offs and pauses within a piece of work.
 * Those of some seconds are polls: what they find seldom is there, so they come seldom. Longer ones are limits and leases.
 */
const latestMs = (ms: number) => {
  if (ms < 150) return 0
  if (ms < 1_000) return ms
  return 4_000 <= ms && ms < 10_000 ? 20_000 : 6_000
}

/** An event that is given up on since a row was locked for too long each time: somebody puts it back, as the model does. */
const isBusy = /StatementTimeoutError|LockTimeoutError|DeadlockError|SerializationError/

/**
 * Scheduler, clock and randomness of one process. Fibers give way only where they wait: how many operations they have
 * done depends on what libraries have cached by then, and so is no part of a history that can be repeated.
 */
export const make = (world: World, self: () => SimProcess, name: string): Context.Context<never> => {
  const draw = stream(world.seed, `random ${name}`)
  const late = stream(world.seed, `late ${name}`)

  const scheduler: Scheduler.Scheduler = {
    executionMode: "async",
    shouldYield: () => false,
    makeDispatcher: () => ({
      scheduleTask: (task) => world.task(self(), task),
      flush: () => world.runTasks()
    })
  }

  const millis = () => world.now + self().skewMs
  const nanos = () => BigInt(millis()) * 1_000_000n
  const sinceStart = () => BigInt(world.now) * 1_000_000n
  /** A timer is never early. */
  const lateness = (ms: number) => Math.floor(late() * latestMs(ms))
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: millis,
    currentTimeMillis: Effect.sync(millis),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: sinceStart,
    monotonicTimeNanos: Effect.sync(sinceStart),
    sleep: (duration) =>
      Effect.callback<void>((resume) => {
        const ms = Duration.toMillis(duration)
        const off = world.timer(self(), ms + lateness(ms), () => resume(Effect.void))
        return Effect.sync(off)
      })
  }

  const logger = Logger.make(({ message, logLevel, cause }) => {
    if (logLevel === "Error" || logLevel === "Fatal") {
      const told = `${self().name}: ${String(message)} ${Cause.pretty(cause)}`.replaceAll(/\s+/g, " ")
      if (!isBusy.test(told)) world.errors.push(told.slice(0, 400))
    }
    world.history.remark(`  log ${self().name} ${logLevel} ${String(message)}`)
  })

  return Context.empty().pipe(
    Context.add(Scheduler.Scheduler, scheduler),
    Context.add(Clock.Clock, clock),
    Context.add(Random.Random, {
      nextDoubleUnsafe: draw,
      nextIntUnsafe: () => Math.floor(draw() * Number.MAX_SAFE_INTEGER)
    }),
    Context.add(References.TracerEnabled, false),
    Context.add(Logger.CurrentLoggers, new Set([logger]))
  ) as Context.Context<never>
}
