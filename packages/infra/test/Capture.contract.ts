// What Debezium does as the relay, on a real Kafka Connect: the same as our relay, as far as one that reads the log can.
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { Context, Effect, Exit, Layer, Logger, Redacted, Schedule, Schema, Scope } from "effect"
import { SqlClient } from "effect/sql"
import { Kafka, logLevel } from "kafkajs"
import * as Event from "@merkato/domain/kernel/Event"
import { Principal, RequestContext, system } from "@merkato/domain/kernel/RequestContext"
import { Client, text, tokenFor } from "../../../tests/support/Client.ts"
import type { KafkaBroker } from "../../../tests/support/KafkaBroker.ts"
import { hostOf, type Link, type Links, through } from "../../../tests/support/Links.ts"
import { freePort, runToEnd, startApp, temporaryFolder } from "../../../tests/support/Processes.ts"
import type { RealServer } from "../../../tests/support/RealServer.ts"
import { stockUp } from "../../../tests/support/Shoppers.ts"
import { until } from "../../../tests/support/Until.ts"
import * as Capture from "../src/events/capture/Capture.ts"
import * as Connector from "../src/events/capture/Connector.ts"
import { type BusMessage, EventBus } from "../src/events/EventBus.ts"
import * as EventSchemas from "../src/events/EventSchemas.ts"
import { EventStore, RelaySignal } from "../src/events/EventStore.ts"
import * as KafkaEventBus from "../src/events/KafkaEventBus.ts"
import * as Brokers from "../src/events/kafka/Brokers.ts"
import { toRecord } from "../src/events/kafka/Message.ts"
import * as Relay from "../src/events/Relay.ts"
import { Policies } from "../src/policy/Policies.ts"
import * as Database from "../src/postgres/Database.ts"
import * as Migrations from "../src/postgres/Migrations.ts"
import * as TestDatabase from "../src/postgres/TestDatabase.ts"
import { eventually, unique } from "./EventBus.contract.ts"

const topic = "partner.events"
const Happened = Event.define(
  "ecommerce.test.thing.happened.v1",
  topic,
  Schema.Struct({ n: Schema.Int, price: Schema.Finite, text: Schema.String })
)
const happened = (key: string, n: number) =>
  Happened.of(key, n, { n, price: n * 12.25, text: `"quoted" \\ ünïcode ☃ ${n}` })

const at = new Date("2025-06-01T12:00:00.120Z")
const shop = { schema: "shop", topic, producer: "shop-service" } as const

/** Milliseconds that events may take on a busy machine, a connector that begins anew included. */
const withinMs = 40_000

const tables = Effect.gen(function* () {
  yield* Migrations.run({ schema: shop.schema, folder: undefined, common: true })
  const sql = yield* SqlClient.SqlClient
  yield* sql`create table shop.things (id text primary key, version integer not null)`
})

/** Nobody reads it any more: else the database could not be dropped. */
const dropSlot = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const idle = sql`
    select slot_name::text from pg_replication_slots where database = current_database() and not active`
  yield* eventually(idle, (rows) => rows.length > 0)
  yield* sql`
    select pg_drop_replication_slot(slot_name)::text from pg_replication_slots where database = current_database()`
})

interface Way {
  readonly toKafka: Link
  readonly between: Links
}

