import { Schema } from "effect"

/** `CASSANDRA_CONTACT_POINTS` names no Cassandra that answers. */
export class CassandraUnreachable extends Schema.TaggedError<CassandraUnreachable>()("CassandraUnreachable", {
  variable: Schema.Literals(["CASSANDRA_CONTACT_POINTS", "CASSANDRA_KEYSPACE"]),
  address: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `${this.variable} cannot be used: ${this.address === "" ? "" : `${this.address}: `}${this.reason}`
  }
}
