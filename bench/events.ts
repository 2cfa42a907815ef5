// How many events a second go the whole way: out of the outbox, over the bus, into the inbox, committed. One process does
// it all, relay and consumer, as a shop does. On Kafka, beside Kafka's own producer tool against the same broker.
import { chmodSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Context, Deferred, Effect, Layer, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { OrderCreated } from "@merkato/domain/orders/OrderEvents"
import { EventId, Id } from "@merkato/domain/kernel/Ids"
import * as Consumer from "@merkato/infra/events/Consumer"
import type { EventBus } from "@merkato/infra/events/EventBus"
import { RelaySignal } from "@merkato/infra/events/EventStore"
import { toRecord } from "@merkato/infra/events/kafka/Message"
import * as KafkaWhereNamed from "@merkato/infra/events/KafkaWhereNamed"
import * as PostgresEventBus from "@merkato/infra/events/PostgresEventBus"
import * as Relay from "@merkato/infra/events/Relay"
import { Policies } from "@merkato/infra/policy/Policies"
import * as Database from "@merkato/infra/postgres/Database"
import { EmbeddedPostgres } from "@merkato/infra/postgres/EmbeddedPostgres"
import * as Migrations from "@merkato/infra/postgres/Migrations"
import * as Options from "../scripts/Options.ts"
import { java } from "../scripts/server/Java.ts"
import { kafka, toolJars } from "../scripts/server/Kafka.ts"
import * as Maven from "../scripts/server/Maven.ts"
import * as Servers from "../scripts/server/Servers.ts"
import * as Cpu from "./Cpu.ts"
import * as Program from "./Program.ts"
import { median } from "./Report.ts"

const usage = `bun run bench:events [--bus kafka,postgres] [--events 100000] [--rounds 3]
Events a second from outbox row to committed inbox, relay and consumer in one process. Wants an otherwise idle machine.
  --bus     on which bus; on each of them in turns unless told
  --events  how many stand in the outbox when a round begins
  --rounds  how often`

const options = Options.read(usage, {
  bus: { type: "string", default: "kafka,postgres" },
  events: { type: "string", default: "100000" },
  rounds: { type: "string", default: "3" }
})
const [events, rounds] = [Options.count("events", options.events), Options.count("rounds", options.rounds)]
const buses = options.bus
  .split(",")
  .map((name) => (name === "kafka" || name === "postgres" ? name : Options.refuse(`there is no bus ${name}`)))

const topic = "order.events"

/** Where Kafka's own tool sends to. */
const toolTopic = "bench.events"

const temporaryFolder = Effect.acquireRelease(
  Effect.sync(() => {
    const path = mkdtempSync(join(tmpdir(), "merkato-bench-"))
    chmodSync(path, 0o755) // the embedded Postgres runs as another user when this is root
    return path
  }),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const traceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"

const payloadOf = (n: string) => ({
  orderId: `ORDER-${n}`,
  userId: "USER-1",
  items: [
    { productId: "P1", qty: 2, price: 25 },
    { productId: "P2", qty: 1, price: 79.5 }
  ],
  itemsAmount: 129.5,
  discountAmount: 10,
  taxAmount: 3,
  shippingAmount: 7,
  totalAmount: 129.5,
  currency: "USD",
  reservationId: `RES-${n}`
})

/** Bytes of one of our messages: value, key and headers. */
const messageBytes = (() => {
  const [id, key] = ["0af76519-100000", "ORDER-0af76519-100000"]
  const { value, headers } = toRecord(
    {
      topic,
      key,
      traceParent,
      envelope: {
        eventId: EventId.make(id),
        eventType: OrderCreated.type,
        occurredAt: new Date().toISOString(),
        producer: "order-service",
        traceId: traceParent.slice(3, 35),
        correlationId: id,
        schemaVersion: "1.0",
        partitionKey: Id.make(key),
        region: "us",
        aggregateVersion: 1,
        payload: payloadOf(id)
      }
    },
    Date.now()
  )
  return value.length + key.length + Object.entries(headers).flat().join("").length
})()

/** Orders that were placed, each with a key of its own, as they lie in the outbox of a shop whose relay was away. */
const fill = Effect.fnUntraced(function* (schema: string, run: string, events: number) {
  const sql = yield* SqlClient.SqlClient
  const [stored, outbox] = [sql(`${schema}.events`), sql(`${schema}.outbox`)]
  yield* sql`
    with written as (
      insert into ${stored}
        (event_id, event_type, aggregate_id, version, occurred_at, region, trace_parent, correlation_id, payload)
      select ${run}::text || '-' || n, ${OrderCreated.type}, 'ORDER-' || ${run}::text || '-' || n, 1, ${new Date()}, 'us',
        ${traceParent}, ${run}, ${JSON.stringify(payloadOf(run))}::text::jsonb
      from generate_series(1, ${events}::int) n
      returning position, aggregate_id, version
    )
    insert into ${outbox} (position, aggregate_id, version) select position, aggregate_id, version from written`
})

/** A context whose events go over a bus and come back to a consumer of its own. `carry`: so many, and how long it took. */
const makePath = Effect.fnUntraced(function* (
  name: string,
  url: Redacted.Redacted,
  bus: Layer.Layer<EventBus, unknown>
) {
  const database = Database.layer({ url, maxConnections: 4, applicationName: name })
  yield* Effect.provide(Migrations.run({ schema: name, folder: undefined, common: true }), database)
  const context = yield* Layer.build(
    Relay.layer({ schema: name, topic, producer: "order-service" }).pipe(
      Layer.provide(Policies.layerWith()),
      Layer.provideMerge(bus),
      Layer.provideMerge(database)
    )
  )
  let [left, all] = [0, Deferred.makeUnsafe<void>()]
  const consumer = Consumer.make({
    group: `${name}.bench`,
    topic,
    eventTypes: [OrderCreated.type],
    mode: "apply",
    handle: () => Effect.void,
    handleAll: (batch) =>
      Effect.suspend(() => {
        left -= batch.length
        return left > 0 ? Effect.void : Deferred.succeed(all, undefined)
      })
  })
  yield* Effect.forkScoped(Effect.provideContext(Consumer.run(name, consumer), context))
  const sql = Context.get(context, SqlClient.SqlClient)
  const committed = Effect.map(
    sql<{ count: number }>`select count(*)::int as count from ${sql(`${name}.inbox`)}`,
    ([row]) => row?.count ?? 0
  )
  const carry = Effect.fnUntraced(function* (events: number) {
    const before = yield* committed
    ;[left, all] = [events, Deferred.makeUnsafe<void>()]
    yield* Effect.provideContext(fill(name, crypto.randomUUID().slice(0, 8), events), context)
    const began = performance.now()
    yield* Context.get(context, RelaySignal).wake
    yield* Deferred.await(all)
    // The last batch has been handled; its transaction is about to commit.
    while ((yield* committed) < before + events) yield* Effect.sleep("5 millis")
    return (performance.now() - began) / 1_000
  })
  return { name, carry }
})

/** Kafka with a folder of its own, at free ports. */
const startKafka = Effect.fnUntraced(function* () {
  const where: Servers.Where = { cache: Servers.defaultCache(), folder: yield* temporaryFolder }
  const settings = yield* Effect.acquireRelease(
    Effect.promise(() => Servers.up([kafka], where, { freePorts: true, owner: process.pid })),
    () => Effect.promise(() => Servers.down([kafka], where, { wipe: true }))
  )
  const [brokers, pid] = [
    settings["KAFKA_BROKERS"] ?? "",
    (yield* Effect.promise(() => Servers.status(where, kafka))).pid
  ]
  return { brokers, cpu: () => (pid === undefined ? 0 : Cpu.ofTree(pid)) }
})

/** Messages of our size that Kafka's own tool sends in a second, acknowledged by all, to a topic like ours. */
const producerTool = Effect.fnUntraced(function* (brokers: string, events: number) {
  const place = { cache: Servers.defaultCache(), say: console.error }
  const command = yield* Effect.promise(async () => {
    await Maven.install(toolJars, place)
    return [await java({ major: 17 }, place), "-cp", Maven.classPath(toolJars, place)]
  })
  const args = `--topic ${toolTopic} --num-records ${events} --record-size ${messageBytes} --throughput -1 --producer-props bootstrap.servers=${brokers} acks=all`
  const child = Bun.spawn([...command, "org.apache.kafka.tools.ProducerPerformance", ...args.split(" ")], {
    stdout: "pipe",
    stderr: "pipe"
  })
  const [output, errors] = yield* Effect.promise(() =>
    Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()])
  )
  const rate = [...output.matchAll(/([\d.]+) records\/sec/g)].at(-1)?.[1]
  if (rate === undefined) return yield* Effect.die(new Error(`Kafka's producer tool failed: ${errors || output}`))
  return Number(rate)
})

