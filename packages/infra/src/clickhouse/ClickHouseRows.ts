import { Effect, Option, Stream } from "effect"
import { chunksOf } from "effect/Array"
import { columnsOf, type ColumnType, type Projection, type Row, type Value } from "../projection/Projection.ts"
import { type Place, type RowStore, StoreUnavailable } from "../projection/RowStore.ts"
import type { ClickHouse, ClickHouseError, Parameter } from "./ClickHouse.ts"

/** Rows that are read, or written, at once. */
const together = 1_000

/** Keys that are asked for at once: they travel in the URL, which servers and what is between them bound. */
const keysTogether = 100

const types: Readonly<Record<ColumnType, string>> = {
  text: "String",
  bigint: "Int64",
  integer: "Int32",
  date: "Date32",
  timestamptz: "DateTime64(3, 'UTC')"
}

/** The table of the live rows, and the one of those that are built. */
export const tablesOf = ({ name }: Projection): Readonly<Record<Place, string>> => ({
  live: name,
  next: `${name}_next`
})

/** Has what was built for the moment of the swap, and after it what was live. */
const leavingOf = ({ name }: Projection) => `${name}_leaving`

/**
 * The SQL of a projection's rows, one of each key, of a table that has one for each version of it. `where` may say which, by
 * their key alone: `{name:Type}` and `t.column`.
 */
export const rowsIn = (projection: Projection, table: string, where = "true"): string => {
  const keys = Object.keys(projection.key).map((column) => `t.${column}`)
  const columns = [
    ...keys.map((key) => `${key} as ${key.slice(2)}`),
    ...Object.keys(projection.once).map((column) => `min(t.${column}) as ${column}`),
    // In a tuple: of nulls by themselves argMax knows nothing.
    ...Object.keys(projection.latest).map(
      (column) => `tupleElement(argMax(tuple(t.${column}), t.version), 1) as ${column}`
    ),
    "max(t.version) as version"
  ]
  return `select ${columns.join(", ")} from ${table} as t where ${where} group by ${keys.join(", ")}`
}

const valueOf = (value: unknown): Value => (typeof value === "string" || typeof value === "number" ? value : null)

/**
 * Rows of a projection in a table of ClickHouse, which has one for each (aggregate, version): nothing is looked up before a write,
 * and what is written again, late or in another batch changes nothing. Rows of the same key and version are one by and by, with
 * what each of them knows (AggregatingMergeTree; one that replaced the other would lose what only the other knew). Readers do
 * not wait for that: they take a key's newest version, and what any version knows once.
 *
 * The tables have fixed names; `exchange tables` puts one into the place of the other in one step.
 */
export const make = (projection: Projection, { command, insert, select }: typeof ClickHouse.Service): RowStore => {
  const tables = tablesOf(projection)
  const leaving = leavingOf(projection)
  const columns = columnsOf(projection)
  const keys = Object.keys(projection.key)
  const keyType = `Tuple(${Object.values(projection.key)
    .map((type) => types[type])
    .join(", ")})`
  const ofKey = `(${keys.map((column) => `t.${column}`).join(", ")})`

  const away = <A, R>(effect: Effect.Effect<A, ClickHouseError, R>) =>
    effect.pipe(
      Effect.catchTags({
        ClickHouseUnavailable: ({ cause }) => Effect.fail(new StoreUnavailable({ server: "ClickHouse", cause })),
        // Whoever knows a better answer has given it by now: a place may go while it is read.
        NoSuchTable: ({ cause }) => Effect.fail(new StoreUnavailable({ server: "ClickHouse", cause }))
      })
    )

  const keyOf = (row: Row): Parameter => ({ tuple: keys.map((column) => row[column] ?? "") })

  const told = (row: Readonly<Record<string, unknown>>): Row => ({
    ...Object.fromEntries(Object.keys(columns).map((column) => [column, valueOf(row[column])])),
    version: Number(row["version"])
  })

  const isThere = (table: string) =>
    Effect.map(select(`exists table ${table}`), ([answer]) => Number(answer?.["result"]) === 1)

  const drop = (table: string) => command(`drop table if exists ${table}`)

  const abandon = Effect.andThen(drop(tables.next), drop(leaving))

  const definitions = [
    ...Object.entries(projection.key).map(([column, type]) => `${column} ${types[type]}`),
    "version Int32",
    ...Object.entries({ ...projection.once, ...projection.latest }).map(
      ([column, type]) => `${column} SimpleAggregateFunction(min, Nullable(${types[type]}))`
    )
  ]

  const begin = Effect.gen(function* () {
    yield* abandon
    yield* command(
      `create table ${tables.next} (${definitions.join(", ")}) engine = AggregatingMergeTree
      order by (${[...keys, "version"].join(", ")}) settings fsync_after_insert = 1, fsync_part_directory = 1`
    )
  })

  const written = (row: Row) => Object.fromEntries(Object.keys(columns).map((column) => [column, row[column] ?? null]))

  return {
    server: "ClickHouse",
    isBuilt: away(isThere(tables.live)),
    begin: away(begin),
    write: (place, rows) =>
      Effect.forEach(chunksOf(rows, together), (some) => insert(tables[place], some.map(written)), {
        discard: true
      }).pipe(
        Effect.as(true),
        Effect.catchTag("NoSuchTable", () => Effect.succeed(false)),
        away
      ),
    find: (place, wanted) =>
      Effect.forEach(chunksOf(wanted, keysTogether), (some) =>
        select(rowsIn(projection, tables[place], `${ofKey} in {keys:Array(${keyType})}`), { keys: some.map(keyOf) })
      ).pipe(
        Effect.map((found) => found.flat().map(told)),
        Effect.catchTag("NoSuchTable", () => Effect.succeed([])),
        away
      ),
    scan: (place) =>
      Stream.paginate<Row | undefined, ReadonlyArray<Row>, StoreUnavailable>(undefined, (after) =>
        select(
          `${rowsIn(projection, tables[place], after === undefined ? "true" : `${ofKey} > {after:${keyType}}`)}
          order by ${ofKey} limit ${together}`,
          after === undefined ? {} : { after: keyOf(after) }
        ).pipe(
          Effect.catchTag("NoSuchTable", () => Effect.succeed([])),
          away,
          Effect.map((found) => {
            const rows = found.map(told)
            return [[rows], Option.fromUndefinedOr(rows.length < together ? undefined : rows.at(-1))] as const
          })
        )
      ),
    swap: away(
      Effect.gen(function* () {
        if (!(yield* isThere(tables.next)))
          return yield* Effect.die(new Error(`Nothing is built of ${projection.name}`))
        // No longer a place to write to: who meant it finds that out, and writes again to what is live then.
        yield* command(`rename table ${tables.next} to ${leaving}`)
        yield* (yield* isThere(tables.live))
          ? command(`exchange tables ${tables.live} and ${leaving}`)
          : command(`rename table ${leaving} to ${tables.live}`)
        yield* drop(leaving)
      })
    ),
    abandon: away(abandon)
  }
}
