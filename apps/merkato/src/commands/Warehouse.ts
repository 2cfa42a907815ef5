import { Console, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as DuckDb from "@merkato/infra/duckdb/DuckDb"
import { tableNames, views } from "@merkato/services/analytics/warehouse/tables"
import * as Warehouse from "@merkato/services/analytics/warehouse/Warehouse"
import * as Flags from "../Flags.ts"
import * as Objects from "../Objects.ts"
import { print, table } from "../Table.ts"

const listed = (days: ReadonlyArray<string>, none: string) =>
  days.length === 0
    ? none
    : days.length <= 5
      ? days.join(", ")
      : `${days.slice(0, 2).join(", ")} … ${days.at(-1)} (${days.length} days)`

const build = Command.make(
  "build",
  {
    days: Flags.day("day", "Build this day (of UTC) anew, changed or not; may be repeated").pipe(Flag.atLeast(0)),
    dataDir: Flags.dataDir
  },
  Effect.fn("warehouse.build")(function* ({ days, dataDir }) {
    const built = yield* Warehouse.build(days).pipe(Objects.provide(dataDir))
    yield* Console.log(
      [
        `snapshot ${built.version}`,
        `orders of: ${listed(built.orderDays, "nothing new")}`,
        `adjustments of stock of: ${listed(built.adjustmentDays, "nothing new")}`,
        `products: ${built.products ? "built" : "nothing new"}`
      ].join("\n")
    )
    if (built.unknownOrders > 0) {
      yield* Console.error(
        `${built.unknownOrders} orders are in no row: the event that they began with is not in the archive.`
      )
    }
  })
).pipe(Command.withDescription("Take in what the archive has and the warehouse has not (run `archive run` before)"))

const dailySales = Command.make(
  "daily-sales",
  {
    day: Flags.day("day", "Only this day, by each region's own midnights").pipe(Flag.optional),
    dataDir: Flags.dataDir
  },
  Effect.fn("warehouse.dailySales")(function* ({ day, dataDir }) {
    const [days, rows] = yield* Effect.gen(function* () {
      const days = yield* Warehouse.summarise(Option.getOrUndefined(day))
      const duck = yield* DuckDb.open
      yield* Warehouse.open(duck)
      return [
        days,
        Option.isSome(day)
          ? yield* duck.rows(`select * from daily_sales where day = date ${DuckDb.quoted(day.value)} order by all`)
          : []
      ] as const
    }).pipe(Effect.scoped, Objects.provide(dataDir))
    yield* Console.error(`summed up: ${listed(days, "nothing, all is as it was")}`)
    if (Option.isSome(day)) yield* Console.log(table(rows))
  })
).pipe(
  Command.withDescription(
    "Sum up the sales of a day, or of every day that has changed since it was summed up (run `warehouse build` before)"
  ),
  Command.withShortDescription("Sum up the sales of days"),
  Command.withExamples([
    {
      command:
        "bun run merkato archive run && bun run merkato warehouse build && bun run merkato warehouse daily-sales",
      description: "The batch job of every night, or of every hour"
    },
    {
      command: "bun run merkato warehouse daily-sales --day 2026-11-20",
      description: "A day's sales, as of the last build"
    }
  ])
)

const query = Command.make(
  "query",
  {
    sql: Argument.String("SQL").pipe(
      Argument.withDescription(
        `Of DuckDB. There are the tables ${tableNames.join(", ")} and the views ${Object.keys(views).join(", ")}`
      )
    ),
    json: Flags.json,
    dataDir: Flags.dataDir
  },
  Effect.fn("warehouse.query")(function* ({ sql, json, dataDir }) {
    const rows = yield* Effect.gen(function* () {
      const duck = yield* DuckDb.open
      yield* Warehouse.open(duck)
      return yield* duck.rows(sql)
    }).pipe(Effect.scoped, Objects.provide(dataDir))
    yield* print(rows, json)
  })
).pipe(
  Command.withDescription("Ask the warehouse, as of its last build"),
  Command.withExamples([
    {
      command: 'bun run merkato warehouse query "from sales_by_category order by all"',
      description: "What of each category was paid, by month"
    },
    { command: 'bun run merkato warehouse query "describe fact_orders"', description: "The columns of a table" }
  ])
)

export const warehouse = Command.make("warehouse").pipe(
  Command.withDescription(
    "Facts and dimensions as Parquet files beside the archive (S3_BUCKET, or the data folder), built from events alone"
  ),
  Command.withShortDescription("Facts and dimensions as Parquet files, built from events"),
  Command.withSubcommands([build, dailySales, query])
)
