/** The event bus of a shop: the Kafka of KAFKA_BROKERS, the server of DATABASE_URL, or the embedded one that its data folder has running. */
import { Config, Effect, Layer, Option } from "effect"
import { SqlError } from "effect/sql"
import { BusUnavailable, EventBus } from "@merkato/infra/events/EventBus"
import * as KafkaWhereNamed from "@merkato/infra/events/KafkaWhereNamed"
import * as PostgresEventBus from "@merkato/infra/events/PostgresEventBus"
import * as Database from "@merkato/infra/postgres/Database"
import { DatabaseUrl } from "@merkato/infra/postgres/DatabaseUrl"
import { CommandFailed, reasonsOf } from "./Failure.ts"

/** A command's own statements may read much. */
const statementTimeoutMs = 60_000

const inPostgres = (dataDir: string) =>
  Layer.unwrap(
    Effect.map(DatabaseUrl, ({ url }) =>
      PostgresEventBus.layer.pipe(
        Layer.provide(
          Database.layer({ url, maxConnections: 2, applicationName: "merkato-command", statementTimeoutMs })
        )
      )
    )
  ).pipe(Layer.provide(DatabaseUrl.layerRunning(dataDir)))

const layer = (dataDir: string) =>
  Effect.gen(function* () {
    const given = yield* Config.option(Config.String("KAFKA_BROKERS"))
    return Option.isSome(given)
      ? yield* Layer.build(KafkaWhereNamed.layer({ brokers: given.value, topics: [] }))
      : yield* Layer.build(inPostgres(dataDir))
  })

const isBusFailure = (error: unknown): error is SqlError.SqlError | BusUnavailable =>
  SqlError.isSqlError(error) || error instanceof BusUnavailable

const explain = (error: SqlError.SqlError | BusUnavailable) => {
  const cause = error instanceof BusUnavailable ? error.cause : error
  const said = cause instanceof Error ? reasonsOf(cause).join(": ") : String(cause)
  return new CommandFailed({
    reason: said.includes("does not exist")
      ? "There is no event bus in this database: start a shop on it first."
      : `The event bus cannot be used: ${said}.`
  })
}

/** Runs an effect on the bus of that shop; what the bus cannot do becomes a sentence. */
export const provide =
  (dataDir: string) =>
  <A, E, R>(effect: Effect.Effect<A, E, R | EventBus>) =>
    Effect.scoped(Effect.flatMap(layer(dataDir), (bus) => Effect.provideContext(effect, bus))).pipe(
      Effect.mapError((error) => (isBusFailure(error) ? explain(error) : error))
    )
