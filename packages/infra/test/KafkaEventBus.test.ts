import { afterAll, describe, expect, test } from "bun:test"
import { Admin, ConfigResourceTypes } from "@platformatic/kafka"
import { Context, Deferred, Effect, Fiber, Layer, Logger, Option, Schedule, type Scope } from "effect"
import { Kafka, logLevel } from "kafkajs"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { OrderFulfilled } from "@merkato/domain/orders/OrderEvents"
import { kafkaBroker } from "../../../tests/support/KafkaBroker.ts"
import { links } from "../../../tests/support/Links.ts"
import { freePort } from "../../../tests/support/Processes.ts"
import { realServer } from "../../../tests/support/RealServer.ts"
import { Archive } from "../src/archive/Archive.ts"
import { deadLetterTopic, type Delivery, EventBus } from "../src/events/EventBus.ts"
import * as KafkaEventBus from "../src/events/KafkaEventBus.ts"
import * as Brokers from "../src/events/kafka/Brokers.ts"
import { deal } from "../src/events/kafka/Group.ts"
import { malformedType } from "../src/events/kafka/Message.ts"
import * as Files from "../src/objects/Files.ts"
import { captureContract } from "./Capture.contract.ts"
import { eventBusContract, eventually, followed, message, numberOf, unique } from "./EventBus.contract.ts"

const portBeforeKafka = await freePort()
const [kafka, between] = await Promise.all([
  kafkaBroker("the event bus on Kafka", `127.0.0.1:${portBeforeKafka}`),
  links("the event bus on Kafka")
])
const toKafka = kafka && (await between?.to("kafka", kafka.brokers, portBeforeKafka))
const debezium = kafka && toKafka && (await realServer("debezium", "Debezium as the relay", {}, kafka))
afterAll(() => Promise.all([kafka?.stop(), between?.stop()]), 60_000)

const upTo = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, index) => index + 1)

describe("the brokers that KAFKA_BROKERS names", () => {
  test("are hosts with ports", async () => {
    expect(await Effect.runPromise(Brokers.parse("one:9092, 10.0.0.2:9093,[::1]:1"))).toEqual([
      { host: "one", port: 9092 },
      { host: "10.0.0.2", port: 9093 },
      { host: "::1", port: 1 }
    ])
    for (const bad of ["", "one", "one:9092,", "one:99999", "kafka://user:secret@one:9092"]) {
      const refused = await Effect.runPromise(Effect.flip(Brokers.parse(bad)))
      expect(refused.message).toBe("KAFKA_BROKERS cannot be used: expected host:port, or several separated by commas")
    }
  })

  test("are told to be unreachable in one sentence", async () => {
    const nobody = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
    nobody.stop(true)
    const refused = await Effect.runPromise(Effect.flip(Brokers.check([{ host: "127.0.0.1", port: nobody.port }])))
    expect(refused.message).toMatch(
      new RegExp(`^KAFKA_BROKERS cannot be used: 127\\.0\\.0\\.1:${nobody.port}: [^\\n]+$`)
    )
  })
})

test("partitions are dealt out once each, evenly, and only to who wants the topic", () => {
  const places = ["a", "b"].flatMap((topic) => upTo(4).map((n) => ({ topic, partition: n - 1 })))
  const hands = deal(
    [
      { memberId: "2", topics: ["a", "b"] },
      { memberId: "1", topics: ["a", "b"] },
      { memberId: "3", topics: ["b"] }
    ],
    places
  )
  const name = ({ topic, partition }: (typeof places)[number]) => `${topic}/${partition}`
  expect([...hands.values()].flat().map(name).toSorted()).toEqual(places.map(name))
  expect(hands.get("3")?.every(({ topic }) => topic === "b")).toBe(true)
  for (const hand of hands.values()) expect(hand.length).toBeGreaterThan(0)
  expect(hands.get("1")?.filter(({ topic }) => topic === "a")).toHaveLength(2)
})

