import { Effect } from "effect"
import * as Main from "@merkato/infra/runtime/Main"

/**
 * Runs a benchmark as this process's program: what it started is stopped when it ends, fails, or is told to end (Ctrl-C,
 * SIGTERM). A connection of the load that is still open does not keep the process.
 */
export const run = <A, E>(bench: Effect.Effect<A, E>): void =>
  Main.run(bench.pipe(Effect.withTracerEnabled(false), Effect.andThen(Effect.sync(() => process.exit(0)))))
