/** A projection built anew beside the live one, which goes on meanwhile. */
import { Clock, Effect, Schema, type Scope } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import * as Ids from "@merkato/domain/kernel/Ids"
import { merging, names, nextOf, registerOf, tableOf, write } from "./PostgresProjection.ts"
import { columnsOf, eventTypesOf, type ProjectedEvent, type Projection, type Row, rowsOf } from "./Projection.ts"

/** A projection cannot be built anew, or put in its place; the reason is a whole sentence. Nothing was changed. */
export class ReplayFailed extends Schema.TaggedError<ReplayFailed>()("ReplayFailed", { reason: Schema.String }) {
  override get message() {
    return this.reason
  }
}

/** How long a builder that says nothing is believed to live, and how often one says something. */
const leaseMs = 15_000
const renewEvery = "3 seconds"

/** Positions of the log that are read at a time. Positions have gaps, so it is at most as many events. */
const window = 5_000

/** Rows of the live table that are copied at a time. */
const copied = 5_000

/** How long the place of the live table is waited for, by everybody who comes after us, too; and how often. */
const lockTimeoutMs = 1_000
const lockAttempts = 30

export interface Build {
  readonly projection: Projection
  /** Whose build it is: the consumers write into it as long as this stands in the register. */
  readonly id: string
}

/** How far it is, of the positions of the log. */
export interface ReadSoFar {
  readonly done: number
  readonly total: number
  readonly events: number
}

/** A build as the context's register has it. */
export interface Entry {
  readonly register: string
  readonly name: string
  readonly id: string
}

export const lost = ({ name }: { readonly name: string }) =>
  new ReplayFailed({
    reason: `The replay of ${name} was silent for more than ${leaseMs / 1_000} s and has lost its place: run it again.`
  })

/** Who may use the live table may use the new one, and it is stored in the same way. */
const sameRights = Effect.fnUntraced(function* (projection: Projection) {
  const sql = yield* SqlClient.SqlClient
  const next = nextOf(projection)
  const [table] = yield* sql<{ owner: string; mine: boolean; options: string }>`
    select relowner::regrole::text as owner, pg_get_userbyid(relowner) = current_user as mine,
      array_to_string(reloptions, ', ') as options
    from pg_class where oid = ${tableOf(projection)}::regclass`
  const grants = yield* sql<{ grantee: string; privileges: string }>`
    select case grantee when 0 then 'public' else grantee::regrole::text end as grantee,
      string_agg(distinct privilege_type, ', ') as privileges
    from pg_class cross join lateral aclexplode(relacl) where oid = ${tableOf(projection)}::regclass and grantee <> relowner
    group by grantee`
  if (table?.options) yield* sql.unsafe(`alter table ${next} set (${table.options})`)
  if (table?.mine === false) yield* sql.unsafe(`alter table ${next} owner to ${table.owner}`)
  for (const { grantee, privileges } of grants) yield* sql.unsafe(`grant ${privileges} on ${next} to ${grantee}`)
})

/** Says that we live, as long as the scope is open. */
export const livesOn = ({ register, name, id }: Entry) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const leaseUntil = new Date((yield* Clock.currentTimeMillis) + leaseMs)
    yield* sql`
      update ${sql(register)} set lease_until = ${leaseUntil} where name = ${name} and building = ${id}`
  }).pipe(
    // Whether we still have our place is looked at when the new table is to be put in its own.
    Effect.ignore,
    Effect.andThen(Effect.sleep(renewEvery)),
    Effect.forever,
    Effect.forkScoped
  )

/** Ends a build that is not to be used; nobody writes into it any more. */
const abandon = ({ projection, id }: Build) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* standingAside(projection)
    const mine = yield* sql`
      update ${sql(registerOf(projection))} set building = null, lease_until = null
      where name = ${projection.name} and building = ${id} returning 1`
    if (mine.length > 0) yield* sql.unsafe(`drop table if exists ${nextOf(projection)}`)
  })

