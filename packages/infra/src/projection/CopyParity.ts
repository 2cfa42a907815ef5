/** Compares a copy with the rows that Postgres has, row by row. */
import { Clock, Effect, Stream } from "effect"
import { SqlClient, type Statement } from "effect/sql"
import { groupOf, type Kept } from "./Copy.ts"
import * as Parity from "./Parity.ts"
import * as PostgresProjection from "./PostgresProjection.ts"
import { columnsOf, type Projection, type Row, type Value } from "./Projection.ts"
import type { Place } from "./RowStore.ts"

/** Rows that are compared at once. */
const chunk = 1_000

/** What differs: `live` is what the copy has, `rebuilt` what Postgres has. */
type Pair = Parity.Difference & { readonly key: Row }

const same = (projection: Projection, left: Row | undefined, right: Row | undefined): boolean =>
  left === undefined || right === undefined
    ? left === right
    : Object.keys(columnsOf(projection)).every((column) => (left[column] ?? null) === (right[column] ?? null))

const keyOf = ({ key }: Projection, row: Row): string => JSON.stringify(Object.keys(key).map((column) => row[column]))

/** A row that counts for something now. */
const counted = ({ copy: { isOver } }: Kept, row: Row | undefined) =>
  Effect.map(Clock.currentTimeMillis, (now) => (row !== undefined && isOver?.(row, now) === true ? undefined : row))

const byKey = (projection: Projection, rows: ReadonlyArray<Row>) =>
  new Map(rows.map((row) => [keyOf(projection, row), row]))

/** A row as events tell it: Postgres writes moments in another way. */
const asTold = (projection: Projection, row: Row): Row => {
  const told: Record<string, Value> = { ...row }
  for (const [column, type] of Object.entries(columnsOf(projection))) {
    const value = row[column]
    if (type === "timestamptz" && typeof value === "string") told[column] = new Date(value).toISOString()
  }
  return { ...told, version: row.version }
}

/** Postgres' rows. */
const select = (projection: Projection, rest: Statement.Fragment) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => {
    const columns = sql.literal(PostgresProjection.names(Object.keys(columnsOf(projection)), "t"))
    return Effect.map(sql<{ row: Row }>`select to_json(r) as row from (select ${columns} from ${rest}) r`, (rows) =>
      rows.map(({ row }) => asTold(projection, row))
    )
  })

/** The rows that Postgres has of these keys. */
const truthOf = Effect.fnUntraced(function* ({ copy: { projection, truth } }: Kept, keys: ReadonlyArray<Row>) {
  const sql = yield* SqlClient.SqlClient
  const wanted = yield* PostgresProjection.recordset(projection.key, keys)
  const using = sql.literal(PostgresProjection.names(Object.keys(projection.key)))
  return yield* select(projection, sql`${wanted} join ${sql(truth)} t using (${using})`)
})

/**
 * Compares what lies at a place of the copy with Postgres. Both sides change meanwhile, each at its own pace; so rows that
 * differ are looked at again until nothing is under way to either, or patience is over.
 */
export const compare = Effect.fnUntraced(function* (
  kept: Kept,
  place: Place,
  tells: (compared: number) => void = () => {}
) {
  const { copy, store } = kept
  const { projection, truth } = copy
  const sql = yield* SqlClient.SqlClient
  const { context, topic } = projection
  const followers = { context, topic, groups: [groupOf(copy), ...copyOfTable(kept)] }
  yield* Parity.caughtUp(followers)

  const suspects: Array<Pair> = []
  let [compared, differences] = [0, 0]
  const suspect = (live: Row | undefined, rebuilt: Row | undefined) => {
    const key = live ?? rebuilt
    if (key === undefined) return
    differences += 1
    if (suspects.length < Parity.mostSuspects) suspects.push({ live: live ?? null, rebuilt: rebuilt ?? null, key })
  }

  const keys = Object.keys(projection.key)
  const order = sql.literal(keys.map((column) => `t.${column}`).join(", "))
  let beyond: Statement.Fragment = sql`true`
  while (true) {
    const rows = yield* select(projection, sql`${sql(truth)} t where ${beyond} order by ${order} limit ${chunk}`)
    const found = byKey(projection, yield* store.find(place, rows))
    for (const row of rows) {
      const [mine, theirs] = [yield* counted(kept, found.get(keyOf(projection, row))), yield* counted(kept, row)]
      if (mine !== undefined || theirs !== undefined) compared += 1
      if (!same(projection, mine, theirs)) suspect(mine, theirs)
    }
    tells(compared)
    const last = rows.at(-1)
    if (last === undefined || rows.length < chunk) break
    beyond = sql`(${order}) > (${PostgresProjection.keyValues(sql, projection, last)})`
  }

  // What nobody told of is in the copy alone.
  yield* Stream.runForEach(
    store.scan(place),
    Effect.fnUntraced(function* (rows) {
      const known = byKey(projection, yield* truthOf(kept, rows))
      for (const row of rows) {
        if (known.has(keyOf(projection, row)) || (yield* counted(kept, row)) === undefined) continue
        compared += 1
        suspect(row, undefined)
      }
      tells(compared)
    })
  )

  const left = yield* Parity.untilNothingIsUnderWay(
    followers,
    suspects,
    Effect.fnUntraced(function* (before) {
      const mine = byKey(
        projection,
        yield* store.find(
          place,
          before.map(({ key }) => key)
        )
      )
      const theirs = byKey(
        projection,
        yield* truthOf(
          kept,
          before.map(({ key }) => key)
        )
      )
      const left: Array<Pair> = []
      for (const { key } of before) {
        const live = yield* counted(kept, mine.get(keyOf(projection, key)))
        const rebuilt = yield* counted(kept, theirs.get(keyOf(projection, key)))
        if (!same(projection, live, rebuilt)) left.push({ live: live ?? null, rebuilt: rebuilt ?? null, key })
      }
      return left
    })
  )
  return {
    compared,
    differences: left.length + differences - suspects.length,
    examples: left.slice(0, Parity.mostExamples).map(({ live, rebuilt }) => ({ live, rebuilt }))
  } satisfies Parity.Parity
})

/** Postgres' rows may come of events, too. */
const copyOfTable = ({ copy: { projection, truth } }: Kept): ReadonlyArray<string> =>
  truth === PostgresProjection.tableOf(projection) ? [PostgresProjection.groupOf(projection)] : []
