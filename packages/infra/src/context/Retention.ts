import { Clock, Effect } from "effect"
import { SqlClient } from "effect/sql"
import { keptMs } from "../idempotency/Idempotency.ts"

/** How long the inbox remembers an event, in milliseconds: 8 days, a day more than the bus keeps it. */
const inboxKeptMs = 8 * 24 * 60 * 60_000

/** Rows that one statement deletes: a short transaction each, which vacuum can follow. */
const batchSize = 10_000

/** Between two statements, so that they do not take the disk from who waits for an answer. */
const pause = "50 millis"

/**
 * Deletes what is older, however much there is: however fast rows came, they go as fast. Each statement deletes a range of
 * times that was looked up before: as one statement, it would read the whole table for each of its batches.
 */
const forget = Effect.fnUntraced(function* (table: string, time: string, before: Date) {
  const sql = yield* SqlClient.SqlClient
  while (true) {
    // Dates of ours have milliseconds, a timestamp may be between two of them.
    const [some] = yield* sql<{ beyond: Date }>`
      select date_trunc('milliseconds', at) + interval '1 millisecond' as beyond from (
        select ${sql(time)} as at from ${sql(table)} where ${sql(time)} < ${before} order by 1 limit ${batchSize}
      ) as oldest order by at desc limit 1`
    if (some === undefined) return
    yield* sql`delete from ${sql(table)} where ${sql(time)} < ${some.beyond}`
    yield* Effect.sleep(pause)
  }
})

/** Forgets idempotency records after 24 h and inbox rows after 8 days. */
export const turn = Effect.fnUntraced(function* (schema: string) {
  const now = yield* Clock.currentTimeMillis
  yield* forget(`${schema}.idempotency`, "created_at", new Date(now - keptMs))
  yield* forget(`${schema}.inbox`, "received_at", new Date(now - inboxKeptMs))
})

/** A turn every 5 minutes, for good. */
export const run = (schema: string) =>
  Effect.forever(
    Effect.sleep("5 minutes").pipe(
      Effect.andThen(turn(schema)),
      Effect.catchTag("SqlError", (error) => Effect.logWarning(`Retention of ${schema} pauses`, error))
    )
  ).pipe(Effect.withTracerEnabled(false))
