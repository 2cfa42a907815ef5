import { Config, Duration, Effect, Layer, Option, Redacted } from "effect"
import type { SqlError } from "effect/sql"
import { allEvents } from "@merkato/domain/events"
import { Topic } from "@merkato/domain/kernel/Event"
import type { ServerUnreachable } from "@merkato/infra/config/ServerUnreachable"
import { KeepsHouse } from "@merkato/infra/context/BoundedContext"
import * as Capture from "@merkato/infra/events/capture/Capture"
import { CaptureImpossible } from "@merkato/infra/events/capture/CaptureImpossible"
import * as Connector from "@merkato/infra/events/capture/Connector"
import { type BusUnavailable, EventBus } from "@merkato/infra/events/EventBus"
import * as KafkaWhereNamed from "@merkato/infra/events/KafkaWhereNamed"
import * as PostgresEventBus from "@merkato/infra/events/PostgresEventBus"
import * as ConfluentSchemaRegistry from "@merkato/infra/events/registry/ConfluentSchemaRegistry"
import { registerAll } from "@merkato/infra/events/registry/SchemaRegistry"
import { producerOf } from "@merkato/infra/events/Relay"
import * as Database from "@merkato/infra/postgres/Database"
import { type ContextName, contexts } from "./contexts.ts"

/** The bus has connections of its own: a consumer holds one while a context works on its batch. */
const busConnections = 6

/** The bus keeps events for 7 days (contracts: topics); what is older goes, a bounded number at a time. */
const retention = Layer.effectDiscard(
  Effect.gen(function* () {
    const bus = yield* EventBus
    if (!(yield* KeepsHouse)) return
    yield* Effect.forkScoped(
      Effect.forever(
        Effect.sleep("10 minutes").pipe(
          Effect.andThen(bus.expire(Duration.days(7))),
          Effect.catchTag("BusUnavailable", (error) => Effect.logWarning("Retention of the bus pauses", error))
        )
      )
    )
  })
)

/** The bus as a log at a database. */
const postgresBus = (url: Redacted.Redacted) =>
  PostgresEventBus.layer.pipe(
    Layer.provide(Database.layer({ url, maxConnections: busConnections, applicationName: "merkato-bus" }))
  )

export type BusFailure = SqlError.SqlError | BusUnavailable | ServerUnreachable | Config.ConfigError
type BusLayer = Layer.Layer<EventBus, BusFailure>
const buses = new Map<string, BusLayer>()

/**
 * The bus: Kafka where `KAFKA_BROKERS` names one, else a log at this database. The same URL is the same Layer, so that all
 * who share a process share its connections and wake-ups.
 */
export const eventBus = (url: Redacted.Redacted): BusLayer => {
  const known = buses.get(Redacted.value(url))
  if (known !== undefined) return known
  const chosen = Layer.unwrap(
    Effect.gen(function* (): Effect.fn.Return<BusLayer, BusFailure> {
      const given = yield* Config.option(Config.String("KAFKA_BROKERS"))
      return Option.match(given, {
        onNone: () => postgresBus(url),
        // With the topics of all contexts from the start.
        onSome: (brokers) => KafkaWhereNamed.layer({ brokers, topics: Topic.literals })
      })
    })
  )
  const made = retention.pipe(Layer.provideMerge(chosen))
  buses.set(Redacted.value(url), made)
  return made
}

/** The registry of schemas that `SCHEMA_REGISTRY_URL` names has those of all events, before the first of them is published. */
export const schemasRegistered = Layer.unwrap(
  Effect.gen(function* () {
    const url = yield* Config.option(Config.String("SCHEMA_REGISTRY_URL"))
    if (Option.isNone(url) || !(yield* KeepsHouse)) return Layer.empty
    return Layer.effectDiscard(registerAll(allEvents)).pipe(Layer.provide(ConfluentSchemaRegistry.layer(url.value)))
  })
)

/** Who takes events from the outboxes to the bus: the relays of the contexts, or (here: where its Kafka Connect is) Debezium. */
const debezium = Effect.gen(function* () {
  const kind = yield* Config.Literals(["own", "debezium"], "MERKATO_RELAY").pipe(Config.withDefault("own" as const))
  if (kind === "own") return undefined
  const [brokers, connectUrl] = yield* Effect.all([
    Config.option(Config.String("KAFKA_BROKERS")),
    Config.option(Config.String("CONNECT_URL"))
  ])
  if (Option.isNone(brokers) || Option.isNone(connectUrl)) {
    return yield* new CaptureImpossible({ reason: "it wants KAFKA_BROKERS and CONNECT_URL" })
  }
  return { connectUrl: connectUrl.value }
})

/** Lets Debezium take the events of these contexts from their database, or lets their relays do it again. */
export const chooseRelay = Effect.fnUntraced(function* (names: ReadonlyArray<ContextName>) {
  const captured = names.flatMap((name) => {
    const { topic } = contexts[name]
    return topic === undefined ? [] : [{ schema: name, topic, producer: producerOf(name) }]
  })
  if ((yield* debezium) === undefined) return yield* Capture.end(captured.map(({ schema }) => schema))
  yield* Capture.begin(captured)
})

/** Debezium has a connector for each of these databases, where it is wanted. */
export const connectors = (databases: ReadonlyArray<Redacted.Redacted>) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const wanted = yield* debezium
      if (wanted === undefined || !(yield* KeepsHouse)) return Layer.empty
      const distinct = new Map(databases.map((url) => [Redacted.value(url), url]))
      return Connector.layer(wanted.connectUrl, [...distinct.values()])
    })
  )
