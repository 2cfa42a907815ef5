import { Effect, Layer } from "effect"

/**
 * The bus on the Kafka that is named, as in `KAFKA_BROKERS`: `host:port`, several separated by commas. Fails with
 * `ServerUnreachable`. Its client is loaded here and not before: a shop without Kafka does without those 20 MB.
 */
export const layer = (options: { readonly brokers: string; readonly topics: ReadonlyArray<string> }) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const [Brokers, KafkaEventBus] = yield* Effect.promise(() =>
        Promise.all([import("./kafka/Brokers.ts"), import("./KafkaEventBus.ts")])
      )
      const brokers = yield* Brokers.parse(options.brokers)
      yield* Brokers.check(brokers)
      return KafkaEventBus.layer({ brokers, topics: options.topics })
    })
  )
