import { Schema } from "effect"

/** `REDIS_URL` names no Redis that answers. Of the URL it tells host and port: the rest may be a secret. */
export class RedisUnreachable extends Schema.TaggedError<RedisUnreachable>()("RedisUnreachable", {
  address: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `REDIS_URL cannot be used: ${this.address === "" ? "" : `${this.address}: `}${this.reason}`
  }
}
