import { Clock, Effect } from "effect"
import { SqlClient } from "effect/sql"
import { Idempotency } from "../idempotency/Idempotency.ts"

/** How long the inbox remembers an event, in milliseconds: 8 days, a day more than the bus keeps it. */
const inboxKeptMs = 8 * 24 * 60 * 60_000

/** Forgets idempotency records after 24 h and inbox rows after 8 days, a bounded number at a time. */
export const run = (schema: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const idempotency = yield* Idempotency
    const inbox = sql(`${schema}.inbox`)
    const expireInbox = Effect.gen(function* () {
      const oldest = new Date((yield* Clock.currentTimeMillis) - inboxKeptMs)
      yield* sql`
        delete from ${inbox} where (consumer_group, event_id) in (
          select consumer_group, event_id from ${inbox} where received_at < ${oldest} limit 10000)`
    })
    return yield* Effect.forever(
      Effect.sleep("5 minutes").pipe(
        Effect.andThen(idempotency.expire),
        Effect.andThen(expireInbox),
        Effect.catchTag("SqlError", (error) => Effect.logWarning(`Retention of ${schema} pauses`, error))
      )
    )
  }).pipe(Effect.withTracerEnabled(false))