if (kafka !== undefined && toKafka !== undefined) {
  const brokers = await Effect.runPromise(Brokers.parse(kafka.brokers))
  const layer = KafkaEventBus.layer({ brokers, topics: [] })
  const start = Effect.map(Layer.build(Layer.fresh(layer)), (context) => Context.get(context, EventBus))
  const run = <A>(body: Effect.Effect<A, unknown, Scope.Scope>): Promise<A> =>
    body.pipe(Effect.scoped, Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Effect.runPromise)

  eventBusContract("on Kafka", layer)

  describe("topics", () => {
    test("are made at the start with their settings, and their dead letters too", () =>
      run(
        Effect.gen(function* () {
          const topic = unique("made.events")
          yield* Effect.all(
            upTo(3).map(() => Layer.build(Layer.fresh(KafkaEventBus.layer({ brokers, topics: [topic] })))),
            { concurrency: 3 }
          )
          const admin = new Admin({ clientId: "test", bootstrapBrokers: [...brokers] })
          const topics = [topic, deadLetterTopic(topic)]
          const [metadata, settings] = yield* Effect.promise(() =>
            Promise.all([
              admin.metadata({ topics: [...topics] }),
              admin.describeConfigs({
                resources: topics.map((resourceName) => ({
                  resourceType: ConfigResourceTypes.TOPIC,
                  resourceName,
                  configurationKeys: ["retention.ms", "cleanup.policy"]
                }))
              })
            ]).finally(() => admin.close())
          )
          for (const name of topics) expect(metadata.topics.get(name)?.partitionsCount).toBe(4)
          expect(settings.map(({ resourceName }) => resourceName).toSorted()).toEqual(topics.toSorted())
          for (const { configs } of settings) {
            // The topic's own, though the broker's would be the same.
            const own = configs.filter(({ configSource }) => configSource === 1)
            expect(Object.fromEntries(own.map(({ name, value }) => [name, value]))).toEqual({
              "retention.ms": String(7 * 24 * 3_600_000),
              "cleanup.policy": "delete"
            })
          }
        })
      ))
  })

  test("the archive has what stands in Kafka, once, and goes on behind it", () =>
    run(
      Effect.gen(function* () {
        const bus = yield* start
        const topic = unique("archived.events")
        const folder = yield* Effect.acquireRelease(
          Effect.sync(() => mkdtempSync(join(tmpdir(), "merkato-archive-"))),
          (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
        )
        const archiving = Archive.use((archive) => archive.catchUp([topic])).pipe(
          Effect.provideService(EventBus, bus),
          Effect.provide(Layer.fresh(Archive.layer("kafka").pipe(Layer.provide(Files.layer(folder)))))
        )
        yield* bus.publish(upTo(25).map((n) => message(topic, `KEY-${n % 5}`, n)))
        expect(yield* archiving).toMatchObject({ events: 25, missing: 0 })
        yield* bus.publish(upTo(7).map((n) => message(topic, `KEY-${n % 5}`, 25 + n)))
        expect(yield* archiving).toMatchObject({ events: 7, missing: 0 })
        expect(yield* archiving).toEqual({ events: 0, files: 0, missing: 0 })
        const archived = yield* Archive.use((archive) =>
          Effect.flatMap(archive.files([topic]), (files) => Effect.forEach(files, (file) => archive.read(file)))
        ).pipe(Effect.provide(Archive.layer("kafka").pipe(Layer.provide(Files.layer(folder)))))
        const numbers = archived.flat().map(({ envelope }) => envelope.aggregateVersion)
        expect(numbers.toSorted((a, b) => a - b)).toEqual([...upTo(32)])
      })
    ))

  describe("another client of the same Kafka", () => {
    const foreign = new Kafka({ clientId: "foreign", brokers: [kafka.brokers], logLevel: logLevel.NOTHING })

    test("reads our events as CloudEvents, and finds keys where we find them", () =>
      run(
        Effect.gen(function* () {
          const bus = yield* start
          const topic = unique("topic")
          const sent = upTo(12).map((n) => message(topic, `KEY-${n % 5}`, n))
          yield* bus.publish(sent)
          const got: Array<{
            readonly partition: number
            readonly key: string
            readonly headers: object
            readonly value: string
          }> = []
          const producers = new Set<unknown>()
          const consumer = foreign.consumer({ groupId: unique("foreign") })
          yield* Effect.addFinalizer(() => Effect.promise(() => consumer.disconnect()))
          yield* Effect.promise(async () => {
            await consumer.connect()
            await consumer.subscribe({ topic, fromBeginning: true })
            await consumer.run({
              eachMessage: async ({ partition, message }) => {
                const { key, value, headers = {} } = message
                // kafkajs has it, and its types do not.
                producers.add(Object(message).batchContext?.producerId)
                const texts = Object.entries(headers).map(([name, text]) => [name, String(text)])
                got.push({ partition, key: String(key), value: String(value), headers: Object.fromEntries(texts) })
              }
            })
          })
          yield* eventually(
            Effect.sync(() => got.length),
            (count) => count >= 12
          )
          // Only batches of an idempotent producer have one: by it the broker knows a repeat.
          expect([...producers]).toEqual([expect.stringMatching(/^\d+$/)])
          const first = sent[0]
          const same = got.find(({ value }) => JSON.parse(value).eventId === first?.envelope.eventId)
          expect(JSON.parse(same?.value ?? "")).toEqual(first?.envelope)
          expect(same?.headers).toEqual({
            "content-type": "application/json",
            ce_specversion: "1.0",
            ce_id: first?.envelope.eventId,
            ce_type: "ecommerce.test.thing.happened.v1",
            ce_source: "test-service",
            ce_time: "2025-06-01T12:00:00.000Z",
            ce_subject: "KEY-1",
            ce_partitionkey: "KEY-1",
            ce_correlationid: "correlation-1",
            ce_region: "eu",
            traceparent: first?.traceParent
          })
          const producer = foreign.producer()
          yield* Effect.promise(async () => {
            await producer.connect()
            await producer.send({
              topic,
              messages: upTo(5).map((n) => {
                const { key, envelope, traceParent } = message(topic, `KEY-${n % 5}`, 100 + n)
                return { key, value: JSON.stringify(envelope), headers: { traceparent: traceParent } }
              })
            })
            await producer.disconnect()
          })
          const all = yield* bus.read({ topics: [topic], after: new Map(), limit: 100 })
          expect(all.filter((event) => numberOf(event) > 100)).toHaveLength(5)
          for (const [, ofKey] of Map.groupBy(all, ({ key }) => key)) {
            expect(new Set(ofKey.map(({ partition }) => partition)).size).toBe(1)
          }
          expect(all.at(-1)?.traceParent).toBe(first?.traceParent ?? "")
        })
      ))

    test("that writes what is no event finds it among the dead letters with the reason, and stops nobody", () =>
      run(
        Effect.gen(function* () {
          const bus = yield* start
          const topic = unique("topic")
          const group = unique("group")
          yield* bus.publish([message(topic, "KEY", 1)])
          const producer = foreign.producer()
          yield* Effect.promise(async () => {
            await producer.connect()
            const values = ["not even JSON", JSON.stringify({ eventType: "but no more than that" })]
            await producer.send({ topic, messages: values.map((value) => ({ key: "KEY", value })) })
            await producer.disconnect()
          })
          yield* bus.publish([message(topic, "KEY", 2)])
          const got: Array<Delivery> = []
          yield* Effect.forkScoped(
            bus.subscribe({
              consumerGroup: group,
              topics: [topic],
              batchSize: 10,
              handle: (batch) => Effect.sync(() => void got.push(...batch))
            })
          )
          yield* eventually(
            Effect.sync(() => got.length),
            (count) => count >= 2
          )
          expect(got.map(numberOf)).toEqual([1, 2])
          const letters = yield* bus.deadLetters({ topic: Option.some(topic), limit: 10 })
          expect(letters.map(({ envelope }) => envelope.payload)).toEqual([
            { value: "not even JSON" },
            { value: '{"eventType":"but no more than that"}' }
          ])
          for (const { envelope, failure } of letters) {
            expect(envelope.eventType).toBe(malformedType)
            expect(failure).toMatchObject({ topic, consumerGroup: group, reason: expect.stringContaining("no event") })
          }
          expect(yield* eventually(bus.lag(group, [topic]), (lag) => lag === 0)).toBe(0)
        })
      ))
  })

  test("an event of another client that breaks its schema is among the dead letters with the reason; the group goes on", () =>
    run(
      Effect.gen(function* () {
        const bus = yield* start
        const [topic, group] = [unique("topic"), unique("group")]
        const { type } = OrderFulfilled
        const fulfilled = (n: number, payload: unknown, eventType: string = type) =>
          message(topic, "KEY", n, { eventType, payload })
        const good = { orderId: "ORDER-1", userId: "USER-1" }
        const foreign = [
          fulfilled(1, good),
          fulfilled(2, { orderId: "ORDER-1" }),
          fulfilled(3, { ...good, userId: 7 }),
          fulfilled(4, { ...good, since: "a later version of the shop" }),
          fulfilled(5, "nonsense", "ecommerce.test.nobody.wants.v1"),
          fulfilled(6, good)
        ]
        const got: Array<Delivery> = []
        const followed: Array<Delivery> = []
        const following = yield* Deferred.make<void>()
        yield* Effect.forkScoped(
          bus.follow({
            topics: [topic],
            following: Effect.asVoid(Deferred.succeed(following, undefined)),
            handle: (batch) => Effect.sync(() => void followed.push(...batch))
          })
        )
        yield* Deferred.await(following)
        const producer = new Kafka({
          clientId: "foreign",
          brokers: [kafka.brokers],
          logLevel: logLevel.NOTHING
        }).producer()
        yield* Effect.promise(async () => {
          await producer.connect()
          await producer.send({
            topic,
            messages: foreign.map(({ key, envelope }) => ({ key, value: JSON.stringify(envelope) }))
          })
          await producer.disconnect()
        })
        yield* Effect.forkScoped(
          bus.subscribe({
            consumerGroup: group,
            topics: [topic],
            eventTypes: [type],
            batchSize: 10,
            handle: (batch) => Effect.sync(() => void got.push(...batch))
          })
        )
        yield* eventually(
          Effect.sync(() => got.length + followed.length),
          (count) => count >= 7,
          20_000
        )
        expect(got.map(numberOf)).toEqual([1, 4, 6])
        expect(followed.map(numberOf)).toEqual([1, 4, 5, 6])
        const letters = yield* bus.deadLetters({ topic: Option.some(topic), limit: 10 })
        const failure = { topic, consumerGroup: group, attempts: 1 }
        expect(letters.map((letter) => [numberOf(letter), letter.failure])).toEqual([
          [2, { ...failure, reason: `It breaks the schema of ${type}: Missing key at ["userId"]` }],
          [3, { ...failure, reason: `It breaks the schema of ${type}: Expected string at ["userId"]` }]
        ])
        expect(yield* eventually(bus.lag(group, [topic]), (lag) => lag === 0)).toBe(0)
      })
    ))

  if (debezium !== undefined && between !== undefined) captureContract(kafka, debezium, { toKafka, between })

  test(
    "consumers that come and go lose nothing, keep each key's order, and never work on one partition together",
    () =>
      run(
        Effect.gen(function* () {
          const bus = yield* start
          const [topic, group] = [unique("topic"), unique("group")]
          const got: Array<Delivery> = []
          const busy = new Set<number>()
          const clashes: Array<number> = []
          const consumer = (process: EventBus["Service"]) =>
            Effect.forkScoped(
              process.subscribe({
                consumerGroup: group,
                topics: [topic],
                batchSize: 5,
                handle: (batch) => {
                  const partitions = [...new Set(batch.map(({ partition }) => partition))]
                  clashes.push(...partitions.filter((partition) => busy.has(partition)))
                  for (const partition of partitions) busy.add(partition)
                  return Effect.sleep("5 millis").pipe(
                    Effect.andThen(Effect.sync(() => void got.push(...batch))),
                    Effect.ensuring(Effect.sync(() => partitions.forEach((partition) => busy.delete(partition))))
                  )
                }
              })
            )
          const publishing = yield* Effect.forkScoped(
            Effect.forEach(upTo(60), (round) =>
              Effect.andThen(
                bus.publish(upTo(20).map((key) => message(topic, `KEY-${key}`, round))),
                Effect.sleep("30 millis")
              )
            )
          )
          const processes = yield* Effect.all([start, start, start])
          let members: ReadonlyArray<Fiber.Fiber<never>> = yield* Effect.forEach(processes, consumer)
          while (publishing.pollUnsafe() === undefined) {
            yield* Effect.sleep("400 millis")
            const [oldest, ...others] = members
            if (oldest !== undefined) yield* Fiber.interrupt(oldest)
            members = [...others, yield* consumer(bus)]
          }
          yield* Fiber.join(publishing)
          expect(yield* eventually(bus.lag(group, [topic]), (lag) => lag === 0, 20_000)).toBe(0)
          expect(clashes).toEqual([])
          const firsts = [
            ...new Map(got.toReversed().map((event) => [event.envelope.eventId, event])).values()
          ].toReversed()
          for (const [, ofKey] of Map.groupBy(firsts, ({ key }) => key))
            expect(ofKey.map(numberOf)).toEqual([...upTo(60)])
          expect(firsts).toHaveLength(1_200)
        })
      ),
    60_000
  )

  test("a broker that says nothing holds nobody up, and gets what there is when it goes on", () =>
    run(
      Effect.gen(function* () {
        const bus = yield* start
        const topic = unique("topic")
        yield* bus.publish([message(topic, "KEY", 1)])
        kafka.freeze()
        const refused = yield* Effect.all(
          [2, 2].map((n) => Effect.flip(bus.publish([message(topic, "KEY", n)]))),
          { concurrency: 2 }
        ).pipe(Effect.ensuring(Effect.sync(() => kafka.thaw())))
        expect(refused.map(({ _tag }) => _tag)).toEqual(["BusUnavailable", "BusUnavailable"])
        yield* bus.publish([message(topic, "KEY", 3)]).pipe(Effect.retry(Schedule.spaced("200 millis")))
        const all = yield* bus.read({ topics: [topic], after: new Map(), limit: 10 })
        // What was under way may have been written once; what waited for its turn was not.
        expect([
          [1, 3],
          [1, 2, 3]
        ]).toContainEqual(all.map(numberOf))
      })
    ))

  test("a follower begins when its topic is there: of one that the broker does not know it would hear nothing for good", () =>
    run(
      Effect.gen(function* () {
        const bus = yield* start
        const topic = unique("topic")
        yield* bus.publish([message(topic, "KEY", 1)])
        const admin = new Admin({ clientId: "foreign", bootstrapBrokers: [kafka.brokers] })
        yield* Effect.addFinalizer(() => Effect.promise(() => admin.close()))
        // The bus has seen it, and does not make it again.
        yield* Effect.promise(() => admin.deleteTopics({ topics: [topic] }))
        yield* eventually(
          Effect.promise(() => admin.listTopics()),
          (all) => !all.includes(topic)
        )
        const following = yield* Effect.forkScoped(followed(bus, topic))
        yield* Effect.sleep("1 second")
        expect(following.pollUnsafe()).toBeUndefined()
        yield* Effect.promise(() => admin.createTopics({ topics: [topic], partitions: 4, replicas: 1 }))
        const heard = yield* Fiber.join(following)
        yield* bus.publish([message(topic, "KEY", 2)]).pipe(Effect.retry(Schedule.spaced("200 millis")))
        yield* eventually(
          Effect.sync(() => heard.length),
          (count) => count > 0
        )
        expect([...new Set(heard)]).toEqual([2])
      })
    ))

  test(
    "a broker that is killed is waited for: what was published meanwhile comes, to groups and to followers",
    () =>
      run(
        Effect.gen(function* () {
          const bus = yield* start
          const topic = unique("topic")
          const taken: Array<number> = []
          yield* Effect.forkScoped(
            bus.subscribe({
              consumerGroup: unique("group"),
              topics: [topic],
              batchSize: 10,
              handle: (batch) => Effect.sync(() => void taken.push(...batch.map(numberOf)))
            })
          )
          const heard = yield* followed(bus, topic)
          yield* bus.publish([message(topic, "KEY", 1)])
          yield* eventually(
            Effect.sync(() => taken.length),
            (count) => count > 0
          )
          kafka.kill()
          const refused = yield* Effect.flip(bus.publish([message(topic, "KEY", 2)]))
          expect(refused._tag).toBe("BusUnavailable")
          const published = yield* Effect.forkScoped(
            bus.publish([message(topic, "KEY", 2)]).pipe(Effect.retry(Schedule.spaced("200 millis")))
          )
          yield* Effect.promise(() => kafka.start())
          yield* Fiber.join(published)
          yield* bus.publish([message(topic, "KEY", 3)])
          for (const numbers of [taken, heard]) {
            yield* eventually(
              Effect.sync(() => numbers.includes(3)),
              (there) => there,
              40_000
            )
            // What was refused may have been written all the same: at least once, and in order.
            expect([...new Set(numbers)]).toEqual([1, 2, 3])
          }
        })
      ),
    120_000
  )
}
