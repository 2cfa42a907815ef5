import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { Clock, Context, Duration, Effect, Exit, Fiber, Layer, Logger, Option, Redacted, Schedule, Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as PostgresEventBus from "../src/events/PostgresEventBus.ts"
import { letterOf } from "../src/events/DeadLetters.ts"
import { type BusMessage, BusUnavailable, EventBus } from "../src/events/EventBus.ts"
import { partitionOf } from "../src/events/postgres/Partition.ts"
import * as Database from "../src/postgres/Database.ts"
import * as Migrations from "../src/postgres/Migrations.ts"
import * as TestDatabase from "../src/postgres/TestDatabase.ts"
import { eventBusContract, eventually, followed, message, numberOf, unique } from "./EventBus.contract.ts"

const scope = Scope.makeUnsafe()
let url = Redacted.make("")

beforeAll(() =>
  Effect.gen(function* () {
    const database = yield* TestDatabase.freshWithLastingDeadlocks
    url = database.url
    yield* Effect.provide(Migrations.run(PostgresEventBus.migrations), databaseLayer("migrations"))
  }).pipe(Scope.provide(scope), Effect.runPromise)
)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const databaseLayer = (applicationName: string) =>
  Database.layer({ url, maxConnections: 6, applicationName, statementTimeoutMs: 5_000 })

/** One process on the log: a bus with connections of its own. */
const layer = Layer.unwrap(
  Effect.sync(() => PostgresEventBus.layer.pipe(Layer.provideMerge(databaseLayer("merkato-bus"))))
)

eventBusContract("in Postgres", layer)

const run = <A, E>(body: Effect.Effect<A, E, EventBus | SqlClient.SqlClient | Scope.Scope>): Promise<A> =>
  body.pipe(
    Effect.provide(layer),
    Effect.scoped,
    Effect.provide(Logger.layer([])),
    Effect.withTracerEnabled(false),
    Effect.runPromise
  )

/** Ends the connections of every bus, from a connection of its own. */
const cutOff = Effect.suspend(() =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql`select pg_terminate_backend(pid) from pg_stat_activity
      where application_name = 'merkato-bus' and datname = current_database()`
  ).pipe(Effect.provide(Layer.fresh(databaseLayer("test"))))
)

test("who waits for a topic is woken by what is published there, and not by what is published elsewhere", () =>
  run(
    Effect.gen(function* () {
      const bus = yield* EventBus
      const topic = unique("topic")
      const got: Array<number> = []
      let slept = 0
      // Who sleeps for long by this clock does not wake up by himself.
      const real = yield* Clock.Clock
      const clock: Clock.Clock = Object.assign(Object.create(real), {
        sleep: (duration: Duration.Duration) =>
          Duration.isLessThan(duration, Duration.seconds(1))
            ? real.sleep(duration)
            : Effect.andThen(
                Effect.sync(() => (slept += 1)),
                Effect.never
              )
      })
      yield* bus
        .subscribe({
          consumerGroup: unique("group"),
          topics: [topic],
          batchSize: 10,
          handle: (batch) => Effect.sync(() => void got.push(...batch.map(numberOf)))
        })
        .pipe(Effect.provideService(Clock.Clock, clock), Effect.forkScoped)
      yield* eventually(
        Effect.sync(() => slept),
        (count) => count === 1
      )
      for (const n of [1, 2, 3]) yield* bus.publish([message(unique("elsewhere"), "KEY", n)])
      // Whoever was woken has looked, and gathered, ten times over.
      yield* Effect.sleep("300 millis")
      expect(slept).toBe(1)
      yield* bus.publish([message(topic, "KEY", 4)])
      yield* eventually(
        Effect.sync(() => got),
        (numbers) => numbers.length > 0
      )
      expect(got).toEqual([4])
    })
  ))

