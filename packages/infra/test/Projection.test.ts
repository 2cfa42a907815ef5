// Read models built anew beside the live ones, while events come in, transactions are late, and connections die.
import { describe, expect, test } from "bun:test"
import { Context, Deferred, Effect, Fiber, Layer, Logger, Result, Schema, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as fc from "fast-check"
import * as Event from "@merkato/domain/kernel/Event"
import { EventId, Id } from "@merkato/domain/kernel/Ids"
import * as Consumer from "../src/events/Consumer.ts"
import { EventBus } from "../src/events/EventBus.ts"
import * as EventSchemas from "../src/events/EventSchemas.ts"
import { EventStore, type RelaySignal } from "../src/events/EventStore.ts"
import * as PostgresEventBus from "../src/events/PostgresEventBus.ts"
import * as Relay from "../src/events/Relay.ts"
import { Policies } from "../src/policy/Policies.ts"
import * as Database from "../src/postgres/Database.ts"
import * as Migrations from "../src/postgres/Migrations.ts"
import * as TestDatabase from "../src/postgres/TestDatabase.ts"
import * as Build from "../src/projection/Build.ts"
import { compare } from "../src/projection/Parity.ts"
import { consumer, write } from "../src/projection/PostgresProjection.ts"
import * as Projection from "../src/projection/Projection.ts"
import { eventually } from "./EventBus.contract.ts"

const topic = "order.events"
const Made = Event.define(
  "ecommerce.test.thing.made.v1",
  topic,
  Schema.Struct({ thing: Schema.String, owner: Schema.String, priceMinor: Schema.Int })
)
const Moved = Event.define(
  "ecommerce.test.thing.moved.v1",
  topic,
  Schema.Struct({ thing: Schema.String, owner: Schema.String, place: Schema.String })
)

const things = Projection.make({
  name: "things",
  context: "shop",
  topic,
  key: { owner: "text", thing: "text" },
  once: { price_minor: "bigint", made_at: "timestamptz" },
  latest: { place: "text" },
  events: [
    Projection.on(Made, ({ owner, thing, priceMinor }, { aggregateVersion, occurredAt }) => [
      { owner, thing, price_minor: priceMinor, made_at: occurredAt, place: "here", version: aggregateVersion }
    ]),
    Projection.on(Moved, ({ owner, thing, place }, { aggregateVersion }) => [
      { owner, thing, price_minor: null, made_at: null, place, version: aggregateVersion }
    ])
  ]
})

/** A build of `things` as its builder knows it. */
const buildOf = (id: string): Build.Build => ({
  projection: things,
  entry: { register: "shop.projections", name: things.name, id }
})

const tables = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* Migrations.run(PostgresEventBus.migrations)
  yield* Migrations.run({ schema: "shop", folder: undefined, common: true })
  yield* sql`create table shop.projections (name text primary key, building text, lease_until timestamptz)`
  yield* sql`insert into shop.projections (name) values ('things')`
  yield* sql`
    create table shop.things (
      owner text not null, thing text not null, price_minor bigint, made_at timestamptz, place text not null,
      version integer not null, primary key (owner, thing)
    ) with (fillfactor = 80)`
  yield* sql`create index things_place on shop.things (place, made_at desc) where made_at is not null`
})

type Shop = EventBus | EventStore | RelaySignal | SqlClient.SqlClient

/** A context `shop` with its relay, and with what a projection needs; its consumer runs when a test says so. */
const inShop = <A>(body: Effect.Effect<A, unknown, Shop | Scope.Scope>): Promise<A> =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.fresh
    yield* Effect.provide(tables, Database.layer({ url, maxConnections: 2, applicationName: "migrations" }))
    const ground = Layer.merge(
      Database.layer({ url, maxConnections: 12, applicationName: "shop" }),
      PostgresEventBus.layer.pipe(Layer.provide(Database.layer({ url, maxConnections: 4, applicationName: "bus" })))
    )
    const relay = Relay.layer({ schema: "shop", topic, producer: "shop-service" }).pipe(
      Layer.provide(Policies.layerWith())
    )
    const shop = yield* Layer.build(
      EventStore.layer("shop").pipe(Layer.provideMerge(relay), Layer.provideMerge(ground))
    )
    return yield* Effect.provideContext(body, Context.merge(yield* Effect.context<Scope.Scope>(), shop))
  }).pipe(
    Effect.provideService(EventSchemas.EventSchemas, EventSchemas.of([Made, Moved])),
    Effect.scoped,
    Effect.provide(Logger.layer([])),
    Effect.withTracerEnabled(false),
    Effect.runPromise
  )

