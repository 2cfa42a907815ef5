/**
 * The database's side of change data capture (ADR 27). What is put into a context's outbox goes as a message into the
 * write-ahead log with the same commit, and out of the table again; Debezium reads it there.
 */
import { Effect } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { Topic } from "@merkato/domain/kernel/Event"
import { lastCause } from "../../runtime/LastCause.ts"
import { CaptureImpossible } from "./CaptureImpossible.ts"

/** What messages of ours are told by in the log. */
export const messagePrefix = "merkato.outbox"

/** It names no table: it carries messages alone. */
export const publication = "merkato_outbox"

/** The slot of a database, and the connector that reads it: slots are known to the whole server. */
export const slotOf = (database: string): string =>
  `merkato_${database.toLowerCase().replaceAll(/[^a-z0-9_]/g, "_")}`.slice(0, 63)

/** A context whose events are captured. */
export interface Captured {
  readonly schema: string
  readonly topic: Topic
  readonly producer: string
}

/** The fields of a message: what the router takes, and the headers of CloudEvents. */
export const headers = {
  "content-type": "contenttype",
  ce_specversion: "specversion",
  ce_id: "id",
  ce_type: "type",
  ce_source: "source",
  ce_time: "time",
  ce_subject: "key",
  ce_partitionkey: "key",
  ce_correlationid: "correlationid",
  ce_region: "region",
  traceparent: "traceparent"
} as const

/** Writes the events of these outbox rows into the log, in order: the same envelope that the relay makes, and its headers. */
const emitting = ({ schema, topic, producer }: Captured, rows: string) => `
  count(pg_logical_emit_message(true, '${messagePrefix}', message::text)) from (
    select json_build_object(
      'id', e.event_id, 'topic', '${topic}', 'key', e.aggregate_id, 'type', e.event_type, 'source', '${producer}',
      'time', at, 'correlationid', e.correlation_id, 'region', e.region, 'traceparent', e.trace_parent,
      'contenttype', 'application/json', 'specversion', '1.0',
      'payload', json_build_object(
        'eventId', e.event_id, 'eventType', e.event_type, 'occurredAt', at, 'producer', '${producer}',
        'traceId', substr(e.trace_parent, 4, 32), 'correlationId', e.correlation_id, 'schemaVersion', '1.0',
        'partitionKey', e.aggregate_id, 'region', e.region, 'aggregateVersion', e.version, 'payload', e.payload
      )::text
    ) as message
    from ${rows} as waiting
    cross join lateral (
      select *, to_char(occurred_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as at from ${schema}.events
      where aggregate_id = waiting.aggregate_id and version = waiting.version offset 0
    ) as e
    order by waiting.position
  ) as messages`

/** Whoever starts waits for whoever does the same. */
const lock = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`select pg_advisory_xact_lock(hashtext('merkato.capture'))::text as taken`
)

interface Slot {
  readonly database: string
  readonly walLevel: string
  /** null: there is none; "lost": what it should have kept is gone. */
  readonly slot: string | null
}

const standing = Effect.fnUntraced(function* () {
  const sql = yield* SqlClient.SqlClient
  const [here] = yield* sql<Omit<Slot, "slot">>`
    select current_database()::text as database, current_setting('wal_level') as "walLevel"`
  const { database = "", walLevel = "" } = here ?? {}
  const [slot] = yield* sql<{ status: string | null }>`
    select wal_status as status from pg_replication_slots where slot_name = ${slotOf(database)}`
  return { database, walLevel, slot: slot === undefined ? null : (slot.status ?? "lost") } satisfies Slot
})

const impossible = (error: SqlError.SqlError | CaptureImpossible) =>
  error._tag === "CaptureImpossible" ? error : new CaptureImpossible({ reason: lastCause(error) })

/**
 * Lets everything that these contexts append be captured from now on; what waits in their outboxes is, too, in its order.
 * The slot comes first: what is written before there is one, nobody would ever read. Wants `wal_level=logical`, and a role
 * that may make a slot and a publication.
 */
export const begin = Effect.fn("Capture.begin")(function* (contexts: ReadonlyArray<Captured>) {
  const sql = yield* SqlClient.SqlClient
  yield* sql.withTransaction(
    Effect.gen(function* () {
      yield* lock
      const { database, walLevel, slot } = yield* standing()
      if (walLevel !== "logical") {
        return yield* new CaptureImpossible({ reason: `the database has wal_level=${walLevel}, and not logical` })
      }
      if (slot === "lost") {
        return yield* new CaptureImpossible({
          reason: `the replication slot ${slotOf(database)} has lost what it was to keep (docs/runbooks/change-data-capture.md)`
        })
      }
      if (slot === null) {
        yield* sql`select slot_name::text from pg_create_logical_replication_slot(${slotOf(database)}, 'pgoutput')`
      }
    })
  )
  yield* sql.withTransaction(
    Effect.gen(function* () {
      yield* lock
      const found = yield* sql`select 1 from pg_publication where pubname = ${publication}`
      if (found.length === 0) yield* sql.unsafe(`create publication ${publication}`)
      for (const context of contexts) {
        const { schema } = context
        yield* sql.unsafe(`
          create or replace function ${schema}.capture() returns trigger language plpgsql as $body$
          begin
            perform ${emitting(context, "added")};
            delete from ${schema}.outbox where position in (select position from added);
            return null;
          end
          $body$`)
        yield* sql.unsafe(`
          create or replace trigger capture after insert on ${schema}.outbox referencing new table as added
          for each statement execute function ${schema}.capture()`)
        yield* sql.unsafe(`with gone as (delete from ${schema}.outbox returning *) select ${emitting(context, "gone")}`)
      }
    })
  )
}, Effect.mapError(impossible))

/** Lets the relays of these contexts publish again. Does nothing where nothing was captured. */
export const end = Effect.fn("Capture.end")(function* (schemas: ReadonlyArray<string>) {
  const sql = yield* SqlClient.SqlClient
  const captured = yield* sql<{ schema: string }>`
    select nspname::text as schema from pg_trigger join pg_class on pg_class.oid = tgrelid
    join pg_namespace on pg_namespace.oid = relnamespace
    where tgname = 'capture' and relname = 'outbox' and nspname = any(${schemas}::text[])`
  if (captured.length === 0) return
  for (const { schema } of captured) yield* sql.unsafe(`drop trigger if exists capture on ${schema}.outbox`)
  const { database, slot } = yield* standing()
  if (slot === null) return
  yield* Effect.logWarning(
    `The relays publish again, and the replication slot ${slotOf(database)} is still there: it keeps the log until it is dropped`
  )
})