/** Stops the Connect afterwards. */
export const captureContract = (kafka: KafkaBroker, connect: RealServer, { toKafka, between }: Way): void => {
  type Ground = SqlClient.SqlClient | EventStore | EventBus
  let ground: Context.Context<Ground> | undefined
  const scope = Scope.makeUnsafe()
  /** Connect's, to the brokers and to the database; and the shop's, to Connect. */
  const ways: Array<readonly [string, Link]> = [["Kafka", toKafka]]

  const run = <A>(body: Effect.Effect<A, unknown, Ground | Scope.Scope>): Promise<A> => {
    if (ground === undefined) throw new Error("Debezium does not run")
    return Effect.runPromise(
      body.pipe(
        Effect.provideContext(ground),
        Effect.provideService(EventSchemas.EventSchemas, EventSchemas.of([Happened])),
        Effect.scoped,
        Effect.provide(Logger.layer([])),
        Effect.withTracerEnabled(false)
      )
    )
  }

  /** Events of these keys, as they came, once each. */
  const published = Effect.fnUntraced(function* (keys: ReadonlyArray<string>) {
    const bus = yield* EventBus
    const all = yield* bus.read({ topics: [topic], after: new Map(), limit: 100_000 })
    const seen = new Set<string>()
    return all.filter(({ key, envelope: { eventId } }) => {
      const fresh = keys.includes(key) && !seen.has(eventId)
      seen.add(eventId)
      return fresh
    })
  })
  /** Kafka sends us over Connect's link, too: what is read while that breaks is read again. */
  const patiently = Effect.retry({ schedule: Schedule.spaced("100 millis"), times: withinMs / 100 })
  const arrived = (keys: ReadonlyArray<string>, count: number) =>
    eventually(patiently(published(keys)), (all) => all.length >= count, withinMs)
  const versions = (all: ReadonlyArray<BusMessage>, key: string) =>
    all.filter((event) => event.key === key).map(({ envelope }) => envelope.aggregateVersion)
  const append = (...events: ReadonlyArray<Event.NewEvent>) => EventStore.use((store) => store.append(events, at))
  const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1)

  describe("Debezium as the relay", () => {
    beforeAll(async () => {
      await Effect.runPromise(
        Effect.gen(function* () {
          const { url } = yield* TestDatabase.fresh
          const { settings } = Connector.settingsOf(url)
          const database = Database.layer({ url, maxConnections: 10, applicationName: "shop" })
          yield* Effect.addFinalizer(() => Effect.orDie(Effect.provide(dropSlot, database)))
          const connectUrl = connect.settings["CONNECT_URL"] ?? ""
          yield* Effect.addFinalizer(() =>
            Effect.promise(() => fetch(`${connectUrl}/connectors/${settings["name"]}`, { method: "DELETE" }))
          )
          yield* Effect.provide(
            Effect.gen(function* () {
              yield* tables
              // Before the connector, as at the start of a shop; what waits already is in the outbox.
              yield* append(...upTo(3).map((n) => happened("EARLY", n)))
              yield* Capture.begin([shop])
              yield* Capture.begin([shop])
            }),
            EventStore.layer("shop").pipe(
              Layer.provide(Layer.succeed(RelaySignal, { wake: Effect.void })),
              Layer.provideMerge(database)
            )
          )
          const brokers = yield* Brokers.parse(kafka.brokers)
          const link = (name: string, to: string) =>
            Effect.promise(async () => {
              const made = await between.to(name, hostOf(to), await freePort())
              ways.push([name, made])
              return through(to, made)
            })
          const linkedUrl = Redacted.make(yield* link("Postgres", Redacted.value(url)))
          const linkedConnect = yield* link("Connect", connectUrl)
          const layer = Layer.mergeAll(
            EventStore.layer("shop").pipe(
              Layer.provide(Layer.succeed(RelaySignal, { wake: Effect.void })),
              Layer.provideMerge(database)
            ),
            Connector.layer(linkedConnect, [linkedUrl]).pipe(
              Layer.provide(Policies.layerWith()),
              Layer.provideMerge(KafkaEventBus.layer({ brokers, topics: [topic] }))
            )
          )
          ground = yield* Layer.build(layer)
        }).pipe(Scope.provide(scope), Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false))
      )
    }, 120_000)
    afterAll(async () => {
      await Effect.runPromise(Scope.close(scope, Exit.void))
      await connect.stop()
    }, 60_000)

    test(
      "takes what waited in the outbox before it, in its order",
      () =>
        run(
          Effect.gen(function* () {
            expect(versions(yield* arrived(["EARLY"], 3), "EARLY")).toEqual([1, 2, 3])
            const sql = yield* SqlClient.SqlClient
            expect(yield* sql`select * from shop.outbox`).toEqual([])
          })
        ),
      withinMs * 2
    )

    test(
      "puts on the topic what our relay would have: key, partition, headers, text",
      () =>
        run(
          Effect.gen(function* () {
            const request = {
              principal: new Principal({ ...system, region: "in" }),
              correlationId: "correlation-7",
              traceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
            }
            const keys = ["SAME-1", "SAME-2", "SAME-3"]
            yield* Effect.provideService(append(...keys.map((key) => happened(key, 1))), RequestContext, request)
            const captured = yield* arrived(keys, 3)

            // Once more by our own relay, which is told to publish them to somebody who only notes it.
            const sql = yield* SqlClient.SqlClient
            const noted: Array<BusMessage> = []
            const { publishNext } = yield* Effect.updateService(Relay.make(shop), EventBus, (bus) =>
              EventBus.of({ ...bus, publish: (messages) => Effect.sync(() => void noted.push(...messages)) })
            )
            yield* Capture.end(["shop"])
            yield* sql`
            insert into shop.outbox (position, aggregate_id, version)
            select position, aggregate_id, version from shop.events where aggregate_id = any(${keys}::text[])`
            yield* publishNext
            yield* Capture.begin([shop])

            const records = yield* Effect.promise(() => rawRecords(kafka.brokers, keys))
            expect(noted).toHaveLength(3)
            for (const message of noted) {
              const { key, headers, value } = toRecord(message, 0)
              const found = records.find((record) => record.key === key)
              expect({ ...found, value: JSON.parse(found?.value ?? "null") }).toEqual({
                key,
                headers,
                value: JSON.parse(value),
                partition: expect.any(Number)
              })
              // Where our own client puts that key.
              const bus = yield* EventBus
              yield* bus.publish([{ ...message, envelope: { ...message.envelope, producer: "again" } }])
              const both = (yield* bus.read({ topics: [topic], after: new Map(), limit: 100_000 })).filter(
                (delivery) => delivery.key === key
              )
              expect(both.map(({ partition }) => partition)).toEqual([found?.partition ?? -1, found?.partition ?? -1])
            }
            expect(captured.map(({ traceParent }) => traceParent)).toEqual(keys.map(() => request.traceParent))
          })
        ),
      withinMs * 2
    )

    test(
      "takes nothing that was rolled back, and keeps each key's order while many commit at once",
      () =>
        run(
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const store = yield* EventStore
            const keys = ["A", "B", "C", "D"]
            yield* sql`insert into shop.things (id, version) select id, 0 from unnest(${keys}::text[]) as t (id)`
            const change = (key: string, holdForMs: number) =>
              Database.transaction(
                Effect.gen(function* () {
                  const [row] = yield* sql<{ version: number }>`
                  select version from shop.things where id = ${key} for update`
                  const version = (row?.version ?? 0) + 1
                  yield* store.append([happened(key, version)], at)
                  yield* Effect.sleep(holdForMs)
                  yield* sql`update shop.things set version = ${version} where id = ${key}`
                  // What a command changes its mind about.
                  if (holdForMs === 7) return yield* Effect.fail("changed my mind")
                })
              )
            yield* Effect.forEach(
              upTo(160),
              (nth) => Effect.ignore(change(keys[nth % keys.length] ?? "", (nth * 7) % 12)),
              { concurrency: 8, discard: true }
            )
            const rows = yield* sql<{ id: string; version: number }>`select id, version from shop.things order by id`
            const kept = rows.reduce((sum, { version }) => sum + version, 0)
            expect(kept).toBeLessThan(160)
            const all = yield* arrived(keys, kept)
            expect(rows.map(({ id }) => versions(all, id))).toEqual(rows.map(({ version }) => upTo(version)))
          })
        ),
      withinMs * 2
    )

    test(
      "that is killed loses nothing, and goes on where it was",
      () =>
        run(
          Effect.gen(function* () {
            yield* append(...upTo(5).map((n) => happened("KILLED", n)))
            connect.kill()
            yield* append(...[6, 7, 8].map((n) => happened("KILLED", n)))
            yield* Effect.promise(() => connect.start())
            yield* append(happened("KILLED", 9))
            expect(versions(yield* arrived(["KILLED"], 9), "KILLED")).toEqual(upTo(9))
          })
        ),
      120_000
    )

    test(
      "loses nothing and keeps each key's order over links that are slow, silent and cut, and goes on by itself",
      () =>
        run(
          Effect.gen(function* () {
            let count = 0
            for (const [name, link] of ways) {
              for (const worsen of [() => link.slow(50), () => link.silence(), link.cut]) {
                yield* Effect.promise(worsen)
                yield* append(happened("LINKED", ++count), happened("LINKED", ++count))
                yield* Effect.sleep("1 second")
                yield* append(happened("LINKED", ++count))
                yield* Effect.promise(link.mend)
                const all = yield* arrived(["LINKED"], count)
                expect([name, versions(all, "LINKED")]).toEqual([name, upTo(count)])
              }
            }
          })
        ),
      withinMs * 9
    )

    test("brings people news of their orders; and so does the shop's own relay, when the shop is started with that again", async () => {
      const { path, remove } = temporaryFolder()
      const start = (environment: Readonly<Record<string, string>>) =>
        startApp("shop", ["--no-seed", "--data-dir", path], { KAFKA_BROKERS: kafka.brokers, ...environment })
      const buy = async (url: string, products: ReadonlyArray<string>) => {
        const eve = new Client(url, await tokenFor(path, "EVE", "shopper"))
        const items = [{ productId: products[0], qty: 1 }]
        const order = text(await eve.post("/api/v1/orders", { items }, { key: unique("order") }), "orderId")
        await eve.post(`/api/v1/orders/${order}/pay`, { paymentToken: "tok_ok" }, { key: unique("pay") })
        const heard = async () => {
          const { items } = (await eve.get("/api/v1/notifications?limit=100")).body
          const all: ReadonlyArray<unknown> = Array.isArray(items) ? items : []
          return all.filter((item) => Object(item).orderId === order).map((item) => Object(item).kind)
        }
        return (await until(heard, (kinds) => kinds.length >= 2)).toSorted()
      }
      const errors = (output: string) => output.split("\n").filter((line) => line.includes('"level":"ERROR"'))

      const alone = await runToEnd("shop", ["--no-seed", "--data-dir", path], { MERKATO_RELAY: "debezium" })
      expect([alone.code, alone.stderr.trim()]).toEqual([
        1,
        "MERKATO_RELAY=debezium cannot be done: it wants KAFKA_BROKERS and CONNECT_URL"
      ])
      const captured = await start({ MERKATO_RELAY: "debezium", CONNECT_URL: connect.settings["CONNECT_URL"] ?? "" })
      const products = await stockUp(new Client(captured.url, await tokenFor(path, "ADMIN", "admin")))
      expect(await buy(captured.url, products)).toEqual(["order.created", "order.paid"])
      // A relay would have brought the news as well: stock and products too are there as the database writes them.
      const missing = new Set(["order.order.created", "inventory.stock.adjusted", "product.product.updated"])
      await readRecords(kafka.brokers, ["order.events", "inventory.events", "catalogue.events"], (record) => {
        if (record.value.startsWith('{"eventId" : ')) missing.delete(record.headers["ce_type"]?.slice(10, -3) ?? "")
        return missing.size === 0
      })
      expect([...missing]).toEqual([])
      const connector = await fetch(`${connect.settings["CONNECT_URL"]}/connectors/merkato_postgres`)
      expect(connector.status).toBe(200)
      await captured.end("SIGTERM")

      const relayed = await start({})
      expect(await buy(relayed.url, products)).toEqual(["order.created", "order.paid"])
      await relayed.end("SIGTERM")
      expect(relayed.output()).toContain("the replication slot merkato_postgres is still there")
      expect([captured, relayed].flatMap((shop) => errors(shop.output()))).toEqual([])
      remove()
    }, 180_000)
  })
}

