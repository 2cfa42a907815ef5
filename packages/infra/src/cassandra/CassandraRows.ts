import { Effect, Option, Stream } from "effect"
import * as Ids from "@merkato/domain/kernel/Ids"
import { columnsOf, type ColumnType, type Projection, type Row, type Value } from "../projection/Projection.ts"
import { type Place, type RowStore, StoreUnavailable } from "../projection/RowStore.ts"
import * as Client from "./Cassandra.ts"

/** Rows that are read at once. */
const together = 1_000

const types: Readonly<Record<ColumnType, string>> = {
  text: "text",
  bigint: "bigint",
  integer: "int",
  date: "text",
  timestamptz: "timestamp"
}

const into = (type: ColumnType, value: Value): Client.Statement["values"][number] => {
  if (value === null) return null
  if (type === "timestamptz") return new Date(value)
  return type === "bigint" ? BigInt(value) : value
}

const from = (value: unknown): Value => {
  if (value instanceof Date) return value.toISOString()
  if (typeof value === "bigint") return Number(value)
  return typeof value === "string" || typeof value === "number" ? value : null
}

/** A row as the projection has it. */
const rowOf = (projection: Projection, row: Client.Row): Row => ({
  ...Object.fromEntries(Object.keys(columnsOf(projection)).map((column) => [column, from(row[column])])),
  version: Number(row["version"])
})

/** Where a table for the rows that are to be read now, and one for those that are built, is told. */
export const placesOf = (keyspace: string) => `${keyspace}.projection_places`

/** The table that is live, if there is one. */
export const liveTable = Effect.fnUntraced(function* (cassandra: typeof Client.Cassandra.Service, name: string) {
  const { keyspace, run } = cassandra
  const [place] = yield* run({ cql: `select live from ${placesOf(keyspace)} where name = ?`, values: [name] })
  const live = place?.["live"]
  return typeof live === "string" ? `${keyspace}.${live}` : undefined
})

/**
 * Rows of a projection in a table of Cassandra, of which the first column of the key is the partition, and the others order it,
 * the highest first. Each cell is written with a timestamp of its own, which Cassandra compares: the version for what every event
 * knows, so that the newest counts; always the same for what one event alone knows. No read comes before a write, and none has to
 * be conditional.
 *
 * Which table is live is a row of its own, read before each write.
 */
export const make = (projection: Projection, cassandra: typeof Client.Cassandra.Service): RowStore => {
  const { keyspace, page, run, runAll } = cassandra
  const { name } = projection
  const places = placesOf(keyspace)
  const keys = Object.keys(projection.key)
  const columns = columnsOf(projection)

  const away = <A, R>(effect: Effect.Effect<A, Client.CassandraUnavailable, R>) =>
    Effect.catchTag(effect, "CassandraUnavailable", ({ cause }) =>
      Effect.fail(new StoreUnavailable({ server: "Cassandra", cause }))
    )

  const tables = Effect.map(
    run({ cql: `select live, next from ${places} where name = ?`, values: [name] }),
    ([row]): Readonly<Record<Place, string | undefined>> => {
      const tableOf = (value: unknown) => (typeof value === "string" ? `${keyspace}.${value}` : undefined)
      return { live: tableOf(row?.["live"]), next: tableOf(row?.["next"]) }
    }
  )

  const drop = (table: string | undefined) =>
    table === undefined ? Effect.void : Effect.asVoid(run({ cql: `drop table if exists ${table}`, values: [] }))

  const setNext = (table: string | null) =>
    run({ cql: `update ${places} set next = ? where name = ?`, values: [table, name] })

  const abandon = Effect.gen(function* () {
    const { next } = yield* tables
    if (next === undefined) return
    yield* setNext(null)
    yield* drop(next)
  })

  const begin = Effect.gen(function* () {
    yield* abandon
    const table = `${name}_${(yield* Ids.next).replaceAll("-", "").slice(-12)}`
    // Told first: what is not told would stay for ever.
    yield* setNext(table)
    const definitions = Object.entries(columns).map(([column, type]) => `${column} ${types[type]}`)
    const [partition, ...clustering] = keys
    const order =
      clustering.length === 0
        ? ""
        : ` with clustering order by (${clustering.map((column) => `${column} desc`).join(", ")})`
    const primaryKey = [`(${partition})`, ...clustering].join(", ")
    yield* run({
      cql: `create table ${keyspace}.${table} (${definitions.join(", ")}, primary key (${primaryKey}))${order}`,
      values: []
    })
  })

  const ofKey = keys.map((column) => `${column} = ?`).join(" and ")
  const keyOf = (row: Row) => keys.map((column) => into(columns[column] ?? "text", row[column] ?? null))

  /** Sets those of these columns that the row knows, with this timestamp. */
  const setting = (table: string, row: Row, some: Readonly<Record<string, ColumnType>>, time: number) => {
    const known = Object.entries(some).filter(([column]) => row[column] !== null && row[column] !== undefined)
    if (known.length === 0) return []
    const sets = known.map(([column]) => `${column} = ?`).join(", ")
    const values = known.map(([column, type]) => into(type, row[column] ?? null))
    return [
      {
        cql: `update ${table} using timestamp ? set ${sets} where ${ofKey}`,
        values: [BigInt(time), ...values, ...keyOf(row)]
      }
    ]
  }

  /** What one event alone knows, whenever it is written. */
  const once = 1

  return {
    server: "Cassandra",
    isBuilt: away(Effect.map(tables, ({ live }) => live !== undefined)),
    begin: away(begin),
    write: Effect.fnUntraced(function* (place, rows) {
      const table = (yield* away(tables))[place]
      if (table === undefined) return false
      yield* away(
        runAll(
          rows.flatMap((row) => [
            ...setting(table, row, projection.once, once),
            ...setting(table, row, { ...projection.latest, version: "integer" }, row.version)
          ])
        )
      )
      return true
    }),
    find: Effect.fnUntraced(function* (place, wanted) {
      const table = (yield* away(tables))[place]
      if (table === undefined) return []
      const found = yield* away(
        runAll(wanted.map((row) => ({ cql: `select * from ${table} where ${ofKey}`, values: keyOf(row) })))
      )
      return found.flat().map((row) => rowOf(projection, row))
    }),
    scan: (place) =>
      Stream.unwrap(
        Effect.map(away(tables), (all) => {
          const table = all[place]
          if (table === undefined) return Stream.empty
          const select = { cql: `select * from ${table}`, values: [] }
          return Stream.paginate<string | undefined, ReadonlyArray<Row>, StoreUnavailable>(undefined, (after) =>
            Effect.map(
              away(page(select, together, after)),
              ({ rows, next }) => [[rows.map((row) => rowOf(projection, row))], Option.fromUndefinedOr(next)] as const
            )
          )
        })
      ),
    swap: away(
      Effect.gen(function* () {
        const { live, next } = yield* tables
        if (next === undefined) return yield* Effect.die(new Error(`Nothing is built of ${name}`))
        const table = next.slice(keyspace.length + 1)
        yield* run({ cql: `update ${places} set live = ?, next = null where name = ?`, values: [table, name] })
        yield* drop(live)
      })
    ),
    abandon: away(abandon)
  }
}
