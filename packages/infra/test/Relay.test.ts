import { describe, expect, test } from "bun:test"
import { Context, Deferred, Effect, Fiber, Layer, Logger, Option, Redacted, Schedule, Schema, Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as Event from "@merkato/domain/kernel/Event"
import { Principal, RequestContext, system } from "@merkato/domain/kernel/RequestContext"
import * as Consumer from "../src/events/Consumer.ts"
import { type BusMessage, BusUnavailable, EventBus } from "../src/events/EventBus.ts"
import * as EventSchemas from "../src/events/EventSchemas.ts"
import { EventStore, RelaySignal } from "../src/events/EventStore.ts"
import * as PostgresEventBus from "../src/events/PostgresEventBus.ts"
import * as Relay from "../src/events/Relay.ts"
import { Policies } from "../src/policy/Policies.ts"
import * as Database from "../src/postgres/Database.ts"
import * as Migrations from "../src/postgres/Migrations.ts"
import * as TestDatabase from "../src/postgres/TestDatabase.ts"
import { eventually, message, numberOf } from "./EventBus.contract.ts"

const topic = "order.events"
const eventType = "ecommerce.test.thing.happened.v1"
const schemas = EventSchemas.of([
  Event.define(eventType, topic, Schema.Struct({ n: Schema.Int, colour: Schema.optionalKey(Schema.String) }))
])
const options = { schema: "shop", topic, producer: "shop-service" } as const

const relayed = Relay.layer(options).pipe(Layer.provide(Policies.layerWith()))

type Bus = EventBus["Service"]
type Ground = EventBus | SqlClient.SqlClient

const tables = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* Migrations.run(PostgresEventBus.migrations)
  yield* Migrations.run({ schema: "shop", folder: undefined, common: true })
  yield* sql`create table shop.things (id text primary key, version integer not null)`
  yield* sql`create table shop.effects (n integer not null)`
})

/** A process of the context `shop`: its own connections to the database and to the bus. */
const processOn = (url: Redacted.Redacted): Layer.Layer<Ground, unknown> =>
  Layer.merge(
    Database.layer({ url, maxConnections: 12, applicationName: "shop" }),
    PostgresEventBus.layer.pipe(Layer.provide(Database.layer({ url, maxConnections: 4, applicationName: "bus" })))
  )

interface Shop {
  readonly sql: SqlClient.SqlClient
  readonly bus: Bus
  readonly events: EventStore["Service"]
  /** One more process on the same database. */
  readonly another: Effect.Effect<Context.Context<Ground>, unknown, Scope.Scope>
}

/** A fresh context without a relay: the tests run their own. */
const inShop = <A>(body: (shop: Shop) => Effect.Effect<A, unknown, Ground | Scope.Scope>): Promise<A> =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.fresh
    yield* Effect.provide(tables, Database.layer({ url, maxConnections: 2, applicationName: "migrations" }))
    const another = Layer.build(Layer.fresh(processOn(url)))
    const context = yield* another
    const events = yield* Layer.build(EventStore.layer("shop")).pipe(
      Effect.provideContext(Context.add(context, RelaySignal, { wake: Effect.void }))
    )
    const shop = {
      sql: Context.get(context, SqlClient.SqlClient),
      bus: Context.get(context, EventBus),
      events: Context.get(events, EventStore),
      another
    }
    return yield* Effect.provideContext(body(shop), Context.merge(yield* Effect.context<Scope.Scope>(), context))
  }).pipe(
    Effect.provideService(EventSchemas.EventSchemas, schemas),
    Effect.scoped,
    Effect.provide(Logger.layer([])),
    Effect.withTracerEnabled(false),
    Effect.runPromise
  )

const at = new Date("2025-06-01T12:00:00.123Z")

/** An event of a thing; `n` tells it. */
const event = (aggregateId: string, version: number, n = version) => ({
  eventType,
  aggregateId,
  version,
  payload: { n }
})

const n = ({ envelope }: BusMessage): unknown => envelope.payload

/** What has been published, partition by partition. */
const published = (bus: Bus) => bus.read({ topics: [topic], after: new Map(), limit: 100_000 })

const versionsByKey = (messages: ReadonlyArray<BusMessage>): Readonly<Record<string, ReadonlyArray<number>>> =>
  Object.fromEntries(
    [...Map.groupBy(messages, ({ key }) => key)].map(([key, ofKey]) => [key, ofKey.map(numberOf)] as const)
  )

const waiting = (sql: SqlClient.SqlClient) =>
  Effect.map(sql<{ count: number }>`select count(*) as count from shop.outbox`, ([row]) => row?.count)