interface Raw {
  readonly key: string
  readonly value: string
  readonly partition: number
  readonly headers: Readonly<Record<string, string>>
}

/** Reads topics from their beginning, as another client sees them, until enough was seen or the time is over. */
const readRecords = async (
  brokers: string,
  topics: ReadonlyArray<string>,
  enough: (record: Raw) => boolean
): Promise<void> => {
  const client = new Kafka({ clientId: "foreign", brokers: [brokers], logLevel: logLevel.NOTHING })
  const consumer = client.consumer({ groupId: unique("foreign") })
  await consumer.connect()
  await consumer.subscribe({ topics: [...topics], fromBeginning: true })
  const seen = new Promise<void>((resolve) => {
    void consumer.run({
      eachMessage: async ({ partition, message: { key, value, headers = {} } }) => {
        const texts = Object.entries(headers).map(([header, text]) => [header, String(text)])
        const record = { key: String(key), value: String(value), partition, headers: Object.fromEntries(texts) }
        if (enough(record)) resolve()
      }
    })
  })
  await Promise.race([seen, Bun.sleep(withinMs)])
  await consumer.disconnect()
}

/** The first record of each key. */
const rawRecords = async (brokers: string, keys: ReadonlyArray<string>): Promise<ReadonlyArray<Raw>> => {
  const found = new Map<string, Raw>()
  await readRecords(brokers, [topic], (record) => {
    if (keys.includes(record.key) && !found.has(record.key)) found.set(record.key, record)
    return found.size === keys.length
  })
  return [...found.values()]
}