/** Locks rows until its `release` is run. */
const holding = Effect.fnUntraced(function* (rows: string) {
  const sql = yield* SqlClient.SqlClient
  const [locked, release] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
  const transaction = Effect.gen(function* () {
    yield* sql.unsafe(`select from ${rows} for update`)
    yield* Deferred.succeed(locked, undefined)
    yield* Deferred.await(release)
  })
  const fiber = yield* Effect.forkScoped(sql.withTransaction(transaction))
  yield* Deferred.await(locked)
  return { release: Effect.andThen(Deferred.succeed(release, undefined), Fiber.join(fiber)) }
})

const at = new Date("2025-06-01T12:00:00.123Z")
const ownerOf = (thing: string) => `owner-${thing.length % 3}`
const made = (thing: string, priceMinor = 1) => Made.of(thing, 1, { thing, owner: ownerOf(thing), priceMinor })
const moved = (thing: string, version: number) =>
  Moved.of(thing, version, { thing, owner: ownerOf(thing), place: `place-${version}` })

const tell = (events: ReadonlyArray<Event.NewEvent>) => EventStore.use((store) => store.append(events, at))
const consuming = Effect.forkScoped(Consumer.run("shop", consumer(things)))

/** Until everything is published and the consumer has it. */
const settled = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const bus = yield* EventBus
  const waiting = Effect.gen(function* () {
    const outbox = yield* sql`select from shop.outbox limit 1`
    return outbox.length + (yield* bus.lag("shop.things", [topic]))
  })
  expect(yield* eventually(waiting, (left) => left === 0)).toBe(0)
})

const columns = `owner, thing, price_minor, to_char(made_at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as made_at, place, version`
const rowsIn = (table: string) =>
  SqlClient.SqlClient.use((sql) => sql.unsafe<Projection.Row>(`select ${columns} from ${table} order by owner, thing`))

/** What the log says that the table has to be. */
const told = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const events = yield* sql<Projection.ProjectedEvent & { readonly at: Date }>`
    select event_id as "eventId", event_type as "eventType", occurred_at as at, region, aggregate_id as "partitionKey",
      version as "aggregateVersion", payload from shop.events order by aggregate_id, version`
  const rows = yield* Projection.rowsOf(
    things,
    events.map((event) => ({ ...event, occurredAt: event.at.toISOString() }))
  )
  return rows.toSorted((left, right) =>
    `${left["owner"]}/${left["thing"]}` < `${right["owner"]}/${right["thing"]}` ? -1 : 1
  )
})

const register = SqlClient.SqlClient.use((sql) => sql`select building from shop.projections where building is not null`)
const existing = (table: string) =>
  SqlClient.SqlClient.use((sql) =>
    Effect.map(sql`select where to_regclass(${table}) is not null`, (rows) => rows.length)
  )

/** Stops the connection that waits for a lock, which is the consumer's; true when there was one. */
const killWaiting = SqlClient.SqlClient.use((sql) =>
  Effect.map(
    sql`
      select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and application_name = 'shop' and wait_event_type = 'Lock'`,
    (rows) => rows.length > 0
  )
)

