import { type RealServer, realServer } from "./RealServer.ts"

/** A real Kafka for one test file. */
export interface KafkaBroker extends RealServer {
  /** As in `KAFKA_BROKERS`. */
  readonly brokers: string
}

export const kafkaBroker = async (what: string): Promise<KafkaBroker | undefined> => {
  const server = await realServer("kafka", what)
  return server && { ...server, brokers: server.settings["KAFKA_BROKERS"] ?? "" }
}
