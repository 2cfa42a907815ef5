import { Clock, Effect } from "effect"
import { SqlClient, type Statement } from "effect/sql"
import * as Consumer from "../events/Consumer.ts"
import { retryLostRace, transaction } from "../postgres/Database.ts"
import {
  columnsOf,
  type ColumnType,
  eventTypesOf,
  type ProjectedEvent,
  type Projection,
  type Row,
  rowsOf
} from "./Projection.ts"

/** Beside its tables, a context with projections has a table `projections`: a row each, and who builds it anew. */
export const registerOf = ({ context }: Projection): string => `${context}.projections`

export const tableOf = ({ context, name }: Projection): string => `${context}.${name}`

/** Where it is built anew, beside the live one. */
export const nextOf = ({ context, name }: Projection): string => `${context}.${name}_next`

export const groupOf = ({ context, name }: Projection): string => `${context}.${name}`

/** Columns as SQL lists them. Names come from the code, never from outside. */
export const names = (columns: ReadonlyArray<string>, of?: string): string =>
  columns.map((column) => (of === undefined ? column : `${of}.${column}`)).join(", ")

/** The key's columns as text, under their names. */
export const keyTexts = ({ key }: Projection): string =>
  Object.keys(key)
    .map((column) => `${column}::text as ${column}`)
    .join(", ")

/** The key of a row, to compare with. */
export const keyValues = (sql: SqlClient.SqlClient, { key }: Projection, row: Readonly<Record<string, unknown>>) =>
  Object.entries(key)
    .map(([column, type]) => sql`${String(row[column])}::text::${sql.literal(type)}`)
    .reduce((left, right) => sql`${left}, ${right}`)

/** The conditional write into a table of rows that are to be selected from somewhere. */
export const merging = (projection: Projection, table: string, source: Statement.Fragment) =>
  Effect.map(SqlClient.SqlClient, (sql) => {
    const once = Object.keys(projection.once)
    const sets = [
      ...once.map((column) => `${column} = coalesce(t.${column}, excluded.${column})`),
      ...Object.keys(projection.latest).map(
        (column) => `${column} = case when excluded.version > t.version then excluded.${column} else t.${column} end`
      ),
      "version = greatest(t.version, excluded.version)"
    ]
    const news = [
      "excluded.version > t.version",
      ...once.map((column) => `(t.${column} is null and excluded.${column} is not null)`)
    ]
    const all = sql.literal(names(Object.keys(columnsOf(projection))))
    const key = sql.literal(names(Object.keys(projection.key)))
    // In the order of their keys: who writes the same rows at the same time waits, and meets nobody who waits for it.
    return sql`
      insert into ${sql(table)} as t (${all}) select ${all} from ${source} order by ${key}
      on conflict (${key}) do update set ${sql.literal(sets.join(", "))} where ${sql.literal(news.join(" or "))}`
  })

/** Rows as something to select from; one parameter, however many there are. */
export const recordset = (columns: Readonly<Record<string, ColumnType>>, rows: ReadonlyArray<object>) =>
  Effect.map(SqlClient.SqlClient, (sql) => {
    const shape = Object.entries(columns).map(([column, type]) => `${column} ${type}`)
    return sql`json_to_recordset(${JSON.stringify(rows)}::text::json) as r (${sql.literal(shape.join(", "))})`
  })

const mergingRows = Effect.fnUntraced(function* (projection: Projection, table: string, rows: ReadonlyArray<Row>) {
  return yield* merging(projection, table, yield* recordset(columnsOf(projection), rows))
})

/** Writes rows into a table of the projection's; what is there already and newer stays. */
export const write = Effect.fnUntraced(function* (projection: Projection, table: string, rows: ReadonlyArray<Row>) {
  if (rows.length > 0) yield* yield* mergingRows(projection, table, rows)
})

/**
 * Writes what events tell: into the live table, and while the projection is built anew into that one as well.
 *
 * Most of the time that is one statement. When somebody builds, both are written again in one transaction. Its first statement
 * locks the live table before it looks whether somebody (still) builds, and whoever puts the new table in its place waits
 * for that lock: so what it read there holds until the end.
 */
const apply = (projection: Projection) => {
  const { name } = projection
  const table = tableOf(projection)
  const register = registerOf(projection)
  return Effect.fnUntraced(function* (events: ReadonlyArray<ProjectedEvent>) {
    const sql = yield* SqlClient.SqlClient
    const rows = yield* rowsOf(projection, events)
    if (rows.length === 0) return
    const intoLive = Effect.map(
      sql<{ building: string; leaseUntil: Date }>`
        with written as (${yield* mergingRows(projection, table, rows)})
        select building, lease_until as "leaseUntil" from ${sql(register)} where name = ${name} and building is not null`,
      ([build]) => build
    )
    if ((yield* retryLostRace(intoLive)) === undefined) return
    yield* transaction(
      Effect.gen(function* () {
        const build = yield* intoLive
        if (build === undefined) return
        if (build.leaseUntil.getTime() <= (yield* Clock.currentTimeMillis)) {
          // Its builder is dead. If it lives after all, it finds that it has lost its place, unless it was faster.
          const ended = yield* sql`
            update ${sql(register)} set building = null, lease_until = null
            where name = ${name} and building = ${build.building} and lease_until = ${build.leaseUntil} returning 1`
          if (ended.length > 0) return
        }
        yield* write(projection, nextOf(projection), rows)
      })
    )
  })
}

/** Keeps a projection up to date. No inbox: a row's version tells what is in it already. */
export const consumer = (projection: Projection): Consumer.Consumer<SqlClient.SqlClient> => {
  const handleAll = apply(projection)
  return Consumer.make({
    group: groupOf(projection),
    topic: projection.topic,
    eventTypes: eventTypesOf(projection),
    mode: "conditional",
    handle: (event) => handleAll([event]),
    handleAll: (events) => handleAll(events)
  })
}
