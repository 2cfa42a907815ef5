import { Schema } from "effect"

/** `MERKATO_RELAY=debezium` cannot be done as things are. */
export class CaptureImpossible extends Schema.TaggedError<CaptureImpossible>()("CaptureImpossible", {
  reason: Schema.String
}) {
  override get message() {
    return `MERKATO_RELAY=debezium cannot be done: ${this.reason}`
  }
}
