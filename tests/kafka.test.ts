import { afterAll, describe, expect, test } from "bun:test"
import { Admin } from "@platformatic/kafka"
import { Context, Effect, Layer, Logger, Metric, Option, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { Topic } from "@merkato/domain/kernel/Event"
import { OrderCreated } from "@merkato/domain/orders/OrderEvents"
import { EventBus } from "@merkato/infra/events/EventBus"
import * as KafkaEventBus from "@merkato/infra/events/KafkaEventBus"
import * as Brokers from "@merkato/infra/events/kafka/Brokers"
import * as Lag from "@merkato/infra/events/Lag"
import * as Database from "@merkato/infra/postgres/Database"
import * as Migrations from "@merkato/infra/postgres/Migrations"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { contextNames, contexts } from "@merkato/services/contexts"
import { message } from "../packages/infra/test/EventBus.contract.ts"
import { registryContract } from "../packages/infra/test/ConfluentSchemaRegistry.contract.ts"
import { lookInto, wrongAtRest } from "./support/Audit.ts"
import { settled } from "./support/Books.ts"
import { patientCircuits } from "./support/Circuits.ts"
import { Client, text, tokenFor } from "./support/Client.ts"
import { type Exported, startCollector } from "./support/Collector.ts"
import * as Consumers from "./support/ConsumerProcesses.ts"
import { kafkaBroker } from "./support/KafkaBroker.ts"
import { hostOf, type Links, links, through } from "./support/Links.ts"
import { freePort, runToEnd, startApp, temporaryFolder } from "./support/Processes.ts"
import { realServer } from "./support/RealServer.ts"
import { openFor, stockUp } from "./support/Shoppers.ts"

/**
 * How long each outage lasts, and how often Kafka and consumers are killed. `MERKATO_OUTAGES=long` is for the night, when the
 * read models on other servers take part as well.
 */
const night = process.env["MERKATO_OUTAGES"] === "long"
const { outageMs, kills, consumerKills } = night
  ? { outageMs: 30_000, kills: 2, consumerKills: 10 }
  : { outageMs: 2_000, kills: 1, consumerKills: 3 }

const portBeforeKafka = await freePort()
const readModels = "read models on other servers than Postgres"
const [kafka, redis, between, registry, opensearch, cassandra] = await Promise.all([
  kafkaBroker("the shop on Kafka", `127.0.0.1:${portBeforeKafka}`),
  realServer("redis", "the shop on Kafka"),
  links("the shop on Kafka"),
  realServer("apicurio", "the schemas of the shop's events in a registry"),
  night ? realServer("opensearch", readModels) : undefined,
  night ? realServer("cassandra", readModels) : undefined
])
afterAll(
  () => Promise.all([kafka, redis, between, registry, opensearch, cassandra].map((server) => server?.stop())),
  60_000
)
const toKafka = kafka && (await between?.to("kafka", kafka.brokers, portBeforeKafka))
const redisUrl = redis?.settings["REDIS_URL"] ?? ""
const registryUrl = registry?.settings["SCHEMA_REGISTRY_URL"] ?? ""
const toRegistry = registry && (await between?.to("registry", hostOf(registryUrl), await freePort()))

describe("--profile full", () => {
  test("wants to know where its servers are", async () => {
    const args = ["--profile", "full", "--no-seed"]
    const said = "; scripts/servers up starts what is named there, and prints it"
    const none = await runToEnd("shop", args)
    expect([none.code, none.stderr.trim()]).toEqual([
      1,
      `--profile full wants KAFKA_BROKERS, REDIS_URL, SCHEMA_REGISTRY_URL, OPENSEARCH_URL and CASSANDRA_CONTACT_POINTS${said}`
    ])
    const some = await runToEnd("shop", args, {
      REDIS_URL: "redis://127.0.0.1:1",
      KAFKA_BROKERS: "127.0.0.1:1",
      OPENSEARCH_URL: "http://127.0.0.1:1"
    })
    expect([some.code, some.stderr.trim()]).toEqual([
      1,
      `--profile full wants SCHEMA_REGISTRY_URL and CASSANDRA_CONTACT_POINTS${said}`
    ])
  })

  test("says in a sentence that no Kafka answers there", async () => {
    const { path, remove } = temporaryFolder()
    const nobody = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
    nobody.stop(true)
    const args = ["--no-seed", "--data-dir", path, "--port", String(await freePort())]
    const { code, stderr } = await runToEnd("shop", args, {
      KAFKA_BROKERS: `127.0.0.1:${nobody.port}`,
      REDIS_URL: redisUrl,
      SCHEMA_REGISTRY_URL: registryUrl
    })
    remove()
    expect(code).toBe(1)
    expect(stderr).toMatch(
      new RegExp(`^KAFKA_BROKERS cannot be used: 127\\.0\\.0\\.1:${nobody.port}: [^\\n]+\\n$`, "m")
    )
  })
})

if (registry !== undefined && toRegistry !== undefined) registryContract(registryUrl, toRegistry)

/** Asks until the answer is good; the last one when it never is. */
const until = async <A>(ask: () => Promise<A>, good: (answer: A) => boolean): Promise<A> => {
  for (const deadline = Date.now() + 60_000; ; await Bun.sleep(50)) {
    const answer = await ask()
    if (good(answer) || Date.now() > deadline) return answer
  }
}

/** Who reads what, of all contexts. */
const readers = contextNames.flatMap((name) => contexts[name].reads)

/** Waits until every group has taken everything; what is left when one does not. */
const everythingTaken = Effect.gen(function* () {
  const bus = yield* EventBus
  for (let tries = 0; ; tries++) {
    const lags = yield* Effect.forEach(readers, ({ group, topic }) =>
      Effect.map(bus.lag(group, [topic]), (lag) => ({ group, lag }))
    )
    const behind = lags.filter(({ lag }) => lag > 0)
    if (behind.length === 0 || tries > 300) return behind
    yield* Effect.sleep("100 millis")
  }
})

/** Copies what stands in Kafka into the tables of the other bus, which nobody has used: the audit knows its way there. */
const copyBus = Effect.gen(function* () {
  const bus = yield* EventBus
  const sql = yield* SqlClient.SqlClient
  const topics = Topic.literals
  const all = yield* bus.read({ topics, after: new Map(), limit: Number.MAX_SAFE_INTEGER })
  const now = new Date()
  for (let from = 0; from < all.length; from += 500) {
    const page = all.slice(from, from + 500)
    yield* sql`
      insert into bus.log (topic, partition, "offset", key, event_id, event_type, envelope, trace_parent, published_at)
      select topic, partition, place::bigint, key, event_id, event_type, envelope, trace_parent, ${now} from unnest(
        ${page.map(({ topic }) => topic)}::text[], ${page.map(({ partition }) => partition)}::int[],
        ${page.map(({ offset }) => String(offset))}::text[], ${page.map(({ key }) => key)}::text[],
        ${page.map(({ envelope }) => envelope.eventId)}::text[], ${page.map(({ envelope }) => envelope.eventType)}::text[],
        ${page.map(({ envelope }) => JSON.stringify(envelope))}::text[]::jsonb[], ${page.map(({ traceParent }) => traceParent)}::text[]
      ) as e (topic, partition, place, key, event_id, event_type, envelope, trace_parent)`
  }
  yield* sql`
    insert into bus.partitions (topic, partition, next_offset)
    select topic, partition, max("offset") + 1 from bus.log group by topic, partition`
  for (const { group, topic } of readers) {
    yield* sql`
      insert into bus.consumer_groups (consumer_group, topic, partition, next_offset)
      select ${group}, topic, partition, next_offset from bus.partitions where topic = ${topic} on conflict do nothing`
  }
  return all.length
})

/** Statements that are made, and messages that are sent, on the way of an order; and what each of them is done in, nearest first. */
const wayOfAnOrder = {
  reserved: [["postgres", "Inventory.reserve", "Orders.place", "POST"]],
  written: [["postgres", "OrdersStore.place", "Orders.place", "POST"]],
  published: [["publish order.events", "OrdersStore.place", "Orders.place", "POST"]],
  projected: [["postgres", "consume order.events", "OrdersStore.place", "Orders.place", "POST"]]
}
const landmarks = new Set(Object.values(wayOfAnOrder).flat(2))

/** The same, as the spans of a trace tell it. */
const wayOf = (spans: ReadonlyArray<Exported>): typeof wayOfAnOrder => {
  const byId = new Map(spans.map((span) => [span.spanId, span]))
  const above = ({ parentId }: Exported): ReadonlyArray<string> => {
    const parent = byId.get(parentId)
    return parent === undefined ? [] : [parent.name, ...above(parent)]
  }
  const where = (isIt: (span: Exported) => boolean) =>
    spans.filter(isIt).map((span) => [span.name, ...above(span).filter((name) => landmarks.has(name))])
  const stating = (text: string) =>
    where(({ attributes }) => (attributes["db.query.text"] ?? "").toLowerCase().includes(text))
  return {
    reserved: stating("insert into inventory.reservations"),
    written: stating("insert into orders.orders"),
    published: where(({ name }) => name === "publish order.events"),
    projected: stating(`insert into "orders"."orders_by_customer"`)
  }
}

/** A link to each server with a read model, and what the shop and its commands are told of it. */
const linksToReadModels = async (between: Links) => {
  const searched = opensearch?.settings["OPENSEARCH_URL"]
  const contactPoints = cassandra?.settings["CASSANDRA_CONTACT_POINTS"]
  if (searched === undefined || contactPoints === undefined) return { links: [], settings: {}, replayed: [] }
  const links = [
    await between.to("opensearch", hostOf(searched), await freePort()),
    await between.to("cassandra", contactPoints, await freePort())
  ] as const
  return {
    links,
    settings: { OPENSEARCH_URL: through(searched, links[0]).slice(0, -1), CASSANDRA_CONTACT_POINTS: links[1].address },
    replayed: ["product_search_index", "orders_by_customer_cassandra"]
  }
}

if (kafka !== undefined && toKafka !== undefined) {
  test(
    "consumers in three processes come, are killed in the midst of a batch and are replaced: each event has its effect, once and in order",
    () =>
      Effect.gen(function* () {
        const database = (yield* TestDatabase.fresh).url
        const { group, schema, topic } = Consumers
        const brokers = yield* Brokers.parse(kafka.brokers)
        const bus = yield* Effect.map(Layer.build(KafkaEventBus.layer({ brokers, topics: [topic] })), (services) =>
          Context.get(services, EventBus)
        )
        const sql = yield* Effect.map(
          Layer.build(Database.layer({ url: database, maxConnections: 1, applicationName: "test" })),
          (services) => Context.get(services, SqlClient.SqlClient)
        )
        yield* Effect.provideService(
          Migrations.run({ schema, folder: undefined, common: true }),
          SqlClient.SqlClient,
          sql
        )
        const effects = sql(`${schema}.effects`)
        yield* sql`create table ${effects} (nth serial, event_id text, key text, version int)`

        let published = 0
        const publish = (count: number) =>
          bus.publish(
            Array.from({ length: count }, () => {
              const nth = published++
              return message(topic, `KEY-${nth % 20}`, Math.floor(nth / 20) + 1)
            })
          )

        const admin = yield* Effect.acquireRelease(
          Effect.sync(() => new Admin({ clientId: "test", bootstrapBrokers: [...brokers] })),
          (admin) => Effect.promise(() => admin.close())
        )
        const running = new Set<Consumers.ConsumerProcess>()
        yield* Effect.addFinalizer(() => Effect.promise(() => Promise.all([...running].map((each) => each.kill()))))
        const start = () => {
          running.add(Consumers.startConsumer({ DATABASE_URL: Redacted.value(database), KAFKA_BROKERS: kafka.brokers }))
        }
        /** Until so many share the partitions. */
        const shared = (members: number) =>
          Effect.promise(() =>
            until(
              async () => (await admin.describeGroups({ groups: [group] })).get(group),
              (told) => told?.state === "Stable" && told.members.size === members
            )
          )
        const told = Metric.withAttributes(Lag.lag, { group, topic })
        /** What the gauge says of the group, once it says something like that. */
        const lagIs = (wanted: (lag: number) => boolean) =>
          Effect.gen(function* () {
            for (let tries = 0; tries < 300; tries++) {
              // It looks as it begins.
              yield* Effect.timeoutOption(Lag.watch([{ group, topic }]), "500 millis")
              const { value } = yield* Metric.value(told)
              if (wanted(value)) return value
            }
            return (yield* Metric.value(told)).value
          }).pipe(Effect.provideService(EventBus, bus))
        /** How often each event had its effect, and what came out of order. */
        const story = Effect.gen(function* () {
          const [counts] = yield* sql<{ events: number; effects: number; unordered: number }>`
            select count(distinct event_id)::int as events, count(*)::int as effects,
              (count(*) filter (where version <> before + 1))::int as unordered
            from (select *, lag(version, 1, 0) over (partition by key order by nth) as before from ${effects}) as e`
          return counts
        })
        const allDone = () => ({ events: published, effects: published, unordered: 0 })
        const caughtUp = Effect.gen(function* () {
          expect(yield* lagIs((lag) => lag === 0)).toBe(0)
          expect(yield* story).toEqual(allDone())
        })

        // One, then three, then two again, with events all the while.
        for (const members of [1, 3]) {
          while (running.size < members) start()
          yield* publish(200)
          yield* shared(members)
          yield* publish(200)
        }
        const [first] = running
        if (first !== undefined) {
          running.delete(first)
          yield* Effect.all([Effect.promise(first.end), publish(200)], { concurrency: 2 })
        }
        yield* caughtUp

        let killed = 0
        for (let round = 0; killed < consumerKills; round++) {
          while (running.size < Math.min(3, consumerKills - killed)) start()
          yield* shared(running.size)
          const stopping = yield* Effect.promise(() =>
            Promise.all([...running].map((each, nth) => each.stopAt((round + nth) % 2 === 0 ? "amid" : "after")))
          )
          yield* publish(200)
          yield* Effect.promise(() => Promise.all(stopping.map(({ stands }) => stands)))
          killed += running.size
          yield* Effect.promise(() => Promise.all([...running].map((each) => each.kill())))
          running.clear()
          yield* publish(100)
          expect(yield* lagIs((lag) => lag === 300)).toBe(300)
          start()
          yield* caughtUp
        }
        expect(killed).toBe(consumerKills)
        expect(yield* bus.deadLetters({ topic: Option.some(topic), limit: 1 })).toEqual([])
        console.log(`${killed} consumers killed in the midst of a batch; ${published} events, each with one effect`)
      }).pipe(Effect.scoped, Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Effect.runPromise),
    consumerKills * 30_000 + 120_000
  )
}

if (
  kafka !== undefined &&
  toKafka !== undefined &&
  redis !== undefined &&
  between !== undefined &&
  toRegistry !== undefined
) {
  test(
    "people shop, over two processes, while Kafka is killed and each link is slow, silent and cut: nothing is lost, and nothing done twice",
    () =>
      Effect.gen(function* () {
        const database = (yield* TestDatabase.fresh).url
        const { path } = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
        patientCircuits(path)
        const collector = yield* Effect.acquireRelease(Effect.sync(startCollector), ({ stop }) => Effect.promise(stop))
        const toRedis = yield* Effect.promise(async () => between.to("redis", hostOf(redisUrl), await freePort()))
        const toPostgres = yield* Effect.promise(async () =>
          between.to("postgres", hostOf(Redacted.value(database)), await freePort())
        )
        const toReadModels = yield* Effect.promise(() => linksToReadModels(between))
        const settings = {
          DATABASE_URL: through(Redacted.value(database), toPostgres),
          KAFKA_BROKERS: toKafka.address,
          ...toReadModels.settings
        }
        const profile = night ? ["--profile", "full"] : []
        // It is asked at the start, and by nobody after that.
        yield* Effect.promise(() => toRegistry.slow(20))
        const shop = yield* Effect.acquireRelease(
          Effect.promise(() =>
            startApp("shop", [...profile, "--processes", "2", "--no-seed", "--data-dir", path], {
              ...settings,
              REDIS_URL: through(redisUrl, toRedis),
              SCHEMA_REGISTRY_URL: through(registryUrl, toRegistry),
              MERKATO_TRACE_SAMPLING: "0",
              OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${collector.url}/v1/traces`,
              OTEL_BSP_SCHEDULE_DELAY: "100"
            })
          ),
          (shop) => Effect.promise(() => shop.end("SIGTERM"))
        )
        const registered = yield* Effect.promise(() => fetch(`${registryUrl}/subjects/${OrderCreated.type}/versions`))
        expect(yield* Effect.promise(() => registered.json())).toEqual([1])
        yield* Effect.promise(toRegistry.cut)
        const people = yield* Effect.promise(async () => {
          const admin = await tokenFor(path, "ADMIN", "admin")
          const products = await stockUp(new Client(shop.url, admin))
          const ada = new Client(shop.url, await tokenFor(path, "ADA", "shopper"))
          let orders = 0
          const buy = async (headers = {}) => {
            const nth = ++orders
            const basket = { items: [{ productId: products[0], qty: 1 }] }
            const placed = await until(
              () => ada.post("/api/v1/orders", basket, { key: `o${nth}`, headers }),
              ({ status }) => status === 201
            )
            const order = `/api/v1/orders/${text(placed, "orderId")}`
            const paid = await until(
              () => ada.post(`${order}/pay`, { paymentToken: "tok_ok" }, { key: `p${nth}` }),
              ({ status }) => status === 200
            )
            expect(paid.body["status"]).toBe("PAID")
          }
          const told = async () => {
            const feed = await until(
              () => ada.get("/api/v1/notifications?limit=100"),
              ({ body }) => Array.isArray(body["items"]) && body["items"].length >= 2 * orders
            )
            return feed.body["items"]
          }
          const traceId = crypto.randomUUID().replaceAll("-", "")
          await buy({ traceparent: `00-${traceId}-b7ad6b7169203331-01` })
          expect(await told()).toHaveLength(2)
          const ofTrace = () => collector.spans.filter((span) => span.traceId === traceId)
          // A span may be sent before the one above it has ended.
          expect(
            await until(
              async () => wayOf(ofTrace()),
              (way) => Bun.deepEquals(way, wayOfAnOrder)
            )
          ).toEqual(wayOfAnOrder)

          const people = await openFor({ url: shop.url, dataDir: path, admin, products, shoppers: 4 })
          await Bun.sleep(1_500)
          for (let nth = 1; nth <= kills; nth++) {
            kafka.kill()
            await buy()
            await Bun.sleep(outageMs)
            await kafka.start()
            await buy()
            expect(await told()).toHaveLength(2 * orders)
          }
          const shelf = new Client(shop.url, admin)
          for (const link of [toKafka, toRedis, toPostgres, ...toReadModels.links]) {
            for (const [nth, worsen] of [() => link.slow(100), link.silence, link.cut].entries()) {
              await worsen()
              if (toReadModels.links.some((each) => each === link)) {
                const renamed = { body: { name: `Product of outage ${nth}` } }
                expect((await shelf.request("PATCH", `/api/v1/products/${products[nth]}`, renamed)).status).toBe(200)
                await buy()
              }
              await Bun.sleep(outageMs)
              await link.mend()
            }
            await buy()
            expect(await told()).toHaveLength(2 * orders)
          }
          await people.stop()
          return people
        })
        expect(people.surprises).toEqual([])
        const brokers = yield* Brokers.parse(kafka.brokers)
        const copied = yield* Effect.gen(function* () {
          // Twice, for what the last events set off.
          for (let time = 1; time <= 2; time++) {
            yield* Effect.promise(() => lookInto(database, settled))
            expect(yield* everythingTaken).toEqual([])
          }
          const bus = yield* EventBus
          return yield* Effect.promise(() => lookInto(database, Effect.provideService(copyBus, EventBus, bus)))
        }).pipe(Effect.provide(KafkaEventBus.layer({ brokers, topics: [] })))
        expect(copied).toBeGreaterThan(20)
        expect(yield* Effect.promise(() => lookInto(database, wrongAtRest))).toEqual([])
        expect(yield* Effect.promise(() => people.contradictions(database, "at the end"))).toEqual([])
        for (const name of ["orders_by_customer", "daily_revenue", ...toReadModels.replayed]) {
          const replay = () => runToEnd("merkato", ["replay", name, "--check", "--data-dir", path], settings)
          const parity = yield* Effect.promise(() => (night ? until(replay, ({ code }) => code === 0) : replay()))
          expect([parity.code, parity.stdout]).toEqual([
            0,
            expect.stringMatching(/^(live in \w+: )?[\d,]+ rows compared, 0 differences$/m)
          ])
          console.log(parity.stdout)
        }
        const errors = shop
          .output()
          .split("\n")
          .filter((line) => line.includes('"level":"ERROR"'))
        expect(errors).toEqual([])
        console.log(`${people.summary}; ${copied} events on Kafka`)
      }).pipe(Effect.scoped, Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Effect.runPromise),
    outageMs * 26 + 300_000
  )
}
