import { Clock, Config, Effect, Schema } from "effect"
import { SqlClient, type Statement } from "effect/sql"
import { dayMs } from "@merkato/domain/kernel/Day"
import { uuidV7 } from "@merkato/domain/kernel/Ids"
import { keptMs } from "../idempotency/Idempotency.ts"
import { LockPatience } from "../postgres/Combined.ts"
import { isLocked } from "../postgres/Database.ts"

/** How long the inbox remembers an event, in days: a day more than the bus keeps it. */
const inboxKeptDays = 8

/** Rows that one statement deletes: a short transaction each, which vacuum can follow. */
const batchSize = 10_000

/**
 * Milliseconds that a statement waits at most for who has one of its rows. Old rows are written anew now and then, several
 * in the order of their keys, and a deletion goes by age: what it has left comes in a later turn.
 */
const longestWaitMs = 200

/** Between two statements, so that they do not take the disk from who waits for an answer. */
const pause = "50 millis"

/** A column with an index on it that tells how old a row is. */
export interface Age {
  readonly column: string
  readonly type: "timestamptz" | "text"
  /** The least value, which no row has, and that of a moment. */
  readonly least: string
  readonly at: (millis: number) => string
}

/** By a time. */
export const byTime = (column: string): Age => ({
  column,
  type: "timestamptz",
  least: "-infinity",
  at: (millis) => new Date(millis).toISOString()
})

/** By an id, which begins with the time that it was made at: its index is there anyway. */
export const byId = (column: string, prefix = ""): Age => ({
  column,
  type: "text",
  least: "",
  at: (millis) => `${prefix}${uuidV7(millis, () => 0)}`
})

/** Rows of a context's table that go when they are old enough. */
export interface Passing {
  readonly table: string
  readonly age: Age
  readonly days: number
  /** The environment variable that says another number of days. */
  readonly setting?: string
  /** Of old rows only these, each of which is older than `before` by its age. */
  readonly where?: (sql: SqlClient.SqlClient, before: Date) => Statement.Fragment
}

/** Days that can be set: at least one, and no more than lie between now and the first id that begins with its time. */
const Days = Schema.Finite.check(Schema.isBetween({ minimum: 1, maximum: 10_000 }))

const daysOf = ({ days, setting }: Passing) =>
  setting === undefined
    ? Effect.succeed(days)
    : Effect.orDie(Config.schema(Days, setting).pipe(Config.withDefault(days)))

/** Reads every setting, so that one that makes no sense is told at the start, and not at the first turn. */
export const settings = (own: ReadonlyArray<Passing>) => Effect.forEach(own, daysOf, { discard: true })

/**
 * Deletes what is older, however much there is: however fast rows came, they go as fast. Each statement deletes a range that
 * was looked up before, and the next begins behind it: as one statement, it would read the whole table for each batch, and
 * what batches before it had emptied.
 */
const forget = Effect.fnUntraced(function* (schema: string, passing: Passing) {
  const sql = yield* SqlClient.SqlClient
  const now = yield* Clock.currentTimeMillis
  const { age, where } = passing
  const before = now - (yield* daysOf(passing)) * dayMs
  const [table, column, type] = [sql(`${schema}.${passing.table}`), sql(age.column), sql.literal(age.type)]
  const only = where === undefined ? sql.literal("") : sql`and ${where(sql, new Date(before))}`
  const lockTimeoutMs = Math.min(longestWaitMs, yield* LockPatience)
  let behind = age.least
  while (true) {
    const [oldest] = yield* sql<{ last: string | null }>`
      select max(age)::text as last from (
        select ${column} as age from ${table} where ${column} > ${behind}::${type} and ${column} < ${age.at(before)}::${type}
        order by 1 limit ${batchSize}
      ) as oldest`
    const last = oldest?.last ?? undefined
    if (last === undefined) return
    const deletion = sql`
      delete from ${table} where ${column} > ${behind}::${type} and ${column} <= ${last}::${type} ${only}`
    yield* sql`select set_config('lock_timeout', ${String(lockTimeoutMs)}, true)`.pipe(
      Effect.andThen(deletion),
      sql.withTransaction,
      Effect.catchIf(isLocked, () => Effect.void)
    )
    behind = last
    yield* Effect.sleep(pause)
  }
})

/** What every context forgets. */
const common: ReadonlyArray<Passing> = [
  { table: "idempotency", age: byTime("created_at"), days: keptMs / dayMs },
  { table: "inbox", age: byTime("received_at"), days: inboxKeptDays }
]

/** Forgets idempotency records after 24 h, inbox rows after 8 days, and what of the context itself is passing. */
export const turn = (schema: string, own: ReadonlyArray<Passing>) =>
  Effect.forEach([...common, ...own], (passing) => forget(schema, passing), { discard: true })

/** A turn every 5 minutes, for good. */
export const run = (schema: string, own: ReadonlyArray<Passing>) =>
  Effect.forever(
    Effect.sleep("5 minutes").pipe(
      Effect.andThen(turn(schema, own)),
      Effect.catchTag("SqlError", (error) => Effect.logWarning(`Retention of ${schema} pauses`, error))
    )
  ).pipe(Effect.withTracerEnabled(false))
