// What is deleted by age: all of it, however much there is, and nothing that is younger.
import { expect, test } from "bun:test"
import { Clock, Duration, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as Retention from "../src/context/Retention.ts"
import { EventBus } from "../src/events/EventBus.ts"
import * as PostgresEventBus from "../src/events/PostgresEventBus.ts"
import * as Database from "../src/postgres/Database.ts"
import * as Migrations from "../src/postgres/Migrations.ts"
import * as TestDatabase from "../src/postgres/TestDatabase.ts"

const hourMs = 60 * 60_000

/** Runs a test in a database of its own. */
const inDatabase = <E>(test: Effect.Effect<void, E, SqlClient.SqlClient>) =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.fresh
    const database = yield* Layer.build(
      Database.layer({ url, maxConnections: 1, applicationName: "test", statementTimeoutMs: 0 })
    )
    yield* Effect.provide(test, database)
  }).pipe(Effect.scoped, Effect.runPromise)

test(
  "everything that is old goes in one turn, more than one statement takes, and what is younger stays",
  () =>
    inDatabase(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* Migrations.run({ schema: "shelf", folder: undefined, common: true })
        const now = yield* Clock.currentTimeMillis
        const at = (hours: number) => new Date(now - hours * hourMs)
        yield* sql`
          insert into shelf.inbox (consumer_group, event_id, received_at)
          select 'group', 'EVENT-' || n, case when n <= 25000 then ${at(8 * 24 + 1)}::timestamptz + n * interval '7 microseconds' else ${at(8 * 24 - 1)} end
          from generate_series(1, 25100) as n`
        yield* sql`
          insert into shelf.idempotency (caller, operation, key, payload_hash, answer, created_at)
          select 'caller', 'place', 'KEY-' || n, 'hash', '{}', case when n <= 25000 then ${at(25)}::timestamptz else ${at(23)} end
          from generate_series(1, 25100) as n`
        yield* Retention.turn("shelf")
        const [left] = yield* sql<{ inbox: number; answers: number; old: number }>`
          select (select count(*) from shelf.inbox) as inbox, (select count(*) from shelf.idempotency) as answers,
            (select count(*) from shelf.inbox where received_at < ${at(8 * 24)})
              + (select count(*) from shelf.idempotency where created_at < ${at(24)}) as old`
        expect(left).toEqual({ inbox: 100, answers: 100, old: 0 })
      })
    ),
  60_000
)

test(
  "all that the bus has kept long enough goes, of every partition, and nothing that is younger",
  () =>
    inDatabase(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* Migrations.run(PostgresEventBus.migrations)
        const now = yield* Clock.currentTimeMillis
        yield* sql`
          insert into bus.log (topic, partition, "offset", key, event_id, event_type, envelope, trace_parent, published_at)
          select 'order.events', n % 2, n / 2, 'KEY', 'EVENT-' || n, 'type', '{}', '',
            case when n < 50000 then ${new Date(now - 8 * 24 * hourMs)}::timestamptz else ${new Date(now - 6 * 24 * hourMs)} end
          from generate_series(0, 50099) as n`
        yield* sql`
          insert into bus.partitions (topic, partition, next_offset)
          select topic, partition, max("offset") + 1 from bus.log group by topic, partition`
        const bus = yield* EventBus
        expect(yield* bus.expire(Duration.days(7))).toBe(50_000)
        const left = yield* sql<{ partition: number; first: number; count: number }>`
          select partition, min("offset") as first, count(*) as count from bus.log group by partition order by partition`
        expect(left).toEqual([
          { partition: 0, first: 25_000, count: 50 },
          { partition: 1, first: 25_000, count: 50 }
        ])
        expect(yield* bus.expire(Duration.days(7))).toBe(0)
      }).pipe(Effect.provide(PostgresEventBus.layer))
    ),
  60_000
)