describe("rows of a projection", () => {
  const story = fc.integer({ min: 1, max: 6 }).chain((events) =>
    fc.record({
      /** Of one thing: the order in which its events come, some of them more than once. */
      order: fc.array(fc.integer({ min: 1, max: events }), { minLength: 1, maxLength: 12 }),
      cut: fc.integer({ min: 0, max: 12 })
    })
  )
  const event = (version: number): Projection.ProjectedEvent => {
    const { eventType, aggregateId, payload } = version === 1 ? made("T", 7) : moved("T", version)
    return {
      eventId: EventId.make(`EVENT-${version}`),
      eventType,
      occurredAt: at.toISOString(),
      region: "us",
      partitionKey: Id.make(aggregateId),
      aggregateVersion: version,
      payload
    }
  }
  const rowsOf = (versions: ReadonlyArray<number>) => Projection.rowsOf(things, versions.map(event))

  test("are the same in whatever order events come, however often, and in whatever batches", () =>
    inShop(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const run = yield* Effect.context<SqlClient.SqlClient>()
        yield* Effect.promise(() =>
          fc.assert(
            fc.asyncProperty(story, ({ order, cut }) =>
              Effect.gen(function* () {
                yield* sql`truncate shop.things`
                for (const batch of [order.slice(0, cut), order.slice(cut)]) {
                  yield* write(things, "shop.things", yield* rowsOf(batch))
                }
                const inOrder = yield* rowsOf([...new Set(order)].toSorted())
                expect(yield* rowsOf(order)).toEqual(inOrder)
                expect(yield* rowsIn("shop.things")).toEqual(inOrder)
              }).pipe(Effect.provideContext(run), Effect.runPromise)
            ),
            { numRuns: 25, examples: [[{ order: [3, 1, 2], cut: 1 }]] }
          )
        )
      })
    ))
})

