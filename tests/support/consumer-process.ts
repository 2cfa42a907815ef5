// A process with one consumer in it, for tests to kill. It writes down what it has done, in the transaction of its inbox. Told
// `amid` or `after`, it stops for good in its next batch and says so: half of it written and nothing committed, or all committed
// and Kafka not told yet.
import { Config, Deferred, Effect, Layer, Logger } from "effect"
import { SqlClient } from "effect/sql"
import type { Envelope } from "@merkato/domain/kernel/Event"
import * as Consumer from "@merkato/infra/events/Consumer"
import { EventBus } from "@merkato/infra/events/EventBus"
import * as KafkaWhereNamed from "@merkato/infra/events/KafkaWhereNamed"
import * as Database from "@merkato/infra/postgres/Database"
import * as Main from "@merkato/infra/runtime/Main"
import { eventType, group, isWhere, schema, topic, type Where } from "./ConsumerProcesses.ts"

let stopsAt: Where | undefined
process.on("message", (told) => {
  if (!isWhere(told)) return
  stopsAt = told
  process.send?.("told")
})

const here = (where: Where) =>
  Effect.suspend(() => {
    if (stopsAt !== where) return Effect.void
    process.send?.(where)
    return Effect.never
  })

const write = Effect.fnUntraced(function* (events: ReadonlyArray<Envelope>) {
  const sql = yield* SqlClient.SqlClient
  const half = Math.ceil(events.length / 2)
  for (const part of [events.slice(0, half), events.slice(half)]) {
    yield* sql`
      insert into ${sql(`${schema}.effects`)} (event_id, key, version)
      select * from unnest(${part.map(({ eventId }) => eventId)}::text[],
        ${part.map(({ partitionKey }) => partitionKey)}::text[], ${part.map(({ aggregateVersion }) => aggregateVersion)}::int[])`
    yield* here("amid")
  }
})

const consumer = Consumer.make({
  group,
  topic,
  eventTypes: [eventType],
  mode: "apply",
  handle: (event) => write([event]),
  handleAll: write
})

/** The bus, stopping where a batch is done and its offsets are not committed. */
const stoppingBus = Layer.effect(
  EventBus,
  Effect.map(EventBus, (bus) =>
    EventBus.of({
      ...bus,
      subscribe: (subscription) =>
        bus.subscribe({
          ...subscription,
          handle: (batch) => Effect.andThen(subscription.handle(batch), here("after"))
        })
    })
  )
)

Effect.gen(function* () {
  const url = yield* Config.Redacted("DATABASE_URL")
  const brokers = yield* Config.String("KAFKA_BROKERS")
  const told = Deferred.makeUnsafe<void>()
  process.once("disconnect", () => Deferred.doneUnsafe(told, Effect.void))
  yield* Effect.raceFirst(Consumer.run(schema, consumer), Deferred.await(told)).pipe(
    Effect.provide(
      Layer.merge(
        stoppingBus.pipe(Layer.provide(KafkaWhereNamed.layer({ brokers, topics: [] }))),
        Database.layer({ url, maxConnections: 2, applicationName: "test-consumer" })
      )
    )
  )
}).pipe(Effect.scoped, Effect.provide(Logger.layer([])), Main.run)
