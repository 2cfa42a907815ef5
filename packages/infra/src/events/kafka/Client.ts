import type { Broker } from "@platformatic/kafka"

export const clientId = "merkato"

/** What all of Kafka's own clients are made with. */
export const clientOptions = (brokers: ReadonlyArray<Broker>) => ({
  clientId,
  bootstrapBrokers: [...brokers],
  retries: 2,
  retryDelay: 100,
  connectTimeout: 5_000
})

export type ClientOptions = ReturnType<typeof clientOptions>