/** CPU seconds so far: this process, Postgres, Kafka. */
type Used = readonly [own: number, postgres: number, kafka: number]

interface Round {
  readonly perSecond: number
  /** Microseconds of CPU an event. */
  readonly cpu: Used
}

const range = (values: ReadonlyArray<number>) =>
  `${median(values).toFixed(0)} (${Math.min(...values).toFixed(0)}–${Math.max(...values).toFixed(0)})`

const bench = Effect.gen(function* () {
  const dataDir = yield* temporaryFolder
  const postgres = yield* EmbeddedPostgres.start({ dataDir, settings: {} })
  const postmaster = Number(readFileSync(join(dataDir, "postgres/postmaster.pid"), "utf8").split("\n")[0])
  const broker = buses.includes("kafka") ? yield* startKafka() : undefined
  const cpu = (): Used => {
    const { user, system } = process.cpuUsage()
    return [(user + system) / 1_000_000, Cpu.ofTree(postmaster), broker?.cpu() ?? 0]
  }
  const database = Database.layer({ url: postgres.url, maxConnections: 4, applicationName: "bus" })
  yield* Effect.provide(Migrations.run(PostgresEventBus.migrations), database)
  const layerOf = (bus: (typeof buses)[number]) =>
    bus === "kafka"
      ? KafkaWhereNamed.layer({ brokers: broker?.brokers ?? "", topics: [topic, toolTopic] })
      : PostgresEventBus.layer.pipe(Layer.provide(database))
  const paths = yield* Effect.forEach(buses, (bus) => makePath(bus, postgres.url, layerOf(bus)))
  const measured = paths.map((path) => ({ path, rounds: Array<Round>() }))
  const tool: Array<number> = []
  for (const { carry } of paths) yield* carry(Math.ceil(events / 4))
  for (let round = 1; round <= rounds; round++) {
    console.log(`round ${round} of ${rounds}`)
    for (const { path, rounds: done } of measured) {
      const before = cpu()
      const seconds = yield* path.carry(events)
      const [own, sql, kafkaCpu] = cpu().map((used, at) => ((used - (before[at] ?? 0)) * 1_000_000) / events)
      done.push({ perSecond: events / seconds, cpu: [own ?? 0, sql ?? 0, kafkaCpu ?? 0] })
    }
    if (broker !== undefined) tool.push(yield* producerTool(broker.brokers, events))
  }
  console.log(`\nmedian (lowest–highest) of ${rounds} rounds of ${events} events, ${messageBytes} bytes each`)
  for (const { path, rounds: done } of measured) {
    const [own, sql, kafkaCpu] = [0, 1, 2].map((at) => median(done.map(({ cpu: used }) => used[at] ?? 0)).toFixed(0))
    console.log(
      `${path.name.padEnd(9)} ${range(done.map(({ perSecond }) => perSecond))} events/s   CPU an event: ${own} µs here (filling the outbox included), ${sql} µs Postgres${path.name === "kafka" ? `, ${kafkaCpu} µs Kafka; wanted: 25000/s` : ""}`
    )
  }
  if (tool.length > 0)
    console.log(`${"tool".padEnd(9)} ${range(tool)} messages/s by Kafka's own producer tool, acks=all`)
}).pipe(Effect.scoped)

Program.run(bench)
