import { Clock, Duration, Effect, Latch, Layer } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { Envelope } from "@merkato/domain/kernel/Event"
import * as Migrations from "../postgres/Migrations.ts"
import * as Database from "../postgres/Database.ts"
import {
  type BusMessage,
  BusUnavailable,
  type DeadLetter,
  type DeadLetterCause,
  deadLetterTopic,
  EventBus,
  type Following,
  patient,
  turnForever,
  type Subscription
} from "./EventBus.ts"
import * as Tracing from "../telemetry/Tracing.ts"
import { isFor } from "./DeadLetters.ts"

/** Partitions of a topic. A key's partition never changes, so neither may this number. */
export const partitionCount = 4

/** How often this process looks whether others have published something. */
const watchEvery = Duration.millis(200)

/** How long a consumer sleeps when nothing is published: others may have died with a partition that they had taken. */
const sleepAtMost = Duration.seconds(2)

/** How long a consumer that has just worked lets events gather: under load, a few bigger batches instead of many small ones. */
const gatherFor = Duration.millis(100)

/** Events of a partition that a group passes over at a time. */
const lookAhead = 1_000

/** A consumer in this process, and what it is woken by. */
class Sleeper {
  readonly #topics: ReadonlySet<string>
  readonly #eventTypes: ReadonlySet<string> | undefined
  readonly #latch = Latch.makeUnsafe(true)
  /** Since it was last awake, something that it wants was published. */
  #wanted = false

  constructor({ topics, eventTypes }: Pick<Subscription<never>, "topics" | "eventTypes">) {
    this.#topics = new Set(topics)
    this.#eventTypes = eventTypes && new Set(eventTypes)
  }

  reads(topic: string): boolean {
    return this.#topics.has(topic)
  }

