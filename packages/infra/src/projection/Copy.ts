/** A read model on a server other than Postgres. */
import { Clock, Effect } from "effect"
import { SqlClient } from "effect/sql"
import { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import * as Consumer from "../events/Consumer.ts"
import { eventTypesOf, type ProjectedEvent, type Projection, type Row, rowsOf } from "./Projection.ts"
import type { RowStore } from "./RowStore.ts"

/**
 * The rows of a projection on a server that was made for how they are asked for. Postgres has the same rows, if not for that
 * purpose: they are what is compared with, and what is read while that server is away.
 */
export interface Copy {
  /** In the context's register; never renamed. */
  readonly name: string
  readonly projection: Projection
  /** The table or view with the same rows, under the names of the projection's columns. */
  readonly truth: string
  /** Rows that count for nothing any more at a moment, in milliseconds: either side may have forgotten them. */
  readonly isOver?: (row: Row, nowMs: number) => boolean
  /** The environment variable that names the server. */
  readonly variable: string
  /** Where it lies; none where no such server is named. */
  readonly store: Effect.Effect<RowStore | undefined>
}

export const make = (copy: Copy): Copy => copy

/** A copy where there is a server for it. */
export interface Kept {
  readonly copy: Copy
  readonly store: RowStore
}

export const groupOf = ({ name, projection }: Copy): string => `${projection.context}.${name}`

export const registerOf = ({ projection }: Copy): string => `${projection.context}.projections`

/** Whose build is under way, if it is alive; the entry of a dead one is taken away. */
const building = Effect.fnUntraced(function* (copy: Copy) {
  const sql = yield* SqlClient.SqlClient
  const register = sql(registerOf(copy))
  const [entry] = yield* sql<{ id: string; leaseUntil: Date }>`
    select building as id, lease_until as "leaseUntil" from ${register} where name = ${copy.name} and building is not null`
  if (entry === undefined || entry.leaseUntil.getTime() > (yield* Clock.currentTimeMillis)) return entry !== undefined
  const ended = yield* sql`
    update ${register} set building = null, lease_until = null
    where name = ${copy.name} and building = ${entry.id} and lease_until = ${entry.leaseUntil} returning 1`
  return ended.length === 0
})

/**
 * Writes what events tell: to the live rows, and to those that are built anew. Who builds is asked before anything is written:
 * if nobody did then, whoever builds later finds these events in the log.
 *
 * Without live rows there is nothing to keep: a build will make them, of the whole log. Without the place of a build that is
 * said to be under way, it has just become the live one, or is gone: all of it is written again then.
 */
const apply = ({ copy, store }: Kept) => {
  const away = new ServiceUnavailable({ service: store.server, retryAfterSeconds: 1 })
  return Effect.fnUntraced(function* (events: ReadonlyArray<ProjectedEvent>) {
    const rows = yield* rowsOf(copy.projection, events)
    if (rows.length === 0) return
    const builds = yield* building(copy)
    const written = Effect.gen(function* () {
      yield* store.write("live", rows)
      return !builds || (yield* store.write("next", rows))
    })
    // Waited for by the consumer, for as long as it takes.
    const complete = yield* Effect.catchTag(written, "StoreUnavailable", ({ cause }) =>
      Effect.andThen(Effect.logWarning(`${store.server} is away`, cause), Effect.fail(away))
    )
    if (!complete) return yield* away
  })
}

/** Keeps a copy up to date. No inbox: a row's version tells what is in it already. */
export const consumer = (kept: Kept): Consumer.Consumer<SqlClient.SqlClient> => {
  const handleAll = apply(kept)
  const { projection } = kept.copy
  return Consumer.make({
    group: groupOf(kept.copy),
    topic: projection.topic,
    eventTypes: eventTypesOf(projection),
    mode: "conditional",
    handle: (event) => handleAll([event]),
    handleAll: (events) => handleAll(events)
  })
}
