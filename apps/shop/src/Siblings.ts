import { Deferred, Effect, Redacted, Schedule, Schema, type Scope } from "effect"
import { spawn } from "node:child_process"
import { isFree } from "@merkato/infra/runtime/Ports"
import type { Place } from "./Everything.ts"

/** A port that processes share would be shared with strangers too: nobody may have it before. */
export class PortInUse extends Schema.TaggedError<PortInUse>()("PortInUse", { port: Schema.Int }) {
  override get message() {
    return `Port ${this.port} is in use: cannot listen on 0.0.0.0:${this.port}`
  }
}

/** Waits a moment for processes of a shop that was killed, which stop by themselves. */
export const portIsFree = (port: number): Effect.Effect<void, PortInUse> =>
  Effect.flatMap(isFree(port, "0.0.0.0"), (free) => (free ? Effect.void : Effect.fail(new PortInUse({ port })))).pipe(
    Effect.retry({ schedule: Schedule.spaced("250 millis"), times: 12 })
  )

/** Milliseconds in which a process stops once it is told to; a little more than its requests may take to finish. */
const stopWithinMs = 12_000

/** Milliseconds before a process that ended is started again. */
const restartAfterMs = 500

const program = new URL("./sibling.ts", import.meta.url).pathname

/** One life of another process: `ready` when it serves, over when it has ended. Interrupted, it is told to stop. */
const live = (environment: Readonly<Record<string, string>>, ready: Effect.Effect<unknown>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      // In a session of its own: Ctrl-C reaches the first process alone, which tells the others.
      const child = spawn(process.execPath, [program], {
        env: { ...process.env, ...environment },
        detached: true,
        stdio: ["ignore", "inherit", "inherit", "ipc"]
      })
      const ended = Deferred.makeUnsafe<string>()
      const end = (how: string) => Deferred.doneUnsafe(ended, Effect.succeed(how))
      child.once("error", ({ message }) => end(message))
      child.once("exit", (code, signal) => end(signal ?? `code ${code}`))
      return { child, ended: Deferred.await(ended) }
    }),
    ({ child, ended }) =>
      Effect.gen(function* () {
        const answers = Effect.callback<void>((resume) => {
          child.once("message", () => resume(Effect.void))
        })
        yield* Effect.raceFirst(Effect.andThen(answers, ready), ended)
        const how = yield* ended
        yield* Effect.logWarning(`A process of the shop ended (${how}); another one takes its place`)
      }),
    ({ child, ended }) =>
      Effect.gen(function* () {
        if (child.connected) child.disconnect()
        yield* Effect.timeoutOrElse(Effect.asVoid(ended), {
          duration: stopWithinMs,
          orElse: () => Effect.sync(() => void child.kill("SIGKILL"))
        })
      })
  )

/**
 * Runs the other `processes - 1` processes of a shop until the scope closes; returns when all of them serve. One that ends
 * by itself is started again.
 */
export const start = Effect.fnUntraced(function* (
  { port, dataDir }: Place,
  processes: number,
  url: Redacted.Redacted
): Effect.fn.Return<void, never, Scope.Scope> {
  const environment = {
    DATABASE_URL: Redacted.value(url),
    MERKATO_HTTP_PORT: String(port),
    MERKATO_DATA_DIR: dataDir,
    MERKATO_PROCESSES: String(processes)
  }
  const siblings = Array.from({ length: processes - 1 }, () => Deferred.makeUnsafe<void>())
  const keep = (ready: Deferred.Deferred<void>) =>
    Effect.forever(Effect.andThen(live(environment, Deferred.succeed(ready, undefined)), Effect.sleep(restartAfterMs)))
  // In one fiber, so that all stop at the same time.
  yield* Effect.forkScoped(Effect.forEach(siblings, keep, { concurrency: "unbounded", discard: true }))
  yield* Effect.forEach(siblings, Deferred.await, { discard: true })
})