  wants({ topic, envelope }: BusMessage): boolean {
    return this.reads(topic) && (this.#eventTypes?.has(envelope.eventType) ?? true)
  }

  wake(wanted: boolean): void {
    this.#wanted ||= wanted
    this.#latch.openUnsafe()
  }

  /** What comes from now on wakes it the next time. Whether it was woken for something that it wants. */
  rise(): boolean {
    const wanted = this.#wanted
    this.#wanted = false
    this.#latch.closeUnsafe()
    return wanted
  }

  readonly sleep = Effect.raceFirst(this.#latch.await, Effect.sleep(sleepAtMost))
}

/** FNV-1a over UTF-16 code units: which partition a key belongs to. */
export const partitionOf = (key: string): number => {
  let hash = 0x811c9dc5
  for (let index = 0; index < key.length; index++) {
    hash = Math.imul(hash ^ key.charCodeAt(index), 0x01000193)
  }
  return (hash >>> 0) % partitionCount
}

/** A row of the log. What our own relays wrote is not decoded again; consumers decode the payloads they care about. */
interface LogRow {
  readonly topic: string
  readonly partition: number
  readonly offset: number
  readonly key: string
  readonly envelope: Envelope
  readonly traceParent: string
  readonly failure: DeadLetterCause | null
  readonly publishedAt: Date
  readonly requeued: boolean
}

const toLetter = ({ failure, publishedAt, ...row }: LogRow): DeadLetter => ({
  ...row,
  failedAt: publishedAt,
  failure: failure ?? undefined
})

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
    const sleepers = new Set<Sleeper>()
    const sleeper = (subscription: ConstructorParameters<typeof Sleeper>[0]) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const made = new Sleeper(subscription)
          sleepers.add(made)
          return made
        }),
        (made) => Effect.sync(() => sleepers.delete(made))
      )

    /** Where the partitions ended when their readers were last woken. */
    const lastSeen = new Map<string, number>()
    const watch = Effect.gen(function* () {
      const rows = yield* sql<{ topic: string; partition: number; end: number }>`
        select topic, partition, next_offset as "end" from bus.partitions`
      const moved = new Set<string>()
      for (const { topic, partition, end } of rows) {
        const place = `${topic}/${partition}`
        if (lastSeen.get(place) === end) continue
        lastSeen.set(place, end)
        moved.add(topic)
      }
      for (const topic of moved) for (const each of sleepers) if (each.reads(topic)) each.wake(false)
    })

    const publish = Tracing.fn("EventBus.publish")(function* (messages: ReadonlyArray<BusMessage>) {
      if (messages.length === 0) return
      const now = new Date(yield* Clock.currentTimeMillis)
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
        from message join wanted using (topic, partition) join taken using (topic, partition)
      `.pipe(Database.retryLostRace)
      for (const each of sleepers) if (messages.some((message) => each.wants(message))) each.wake(true)
    }, unavailable)

    const fields = sql.literal(
      `topic, partition, "offset", key, envelope, trace_parent as "traceParent", failure, published_at as "publishedAt", requeued_at is not null as requeued`
    )

    const unhurried = sql.literal(Database.unhurried)

    // Reads of the log are sub-queries that the planner cannot turn into joins ("offset 0", a scalar "exists"): as joins they
    // may become scans of the whole log.

    /**
     * Takes what partitions of a group nobody else has at the moment, moves the group past what is next in them and hands that
     * over, in one transaction: what is not handled goes back. Its commit waits for no disk: a place that a crash of the
     * server loses is an earlier one, and who reads on from there has its inbox. Whether there is more in them.
     */
    const consume = <R>({ consumerGroup, topics, eventTypes, batchSize, handle }: Subscription<R>) => {
      const wanted = eventTypes === undefined ? sql.literal("true") : sql`event_type = any(${eventTypes}::text[])`
      return sql.withTransaction(
        Effect.gen(function* () {
          // A partition without anything that is wanted comes as a row without an event.
          const found = yield* sql<{ more: boolean } & (LogRow | { offset: null })>`
            with mine as materialized (
              select g.topic as of_topic, g.partition as of_partition, g.next_offset as first,
                least(p.next_offset, g.next_offset + ${batchSize}) as beyond,
                p.next_offset > g.next_offset + ${batchSize} as more, ${unhurried}
              from bus.consumer_groups g join bus.partitions p using (topic, partition)
              where g.consumer_group = ${consumerGroup} and g.topic = any(${topics}::text[]) and p.next_offset > g.next_offset
              order by g.topic, g.partition for update of g skip locked
            ), moved as (
              update bus.consumer_groups g set next_offset = beyond from mine
              where g.consumer_group = ${consumerGroup} and g.topic = of_topic and g.partition = of_partition
            )
            select more, ${fields} from mine left join lateral (
              select * from bus.log
              where topic = of_topic and partition = of_partition and "offset" >= first and "offset" < beyond and ${wanted}
              offset 0
            ) as next on true
            order by topic, partition, "offset"`
          const rows = found.filter((row) => row.offset !== null)
          const events = rows.map(({ more: _, ...row }) => toLetter(row)).filter(isFor(consumerGroup))
          if (events.length > 0) yield* handle(events)
          return found.some(({ more }) => more)
        })
      )
    }

    const unread = (consumerGroup: string, topics: ReadonlyArray<string>) => sql<{
      topic: string
      partition: number
      registered: boolean
      waiting: number
    }>`
      select p.topic, p.partition, g.topic is not null as registered,
        p.next_offset - coalesce(g.next_offset, 0) as waiting
      from bus.partitions p
      left join bus.consumer_groups g
        on g.consumer_group = ${consumerGroup} and g.topic = p.topic and g.partition = p.partition
      where p.topic = any(${topics}::text[]) and p.next_offset > coalesce(g.next_offset, 0)`

    /**
     * Moves a group past the next events, where it wants none of them: one statement, and nothing is read. Not more of them
     * than it can look through in a moment, however far behind it is. Whether there may be something that it wants.
     */
    const passOver = <R>({ consumerGroup, topics, eventTypes }: Subscription<R>) =>
      eventTypes === undefined
        ? Effect.succeed(true)
        : sql<{ left: boolean }>`
            with mine as (
              select g.topic, g.partition, g.next_offset, p.next_offset as "end",
                least(p.next_offset, g.next_offset + ${lookAhead}) as beyond, ${unhurried}
              from bus.consumer_groups g join bus.partitions p using (topic, partition)
              where g.consumer_group = ${consumerGroup} and g.topic = any(${topics}::text[]) and p.next_offset > g.next_offset
              for update of g skip locked
            ), judged as materialized (
              select mine.*, (select exists (
                select from bus.log l
                where l.topic = mine.topic and l.partition = mine.partition
                  and l."offset" >= mine.next_offset and l."offset" < beyond and l.event_type = any(${eventTypes}::text[])
              )) as wanted
              from mine
            ), passed as (
              update bus.consumer_groups g set next_offset = beyond from judged
              where g.consumer_group = ${consumerGroup} and g.topic = judged.topic and g.partition = judged.partition
                and not wanted
            )
            select wanted or beyond < "end" as left from judged`.pipe(
            Effect.map((rows) => rows.some(({ left }) => left))
          )

    const subscribe = <R>(options: Subscription<R>): Effect.Effect<never, never, R> => {
      const { consumerGroup, topics } = options
      const register = Effect.gen(function* () {
        const fresh = (yield* unread(consumerGroup, topics)).filter((partition) => !partition.registered)
        if (fresh.length === 0) return
        yield* sql`
          insert into bus.consumer_groups (consumer_group, topic, partition, next_offset)
          select ${consumerGroup}, topic, partition, 0
          from unnest(${fresh.map((row) => row.topic)}::text[], ${fresh.map((row) => row.partition)}::int[]) as p (topic, partition)
          on conflict do nothing`
      })
      return Effect.scoped(
        Effect.gen(function* () {
          const self = yield* sleeper(options)
          let registered = 0
          const turn = Effect.gen(function* () {
            const wanted = self.rise()
            // Partitions come into being with their first event, all of a topic's within its first few.
            if (registered < topics.length * partitionCount) {
              yield* register
              const [row] = yield* sql<{ count: number }>`
                select count(*) as count from bus.consumer_groups
                where consumer_group = ${consumerGroup} and topic = any(${topics}::text[])`
              registered = row?.count ?? 0
            }
            const more = (wanted || (yield* passOver(options))) && (yield* consume(options))
            if (more) return
            yield* Effect.sleep(gatherFor)
            yield* self.sleep
          })
          return yield* turnForever(`Consumer group ${consumerGroup}`, turn)
        })
      )
    }

    const follow = <R>(options: Following<R>): Effect.Effect<never, never, R> =>
      Effect.scoped(
        Effect.gen(function* () {
          const { topics, following, handle } = options
          const self = yield* sleeper({ topics })
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
      const now = new Date(yield* Clock.currentTimeMillis)
      return yield* sql.withTransaction(
        Effect.gen(function* () {
          let count = 0
          for (const { failure, key, envelope, traceParent, ...letter } of letters) {
            if (failure === undefined) continue
            const mine = yield* sql`
              update bus.log set requeued_at = ${now}
              where topic = ${letter.topic} and partition = ${letter.partition} and "offset" = ${letter.offset}
                and requeued_at is null
              returning 1`
            if (mine.length === 0) continue
            yield* publish([{ topic: failure.topic, key, envelope, traceParent, failure }])
            count += 1
          }
          return count
        })
      )
    }, unavailable)

    const lag: EventBus["Service"]["lag"] = Effect.fnUntraced(function* (consumerGroup, topics) {
      const rows = yield* unread(consumerGroup, topics)
      return rows.reduce((sum, row) => sum + row.waiting, 0)
    }, unavailable)

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
    return EventBus.of({ cluster, publish, subscribe, follow, read, ends, deadLetters, requeue, lag, expire })
  })
)

/** The tables of the bus. */
export const migrations = {
  schema: "bus",
  folder: new URL("./migrations", import.meta.url),
  common: false
} satisfies Parameters<typeof Migrations.run>[0]
