// What is deleted by age: all of it, however much there is, and nothing that is younger.
import { expect, test } from "bun:test"
import { Clock, ConfigProvider, Duration, Effect, Fiber, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as Retention from "../src/context/Retention.ts"
import { EventBus } from "../src/events/EventBus.ts"
import * as PostgresEventBus from "../src/events/PostgresEventBus.ts"
import { Idempotency } from "../src/idempotency/Idempotency.ts"
import * as Database from "../src/postgres/Database.ts"
import * as Migrations from "../src/postgres/Migrations.ts"
import * as TestDatabase from "../src/postgres/TestDatabase.ts"

const hourMs = 60 * 60_000

test(
  "everything that is old goes in one turn, more than one statement takes, and what is younger stays",
  () =>
    TestDatabase.run(
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
        yield* Retention.turn("shelf", [])
        const [left] = yield* sql<{ inbox: number; answers: number; old: number }>`
          select (select count(*) from shelf.inbox) as inbox, (select count(*) from shelf.idempotency) as answers,
            (select count(*) from shelf.inbox where received_at < ${at(8 * 24)})
              + (select count(*) from shelf.idempotency where created_at < ${at(24)}) as old`
        expect(left).toEqual({ inbox: 100, answers: 100, old: 0 })
      })
    ),
  60_000
)

const shelf = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* Migrations.run({ schema: "shelf", folder: undefined, common: true })
  yield* sql`create table shelf.jars (jar_id text primary key, open boolean not null)`
  /** Jars of a time, one a millisecond; every hundredth is open. */
  return (count: number, from: number) => sql`
    insert into shelf.jars (jar_id, open)
    select 'JAR-' || uuidv7((${new Date(from)}::timestamptz + n * interval '1 millisecond') - clock_timestamp()), n % 100 = 0
    from generate_series(0, ${count - 1}::int) as n`
})
const left = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<{ open: boolean; count: number }>`
    select open, count(*) as count from shelf.jars group by open order by open`
)
const jars = { table: "jars", age: Retention.byId("jar_id", "JAR-"), days: 30, setting: "KEEP_JARS_DAYS" }
const kept = (days: string) =>
  Effect.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env: { KEEP_JARS_DAYS: days } })))

test(
  "rows go by the time in their ids, but for those that are to stay, and the environment may say when",
  () =>
    TestDatabase.run(
      Effect.gen(function* () {
        const fill = yield* shelf
        const now = yield* Clock.currentTimeMillis
        yield* fill(21_000, now - 31 * 24 * hourMs)
        yield* fill(300, now - 29 * 24 * hourMs)
        yield* Retention.turn("shelf", [{ ...jars, where: (sql) => sql`not open` }])
        expect(yield* left).toEqual([
          { open: false, count: 297 },
          { open: true, count: 213 }
        ])
        yield* Retention.turn("shelf", [jars])
        expect(yield* left).toEqual([
          { open: false, count: 297 },
          { open: true, count: 3 }
        ])
        yield* Retention.turn("shelf", [jars]).pipe(kept("30"))
        expect((yield* left).length).toBe(2)
        const never = yield* Effect.exit(Retention.turn("shelf", [jars]).pipe(kept("0")))
        expect(String(never)).toContain('Expected a value between 1 and 10000\n  at ["KEEP_JARS_DAYS"]')
        yield* Retention.turn("shelf", [jars]).pipe(kept("28"))
        expect(yield* left).toEqual([])
      })
    ),
  60_000
)

test(
  "all that the bus has kept long enough goes, of every partition, and nothing that is younger",
  () =>
    TestDatabase.run(
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

test("what somebody writes anew is left alone, and nobody who writes more of it waits in a circle", () =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.freshWithLastingDeadlocks
    const database = Database.layer({ url, maxConnections: 4, applicationName: "test", statementTimeoutMs: 5_000 })
    yield* Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* Migrations.run({ schema: "shelf", folder: undefined, common: true })
      const idempotency = yield* Idempotency
      const now = yield* Clock.currentTimeMillis
      const keys = Array.from({ length: 20 }, (_, nth) => `KEY-${nth + 10}`)
      const keyed = (key: string) => ({ caller: "caller", operation: "place", key, payloadHash: "hash" })
      // The last key is the oldest.
      yield* sql`
        insert into shelf.idempotency (caller, operation, key, payload_hash, answer, created_at)
        select 'caller', 'place', 'KEY-' || n, 'hash', '{}', ${new Date(now - 30 * hourMs)}::timestamptz - n * interval '1 hour'
        from generate_series(29, 10, -1) as n`
      const keeping = Effect.flatMap(
        idempotency.keeping(
          keys.map((key) => ({ request: keyed(key), answer: {} })),
          0
        ),
        (kept) => sql`with ${kept} select from kept`
      )
      // Until it is given back, both stand before the key in the middle, with what they have by then.
      const other = yield* sql.reserve
      yield* other.execute("begin", [], undefined)
      yield* other.execute("select from shelf.idempotency where key = 'KEY-20' for update", [], undefined)
      const both = yield* Effect.forkScoped(Effect.all([keeping, Retention.turn("shelf", [])], { concurrency: 2 }))
      yield* Effect.sleep("500 millis")
      yield* other.execute("rollback", [], undefined)
      yield* Fiber.join(both)
      const left = yield* sql<{ key: string }>`
        select key from shelf.idempotency where created_at > ${new Date(now - hourMs)} order by key`
      expect(left.map(({ key }) => key)).toEqual(keys)
    }).pipe(Effect.scoped, Effect.provide(Idempotency.layer("shelf").pipe(Layer.provideMerge(database))))
  }).pipe(Effect.scoped, Effect.withTracerEnabled(false), Effect.runPromise))
