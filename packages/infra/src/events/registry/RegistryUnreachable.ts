import { Schema } from "effect"

/** `SCHEMA_REGISTRY_URL` names no registry that answers. Of the URL it tells the origin: the rest may be a secret. */
export class RegistryUnreachable extends Schema.TaggedError<RegistryUnreachable>()("RegistryUnreachable", {
  address: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `SCHEMA_REGISTRY_URL cannot be used: ${this.address === "" ? "" : `${this.address}: `}${this.reason}`
  }
}