/** Waits until no consumer is at the live table, and keeps them from it until the transaction ends. Readers go on. */
const standingAside = Effect.fnUntraced(function* (projection: Projection) {
  const sql = yield* SqlClient.SqlClient
  yield* sql.unsafe(`set local lock_timeout = ${lockTimeoutMs}`)
  yield* sql.unsafe(`lock table ${tableOf(projection)} in share row exclusive mode`)
})

const isLocked = (error: unknown) => SqlError.isSqlError(error) && error.reason._tag === "LockTimeoutError"

/** A transaction that wants locks others may have for longer; it lets them pass between its attempts. */
const patiently = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.retry(sql.withTransaction(effect), { times: lockAttempts, while: isLocked })
  )

/** Puts a build into the register, once the place for it is made and nobody else builds: who was killed is waited for. */
export const taking = Effect.fnUntraced(function* <E, R>(
  { register, name, id }: Entry,
  makePlace: Effect.Effect<void, E, R>,
  waits: Effect.Effect<void>
) {
  const sql = yield* SqlClient.SqlClient
  const take = sql.withTransaction(
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const [entry] = yield* sql<{ leaseUntil: Date | null }>`
        select lease_until as "leaseUntil" from ${sql(register)} where name = ${name} for update`
      if (entry === undefined) return yield* new ReplayFailed({ reason: `${name} is not in ${register}.` })
      if (entry.leaseUntil !== null && entry.leaseUntil.getTime() > now) return false
      yield* makePlace
      yield* sql`
        update ${sql(register)} set building = ${id}, lease_until = ${new Date(now + leaseMs)} where name = ${name}`
      return true
    })
  )
  const begun = yield* Clock.currentTimeMillis
  for (let tries = 0; !(yield* take); tries++) {
    if ((yield* Clock.currentTimeMillis) - begun > 2 * leaseMs) {
      return yield* new ReplayFailed({ reason: `Somebody else replays ${name} at the moment.` })
    }
    if (tries === 0) yield* waits
    yield* Effect.sleep("1 second")
  }
})

/**
 * Makes the empty table; from here on the consumers write into both. Whatever they have taken before is in the log by now,
 * so who reads the log from now on, in whatever order and with whatever transactions still open, and whoever writes from
 * now on, miss nothing between them. What both write is the same.
 *
 * Who was killed is waited for until its lease is over. With the scope the build ends, if it has no other end by then.
 */
export const begin = Effect.fnUntraced(function* (
  projection: Projection,
  waits: Effect.Effect<void> = Effect.void
): Effect.fn.Return<Build, ReplayFailed | SqlError.SqlError, SqlClient.SqlClient | Scope.Scope> {
  const sql = yield* SqlClient.SqlClient
  const { name } = projection
  const build: Build = { projection, id: yield* Ids.next }
  const next = nextOf(projection)
  yield* taking(
    { register: registerOf(projection), name, id: build.id },
    Effect.gen(function* () {
      yield* sql.unsafe(`drop table if exists ${next}`)
      yield* sql.unsafe(`create table ${next} (like ${tableOf(projection)} including all)`)
      yield* sameRights(projection)
    }),
    waits
  )
  yield* Effect.addFinalizer(() => Effect.ignore(patiently(abandon(build))))
  yield* livesOn({ register: registerOf(projection), name, id: build.id })
  return build
})

/** Writes into the new table while it is ours: who takes its place over waits for that, and who has lost it writes nothing. */
const inPlace = <A, E, R>({ projection, id }: Build, writing: Effect.Effect<A, E, R>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql.withTransaction(
      Effect.gen(function* () {
        const mine = yield* sql`
          select from ${sql(registerOf(projection))} where name = ${projection.name} and building = ${id} for key share`
        if (mine.length === 0) return yield* lost(projection)
        return yield* writing
      })
    )
  )

