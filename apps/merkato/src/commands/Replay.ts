import { Clock, Console, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { SqlError } from "effect/sql"
import * as Build from "@merkato/infra/projection/Build"
import * as FromArchive from "@merkato/infra/projection/FromArchive"
import * as Parity from "@merkato/infra/projection/Parity"
import type { Projection } from "@merkato/infra/projection/Projection"
import { contextNames, contexts } from "@merkato/services/contexts"
import * as Bus from "../Bus.ts"
import * as ContextDatabase from "../ContextDatabase.ts"
import { CommandFailed } from "../Failure.ts"
import * as Flags from "../Flags.ts"
import * as Objects from "../Objects.ts"
import * as Progress from "../Progress.ts"

const projections: ReadonlyArray<Projection> = contextNames.flatMap((name) => contexts[name].projections)

const listed = projections.map(({ name, context, topic }) => `${name}  (${context}, of ${topic})`)

const count = (value: number, one: string, many = `${one}s`) =>
  `${value.toLocaleString("en")} ${value === 1 ? one : many}`

const found = (name: string) => {
  const projection = projections.find((each) => each.name === name)
  return projection === undefined
    ? Effect.fail(
        new CommandFailed({
          reason: `There is no projection ${name}. There are: ${projections.map((each) => each.name).join(", ")}.`
        })
      )
    : Effect.succeed(projection)
}

/** A row that differs, in a line: its key, and what is not the same. */
const line = ({ key }: Projection, { live, rebuilt }: Parity.Difference): string => {
  const row = live ?? rebuilt ?? {}
  const which = Object.keys(key)
    .map((column) => `${column}=${String(row[column])}`)
    .join(" ")
  if (live === null) return `  ${which}: missing, its events tell of it`
  if (rebuilt === null) return `  ${which}: no event tells of it`
  const columns = Object.keys(live).filter((column) => JSON.stringify(live[column]) !== JSON.stringify(rebuilt[column]))
  const each = columns.map(
    (column) => `${column} is ${JSON.stringify(live[column])}, its events say ${JSON.stringify(rebuilt[column])}`
  )
  return `  ${which}: ${each.join("; ")}`
}

/** Shows how far it is as long as the work lasts. */
const shown = <A, E, R>(
  label: string,
  unit: string,
  work: (tells: (done: number, total: number, rate?: string) => void) => Effect.Effect<A, E, R>
) =>
  Effect.scoped(
    Effect.gen(function* () {
      const state = { done: 0, total: 1, rate: "" }
      yield* Progress.show(() => ({ label, unit, done: state.done, total: state.total, rate: state.rate }))
      return yield* work((done, total, rate = "") => Object.assign(state, { done, total, rate }))
    })
  )

/** What is read: the context's log, all of it or since a moment; or the archive, and what the bus has since. */
type From = Date | "archive"

interface Options {
  readonly projection: Projection
  readonly from: Option.Option<From>
  readonly into: Option.Option<string>
  readonly check: boolean
  readonly dataDir: string
}

const rebuilding = Effect.fn("replay")(function* ({ projection, from, into, check, dataDir }: Options) {
  const { name } = projection
  if (Option.isSome(into) && (yield* Build.exists(projection, into.value))) {
    return yield* new CommandFailed({ reason: `There is a table ${projection.context}.${into.value} already.` })
  }
  const begun = yield* Clock.currentTimeMillis
  const elapsedMs = Effect.map(Clock.currentTimeMillis, (now) => Math.max(1, now - begun))
  const build = yield* Build.begin(
    projection,
    Console.error(`Another replay of ${name} was under way a moment ago: waiting until it has ended.`)
  )
  const begunAt = yield* elapsedMs
  const since = Option.getOrUndefined(from)
  const events = yield* shown("reading", since === "archive" ? "files" : "positions", (tells) => {
    const told = ({ done, total, events }: Build.ReadSoFar) => tells(done, total, count(events, "event"))
    return since === "archive"
      ? FromArchive.read(build, { tells: told }).pipe(Objects.provide(dataDir))
      : Build.read(build, { from: since, tells: told })
  })
  const readMs = Math.max(1, (yield* elapsedMs) - begunAt)
  yield* Console.log(
    `${name}: ${count(events, "event")} read in ${Progress.clockTime(readMs / 1_000)} (${count(Math.round((events * 1_000) / readMs), "event")}/s)`
  )
  const parity = yield* shown("comparing", "rows", (tells) =>
    Parity.compare(build, (compared, rows) => tells(compared, Math.max(compared, rows)))
  )
  yield* Console.log(
    `${count(parity.compared, "row")} compared, ${count(parity.differences, "difference")}${parity.differences === 0 ? "" : ":"}`
  )
  for (const example of parity.examples) yield* Console.log(line(projection, example))
  if (parity.differences > parity.examples.length) {
    yield* Console.log(`  … and ${count(parity.differences - parity.examples.length, "row")} more`)
  }
  if (Option.isSome(into)) {
    yield* Build.keepAs(build, into.value)
    yield* Console.log(`It is in ${projection.context}.${into.value}, as of now; ${name} is as it was.`)
  } else if (!check) {
    yield* Build.swap(build)
    yield* Console.log(`${name} is the rebuilt one now.`)
  }
  if (parity.differences > 0) {
    const mended = check || Option.isSome(into) ? "" : " and is mended"
    return yield* new CommandFailed({
      reason: `${name} was not what its events say in ${count(parity.differences, "row")}${mended}.`
    })
  }
})

const from = Flag.String("from").pipe(
  Flag.withMetavar("time|archive"),
  Flag.withDescription(
    "A time (2026-01-31 or 2026-01-31T12:00:00Z): read only the events since then, on top of the rows that there are; finds and " +
      "adds what was missed since, and no more. Or `archive`: read the archive and what the bus has since, and not the " +
      "context's own log"
  ),
  Flag.filterMap(
    (text): Option.Option<From> => {
      if (text === "archive") return Option.some("archive")
      const time = new Date(text)
      return /^\d{4}-/.test(text) && !Number.isNaN(time.getTime()) ? Option.some(time) : Option.none()
    },
    () => "archive, or a time such as 2026-01-31 or 2026-01-31T12:00:00Z"
  ),
  Flag.optional
)

const into = Flag.String("into").pipe(
  Flag.withMetavar("table"),
  Flag.withDescription("Leave the rebuilt rows in a new table of this name, and the live one as it is"),
  Flag.filter(
    (name) => /^[a-z][a-z0-9_]{0,50}$/.test(name),
    () => "a new table's name: a to z, 0 to 9 and _, at most 51 of them"
  ),
  Flag.optional
)

export const replay = Command.make(
  "replay",
  {
    projection: Argument.String("PROJECTION").pipe(
      Argument.withDescription(`One of ${projections.map(({ name }) => name).join(", ")}; without it they are listed`),
      Argument.optional
    ),
    from,
    into,
    check: Flag.Boolean("check").pipe(
      Flag.withDescription("Only compare: rebuilds as well, and throws that away"),
      Flag.withDefault(false)
    ),
    dataDir: Flags.dataDir
  },
  Effect.fnUntraced(function* ({ projection: given, dataDir, ...options }) {
    if (Option.isNone(given)) return yield* Console.log(listed.join("\n"))
    const projection = yield* found(given.value)
    if (options.check && Option.isSome(options.into)) {
      return yield* new CommandFailed({ reason: "Say either --check or --into: one throws away what the other keeps." })
    }
    if (Option.isSome(options.into) && options.into.value === projection.name) {
      return yield* new CommandFailed({
        reason: `--into wants a name of its own; without it ${projection.name} is replaced.`
      })
    }
    yield* rebuilding({ projection, dataDir, ...options }).pipe(
      Effect.scoped,
      Bus.provide(dataDir),
      Effect.provide(ContextDatabase.layer(projection.context, dataDir)),
      Effect.mapError((error) =>
        SqlError.isSqlError(error) ? ContextDatabase.explained(projection.context)(error) : error
      )
    )
  })
).pipe(
  Command.withDescription(
    "Build a read model anew from its context's log or from the archive, beside the live one and while the shop runs; compare both row by row, and " +
      "put the new one in its place. Ends with 1 when rows differed. Stopped in whatever way, it changed nothing and can be run again"
  ),
  Command.withShortDescription("Build a read model anew from its events"),
  Command.withExamples([
    { command: "bun run merkato replay", description: "List the read models" },
    { command: "bun run merkato replay orders_by_customer --check", description: "Is it what its events say?" },
    { command: "bun run merkato replay orders_by_customer", description: "Build it anew" },
    {
      command: "bun run merkato replay orders_by_customer --from archive --check",
      description: "Does the archive tell the same?"
    }
  ])
)
