import { Schema } from "effect"

/** `OPENSEARCH_URL` names no OpenSearch that answers. Of the URL it tells host and port: the rest may be a secret. */
export class OpenSearchUnreachable extends Schema.TaggedError<OpenSearchUnreachable>()("OpenSearchUnreachable", {
  variable: Schema.Literals(["OPENSEARCH_URL", "OPENSEARCH_INDEX_PREFIX"]),
  address: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `${this.variable} cannot be used: ${this.address === "" ? "" : `${this.address}: `}${this.reason}`
  }
}
