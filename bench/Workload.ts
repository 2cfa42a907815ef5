import { Effect } from "effect"
import * as HttpLoad from "./HttpLoad.ts"
import type * as Latencies from "./Latencies.ts"
import type { Stage, Statement, Used } from "./Stage.ts"

/** What one turn of a workload showed. */
export interface Turn extends HttpLoad.Result {
  /** CPU milliseconds per operation. */
  readonly cpu: Used
  /** Per operation, background work included; of the statements their calls and milliseconds. */
  readonly commits: number
  readonly statements: ReadonlyArray<Statement>
  /** Events that the relays had not published yet when the load ended. */
  readonly unpublished: number
  /** MiB when it began, each minute, and when it ended. */
  readonly memory: ReadonlyArray<Taken>
}

type Taken = ReturnType<Stage["memory"]>

/** Something the shop does, beside what the machine can do at most. */
export interface Workload {
  /** What `--only` chooses it by. */
  readonly name: string
  readonly title: string
  readonly twin: string
  /** What the issue or a promise asks of the ratio; printed beside it. */
  readonly wanted?: number
  /** Loads the shop for so many seconds, as much as it takes. */
  readonly ours: (seconds: number) => Effect.Effect<Turn>
  /** The same at so many operations a second, to see how long each takes. */
  readonly paced?: (seconds: number, perSecond: number) => Effect.Effect<Turn>
  /** The twin's operations a second. */
  readonly theirs: (seconds: number) => Effect.Effect<number>
  /** How long the twin's take at so many a second, where it does the same: what the database and its disk allow. */
  readonly theirsPaced?: (seconds: number, perSecond: number) => Effect.Effect<Latencies.Latencies>
  /** Looks whether what was promised was kept; a sentence about it. */
  readonly check?: Effect.Effect<string>
}

/** Loads the shop and says what each operation cost. */
export const load = (stage: Stage, options: Omit<HttpLoad.Load, "host" | "port">): Effect.Effect<Turn> =>
  Effect.gen(function* () {
    const committed = yield* stage.commits
    yield* stage.statements
    const memory = [stage.memory()]
    const look = Effect.sync(() => void memory.push(stage.memory()))
    const before = stage.cpu()
    const result = yield* Effect.raceFirst(
      Effect.promise(() => HttpLoad.run({ host: "127.0.0.1", port: stage.shop.port, ...options })),
      Effect.forever(Effect.delay(look, "1 minute"))
    )
    const after = stage.cpu()
    yield* look
    const unpublished = yield* stage.unpublished
    const operations = Math.max(1, result.operations)
    const statements = (yield* stage.statements).map(({ text, calls, ms, plans, planMs }) => ({
      text,
      calls: calls / operations,
      ms: ms / operations,
      plans: plans / operations,
      planMs: planMs / operations
    }))
    const ms = (part: keyof Used) => ((after[part] - before[part]) * 1_000) / operations
    return {
      ...result,
      cpu: { shop: ms("shop"), postgres: ms("postgres"), generator: ms("generator") },
      commits: ((yield* stage.commits) - committed) / operations,
      statements,
      unpublished,
      memory
    }
  })
