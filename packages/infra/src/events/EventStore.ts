import { Context, Effect, Layer, Schema } from "effect"
import { SqlClient, type SqlError, type Statement } from "effect/sql"
import type { NewEvent } from "@merkato/domain/kernel/Event"
import { Region } from "@merkato/domain/kernel/Region"
import { eventIds, type Stamp, stamp } from "./Stamp.ts"
import * as Tracing from "../telemetry/Tracing.ts"

/** An event as it lies in a context's store. */
export const StoredEvent = Schema.Struct({
  position: Schema.Int,
  eventId: Schema.String,
  eventType: Schema.String,
  aggregateId: Schema.String,
  version: Schema.Int,
  occurredAt: Schema.DateTimeUtcFromDate,
  region: Region,
  traceParent: Schema.String,
  correlationId: Schema.String,
  payload: Schema.Unknown
})
export type StoredEvent = typeof StoredEvent.Type

/** An event with its own id and stamp: what is appended together with the events of other commands. */
export interface StampedEvent {
  readonly event: NewEvent
  readonly eventId: string
  readonly stamp: Stamp
}

/** Something to be told when events have been committed: the context's relay. */
export class RelaySignal extends Context.Service<RelaySignal, { readonly wake: Effect.Effect<void> }>()(
  "merkato/infra/RelaySignal"
) {}

/**
 * The events of one context. `occurredAt` is the time that the rows changed with them say, too. Appending puts the event's position into the outbox with the same statement, so what is
 * stored gets published. A second event with an aggregate's version is a `UniqueViolation`: somebody was faster.
 */
export class EventStore extends Context.Service<
  EventStore,
  {
    /** Appends within the caller's transaction, or as a statement of its own. */
    readonly append: (events: ReadonlyArray<NewEvent>, occurredAt: Date) => Effect.Effect<void, SqlError.SqlError>
    /**
     * The same as common table expressions `event_rows` and `outbox_rows`, to be part of a bigger statement; nothing is
     * written unless `when` (a condition on earlier expressions) holds. The caller says `committed` afterwards.
     */
    readonly appending: (
      events: ReadonlyArray<NewEvent>,
      occurredAt: Date,
      when?: Statement.Fragment
    ) => Effect.Effect<Statement.Fragment>
    /** The same for the events of several commands; only those whose aggregate is in `among`, a column `id` of one row each. */
    readonly appendingEach: (events: ReadonlyArray<StampedEvent>, among: Statement.Fragment) => Statement.Fragment
    /** To be run after the commit of a statement with `appending`. */
    readonly committed: Effect.Effect<void>
    /** An aggregate's events, oldest first. */
    readonly history: (aggregateId: string) => Effect.Effect<ReadonlyArray<StoredEvent>, SqlError.SqlError>
  }
>()("merkato/infra/EventStore") {
  static readonly layer = (schema: string) =>
    Layer.effect(
      EventStore,
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const relay = yield* RelaySignal
        const events = sql(`${schema}.events`)
        const outbox = sql(`${schema}.outbox`)

        const insertion = (batch: ReadonlyArray<StampedEvent>, where: Statement.Fragment) => sql`event_rows as (
            insert into ${events}
              (event_id, event_type, aggregate_id, version, occurred_at, region, trace_parent, correlation_id, payload)
            select event_id, event_type, aggregate_id, version, occurred_at, region, trace_parent, correlation_id, payload
            from unnest(
              ${batch.map(({ eventId }) => eventId)}::text[],
              ${batch.map(({ event }) => event.eventType)}::text[],
              ${batch.map(({ event }) => event.aggregateId)}::text[],
              ${batch.map(({ event }) => event.version)}::int[],
              ${batch.map(({ stamp }) => stamp.occurredAt.toISOString())}::text[]::timestamptz[],
              ${batch.map(({ stamp }) => stamp.region)}::text[],
              ${batch.map(({ stamp }) => stamp.traceParent)}::text[],
              ${batch.map(({ stamp }) => stamp.correlationId)}::text[],
              ${batch.map(({ event }) => JSON.stringify(event.payload))}::text[]::jsonb[]
            ) with ordinality as e
              (event_id, event_type, aggregate_id, version, occurred_at, region, trace_parent, correlation_id, payload, line)
            ${where}
            order by line
            returning position, aggregate_id, version
          ), outbox_rows as (
            insert into ${outbox} (position, aggregate_id, version) select position, aggregate_id, version from event_rows
          )`

        const appending = Effect.fnUntraced(function* (
          batch: ReadonlyArray<NewEvent>,
          occurredAt: Date,
          when?: Statement.Fragment
        ) {
          const ofCommand = { ...(yield* stamp), occurredAt }
          const ids = yield* eventIds(batch.length)
          return insertion(
            batch.map((event, index) => ({ event, eventId: ids[index] ?? "", stamp: ofCommand })),
            when === undefined ? sql.literal("") : sql`where ${when}`
          )
        })

        const appendingEach = (batch: ReadonlyArray<StampedEvent>, among: Statement.Fragment) =>
          insertion(batch, sql`join ${among} on id = aggregate_id`)

        const append = Tracing.fn("EventStore.append")(function* (batch: ReadonlyArray<NewEvent>, occurredAt: Date) {
          if (batch.length === 0) return
          yield* sql`with ${yield* appending(batch, occurredAt)} select 1`
          yield* sql.afterCommit(relay.wake)
        })

        const decode = Schema.decodeUnknownEffect(Schema.Array(StoredEvent))
        const history = Tracing.fn("EventStore.history")(function* (aggregateId: string) {
          const rows = yield* sql`
            select position, event_id as "eventId", event_type as "eventType", aggregate_id as "aggregateId", version,
              occurred_at as "occurredAt", region, trace_parent as "traceParent", correlation_id as "correlationId", payload
            from ${events} where aggregate_id = ${aggregateId} order by version`
          return yield* Effect.orDie(decode(rows))
        })

        return EventStore.of({ append, appending, appendingEach, committed: relay.wake, history })
      })
    )
}