/** Publishes until nothing is left; how many events went. */
const drain = <E, R>(relay: { readonly publishNext: Effect.Effect<number, E, R> }) =>
  Effect.gen(function* () {
    let count = 0
    for (;;) {
      const more = yield* relay.publishNext
      if (more === 0) return count
      count += more
    }
  })

/**
 * The relay that one writes first: everything after the last position. It stands here to show what is wrong with it.
 */
const cursorRelay = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const bus = yield* EventBus
  let cursor = 0
  const publishNext = Effect.gen(function* () {
    const rows = yield* sql<{ position: number; aggregateId: string; version: number }>`
      select position, aggregate_id as "aggregateId", version from shop.events
      where position > ${cursor}::bigint order by position limit 500`
    yield* bus.publish(rows.map(({ aggregateId, version }) => message(topic, aggregateId, version)))
    cursor = rows.at(-1)?.position ?? cursor
    return rows.length
  })
  return { publishNext }
})

/**
 * A transaction takes its position first and commits last; others commit in between, and the relay publishes them. What
 * is published in the end, with the positions in the order of the events.
 */
const slowTransaction = <E, R>(
  { bus, events, sql }: Shop,
  relay: { readonly publishNext: Effect.Effect<number, E, R> }
) =>
  Effect.gen(function* () {
    const begun = yield* Deferred.make<void>()
    const mayCommit = yield* Deferred.make<void>()
    const slow = yield* Effect.forkScoped(
      sql.withTransaction(
        Effect.gen(function* () {
          yield* events.append([event("SLOW", 1)], at)
          yield* Deferred.succeed(begun, undefined)
          yield* Deferred.await(mayCommit)
        })
      )
    )
    yield* Deferred.await(begun)
    yield* events.append([event("FAST", 1)], at)
    yield* events.append([event("FAST", 2), event("OTHER", 1)], at)
    yield* drain(relay)
    const before = yield* published(bus)
    yield* Deferred.succeed(mayCommit, undefined)
    yield* Fiber.join(slow)
    yield* events.append([event("SLOW", 2)], at)
    yield* drain(relay)
    const positions = yield* sql<{ aggregateId: string; version: number }>`
      select aggregate_id as "aggregateId", version from shop.events order by position`
    return {
      whileOpen: versionsByKey(before),
      inTheEnd: versionsByKey(yield* published(bus)),
      positions: positions.map(({ aggregateId, version }) => `${aggregateId}-${version}`)
    }
  })