describe("a bus whose connections break", () => {
  test("hands out again what was being worked on, and goes on by itself", () =>
    run(
      Effect.gen(function* () {
        const bus = yield* EventBus
        const topic = unique("topic")
        const got: Array<number> = []
        let cuts = 2
        yield* bus.publish([1, 2, 3].map((n) => message(topic, "KEY", n)))
        yield* Effect.forkScoped(
          bus.subscribe({
            consumerGroup: unique("group"),
            topics: [topic],
            batchSize: 10,
            handle: (batch) =>
              Effect.suspend(() => {
                got.push(...batch.map(numberOf))
                return cuts-- > 0 ? Effect.asVoid(Effect.orDie(cutOff)) : Effect.void
              })
          })
        )
        yield* eventually(
          Effect.sync(() => got.length),
          (count) => count >= 9
        )
        yield* eventually(
          Effect.ignore(bus.publish([message(topic, "KEY", 4)])).pipe(
            Effect.andThen(Effect.sleep("50 millis")),
            Effect.andThen(Effect.sync(() => got.includes(4)))
          ),
          (came) => came
        )
        expect(got.slice(0, 10)).toEqual([1, 2, 3, 1, 2, 3, 1, 2, 3, 4])
      })
    ))

  test("is still followed", () =>
    run(
      Effect.gen(function* () {
        const bus = yield* EventBus
        const topic = unique("topic")
        const got = yield* followed(bus, topic)
        yield* bus.publish([message(topic, "KEY", 1)])
        yield* eventually(
          Effect.sync(() => got.length),
          (count) => count === 1
        )
        yield* cutOff
        yield* bus
          .publish([message(topic, "KEY", 2)])
          .pipe(Effect.retry({ times: 50, schedule: Schedule.spaced("20 millis") }))
        yield* eventually(
          Effect.sync(() => got.length),
          (count) => count === 2
        )
        expect(got).toEqual([1, 2])
      })
    ))

  test("says that it is unavailable, and is again when the connections are back", () =>
    run(
      Effect.gen(function* () {
        const bus = yield* EventBus
        const sql = yield* SqlClient.SqlClient
        const topic = unique("topic")
        const elsewhere = Context.get(yield* Layer.build(Layer.fresh(layer)), EventBus)
        let failed: unknown
        yield* Effect.gen(function* () {
          yield* bus.publish([message(topic, "KEY", 1)])
          // Waits for the offsets of the first, and is cut off while it does.
          const waiting = yield* Effect.forkDetach(Effect.flip(elsewhere.publish([message(topic, "KEY", 2)])))
          yield* eventually(
            sql`
              select pg_terminate_backend(pid) from pg_locks join pg_stat_activity using (pid)
              where not granted and locktype = 'transactionid' and datname = current_database()`,
            (rows) => rows.length > 0
          )
          failed = yield* Fiber.join(waiting)
          return yield* Effect.fail("the first is rolled back")
        }).pipe(sql.withTransaction, Effect.ignore)
        expect(failed).toBeInstanceOf(BusUnavailable)
        yield* bus
          .publish([message(topic, "KEY", 3)])
          .pipe(Effect.retry({ times: 50, schedule: Schedule.spaced("20 millis") }))
        const seen = yield* bus.read({ topics: [topic], after: new Map(), limit: 10 })
        expect(seen.map(numberOf)).toEqual([3])
      })
    ))
})

