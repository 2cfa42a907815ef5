import { Clock, DateTime, Duration, Effect, Layer } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import * as Migrations from "../postgres/Migrations.ts"
import * as Database from "../postgres/Database.ts"
import * as Tracing from "../telemetry/Tracing.ts"
import { isFor } from "./DeadLetters.ts"
import {
  type BusMessage,
  BusUnavailable,
  deadLetterTopic,
  EventBus,
  type Following,
  patient,
  turnForever
} from "./EventBus.ts"
import * as ConsumerGroups from "./postgres/ConsumerGroups.ts"
import { columns, type LogRow, toLetter } from "./postgres/LogRow.ts"
import { partitionCount, partitionOf } from "./postgres/Partition.ts"
import { Sleepers } from "./postgres/Sleepers.ts"

/** How often this process looks whether others have published something. */
const watchEvery = Duration.millis(200)

const unavailable = <A, R>(effect: Effect.Effect<A, SqlError.SqlError | BusUnavailable, R>) =>
  Effect.catchTag(effect, "SqlError", (cause) => Effect.fail(new BusUnavailable({ cause })))

/**
 * The bus as a log table of its own (schema `bus`). Only `publish` writes it, and it takes its offsets under a row lock,
 * so they are gapless and in commit order and consumers may read by offset. Wants a SqlClient of its own: the contexts'
 * transactions must not become part of the bus's.
 */