describe("the relay", () => {
  test("loses nothing to a transaction that takes its position first and commits last", () =>
    inShop((shop) =>
      Effect.gen(function* () {
        const { whileOpen, inTheEnd, positions } = yield* slowTransaction(shop, yield* Relay.make(options))
        expect(positions).toEqual(["SLOW-1", "FAST-1", "FAST-2", "OTHER-1", "SLOW-2"])
        expect(whileOpen).toEqual({ FAST: [1, 2], OTHER: [1] })
        expect(inTheEnd).toEqual({ FAST: [1, 2], OTHER: [1], SLOW: [1, 2] })
        expect(yield* waiting(shop.sql)).toBe(0)
      })
    ))

  test("would lose that event if it read everything after a position: the proof that the test above can fail", () =>
    inShop((shop) =>
      Effect.gen(function* () {
        const { inTheEnd, positions } = yield* slowTransaction(shop, yield* cursorRelay)
        expect(positions).toEqual(["SLOW-1", "FAST-1", "FAST-2", "OTHER-1", "SLOW-2"])
        expect(inTheEnd).toEqual({ FAST: [1, 2], OTHER: [1], SLOW: [2] })
      })
    ))

  test("publishes an event as it was stored, with its trace, correlation and region", () =>
    inShop(({ bus, events, sql }) =>
      Effect.gen(function* () {
        const traceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        yield* events.append([event("THING", 1, 7)], at).pipe(
          Effect.provideService(RequestContext, {
            principal: new Principal({ ...system, region: "in" }),
            correlationId: "correlation-7",
            traceParent
          })
        )
        yield* drain(yield* Relay.make(options))
        const [stored] = yield* events.history("THING")
        const [message] = yield* published(bus)
        expect(message).toMatchObject({ topic, key: "THING", traceParent })
        expect<unknown>(message?.envelope).toEqual({
          eventId: stored?.eventId,
          eventType,
          occurredAt: "2025-06-01T12:00:00.123Z",
          producer: "shop-service",
          traceId: "4bf92f3577b34da6a3ce929d0e0e4736",
          correlationId: "correlation-7",
          schemaVersion: "1.0",
          partitionKey: "THING",
          region: "in",
          aggregateVersion: 1,
          payload: { n: 7 }
        })
        expect(yield* waiting(sql)).toBe(0)
      })
    ))

  test("never publishes what was rolled back", () =>
    inShop(({ bus, events, sql }) =>
      Effect.gen(function* () {
        const relay = yield* Relay.make(options)
        yield* Effect.ignore(
          sql.withTransaction(Effect.andThen(events.append([event("THING", 1, 1)], at), Effect.fail("changed my mind")))
        )
        yield* events.append([event("THING", 1, 2)], at)
        yield* drain(relay)
        expect((yield* published(bus)).map(n)).toEqual([{ n: 2 }])
        expect(yield* waiting(sql)).toBe(0)
      })
    ))

  test("publishes more than one batch holds, in order", () =>
    inShop(({ bus, events, sql }) =>
      Effect.gen(function* () {
        yield* events.append(
          Array.from({ length: 1_203 }, (_, index) => event(`THING-${index % 7}`, Math.floor(index / 7) + 1)),
          at
        )
        expect(yield* drain(yield* Relay.make(options))).toBe(1_203)
        for (const versions of Object.values(versionsByKey(yield* published(bus)))) {
          expect(versions).toEqual(versions.map((_, index) => index + 1))
        }
        expect(yield* waiting(sql)).toBe(0)
      })
    ))

  test("goes by the index, however empty the outbox was when Postgres counted it", () =>
    inShop(({ events, sql }) =>
      Effect.gen(function* () {
        const { publishNext } = yield* Relay.make(options)
        yield* sql`vacuum shop.outbox`
        yield* events.append([event("THING", 1)], at)
        const turn = Effect.gen(function* () {
          expect(yield* publishNext).toBe(1)
          return yield* sql<{ name: string; scans: number }>`
            select relname as name, pg_stat_get_xact_numscans(oid)::int as scans
            from pg_class where relname in ('outbox', 'outbox_pkey') and relnamespace = 'shop'::regnamespace
            order by relname`
        })
        expect(yield* sql.withTransaction(turn)).toEqual([
          { name: "outbox", scans: 0 },
          { name: "outbox_pkey", scans: 1 }
        ])
      })
    ))
})

/** Changes a thing as use cases do: reads it for update, appends the next version, takes its time, commits. */
const change = ({ events, sql }: Shop, id: string, holdForMs: number) =>
  Database.transaction(
    Effect.gen(function* () {
      const [row] = yield* sql<{ version: number }>`select version from shop.things where id = ${id} for update`
      const version = (row?.version ?? 0) + 1
      yield* events.append([event(id, version)], at)
      yield* Effect.sleep(holdForMs)
      yield* sql`update shop.things set version = ${version} where id = ${id}`
    })
  )

/** Many change a few things at once; some transactions are long, some short. */
const busyShop = (shop: Shop, things: ReadonlyArray<string>, changes: number) =>
  Effect.gen(function* () {
    yield* shop.sql`insert into shop.things (id, version) select id, 0 from unnest(${things}::text[]) as t (id)`
    yield* Effect.forEach(
      Array.from({ length: things.length * changes }, (_, index) => index),
      (index) => change(shop, things[index % things.length] ?? "", (index * 7) % 12),
      { concurrency: 8, discard: true }
    )
  })

describe("order per key", () => {
  const things = ["A", "B", "C", "D", "E", "F"]
  const each = (versions: ReadonlyArray<number>) => Object.fromEntries(things.map((thing) => [thing, versions]))

  test("holds while many commit at once and the relay is at work", () =>
    inShop((shop) =>
      Effect.gen(function* () {
        yield* Layer.build(relayed)
        yield* busyShop(shop, things, 20)
        expect(yield* eventually(waiting(shop.sql), (count) => count === 0)).toBe(0)
        const versions = Array.from({ length: 20 }, (_, index) => index + 1)
        expect(versionsByKey(yield* published(shop.bus))).toEqual(each(versions))
      })
    ))

  test("holds with two relays of the context at once, in two processes; nothing is published twice", () =>
    inShop((shop) =>
      Effect.gen(function* () {
        const counts = [0, 0]
        for (const index of counts.keys()) {
          const { publishNext } = yield* Effect.provideContext(Relay.make(options), yield* shop.another)
          const turn = Effect.map(publishNext, (count) => void (counts[index] = (counts[index] ?? 0) + count))
          yield* Effect.forkScoped(Effect.forever(Effect.andThen(turn, Effect.sleep("1 millis"))))
        }
        yield* busyShop(shop, things, 20)
        expect(yield* eventually(waiting(shop.sql), (count) => count === 0)).toBe(0)
        const versions = Array.from({ length: 20 }, (_, index) => index + 1)
        expect(versionsByKey(yield* published(shop.bus))).toEqual(each(versions))
        expect(
          yield* eventually(
            Effect.sync(() => (counts[0] ?? 0) + (counts[1] ?? 0)),
            (sum) => sum === 120
          )
        ).toBe(120)
        expect(Math.min(...counts)).toBeGreaterThan(0)
      })
    ))
})

