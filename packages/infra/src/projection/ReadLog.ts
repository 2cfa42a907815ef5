/** A context's log, read from its first event to its last as rows of a projection. */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { eventTypesOf, type ProjectedEvent, type Projection, type Row, rowsOf } from "./Projection.ts"
import { ReplayFailed } from "./ReplayFailed.ts"

/** Positions of the log that are read at a time. Positions have gaps, so it is at most as many events. */
const window = 5_000

/** How far it is, of the positions of the log. */
export interface ReadSoFar {
  readonly done: number
  readonly total: number
  readonly events: number
}

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

const asEvents = (rows: ReadonlyArray<LogRow>): ReadonlyArray<ProjectedEvent> =>
  rows.map((row) => ({ ...row, occurredAt: row.occurredAt.toISOString() }))

/** The rows that events of a log tell of. */
export const rowsTold = (projection: Projection, events: ReadonlyArray<ProjectedEvent>) =>
  Effect.mapError(
    rowsOf(projection, events),
    (error) =>
      new ReplayFailed({
        reason: `The log of ${projection.context} has an event that ${projection.name} cannot read: ${String(error)}`
      })
  )
