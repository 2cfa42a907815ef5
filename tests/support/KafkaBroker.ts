import { type RealServer, realServer } from "./RealServer.ts"

/** A real Kafka for one test file. */
export interface KafkaBroker extends RealServer {
  /** As in `KAFKA_BROKERS`. */
  readonly brokers: string
}

/** `advertised`: where it sends its clients, when something stands in front of it. */
export const kafkaBroker = async (what: string, advertised?: string): Promise<KafkaBroker | undefined> => {
  const environment = advertised === undefined ? {} : { MERKATO_KAFKA_ADVERTISED: advertised }
  const server = await realServer("kafka", what, environment)
  return server && { ...server, brokers: server.settings["KAFKA_BROKERS"] ?? "" }
}