/** The bus as this relay sees it; what is left out is as it was. */
const withBus = (shop: Shop, change: Partial<Bus>) =>
  Effect.provideService(EventBus, EventBus.of({ ...shop.bus, ...change }))

/** Counts each event once, as a consumer does. */
const counting = Effect.forkScoped(
  Consumer.run(
    "shop",
    Consumer.make({
      group: "shop.count",
      topic,
      eventTypes: [eventType],
      mode: "apply",
      handle: Effect.fnUntraced(function* (envelope) {
        const sql = yield* SqlClient.SqlClient
        yield* sql`insert into shop.effects (n) values (${envelope.aggregateVersion})`
      })
    })
  )
)

const effects = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ n: number }>`select n from shop.effects order by n`
  return rows.map((row) => row.n)
})

describe("an event that breaks its schema", () => {
  const broken = (version: number, payload: unknown, type = eventType) => ({
    eventType: type,
    aggregateId: "THING",
    version,
    payload
  })
  const letters = ({ bus }: Shop) => bus.deadLetters({ topic: Option.some(topic), limit: 100 })
  const breaks = `It breaks the schema of ${eventType}: `

  test("never reaches its topic: it is among the dead letters with the reason, and holds back nobody", () =>
    inShop((shop) =>
      Effect.gen(function* () {
        yield* shop.events.append(
          [
            event("THING", 1),
            broken(2, { n: "two" }),
            broken(3, { n: 3, secret: "not in the schema" }),
            broken(4, { n: 4 }, "ecommerce.test.nobody.knows.v1"),
            broken(5, {}),
            event("THING", 6)
          ],
          at
        )
        expect(yield* drain(yield* Relay.make(options))).toBe(6)
        expect((yield* published(shop.bus)).map(numberOf)).toEqual([1, 6])
        expect(yield* waiting(shop.sql)).toBe(0)
        const found = yield* letters(shop)
        expect(found.map(({ envelope, failure }) => [numberOf({ envelope }), failure?.reason])).toEqual([
          [2, `${breaks}Expected number at ["n"]`],
          [3, `${breaks}Expected no excess property at ["secret"]`],
          [4, "There is no schema of ecommerce.test.nobody.knows.v1"],
          [5, `${breaks}Missing key at ["n"]`]
        ])
        for (const { failure, envelope } of found) {
          expect(failure).toMatchObject({ topic, consumerGroup: "shop.relay", attempts: 1 })
          const kept = yield* shop.events.history("THING")
          expect(kept.find(({ eventId }) => eventId === envelope.eventId)?.payload).toEqual(envelope.payload)
        }
      })
    ))

  test("is neither lost nor doubled when the bus is away at that moment", () =>
    inShop((shop) =>
      Effect.gen(function* () {
        let left = 2
        yield* Layer.build(relayed).pipe(
          withBus(shop, {
            publish: (messages) =>
              Effect.suspend(() =>
                left-- > 0 ? Effect.fail(new BusUnavailable({ cause: "away" })) : shop.bus.publish(messages)
              )
          })
        )
        yield* shop.events.append([event("THING", 1), broken(2, { n: 2.5 }), event("THING", 3)], at)
        const empty = Effect.orElseSucceed(waiting(shop.sql), () => undefined)
        expect(yield* eventually(empty, (count) => count === 0)).toBe(0)
        expect((yield* published(shop.bus)).map(numberOf)).toEqual([1, 3])
        expect((yield* letters(shop)).map(numberOf)).toEqual([2])
      })
    ))

  test("written by a later version of the schema goes its way", () =>
    inShop((shop) =>
      Effect.gen(function* () {
        yield* shop.events.append([broken(1, { n: 1, colour: "red" })], at)
        yield* drain(yield* Relay.make(options))
        expect((yield* published(shop.bus)).map(n)).toEqual([{ n: 1, colour: "red" }])
        expect(yield* letters(shop)).toEqual([])
      })
    ))
})

