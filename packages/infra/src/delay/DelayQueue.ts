import { Context, Effect, Layer } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import * as Ids from "@merkato/domain/kernel/Ids"
import type { Rung } from "./Alarms.ts"

/** What is waited for: a key, in a group that has its fair share of attention. */
export interface Delayed {
  readonly group: string
  readonly key: string
}

/** A key that somebody is at work on, until their lease ends. */
export interface Taken extends Delayed {
  readonly holder: string
  readonly arrivals: number
}

/**
 * Keys that are to be looked at when their time has come. A key stands in it once, and one holder at a time works on it;
 * who dies at work is replaced when the lease ends, and whatever they say afterwards does not count.
 */
export class DelayQueue extends Context.Service<
  DelayQueue,
  {
    /**
     * Makes keys due at a time. One that stands in it already keeps its time, unless `hurry`; one that is at work will be
     * looked at again afterwards. Within the caller's transaction.
     */
    readonly put: (
      delayed: ReadonlyArray<Delayed>,
      options: { readonly at: Date; readonly hurry: boolean }
    ) => Effect.Effect<void, SqlError.SqlError>
    /**
     * Takes what is due of these groups, or of all: at most `limit`, at most `perGroup` of a group, nothing of the groups in
     * `except`.
     */
    readonly take: (options: {
      readonly now: Date
      readonly leaseMs: number
      readonly limit: number
      readonly perGroup: number
      readonly of: Rung
      readonly except: ReadonlyArray<string>
    }) => Effect.Effect<ReadonlyArray<Taken>, SqlError.SqlError>
    /** Whether the lease is still the holder's; locks it until the end of the caller's transaction. */
    readonly holds: (taken: Taken) => Effect.Effect<boolean, SqlError.SqlError>
    /** Gives it back, due at a time. */
    readonly again: (taken: Taken, at: Date) => Effect.Effect<void, SqlError.SqlError>
    /** There is nothing left to do: it goes, unless something was put since it was taken. Then it is due `at`. */
    readonly done: (taken: Taken, at: Date) => Effect.Effect<void, SqlError.SqlError>
    /** Forgets a group. */
    readonly drop: (group: string) => Effect.Effect<void, SqlError.SqlError>
  }
>()("merkato/infra/DelayQueue") {
  /** In a table of the context: `(group_id, key, due_at, holder, arrivals)`, with an index on `(group_id, due_at)`. */
  static readonly layerPostgres = (name: string) =>
    Layer.effect(
      DelayQueue,
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const table = sql(name)
        const own = ({ group, key, holder }: Taken) => sql`group_id = ${group} and key = ${key} and holder = ${holder}`

        const put: DelayQueue["Service"]["put"] = Effect.fnUntraced(function* (delayed, { at, hurry }) {
          if (delayed.length === 0) return
          // In their order: two who put the same wait for each other, and not both.
          yield* sql`
            insert into ${table} as known (group_id, key, due_at, arrivals)
            select distinct group_id, key, ${at}::timestamptz, 1
            from unnest(${delayed.map(({ group }) => group)}::text[], ${delayed.map(({ key }) => key)}::text[])
              as given (group_id, key)
            order by group_id, key
            on conflict (group_id, key) do update set arrivals = known.arrivals + 1,
              due_at = case when ${hurry}::boolean and known.holder is null
                then least(known.due_at, excluded.due_at) else known.due_at end`
        })

        const take: DelayQueue["Service"]["take"] = Effect.fnUntraced(function* (options) {
          const { now, leaseMs, limit, perGroup, of, except } = options
          if (of.length === 0) return []
          const holder = yield* Ids.next
          // From group to group by the index, so that no group's backlog stands in another's way.
          const groups =
            of === "all"
              ? sql`
                  (select group_id from ${table} order by group_id limit 1)
                  union all
                  select (select t.group_id from ${table} t where t.group_id > g.group_id order by t.group_id limit 1)
                  from groups g where g.group_id is not null`
              : sql`select distinct unnest(${of}::text[]) as group_id`
          // What is locked stays in its place, and is found by it: by its key, the planner would rather read the whole table.
          const rows = yield* sql<Omit<Taken, "holder">>`
            with recursive groups as (${groups}), due as materialized (
              select d.place from groups g cross join lateral (
                select t.ctid as place from ${table} t where t.group_id = g.group_id and t.due_at <= ${now}
                order by t.due_at limit ${perGroup}::int for update skip locked
              ) d
              where g.group_id <> all(${except}::text[]) limit ${limit}::int
            )
            update ${table} t set holder = ${holder}, due_at = ${new Date(now.getTime() + leaseMs)}
            where t.ctid = any(array(select place from due))
            returning t.group_id as "group", t.key, t.arrivals`
          return rows.map((row) => ({ ...row, holder }))
        })

        const holds: DelayQueue["Service"]["holds"] = (taken) =>
          Effect.map(sql`select from ${table} where ${own(taken)} for update`, (rows) => rows.length > 0)

        const again: DelayQueue["Service"]["again"] = (taken, at) =>
          Effect.asVoid(sql`update ${table} set holder = null, due_at = ${at} where ${own(taken)}`)

        const done: DelayQueue["Service"]["done"] = Effect.fnUntraced(function* (taken, at) {
          const gone = yield* sql`
            delete from ${table} where ${own(taken)} and arrivals = ${taken.arrivals} returning group_id`
          if (gone.length === 0) yield* again(taken, at)
        })

        const drop: DelayQueue["Service"]["drop"] = (group) =>
          // In their order, as in `put`.
          Effect.asVoid(sql`
            with dropped as materialized (
              select key from ${table} where group_id = ${group} order by key for update
            )
            delete from ${table} t using dropped where t.group_id = ${group} and t.key = dropped.key`)

        return DelayQueue.of({ put, take, holds, again, done, drop })
      })
    )
}
