import { Context, Effect, Latch, Layer, Metric } from "effect"
import { SqlClient } from "effect/sql"
import { type Envelope, type Topic } from "@merkato/domain/kernel/Event"
import { EventId, Id } from "@merkato/domain/kernel/Ids"
import { Policies } from "../policy/Policies.ts"
import { unhurried } from "../postgres/Database.ts"
import { traced } from "../telemetry/Tracing.ts"
import { type BusMessage, EventBus, isSampled } from "./EventBus.ts"
import { gaveUp, letterOf, relayOf } from "./DeadLetters.ts"
import { EventSchemas } from "./EventSchemas.ts"
import { RelaySignal, type StoredEvent } from "./EventStore.ts"

/** What a context's events name as where they come from. */
export const producerOf = (context: string): string => `${context}-service`

/** Events published with one trip to the bus. */
const batchSize = 500

/**
 * Milliseconds. `gatherMs`: how long events gather after some were published; the first one after a pause goes at once, and under
 * load there are a few bigger batches instead of many small ones. `pollMs`: how long the relay sleeps when nobody wakes it, as long as what a killed process left behind
 * may have to wait.
 */
export const Pace = Context.Reference<{ readonly gatherMs: number; readonly pollMs: number }>(
  "merkato/infra/RelayPace",
  { defaultValue: () => ({ gatherMs: 50, pollMs: 2_000 }) }
)

/** How long it sleeps when it was woken and got nothing: another process's relay may have been at it, and passed it over. */
const lookAgainMs = 200

const relayed = Metric.counter("events_published_total", {
  description: "Events put on the bus by the relays",
  incremental: true
})

/** A stored event as the relay reads it; what the context itself wrote is not decoded again. */
interface Row extends Omit<StoredEvent, "occurredAt" | "position"> {
  readonly occurredAt: Date
}

const toMessage = (topic: Topic, producer: string, event: Row): BusMessage => ({
  topic,
  key: event.aggregateId,
  traceParent: event.traceParent,
  envelope: {
    eventId: EventId.make(event.eventId),
    eventType: event.eventType,
    occurredAt: event.occurredAt.toISOString(),
    producer,
    traceId: event.traceParent.slice(3, 35),
    correlationId: event.correlationId,
    schemaVersion: "1.0",
    partitionKey: Id.make(event.aggregateId),
    region: event.region,
    aggregateVersion: event.version,
    payload: event.payload
  } satisfies Envelope
})

/**
 * Moves what stands in a context's outbox to the bus, in position order: takes it out, publishes, commits. It never reads
 * "everything after position N", since positions are given before commit and a slow transaction's would be passed over.
 * An advisory lock keeps it one per context, over all processes.
 */