describe("at least once", () => {
  test("a relay that is killed between publishing and its commit publishes again, and the effect is still one", () =>
    inShop((shop) =>
      Effect.gen(function* () {
        yield* shop.events.append(
          [1, 2, 3].map((version) => event("THING", version)),
          at
        )
        const onTheBus = yield* Deferred.make<void>()
        const dying = yield* Relay.make(options).pipe(
          withBus(shop, {
            publish: (messages) =>
              shop.bus
                .publish(messages)
                .pipe(Effect.andThen(Deferred.succeed(onTheBus, undefined)), Effect.andThen(Effect.never))
          })
        )
        const killed = yield* Effect.forkScoped(dying.publishNext)
        yield* Deferred.await(onTheBus)
        yield* Fiber.interrupt(killed)
        expect(yield* waiting(shop.sql)).toBe(3)

        expect(yield* drain(yield* Relay.make(options))).toBe(3)
        expect(yield* waiting(shop.sql)).toBe(0)
        expect((yield* published(shop.bus)).map(numberOf)).toEqual([1, 2, 3, 1, 2, 3])
        yield* counting
        yield* eventually(shop.bus.lag("shop.count", [topic]), (lag) => lag === 0)
        expect(yield* effects).toEqual([1, 2, 3])
      })
    ))

  const cutOff = Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'shop' and datname = current_database() and pid <> pg_backend_pid()`
  })

  const troubles: ReadonlyArray<
    readonly [what: string, trouble: (shop: Shop) => Effect.Effect<void, BusUnavailable, never>]
  > = [
    ["the bus is unavailable", () => Effect.fail(new BusUnavailable({ cause: "full" }))],
    ["it stumbles over a mistake of ours", () => Effect.die(new TypeError("undefined is not a function"))],
    [
      "its database hangs up in the middle",
      (shop) =>
        Effect.scoped(Effect.flatMap(shop.another, (other) => Effect.provideContext(cutOff, other))).pipe(Effect.orDie)
    ]
  ]
  for (const [what, trouble] of troubles) {
    test(`when ${what}, the relay goes on by itself afterwards, and nothing is lost`, () =>
      inShop((shop) =>
        Effect.gen(function* () {
          let left = 2
          yield* Layer.build(relayed).pipe(
            withBus(shop, {
              publish: (messages) =>
                Effect.suspend(() =>
                  left-- > 0 ? Effect.andThen(trouble(shop), shop.bus.publish(messages)) : shop.bus.publish(messages)
                )
            })
          )
          yield* counting
          yield* shop.events.append([event("THING", 1), event("THING", 2)], at)
          const empty = Effect.orElseSucceed(waiting(shop.sql), () => undefined)
          expect(yield* eventually(empty, (count) => count === 0)).toBe(0)
          expect(left).toBeLessThanOrEqual(0)
          yield* shop.events.append([event("THING", 3)], at)
          expect(yield* eventually(waiting(shop.sql), (count) => count === 0)).toBe(0)
          yield* eventually(shop.bus.lag("shop.count", [topic]), (lag) => lag === 0)
          expect(yield* effects).toEqual([1, 2, 3])
          expect(yield* shop.bus.deadLetters({ topic: Option.none(), limit: 10 })).toEqual([])
        })
      ))
  }
})

test("a relay that is woken at the commit does not wait for its own next look", () =>
  inShop((shop) =>
    Effect.gen(function* () {
      /** Half of the events are on the bus within so many milliseconds. */
      const median = Effect.fnUntraced(function* (thing: string, signal: RelaySignal["Service"]) {
        const context = Context.add(yield* Effect.context<Ground | Scope.Scope>(), RelaySignal, signal)
        const store = yield* Effect.provideContext(Layer.build(EventStore.layer("shop")), context)
        const delays: Array<number> = []
        for (let version = 1; version <= 3; version++) {
          // Wherever the relay's own look is at the moment.
          yield* Effect.sleep(13 * version)
          const begun = performance.now()
          yield* Context.get(store, EventStore).append([event(thing, version)], at)
          yield* Effect.repeat(waiting(shop.sql), { until: (count) => count === 0, schedule: Schedule.spaced(2) })
          delays.push(performance.now() - begun)
        }
        return delays.toSorted((a, b) => a - b)[1] ?? 0
      })
      const relay = Context.get(yield* Layer.build(relayed), RelaySignal)
      const woken = yield* median("WOKEN", relay)
      const asleep = yield* median("ASLEEP", { wake: Effect.void })
      expect(woken).toBeLessThan(asleep)
    })
  ))
