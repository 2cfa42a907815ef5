import { type Effect, Schema, type Stream } from "effect"
import type { Row } from "./Projection.ts"

/** The server on which a read model lies does not answer. */
export class StoreUnavailable extends Schema.TaggedError<StoreUnavailable>()("StoreUnavailable", {
  server: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `${this.server} does not answer`
  }
}

/** The rows that are read from, and those that are built anew beside them. */
export type Place = "live" | "next"

/**
 * Where the rows of one projection lie when it is not in Postgres: on a server that has no transactions, and may be away. What
 * each of its writes does is the same however often and in whatever order they come: rows are merged as `Projection.merge` does.
 */
export interface RowStore {
  /** As people call it. */
  readonly server: string
  /** Whether there are live rows. There are none before they have been built from the whole log. */
  readonly isBuilt: Effect.Effect<boolean, StoreUnavailable>
  /** Makes room for what is built anew, empty; what somebody has left there is thrown away. */
  readonly begin: Effect.Effect<void, StoreUnavailable>
  /** Merges rows into those that are there. False when there is no such place; then it did nothing. */
  readonly write: (place: Place, rows: ReadonlyArray<Row>) => Effect.Effect<boolean, StoreUnavailable>
  /** The rows that have the keys of these, as they were last written. */
  readonly find: (place: Place, keys: ReadonlyArray<Row>) => Effect.Effect<ReadonlyArray<Row>, StoreUnavailable>
  /** All rows, in whatever order; those that are written meanwhile may be missing. */
  readonly scan: (place: Place) => Stream.Stream<ReadonlyArray<Row>, StoreUnavailable>
  /** Puts what was built anew into the place of the live rows, which are thrown away; readers see the one or the other. */
  readonly swap: Effect.Effect<void, StoreUnavailable>
  /** Throws away what is built anew, if there is any. */
  readonly abandon: Effect.Effect<void, StoreUnavailable>
}