describe("a replay", () => {
  test("while events come in ends with the same rows, and from then on the new table is the live one", () =>
    inShop(
      Effect.gen(function* () {
        yield* consuming
        for (let n = 0; n < 30; n++) yield* tell([made(`A${n}`), moved(`A${n}`, 2)])
        const stop = yield* Deferred.make<void>()
        let more = 0
        const busy = yield* Effect.gen(function* () {
          while (!(yield* Deferred.isDone(stop))) {
            more += 1
            yield* tell([made(`B${more}`), moved(`B${more}`, 2), moved(`A${more % 30}`, 3 + Math.floor(more / 30))])
          }
        }).pipe(Effect.forkScoped)
        yield* eventually(
          Effect.sync(() => more),
          (done) => done >= 5
        )
        const parity = yield* Effect.gen(function* () {
          const build = yield* Build.begin(things)
          yield* Build.read(build)
          const during = more
          yield* eventually(
            Effect.sync(() => more),
            (done) => done >= during + 5
          )
          const parity = yield* compare(build)
          yield* Build.swap(build)
          return parity
        }).pipe(Effect.scoped)
        expect({ ...parity, compared: parity.compared >= 30 }).toEqual({ compared: true, differences: 0, examples: [] })
        yield* tell([made("after")])
        yield* Deferred.succeed(stop, undefined)
        yield* Fiber.join(busy)
        yield* settled
        expect(yield* rowsIn("shop.things")).toEqual(yield* told)
        expect(yield* register).toEqual([])
        expect(yield* existing("shop.things_next")).toBe(0)
      })
    ))

  test("keeps what the table is called by: its indexes, its settings, and who may use it", () =>
    inShop(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const role = `reader_${process.pid}`
        yield* sql.unsafe(`create role ${role}`)
        yield* Effect.addFinalizer(() =>
          Effect.andThen(sql.unsafe(`drop owned by ${role}`), sql.unsafe(`drop role ${role}`)).pipe(Effect.orDie)
        )
        yield* sql.unsafe(`grant select, insert on shop.things to ${role}`)
        const looks = sql`
          select c.relname, c.reloptions, has_table_privilege(${role}, c.oid, 'select, insert') as reads,
            has_table_privilege(${role}, c.oid, 'update') as updates,
            (select json_agg(pg_get_indexdef(indexrelid) order by indexrelid::regclass::text) from pg_index where indrelid = c.oid) as indexes
          from pg_class c where c.oid = 'shop.things'::regclass`
        const before = yield* looks
        for (let times = 0; times < 2; times++) {
          yield* Effect.scoped(Effect.flatMap(Build.begin(things), Build.swap))
          expect(yield* looks).toEqual(before)
        }
      })
    ))

  for (const [what, damage, of] of [
    ["was changed", "update shop.things set price_minor = 99 where thing = 'B'", "both"],
    ["is gone", "delete from shop.things where thing = 'B'", "rebuilt"],
    ["nobody told of", "insert into shop.things values ('owner-1', 'Z', 1, null, 'nowhere', 1)", "live"]
  ] as const) {
    test(`finds a row that ${what}, and mends it`, () =>
      inShop(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* consuming
          yield* tell([made("A"), made("B"), made("C"), moved("B", 2)])
          yield* settled
          yield* sql.unsafe(damage)
          const parity = yield* Effect.gen(function* () {
            const build = yield* Build.begin(things)
            yield* Build.read(build)
            const parity = yield* compare(build)
            yield* Build.swap(build)
            return parity
          }).pipe(Effect.scoped)
          expect(parity.differences).toBe(1)
          const [example] = parity.examples
          const sides = example?.live === null ? "rebuilt" : example?.rebuilt === null ? "live" : "both"
          expect([sides, (example?.rebuilt ?? example?.live)?.["thing"]]).toEqual([of, of === "live" ? "Z" : "B"])
          expect(yield* rowsIn("shop.things")).toEqual(yield* told)
        })
      ))
  }

  test("has the events of a transaction that began before it and committed behind it", () =>
    inShop(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* consuming
        yield* tell([made("A")])
        const [positioned, mayCommit] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const late = yield* sql
          .withTransaction(
            Effect.gen(function* () {
              yield* tell([made("LATE"), moved("A", 2)])
              yield* Deferred.succeed(positioned, undefined)
              yield* Deferred.await(mayCommit)
            })
          )
          .pipe(Effect.forkScoped)
        yield* Deferred.await(positioned)
        yield* tell([made("B"), made("CC")])
        yield* settled
        const parity = yield* Effect.gen(function* () {
          const build = yield* Build.begin(things)
          // It has passed the two positions that nobody sees yet.
          expect(yield* Build.read(build)).toBe(3)
          yield* Deferred.succeed(mayCommit, undefined)
          yield* Fiber.join(late)
          yield* settled
          const parity = yield* compare(build)
          yield* Build.swap(build)
          return parity
        }).pipe(Effect.scoped)
        expect(parity).toEqual({ compared: 4, differences: 0, examples: [] })
        expect(yield* rowsIn("shop.things")).toEqual(yield* told)
      })
    ))

  for (const building of [false, true]) {
    test(`a consumer that is killed in the middle of a batch doubles and loses nothing${building ? ", on either side" : ""}`, () =>
      inShop(
        Effect.gen(function* () {
          yield* consuming
          yield* tell([made("A"), made("Z")])
          yield* settled
          const build = building ? yield* Build.begin(things) : undefined
          if (build !== undefined) yield* Build.read(build)
          // Of the batch's rows the last one: those before it are written when the connection dies.
          const { release } = yield* holding(`shop.things${building ? "_next" : ""} where thing = 'Z'`)
          yield* tell([moved("A", 2), made("BBB"), moved("Z", 2), moved("A", 3)])
          expect(yield* eventually(killWaiting, (killed) => killed)).toBe(true)
          yield* release
          yield* settled
          expect(yield* rowsIn("shop.things")).toEqual(yield* told)
          if (build === undefined) return
          expect(yield* compare(build)).toEqual({ compared: 3, differences: 0, examples: [] })
          yield* Build.swap(build)
          expect(yield* rowsIn("shop.things")).toEqual(yield* told)
        })
      ))
  }

  test("swaps after a batch that is being written to both tables, not beside it", () =>
    inShop(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* consuming
        yield* tell([made("A")])
        yield* settled
        const build = yield* Build.begin(things)
        yield* Build.read(build)
        const { release } = yield* holding("shop.things_next")
        yield* tell([moved("A", 2), made("B")])
        const waitingFor = (event: string) =>
          sql`
            select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and wait_event = ${event}`
        expect((yield* eventually(waitingFor("transactionid"), (rows) => rows.length > 0)).length).toBe(1)
        const swapping = yield* Effect.forkScoped(Build.swap(build))
        expect((yield* eventually(waitingFor("relation"), (rows) => rows.length > 0)).length).toBe(1)
        yield* release
        yield* Fiber.join(swapping)
        yield* settled
        expect(yield* rowsIn("shop.things")).toEqual(yield* told)
      })
    ))

  test("whose process died is given up by the consumers, and the next one takes over", () =>
    inShop(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* consuming
        yield* tell([made("A")])
        yield* settled
        // What a killed process leaves behind.
        yield* sql`create table shop.things_next (like shop.things including all)`
        const longAgo = new Date(0)
        yield* sql`update shop.projections set building = 'DEAD', lease_until = ${longAgo}`
        yield* tell([made("B")])
        yield* settled
        expect(yield* register).toEqual([])
        expect((yield* rowsIn("shop.things")).length).toBe(2)
        const dead = yield* Effect.result(Build.swap(buildOf("DEAD")))
        expect(Result.isFailure(dead) && dead.failure._tag).toBe("ReplayFailed")
        expect((yield* rowsIn("shop.things")).length).toBe(2)

        yield* sql`update shop.projections set building = 'DEAD', lease_until = ${longAgo}`
        yield* Effect.gen(function* () {
          const build = yield* Build.begin(things)
          yield* Build.read(build)
          yield* Build.swap(build)
        }).pipe(Effect.scoped)
        expect(yield* rowsIn("shop.things")).toEqual(yield* told)
      })
    ))

  test("whose builder was silent for too long gets nothing written by it into the table of the next one", () =>
    inShop(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* consuming
        yield* tell([made("A"), made("B")])
        yield* settled
        yield* sql`insert into shop.things (owner, thing, place, version) values ('nobody', 'GHOST', 'nowhere', 1)`
        const silent = buildOf("SILENT")
        yield* sql`update shop.projections set building = ${silent.entry.id}, lease_until = ${new Date(0)}`
        yield* Effect.gen(function* () {
          const build = yield* Build.begin(things)
          yield* Build.read(build)
          for (const late of [
            Build.read(silent, { from: at }),
            Build.read(silent),
            Build.take(silent, [])
          ] satisfies ReadonlyArray<Effect.Effect<unknown, unknown, SqlClient.SqlClient>>) {
            expect(yield* Effect.flip(late)).toMatchObject({ _tag: "ReplayFailed" })
          }
          yield* Build.swap(build)
        }).pipe(Effect.scoped)
        expect(yield* rowsIn("shop.things")).toEqual(yield* told)
      })
    ))

  test("that is not to be used leaves nothing behind; one that is to be kept has a name of its own", () =>
    inShop(
      Effect.gen(function* () {
        yield* consuming
        yield* tell([made("A")])
        yield* settled
        yield* Effect.scoped(Effect.flatMap(Build.begin(things), Build.read))
        expect([yield* existing("shop.things_next"), (yield* register).length]).toEqual([0, 0])
        yield* Effect.gen(function* () {
          const build = yield* Build.begin(things)
          yield* Build.read(build)
          yield* Build.keepAs(build, "things_of_today")
        }).pipe(Effect.scoped)
        yield* tell([made("B")])
        yield* settled
        expect([yield* existing("shop.things_next"), (yield* register).length]).toEqual([0, 0])
        expect((yield* rowsIn("shop.things_of_today")).map(({ thing }) => thing)).toEqual(["A"])
        expect(yield* rowsIn("shop.things")).toEqual(yield* told)
      })
    ))

  test("of the events since a moment adds what the live table has missed, and leaves the rest as it is", () =>
    inShop(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const store = yield* EventStore
        yield* consuming
        yield* tell([made("A"), made("B"), made("C")])
        const later = new Date(at.getTime() + 60_000)
        yield* store.append([moved("A", 2), made("D")], later)
        yield* settled
        yield* sql`update shop.things set price_minor = 5 where thing = 'B'`
        yield* sql`delete from shop.things where thing = 'D'`
        const parity = yield* Effect.gen(function* () {
          const build = yield* Build.begin(things)
          expect(yield* Build.read(build, { from: later })).toBe(2)
          const parity = yield* compare(build)
          yield* Build.swap(build)
          return parity
        }).pipe(Effect.scoped)
        expect([parity.compared, parity.differences, parity.examples[0]?.live]).toEqual([4, 1, null])
        const rows = yield* rowsIn("shop.things")
        expect(rows).toEqual((yield* told).map((row) => (row["thing"] === "B" ? { ...row, price_minor: 5 } : row)))
      })
    ))
})
