import { Schema } from "effect"

/** A variable such as `KAFKA_BROKERS` names no server that answers as it should. What of it may be a secret is not told. */
export class ServerUnreachable extends Schema.TaggedError<ServerUnreachable>()("ServerUnreachable", {
  variable: Schema.String,
  /** Host and port; empty when the variable does not tell. */
  address: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `${this.variable} cannot be used: ${this.address === "" ? "" : `${this.address}: `}${this.reason}`
  }
}
