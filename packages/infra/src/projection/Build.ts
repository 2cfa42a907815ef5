/** A projection built anew beside the live one, which goes on meanwhile. */
import { Effect, type Scope } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import * as Ids from "@merkato/domain/kernel/Ids"
import { isLocked } from "../postgres/Database.ts"
import * as Lease from "./Lease.ts"
import { keyTexts, keyValues, merging, names, nextOf, registerOf, tableOf, write } from "./PostgresProjection.ts"
import { columnsOf, type ProjectedEvent, type Projection } from "./Projection.ts"
import { readLog, type ReadSoFar, rowsTold } from "./ReadLog.ts"
import type { ReplayFailed } from "./ReplayFailed.ts"

/** Rows of the live table that are copied at a time. */
const copied = 5_000

/** How long the place of the live table is waited for, by everybody who comes after us, too; and how often. */
const lockTimeoutMs = 1_000
const lockAttempts = 30

export interface Build {
  readonly projection: Projection
  /** The consumers write into it as long as this stands in the register. */
  readonly entry: Lease.Entry
}

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

/** Ends a build that is not to be used; nobody writes into it any more. */
const abandon = ({ projection, entry }: Build) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* standingAside(projection)
    if (yield* Lease.release(entry)) yield* sql.unsafe(`drop table if exists ${nextOf(projection)}`)
  })

/** Waits until no consumer is at the live table, and keeps them from it until the transaction ends. Readers go on. */
const standingAside = Effect.fnUntraced(function* (projection: Projection) {
  const sql = yield* SqlClient.SqlClient
  yield* sql.unsafe(`set local lock_timeout = ${lockTimeoutMs}`)
  yield* sql.unsafe(`lock table ${tableOf(projection)} in share row exclusive mode`)
})

/** A transaction that wants locks others may have for longer; it lets them pass between its attempts. */
const patiently = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.retry(sql.withTransaction(effect), { times: lockAttempts, while: isLocked })
  )

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
  const entry: Lease.Entry = { register: registerOf(projection), name: projection.name, id: yield* Ids.next }
  const build: Build = { projection, entry }
  const next = nextOf(projection)
  yield* Lease.take(
    entry,
    Effect.gen(function* () {
      yield* sql.unsafe(`drop table if exists ${next}`)
      yield* sql.unsafe(`create table ${next} (like ${tableOf(projection)} including all)`)
      yield* sameRights(projection)
    }),
    waits
  )
  yield* Effect.addFinalizer(() => Effect.ignore(patiently(abandon(build))))
  yield* Lease.renewing(entry)
  return build
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
    write: (rows) => Lease.whileOurs(build.entry, write(projection, nextOf(projection), rows))
  })
  yield* finish(build)
  return count
})

/** Writes events into the new table, in whatever order they come and from wherever. */
export const take = Effect.fnUntraced(function* (build: Build, events: ReadonlyArray<ProjectedEvent>) {
  const { projection } = build
  const rows = yield* rowsTold(projection, events)
  yield* Lease.whileOurs(build.entry, write(projection, nextOf(projection), rows))
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
    const beyond = after === undefined ? sql.literal("true") : sql`(${key}) > (${keyValues(sql, projection, after)})`
    const source = sql`(
      select ${all} from ${sql(tableOf(projection))} where ${beyond} order by ${key} limit ${copied}) as part`
    const copying = sql<Readonly<Record<string, unknown>>>`
      with part as materialized (select * from ${source}),
        written as (${yield* merging(projection, nextOf(projection), sql`part`)})
      select ${sql.literal(keyTexts(projection))} from part order by ${key} offset ${copied - 1}`
    after = (yield* Lease.whileOurs(build.entry, copying))[0]
    if (after === undefined) return
  }
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
      yield* Lease.close(build.entry)
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
      yield* Lease.close(build.entry)
      yield* sql.unsafe(`alter table ${nextOf(projection)} rename to ${name}`)
    })
  )
})
