import { Effect } from "effect"
import type { Envelope, EventDefinition, Topic } from "@merkato/domain/kernel/Event"

/** What a column can hold; all have the same text in JSON as in Postgres. */
export type ColumnType = "text" | "bigint" | "integer" | "date" | "timestamptz"
export type Value = string | number | null

/**
 * A row as one event tells it. Columns that the event does not know are null. `version` is the aggregate's after the event:
 * what conditional writes compare.
 */
export type Row = Readonly<Record<string, Value>> & { readonly version: number }

/** An event as projections see it, off the bus or out of a context's store. */
export type ProjectedEvent = Pick<
  Envelope,
  "eventId" | "eventType" | "occurredAt" | "region" | "partitionKey" | "aggregateVersion" | "payload"
>

interface Reads {
  readonly eventType: string
  readonly rowsOf: (event: ProjectedEvent) => Effect.Effect<ReadonlyArray<Row>, unknown>
}

/** What a kind of event says about rows. */
export const on = <A>(
  definition: EventDefinition<A>,
  rowsOf: (payload: A, event: ProjectedEvent) => ReadonlyArray<Row>
): Reads => ({
  eventType: definition.type,
  rowsOf: (event) => Effect.map(definition.decode(event.payload), (payload) => rowsOf(payload, event))
})

/**
 * A read model that is built from the events of one context alone: what it is, not where it lies. It can be thrown away and
 * built anew (`merkato replay`).
 *
 * All events that a row comes of are of one aggregate. Rows are merged column by column, so that the result is the same in
 * whatever order events come and however often: that is what makes a consumer's write and a rebuild's happen once.
 */
export interface Projection {
  /** The name of its table, in the context's schema. */
  readonly name: string
  readonly context: string
  readonly topic: Topic
  readonly key: Readonly<Record<string, ColumnType>>
  /** Columns that have the value of the first event that knows it. */
  readonly once: Readonly<Record<string, ColumnType>>
  /** Columns that every event knows; the newest is right. */
  readonly latest: Readonly<Record<string, ColumnType>>
  readonly events: ReadonlyArray<Reads>
}

export const make = (projection: Projection): Projection => projection

export const eventTypesOf = ({ events }: Projection): ReadonlyArray<string> => events.map(({ eventType }) => eventType)

/** All its columns, with the version. */
export const columnsOf = ({ key, once, latest }: Projection): Readonly<Record<string, ColumnType>> => ({
  ...key,
  ...once,
  ...latest,
  version: "integer"
})

/** What is known of a row from two sides; it does not matter which one came first, nor whether one has the other in it. */
export const merge =
  ({ once }: Projection) =>
  (left: Row, right: Row): Row => {
    const [older, newer] = left.version <= right.version ? [left, right] : [right, left]
    const merged: Record<string, Value> = { ...newer }
    for (const column of Object.keys(once)) merged[column] = older[column] ?? newer[column] ?? null
    return { ...merged, version: newer.version }
  }

/** The rows that events tell of, one of each key. Events of other types say nothing. */
export const rowsOf = Effect.fnUntraced(function* (projection: Projection, events: ReadonlyArray<ProjectedEvent>) {
  const readers = new Map(projection.events.map((reads) => [reads.eventType, reads.rowsOf]))
  const keys = Object.keys(projection.key)
  const together = merge(projection)
  const rows = new Map<string, Row>()
  for (const event of events) {
    const reader = readers.get(event.eventType)
    if (reader === undefined) continue
    for (const row of yield* reader(event)) {
      const key = JSON.stringify(keys.map((column) => row[column]))
      const known = rows.get(key)
      rows.set(key, known === undefined ? row : together(known, row))
    }
  }
  return [...rows.values()]
})
