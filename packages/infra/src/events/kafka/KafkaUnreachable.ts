import { Schema } from "effect"

/** `KAFKA_BROKERS` names no Kafka that answers. */
export class KafkaUnreachable extends Schema.TaggedError<KafkaUnreachable>()("KafkaUnreachable", {
  brokers: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `KAFKA_BROKERS cannot be used: ${this.brokers === "" ? "" : `${this.brokers}: `}${this.reason}`
  }
}
