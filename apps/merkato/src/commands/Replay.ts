import { Clock, Console, Effect, Layer, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { SqlError } from "effect/sql"
import * as Build from "@merkato/infra/projection/Build"
import type { Copy } from "@merkato/infra/projection/Copy"
import * as CopyBuild from "@merkato/infra/projection/CopyBuild"
import * as CopyParity from "@merkato/infra/projection/CopyParity"
import * as FromArchive from "@merkato/infra/projection/FromArchive"
import * as Parity from "@merkato/infra/projection/Parity"
import type { Projection } from "@merkato/infra/projection/Projection"
import type { ReadSoFar } from "@merkato/infra/projection/ReadLog"
import { contextNames, contexts } from "@merkato/services/contexts"
import { readModelServers } from "@merkato/services/deployment"
import * as Bus from "../Bus.ts"
import * as ContextDatabase from "../ContextDatabase.ts"
import { CommandFailed } from "../Failure.ts"
import * as Flags from "../Flags.ts"
import * as Objects from "../Objects.ts"
import * as Progress from "../Progress.ts"

const projections: ReadonlyArray<Projection> = contextNames.flatMap((name) => contexts[name].projections)

const copies: ReadonlyArray<Copy> = contextNames.flatMap((name) => contexts[name].copies)

const names = [...projections, ...copies].map(({ name }) => name)

const listed = [
  ...projections.map(({ name, context, topic }) => `${name}  (${context}, of ${topic})`),
  ...copies.map(
    ({ name, projection: { context, topic }, variable }) => `${name}  (${context}, of ${topic}; where ${variable} says)`
  )
]

const count = (value: number, one: string, many = `${one}s`) =>
  `${value.toLocaleString("en")} ${value === 1 ? one : many}`

/** A read model in Postgres, or on another server. */
const found = (name: string) => {
  const known = projections.find((each) => each.name === name) ?? copies.find((each) => each.name === name)
  return known === undefined
    ? Effect.fail(new CommandFailed({ reason: `There is no projection ${name}. There are: ${names.join(", ")}.` }))
    : Effect.succeed(known)
}

/** Who is right about a row. */
const eventsSay = { tell: "its events tell of it", not: "no event tells of it", say: "its events say" }
const postgresSays = { tell: "Postgres has it", not: "Postgres does not have it", say: "Postgres says" }

/** A row that differs, in a line: its key, and what is not the same. */
const line = ({ key }: Projection, { live, rebuilt }: Parity.Difference, says = eventsSay): string => {
  const row = live ?? rebuilt ?? {}
  const which = Object.keys(key)
    .map((column) => `${column}=${String(row[column])}`)
    .join(" ")
  if (live === null) return `  ${which}: missing, ${says.tell}`
  if (rebuilt === null) return `  ${which}: ${says.not}`
  const columns = Object.keys(live).filter((column) => JSON.stringify(live[column]) !== JSON.stringify(rebuilt[column]))
  const each = columns.map(
    (column) => `${column} is ${JSON.stringify(live[column])}, ${says.say} ${JSON.stringify(rebuilt[column])}`
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

const tellRead = (name: string, events: number, tookMs: number) =>
  Console.log(
    `${name}: ${count(events, "event")} read in ${Progress.clockTime(Math.max(1, tookMs) / 1_000)} (${count(Math.round((events * 1_000) / Math.max(1, tookMs)), "event")}/s)`
  )

/** What was compared and did not agree, as far as it can be told. */
const report = Effect.fnUntraced(function* (
  projection: Projection,
  parity: Parity.Parity,
  { what = "", says = eventsSay } = {}
) {
  yield* Console.log(
    `${what}${count(parity.compared, "row")} compared, ${count(parity.differences, "difference")}${parity.differences === 0 ? "" : ":"}`
  )
  for (const example of parity.examples) yield* Console.log(line(projection, example, says))
  if (parity.differences > parity.examples.length) {
    yield* Console.log(`  … and ${count(parity.differences - parity.examples.length, "row")} more`)
  }
})

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
    const told = ({ done, total, events }: ReadSoFar) => tells(done, total, count(events, "event"))
    return since === "archive"
      ? FromArchive.read(build, { tells: told }).pipe(Objects.provide(dataDir))
      : Build.read(build, { from: since, tells: told })
  })
  yield* tellRead(name, events, (yield* elapsedMs) - begunAt)
  const parity = yield* shown("comparing", "rows", (tells) =>
    Parity.compare(build, (compared, rows) => tells(compared, Math.max(compared, rows)))
  )
  yield* report(projection, parity)
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

/** The same on another server, compared with Postgres: what is built anew, and what there was. */
const rebuildingCopy = Effect.fn("replay")(function* (copy: Copy, check: boolean) {
  const { name, projection } = copy
  const store = yield* copy.store
  if (store === undefined) {
    return yield* new CommandFailed({ reason: `${name} lies on the server that ${copy.variable} names: set it.` })
  }
  const kept = { copy, store }
  const wasBuilt = yield* store.isBuilt
  const build = yield* CopyBuild.begin(
    kept,
    Console.error(`Another replay of ${name} was under way a moment ago: waiting until it has ended.`)
  )
  const begunAt = yield* Clock.currentTimeMillis
  const events = yield* shown("reading", "positions", (tells) =>
    CopyBuild.read(build, ({ done, total, events }) => tells(done, total, count(events, "event")))
  )
  yield* tellRead(name, events, (yield* Clock.currentTimeMillis) - begunAt)
  const compare = Effect.fnUntraced(function* (place: "live" | "next", what: string) {
    const parity = yield* shown("comparing", "rows", (tells) =>
      CopyParity.compare(kept, place, (compared) => tells(compared, Math.max(compared, 1)))
    )
    yield* report(projection, parity, { what, says: postgresSays })
    return parity.differences
  })
  const differing = yield* compare("next", `rebuilt in ${store.server}: `)
  if (differing > 0) {
    return yield* new CommandFailed({
      reason: `${name} as its events tell it is not what Postgres has in ${count(differing, "row")}: it is left as it was.`
    })
  }
  const damaged = wasBuilt ? yield* compare("live", `live in ${store.server}: `) : 0
  if (!check) {
    yield* CopyBuild.swap(build)
    yield* Console.log(`${name} is the rebuilt one now.`)
  }
  if (damaged > 0) {
    return yield* new CommandFailed({
      reason: `${name} was not what Postgres has in ${count(damaged, "row")}${check ? "" : " and is mended"}.`
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
      Argument.withDescription(`One of ${names.join(", ")}; without it they are listed`),
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
    const known = yield* found(given.value)
    if (options.check && Option.isSome(options.into)) {
      return yield* new CommandFailed({ reason: "Say either --check or --into: one throws away what the other keeps." })
    }
    if (Option.isSome(options.into) && options.into.value === known.name) {
      return yield* new CommandFailed({
        reason: `--into wants a name of its own; without it ${known.name} is replaced.`
      })
    }
    if ("store" in known && (Option.isSome(options.from) || Option.isSome(options.into))) {
      return yield* new CommandFailed({
        reason: `${known.name} is built whole, in its place: without --from and --into.`
      })
    }
    const ofContext = (context: string) => ContextDatabase.layer(context, dataDir)
    if ("store" in known) {
      const { context } = known.projection
      return yield* rebuildingCopy(known, options.check).pipe(
        Effect.scoped,
        Bus.provide(dataDir),
        Effect.provide(Layer.merge(ofContext(context), readModelServers)),
        Effect.mapError((error) => (SqlError.isSqlError(error) ? ContextDatabase.explained(context)(error) : error))
      )
    }
    const { context } = known
    yield* rebuilding({ projection: known, dataDir, ...options }).pipe(
      Effect.scoped,
      Bus.provide(dataDir),
      Effect.provide(ofContext(context)),
      Effect.mapError((error) => (SqlError.isSqlError(error) ? ContextDatabase.explained(context)(error) : error))
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
