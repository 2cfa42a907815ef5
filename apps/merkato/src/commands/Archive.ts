import { Console, Duration, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { Topic } from "@merkato/domain/kernel/Event"
import { Archive } from "@merkato/infra/archive/Archive"
import { parse as parseFile } from "@merkato/infra/archive/ArchiveFile"
import * as ArchiveViews from "@merkato/infra/archive/ArchiveViews"
import * as DuckDb from "@merkato/infra/duckdb/DuckDb"
import { BusUnavailable } from "@merkato/infra/events/EventBus"
import { ObjectStore, ObjectStoreUnavailable } from "@merkato/infra/objects/ObjectStore"
import * as Bus from "../Bus.ts"
import * as Flags from "../Flags.ts"
import * as Objects from "../Objects.ts"
import * as Progress from "../Progress.ts"
import { print, table } from "../Table.ts"

const many = (count: number, what: string) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`

const pass = Effect.fnUntraced(function* (topics: ReadonlyArray<string>) {
  const archive = yield* Archive
  const state = { done: 0, total: 0 }
  const { events, files, missing } = yield* Effect.scoped(
    Effect.andThen(
      Progress.show(() => ({ label: "archiving", unit: "events", ...state })),
      archive.catchUp(topics, (soFar) => Object.assign(state, soFar))
    )
  )
  yield* Console.log(`${many(events, "event")} archived in ${many(files, "file")}`)
  if (missing > 0) {
    yield* Console.error(`${many(missing, "event")} had gone from the bus before they were archived.`)
  }
})

const isPassing = (error: unknown) => error instanceof BusUnavailable || error instanceof ObjectStoreUnavailable

const run = Command.make(
  "run",
  {
    follow: Flag.Boolean("follow").pipe(
      Flag.withAlias("f"),
      Flag.withDescription("Go on until Ctrl-C, a pass --every so often"),
      Flag.withDefault(false)
    ),
    every: Flags.duration(
      "every",
      Duration.seconds(1),
      Duration.days(1),
      "How long to wait between two passes (default 5m): each writes a file for each partition that has something new"
    ).pipe(Flag.withDefault(Duration.minutes(5))),
    dataDir: Flags.dataDir
  },
  Effect.fn("archive.run")(function* ({ follow, every, dataDir }) {
    const once = pass(Topic.literals)
    const forever = once.pipe(
      Effect.catchIf(isPassing, (error) =>
        Console.error(`This pass broke off, the next one goes on: ${String(error)}`)
      ),
      Effect.andThen(Effect.sleep(every)),
      Effect.forever
    )
    yield* (follow ? forever : once).pipe(Objects.provide(dataDir), Bus.provide(dataDir))
  })
).pipe(Command.withDescription("Write down the events that the bus has and the archive has not"))

const query = Command.make(
  "query",
  {
    sql: Argument.String("SQL").pipe(
      Argument.withDescription(
        "Of DuckDB. There are the views `events` (each event once, `payload` is JSON) and `log` (what stood on the bus)"
      )
    ),
    topics: Flag.String("topic").pipe(
      Flag.withMetavar("topic"),
      Flag.withDescription(`Only these; may be repeated: ${Topic.literals.join(", ")}`),
      Flag.filter(
        (name) => Topic.literals.some((topic) => topic === name),
        () => Topic.literals.join(" | ")
      ),
      Flag.atLeast(0)
    ),
    first: Flags.day("first", "Only days (of UTC) from this one on").pipe(Flag.optional),
    last: Flags.day("last", "Only days up to this one").pipe(Flag.optional),
    json: Flags.json,
    dataDir: Flags.dataDir
  },
  Effect.fn("archive.query")(function* ({ sql, topics, first, last, json, dataDir }) {
    const rows = yield* Effect.gen(function* () {
      const archive = yield* Archive
      const files = (yield* archive.files(topics.length === 0 ? Topic.literals : topics)).filter(
        ({ day }) => Option.getOrElse(first, () => "") <= day && day <= Option.getOrElse(last, () => "9")
      )
      const duck = yield* DuckDb.open
      yield* ArchiveViews.create(duck, files)
      return yield* duck.rows(sql)
    }).pipe(Effect.scoped, Objects.provide(dataDir))
    yield* print(rows, json)
  })
).pipe(
  Command.withDescription("Ask the archive: SQL over the events that are archived"),
  Command.withExamples([
    {
      command: 'bun run merkato archive query "select event_type, count(*) from events group by all order by all"',
      description: "What is in it"
    },
    {
      command:
        "bun run merkato archive query --topic order.events --first 2026-01-01 --last 2026-01-31 --json " +
        `"select payload->>'userId' as user, count(*) as orders from events where event_type like '%order.created.v1' group by all"`,
      description: "Who ordered how often in January; reads no other files"
    }
  ])
)

const status = Command.make(
  "status",
  { dataDir: Flags.dataDir },
  Effect.fn("archive.status")(function* ({ dataDir }) {
    const objects = yield* ObjectStore.use((store) => store.list("archive/")).pipe(Objects.provide(dataDir))
    const topics = new Map<string, { files: number; bytes: number; first: string; last: string }>()
    for (const { name, size } of objects) {
      const file = parseFile(name)
      if (file === undefined) continue
      const { files, bytes, first, last } = topics.get(file.topic) ?? { files: 0, bytes: 0, first: file.day, last: "" }
      topics.set(file.topic, {
        files: files + 1,
        bytes: bytes + size,
        first: file.day < first ? file.day : first,
        last: file.day > last ? file.day : last
      })
    }
    yield* Console.log(
      topics.size === 0
        ? "Nothing is archived."
        : table(
            [...topics].map(([topic, { files, bytes, first, last }]) => ({
              topic,
              files,
              kilobytes: Math.ceil(bytes / 1_000),
              first,
              last
            }))
          )
    )
  })
).pipe(Command.withDescription("What is archived: topics, files, days"))

export const archive = Command.make("archive").pipe(
  Command.withDescription(
    "The log of events for good, as Parquet files (S3_BUCKET, or the data folder), where the bus keeps 7 days"
  ),
  Command.withShortDescription("The log of events for good, as Parquet files"),
  Command.withSubcommands([run, query, status])
)