export const make = Effect.fnUntraced(function* (options: {
  readonly schema: string
  readonly topic: Topic
  readonly producer: string
}) {
  const sql = yield* SqlClient.SqlClient
  const bus = yield* EventBus
  const { wrongAsWritten } = yield* EventSchemas
  const { schema, topic, producer } = options
  const outbox = sql(`${schema}.outbox`)
  const events = sql(`${schema}.events`)

  /** Whether anything waits: what a turn costs that finds nothing, and was not told that there is something. */
  const anyWaiting = Effect.map(
    sql<{ any: boolean }>`select exists (select from ${outbox}) as any`,
    ([row]) => row?.any === true
  )

  /**
   * An outbox is all but empty whenever Postgres counts it, so that it would plan to read the table from end to end: that is,
   * every row that went since the last vacuum. For the transaction it goes by the index.
   */
  const byIndex = sql`select set_config('enable_seqscan', 'off', true)`

  /**
   * The first events of the outbox, taken out of it; none while another relay of the context is at work. What that one has
   * taken since this statement began is passed over: a row that is gone by the time it is to be deleted is not returned, and
   * its place is given to no other while this statement sees it. The commit that takes them out waits for no disk: after a
   * crash of the server they may be published again, as after one of ours.
   */
  const takeBatch = sql<Row>`
    with turn as materialized (
      select pg_try_advisory_xact_lock(hashtext(${`merkato.relay.${schema}`})) as mine, ${sql.literal(unhurried)}
    ), taken as (
      delete from ${outbox} where (select mine from turn)
        and ctid = any (array(select ctid from ${outbox} order by position limit ${batchSize}))
      returning position, aggregate_id, version
    )
    select e.event_id as "eventId", e.event_type as "eventType", e.aggregate_id as "aggregateId",
      e.version, e.occurred_at as "occurredAt", e.region, e.trace_parent as "traceParent",
      e.correlation_id as "correlationId", e.payload
    from taken
    -- "offset 0" keeps this a look-up by key for each row: as a join it may become a scan of all events there are.
    cross join lateral (
      select * from ${events} where aggregate_id = taken.aggregate_id and version = taken.version offset 0
    ) e
    order by taken.position`

  /**
   * An event that breaks its schema goes to the dead letters instead: it never reaches its topic, holds back nobody, and is
   * not lost. It is in the context's log as well, and what is put back is judged again.
   */
  const judged = (message: BusMessage): BusMessage => {
    const reason = wrongAsWritten(message.envelope.eventType, message.envelope.payload)
    return reason === undefined ? message : letterOf(message, { consumerGroup: relayOf(schema), attempts: 1, reason })
  }

  const publishBatch = Effect.gen(function* () {
    yield* byIndex
    const messages = (yield* takeBatch).map((event) => judged(toMessage(topic, producer, event)))
    if (messages.length === 0) return 0
    yield* bus.publish(messages)
    for (const message of messages) if (message.failure !== undefined) yield* gaveUp(message)
    for (const message of messages) {
      if (isSampled(message)) yield* traced(`publish ${topic}`, "producer", message, Effect.void)
    }
    return messages.length
  })

  /** Publishes one batch; how many events went out. */
  const publishNext = sql.withTransaction(publishBatch).pipe(Effect.withTracerEnabled(false))
  const publishIfAny = Effect.flatMap(anyWaiting, (any) => (any ? publishNext : Effect.succeed(0))).pipe(
    Effect.withTracerEnabled(false)
  )

  return { publishNext, publishIfAny }
})

/** Runs a context's relay in the background, under the policy of `event.publish`, and gives the context its `RelaySignal`. */
export const layer = (options: Parameters<typeof make>[0]) =>
  Layer.effect(
    RelaySignal,
    Effect.gen(function* () {
      const { publishNext, publishIfAny } = yield* make(options)
      const { guard } = yield* Policies
      const { gatherMs, pollMs } = yield* Pace
      const unending = <E, R>(publish: Effect.Effect<number, E, R>) =>
        publish.pipe(
          // Defects as well: whatever it stumbles over, a relay that is gone would hold back every event from then on.
          Effect.sandbox,
          Effect.tapError((cause) => Effect.logWarning(`Relay of ${options.schema} pauses`, cause)),
          guard("event.publish", { transient: () => true }),
          // The policy may be configured to end its retries; the relay never ends.
          Effect.orElseSucceed(() => 0)
        )
      const [publish, publishIfThereIs] = [unending(publishNext), unending(publishIfAny)]
      const work = Latch.makeUnsafe(false)
      let told = false
      const turn = Effect.gen(function* () {
        work.closeUnsafe()
        const published = yield* told ? publish : publishIfThereIs
        if (published > 0) yield* Metric.update(relayed, published)
        const sleepMs = told && published === 0 ? lookAgainMs : pollMs
        told = published === batchSize
        if (told) return
        if (published > 0) yield* Effect.sleep(gatherMs)
        told = yield* Effect.raceFirst(Effect.as(work.await, true), Effect.as(Effect.sleep(sleepMs), false))
      })
      yield* Effect.forkScoped(Effect.forever(turn))
      return RelaySignal.of({ wake: Effect.sync(() => work.openUnsafe()) })
    })
  )