describe("the log in Postgres", () => {
  const keys = Array.from({ length: 16 }, (_, nth) => `KEY-${nth}`)
  const letter = (topic: string, key: string, n: number) =>
    letterOf(message(topic, key, n), { consumerGroup: unique("group"), attempts: 3, reason: "on purpose" })

  test("letters that are put back while others publish to the same partitions hold up nobody in a circle", () =>
    run(
      Effect.gen(function* () {
        const bus = yield* EventBus
        const topic = unique("topic")
        const elsewhere = Context.get(yield* Layer.build(Layer.fresh(layer)), EventBus)
        for (let round = 0; round < 5; round++) {
          yield* bus.publish(keys.map((key, nth) => letter(topic, key, nth)))
          const letters = yield* bus.deadLetters({ topic: Option.some(topic), limit: 100 })
          const back = Effect.all([bus.requeue(letters), elsewhere.requeue([...letters.toReversed(), ...letters])], {
            concurrency: "unbounded"
          })
          const publishing = Effect.forEach(Array.from({ length: 30 }), () =>
            elsewhere.publish(keys.map((key) => message(topic, key, 100)))
          )
          const [counts] = yield* Effect.all([back, publishing], { concurrency: "unbounded" })
          expect(counts[0] + counts[1]).toBe(keys.length)
        }
        const seen = yield* bus.read({ topics: [topic], after: new Map(), limit: 5_000 })
        const byKey = Map.groupBy(seen, ({ key }) => key)
        for (const key of keys) {
          expect(byKey.get(key)?.filter(({ failure }) => failure !== undefined)).toHaveLength(5)
          expect(byKey.get(key)).toHaveLength(155)
        }
      })
    ))

  test("groups that publish letters one by one while they work hold up nobody in a circle", () =>
    run(
      Effect.gen(function* () {
        const bus = yield* EventBus
        const [topic, elsewhere] = [unique("topic"), unique("elsewhere")]
        const failures: Array<unknown> = []
        const left = new Set(["first", "second"])
        // From one partition to the next, and the other way round.
        const onward = keys.toSorted((one, other) => partitionOf(one) - partitionOf(other))
        const giving = (group: string, ordered: ReadonlyArray<string>) =>
          bus.subscribe({
            consumerGroup: unique(group),
            topics: [topic],
            batchSize: 100,
            handle: () =>
              Effect.forEach(ordered, (key, nth) =>
                Effect.andThen(bus.publish([letter(elsewhere, key, nth)]), Effect.sleep("20 millis"))
              ).pipe(
                Effect.tapCause((cause) => Effect.sync(() => failures.push(cause))),
                Effect.andThen(Effect.sync(() => void left.delete(group)))
              )
          })
        yield* bus.publish([message(topic, "KEY", 1)])
        yield* Effect.forkScoped(giving("first", onward))
        yield* Effect.forkScoped(giving("second", onward.toReversed()))
        yield* eventually(
          Effect.sync(() => left.size),
          (size) => size === 0
        )
        const letters = yield* eventually(
          bus.deadLetters({ topic: Option.some(elsewhere), limit: 100 }),
          (all) => all.length === 2 * keys.length
        )
        expect([failures, letters.length]).toEqual([[], 2 * keys.length])
      })
    ))

  test("offsets have no gaps and follow the order of commits, however many publish at once", () =>
    run(
      Effect.gen(function* () {
        const bus = yield* EventBus
        const sql = yield* SqlClient.SqlClient
        const topic = unique("topic")
        /** Of a publisher that comes to nothing after it took its offsets. */
        const givenUp = (messages: ReadonlyArray<BusMessage>) =>
          sql.withTransaction(Effect.andThen(bus.publish(messages), Effect.fail("given up"))).pipe(Effect.ignore)
        yield* Effect.forEach(
          Array.from({ length: 10 }, (_, publisher) => publisher),
          Effect.fnUntraced(function* (publisher) {
            for (let n = 1; n <= 12; n++) {
              const messages = [1, 2, 3].map((line) => message(topic, `${publisher}-${line}`, n))
              yield* n % 4 === 0 ? givenUp(messages) : bus.publish(messages)
            }
          }),
          { concurrency: 10 }
        )
        const rows = yield* sql<{ partition: number; offset: number; next: number }>`
          select l.partition, l."offset", p.next_offset as next
          from bus.log l join bus.partitions p using (topic, partition)
          where topic = ${topic} order by l.partition, l."offset"`
        expect(rows).toHaveLength(270)
        const partitions = Map.groupBy(rows, ({ partition }) => partition)
        for (const [, ofOne] of partitions) {
          expect(ofOne.map(({ offset }) => offset)).toEqual(ofOne.map((_, index) => index))
          expect(ofOne[0]?.next).toBe(ofOne.length)
        }
      })
    ))

  test("a publisher that has its offsets keeps later ones from being seen before its own", () =>
    run(
      Effect.gen(function* () {
        const bus = yield* EventBus
        const sql = yield* SqlClient.SqlClient
        const topic = unique("topic")
        const seen = Effect.map(bus.read({ topics: [topic], after: new Map(), limit: 10 }), (all) =>
          all.map(({ envelope }) => envelope.aggregateVersion)
        )
        const second = yield* sql.withTransaction(
          Effect.gen(function* () {
            yield* bus.publish([message(topic, "KEY", 1)])
            const second = yield* Effect.forkDetach(
              Effect.provide(
                Effect.flatMap(EventBus, (other) => other.publish([message(topic, "KEY", 2)])),
                Layer.fresh(layer)
              )
            )
            yield* Effect.sleep("200 millis")
            expect(second.pollUnsafe()).toBeUndefined()
            return second
          })
        )
        yield* Fiber.join(second)
        expect(yield* seen).toEqual([1, 2])
      })
    ))
})