export const layer = Layer.effect(
  EventBus,
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const sleepers = new Sleepers()
    const watch = Effect.gen(function* () {
      const rows = yield* sql<{ topic: string; partition: number; end: number }>`
        select topic, partition, next_offset as "end" from bus.partitions`
      sleepers.moved(rows)
    })

    const fields = sql.literal(columns)

    /** Takes its offsets in the order of the partitions: a transaction does it once, or would keep others in a circle. */
    const append = Effect.fnUntraced(function* (messages: ReadonlyArray<BusMessage>) {
      const now = yield* DateTime.nowAsDate
      yield* sql`
        with message as (
          select * from unnest(
            ${messages.map((message) => message.topic)}::text[],
            ${messages.map((message) => partitionOf(message.key))}::int[],
            ${messages.map((message) => message.key)}::text[],
            ${messages.map((message) => message.envelope.eventId)}::text[],
            ${messages.map((message) => message.envelope.eventType)}::text[],
            ${messages.map((message) => JSON.stringify(message.envelope))}::text[]::jsonb[],
            ${messages.map((message) => message.traceParent)}::text[],
            ${messages.map((message) => (message.failure === undefined ? "null" : JSON.stringify(message.failure)))}::text[]::jsonb[]
          ) with ordinality as m (topic, partition, key, event_id, event_type, envelope, trace_parent, failure, line)
        ), wanted as (
          select topic, partition, count(*) as messages from message group by topic, partition order by topic, partition
        ), taken as (
          insert into bus.partitions as p (topic, partition, next_offset)
          select topic, partition, messages from wanted
          on conflict (topic, partition) do update set next_offset = p.next_offset + excluded.next_offset
          returning topic, partition, next_offset
        )
        insert into bus.log (topic, partition, "offset", key, event_id, event_type, envelope, trace_parent, failure, published_at)
        select topic, partition,
          taken.next_offset - wanted.messages - 1 + row_number() over (partition by topic, partition order by message.line),
          key, event_id, event_type, envelope, trace_parent, nullif(failure, 'null'::jsonb), ${now}
        from message join wanted using (topic, partition) join taken using (topic, partition)`
      sleepers.published(messages)
    })

    const groups = ConsumerGroups.make(sql, sleepers, append)

    const publish = Tracing.fn("EventBus.publish")(function* (messages: ReadonlyArray<BusMessage>) {
      if (messages.length === 0) return
      const withBatch = yield* ConsumerGroups.WithBatch
      if (withBatch === undefined) yield* Database.retryLostRace(append(messages))
      else withBatch.push(...messages)
    }, unavailable)

    const follow = <R>(options: Following<R>): Effect.Effect<never, never, R> =>
      Effect.scoped(
        Effect.gen(function* () {
          const { topics, following, handle } = options
          const self = yield* sleepers.add({ topics })
          const start = sql<{ topic: string; partition: number; nextOffset: number }>`
            select topic, partition, next_offset as "nextOffset" from bus.partitions where topic = any(${topics}::text[])`
          const places = yield* start.pipe(Effect.retry(patient), Effect.orDie)
          const after = new Map(places.map((place) => [`${place.topic}/${place.partition}`, place.nextOffset - 1]))
          yield* following
          const turn = Effect.gen(function* () {
            self.rise()
            const batch = yield* read({ topics, after, limit: 500 })
            if (batch.length === 0) return yield* self.sleep
            const events = batch.filter(isFor())
            if (events.length > 0) yield* handle(events)
            for (const { topic, partition, offset } of batch) after.set(`${topic}/${partition}`, offset)
          })
          return yield* turnForever("A follower of the bus", turn)
        })
      ).pipe(Effect.withTracerEnabled(false))

    const read: EventBus["Service"]["read"] = Effect.fnUntraced(function* ({ topics, after, limit }) {
      const places = topics.flatMap((topic) =>
        Array.from({ length: partitionCount }, (_, partition) => ({
          topic,
          partition,
          offset: after.get(`${topic}/${partition}`) ?? -1
        }))
      )
      // Two publishers may stamp their events the other way round than they got their offsets: a limit that cut by time
      // alone would pass over an event of the partition for good, so an event counts as old as the newest before it.
      const rows = yield* sql<LogRow>`
        select ${fields} from unnest(
          ${places.map((place) => place.topic)}::text[], ${places.map((place) => place.partition)}::int[],
          ${places.map((place) => String(place.offset))}::text[]::bigint[]
        ) as place (of_topic, of_partition, seen)
        cross join lateral (
          select *, max(published_at) over (order by "offset") as arrived from (
            select * from bus.log where topic = of_topic and partition = of_partition and "offset" > seen
            order by "offset" limit ${limit}
          ) as next
        ) as l
        order by arrived, topic, partition, "offset" limit ${limit}`
      return rows.map(toLetter)
    }, unavailable)

    const ends: EventBus["Service"]["ends"] = Effect.fnUntraced(function* (topics) {
      const rows = yield* sql<{ topic: string; partition: number; last: number }>`
        select topic, partition, next_offset - 1 as last from bus.partitions where topic = any(${topics}::text[])`
      return new Map(rows.map(({ topic, partition, last }) => [`${topic}/${partition}`, last]))
    }, unavailable)

    const deadLetters: EventBus["Service"]["deadLetters"] = Effect.fnUntraced(function* ({ topic, limit }) {
      const which = topic._tag === "Some" ? sql`topic = ${deadLetterTopic(topic.value)}` : sql`topic like '%.dlq'`
      const rows = yield* sql<LogRow>`
        select ${fields} from bus.log where ${which} and requeued_at is null
        order by published_at, topic, partition, "offset" limit ${limit}`
      return rows.map(toLetter)
    }, unavailable)

    const requeue: EventBus["Service"]["requeue"] = Effect.fnUntraced(function* (letters) {
      const now = yield* DateTime.nowAsDate
      // Locked in their order, and found by their place: by their keys, the planner might rather read the whole log.
      const taking = sql<{ nth: number }>`
        with letter as materialized (
          select nth, l.place from (
            select * from unnest(
              ${letters.map(({ topic }) => topic)}::text[], ${letters.map(({ partition }) => partition)}::int[],
              ${letters.map(({ offset }) => String(offset))}::text[]::bigint[]
            ) with ordinality as given (topic, partition, "offset", nth) order by topic, partition, "offset"
          ) as given cross join lateral (
            select ctid as place from bus.log
            where topic = given.topic and partition = given.partition and "offset" = given."offset"
              and failure is not null and requeued_at is null
            offset 0 for update
          ) as l
        ), taken as (
          update bus.log set requeued_at = ${now} where ctid = any(array(select place from letter))
        )
        select min(nth)::int as nth from letter group by place`
      return yield* Effect.gen(function* () {
        const mine = new Set((yield* taking).map(({ nth }) => nth))
        const back = letters.flatMap(({ failure, key, envelope, traceParent }, index) =>
          failure !== undefined && mine.has(index + 1)
            ? [{ topic: failure.topic, key, envelope, traceParent, failure }]
            : []
        )
        if (back.length > 0) yield* append(back)
        return back.length
      }).pipe(sql.withTransaction, Database.retryLostRace)
    }, unavailable)

    const lag: EventBus["Service"]["lag"] = (...of) => unavailable(groups.lag(...of))

    /** Rows deleted with one statement, so that retention never holds a long transaction. */
    const expireBatch = 10_000
    // Goes along the offsets: what was deleted stands in the way of whoever looks for what is old until it is vacuumed.
    const expire: EventBus["Service"]["expire"] = Effect.fnUntraced(function* (keep) {
      const before = new Date((yield* Clock.currentTimeMillis) - Duration.toMillis(keep))
      const places = yield* sql<{ topic: string; partition: number; first: number }>`
        select p.topic, p.partition, l.first from bus.partitions p cross join lateral (
          select "offset" as first from bus.log where topic = p.topic and partition = p.partition order by "offset" limit 1
        ) as l`
      let gone = 0
      for (const { topic, partition, first } of places) {
        for (let from = first; ; from += expireBatch) {
          const rows = yield* sql`
            delete from bus.log where topic = ${topic} and partition = ${partition}
              and "offset" >= ${String(from)}::bigint and "offset" < ${String(from + expireBatch)}::bigint
              and published_at < ${before}
            returning 1`
          gone += rows.length
          if (rows.length < expireBatch) break
        }
      }
      return gone
    }, unavailable)

    yield* watch.pipe(
      Effect.retry(patient),
      Effect.orDie,
      Effect.andThen(Effect.sleep(watchEvery)),
      Effect.forever,
      Effect.withTracerEnabled(false),
      Effect.forkScoped
    )
    const cluster = Effect.provideService(Database.cluster, SqlClient.SqlClient, sql)
    return EventBus.of({
      cluster,
      publish,
      subscribe: groups.subscribe,
      follow,
      read,
      ends,
      deadLetters,
      requeue,
      lag,
      expire
    })
  })
)

/** The tables of the bus. */
export const migrations = {
  schema: "bus",
  folder: new URL("./migrations", import.meta.url),
  common: false
} satisfies Parameters<typeof Migrations.run>[0]