interface LogRow extends Omit<ProjectedEvent, "occurredAt"> {
  readonly occurredAt: Date
}

/** What a read of the log is told, and where what it reads goes. */
export interface Reading<E, R> {
  readonly from?: Date | undefined
  readonly tells?: ((soFar: ReadSoFar) => void) | undefined
  readonly write: (rows: ReadonlyArray<Row>) => Effect.Effect<unknown, E, R>
}

/** The context's log as rows of the projection, some at a time; how many events there were. */
export const readLog = Effect.fnUntraced(function* <E, R>(
  projection: Projection,
  { from, tells = () => {}, write: into }: Reading<E, R>
) {
  const sql = yield* SqlClient.SqlClient
  const events = sql(`${projection.context}.events`)
  const since = from === undefined ? sql.literal("") : sql`and occurred_at >= ${from}`
  const [log] = yield* sql<{ first: number | null; last: number | null }>`
    select min(position) as first, max(position) as last from ${events}`
  const [first, last] = [log?.first ?? 1, log?.last ?? 0]
  let count = 0
  for (let position = first; position <= last; position += window) {
    const rows = yield* sql<LogRow>`
      select event_id as "eventId", event_type as "eventType", occurred_at as "occurredAt", region,
        aggregate_id as "partitionKey", version as "aggregateVersion", payload
      from ${events}
      where position >= ${String(position)}::bigint and position < ${String(position + window)}::bigint
        and event_type = any(${eventTypesOf(projection)}::text[]) ${since}
      order by position`
    yield* into(yield* rowsTold(projection, asEvents(rows)))
    count += rows.length
    tells({ done: Math.min(position + window, last + 1) - first, total: last + 1 - first, events: count })
  }
  return count
})

/**
 * Reads the context's log into the new table; only the events since `from`, when it is given, on top of what the live table
 * has. Late transactions may commit behind us: what they wrote is published after that, and the consumers write it.
 */
export const read = Effect.fnUntraced(function* (
  build: Build,
  { from, tells }: { readonly from?: Date | undefined; readonly tells?: (soFar: ReadSoFar) => void } = {}
) {
  const { projection } = build
  if (from !== undefined) yield* copyLive(build)
  const count = yield* readLog(projection, {
    from,
    tells,
    write: (rows) => inPlace(build, write(projection, nextOf(projection), rows))
  })
  yield* finish(build)
  return count
})

const asEvents = (rows: ReadonlyArray<LogRow>): ReadonlyArray<ProjectedEvent> =>
  rows.map((row) => ({ ...row, occurredAt: row.occurredAt.toISOString() }))

/** The rows that events of a log tell of. */
const rowsTold = (projection: Projection, events: ReadonlyArray<ProjectedEvent>) =>
  Effect.mapError(
    rowsOf(projection, events),
    (error) =>
      new ReplayFailed({
        reason: `The log of ${projection.context} has an event that ${projection.name} cannot read: ${String(error)}`
      })
  )

/** Writes events into the new table, in whatever order they come and from wherever. */
export const take = Effect.fnUntraced(function* (build: Build, events: ReadonlyArray<ProjectedEvent>) {
  const { projection } = build
  const rows = yield* rowsTold(projection, events)
  yield* inPlace(build, write(projection, nextOf(projection), rows))
})

/** To be called when all events have been taken. */
export const finish = Effect.fnUntraced(function* ({ projection }: Build) {
  const sql = yield* SqlClient.SqlClient
  yield* sql.unsafe(`analyze ${nextOf(projection)}`)
})

const copyLive = Effect.fnUntraced(function* (build: Build) {
  const { projection } = build
  const sql = yield* SqlClient.SqlClient
  const all = sql.literal(names(Object.keys(columnsOf(projection))))
  const key = sql.literal(names(Object.keys(projection.key)))
  let after: Readonly<Record<string, unknown>> | undefined
  while (true) {
    const beyond = after === undefined ? sql.literal("true") : sql`(${key}) > (${valuesOf(sql, projection, after)})`
    const source = sql`(
      select ${all} from ${sql(tableOf(projection))} where ${beyond} order by ${key} limit ${copied}) as part`
    const copying = sql<Readonly<Record<string, unknown>>>`
      with part as materialized (select * from ${source}),
        written as (${yield* merging(projection, nextOf(projection), sql`part`)})
      select ${sql.literal(textsOf(projection))} from part order by ${key} offset ${copied - 1}`
    after = (yield* inPlace(build, copying))[0]
    if (after === undefined) return
  }
})

/** The key's columns as text, under their names. */
export const textsOf = ({ key }: Projection): string =>
  Object.keys(key)
    .map((column) => `${column}::text as ${column}`)
    .join(", ")

/** The key of a row, to compare with. */
export const valuesOf = (sql: SqlClient.SqlClient, { key }: Projection, row: Readonly<Record<string, unknown>>) =>
  Object.entries(key)
    .map(([column, type]) => sql`${String(row[column])}::text::${sql.literal(type)}`)
    .reduce((left, right) => sql`${left}, ${right}`)

/** Makes sure that no consumer passed the new table over, and that none will before the transaction ends. */
const taken = Effect.fnUntraced(function* ({ projection, id }: Build) {
  const sql = yield* SqlClient.SqlClient
  const mine = yield* sql`
    update ${sql(registerOf(projection))} set building = null, lease_until = null
    where name = ${projection.name} and building = ${id} returning 1`
  if (mine.length === 0) return yield* lost(projection)
})

/**
 * Puts the new table into the place of the live one. Nobody sees a moment without: who comes meanwhile waits for a few
 * milliseconds, and goes on in the new one.
 */
export const swap = Effect.fnUntraced(function* (build: Build) {
  const { projection } = build
  const { name } = projection
  const sql = yield* SqlClient.SqlClient
  yield* patiently(
    Effect.gen(function* () {
      yield* sql.unsafe(`set local lock_timeout = ${lockTimeoutMs}`)
      yield* sql.unsafe(`lock table ${tableOf(projection)} in access exclusive mode`)
      yield* taken(build)
      const indexes = yield* sql<{ current: string; next: string }>`
        with of_table as (
          select indexrelid::regclass as index, indrelid, indisprimary,
            regexp_replace(pg_get_indexdef(indexrelid), '^.* USING ', '') as definition
          from pg_index where indrelid in (${tableOf(projection)}::regclass, ${nextOf(projection)}::regclass)
        )
        select c.relname as current, n.index::text as next from of_table l
        join of_table n using (definition, indisprimary) join pg_class c on c.oid = l.index
        where l.indrelid = ${tableOf(projection)}::regclass and n.indrelid = ${nextOf(projection)}::regclass`
      yield* sql.unsafe(`drop table ${tableOf(projection)}`)
      yield* sql.unsafe(`alter table ${nextOf(projection)} rename to ${name}`)
      for (const { current, next } of indexes) yield* sql.unsafe(`alter index ${next} rename to ${current}`)
    })
  )
})

/** Whether there is such a table in the projection's context. */
export const exists = Effect.fnUntraced(function* ({ context }: Projection, table: string) {
  const sql = yield* SqlClient.SqlClient
  const [found] = yield* sql<{ there: boolean }>`select to_regclass(${`${context}.${table}`}) is not null as there`
  return found?.there === true
})

/** Leaves the new table as it is, under a name of its own; nobody writes into it any more. */
export const keepAs = Effect.fnUntraced(function* (build: Build, name: string) {
  const { projection } = build
  const sql = yield* SqlClient.SqlClient
  yield* patiently(
    Effect.gen(function* () {
      yield* standingAside(projection)
      yield* taken(build)
      yield* sql.unsafe(`alter table ${nextOf(projection)} rename to ${name}`)
    })
  )
})
