// The log as Parquet files: what stood on the bus stands there once, whoever dies over it.
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { Cause, Effect, Exit, Layer, Logger, Redacted, Schema, Scope } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { SqlClient } from "effect/sql"
import { Archive } from "../src/archive/Archive.ts"
import * as ArchiveViews from "../src/archive/ArchiveViews.ts"
import { dayOf, parse } from "../src/archive/ArchiveFile.ts"
import * as DuckDb from "../src/duckdb/DuckDb.ts"
import { type BusMessage, type Delivery, EventBus } from "../src/events/EventBus.ts"
import * as PostgresEventBus from "../src/events/PostgresEventBus.ts"
import * as Files from "../src/objects/Files.ts"
import { ObjectStore } from "../src/objects/ObjectStore.ts"
import * as Database from "../src/postgres/Database.ts"
import * as Migrations from "../src/postgres/Migrations.ts"
import * as TestDatabase from "../src/postgres/TestDatabase.ts"
import { message, unique } from "./EventBus.contract.ts"

const scope = Scope.makeUnsafe()
let url = Redacted.make("")
const root = mkdtempSync(join(tmpdir(), "merkato-archive-"))

const database = Layer.unwrap(
  Effect.sync(() => Database.layer({ url, maxConnections: 4, applicationName: "merkato-bus" }))
)
const bus = PostgresEventBus.layer.pipe(Layer.provideMerge(database))

beforeAll(() =>
  Effect.gen(function* () {
    url = (yield* TestDatabase.fresh).url
    yield* Effect.provide(Migrations.run(PostgresEventBus.migrations), database)
  }).pipe(Scope.provide(scope), Effect.runPromise)
)
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  rmSync(root, { recursive: true, force: true })
})

const run = <A>(body: Effect.Effect<A, unknown, EventBus | SqlClient.SqlClient | Scope.Scope>): Promise<A> =>
  body.pipe(
    Effect.provide(bus),
    Effect.scoped,
    Effect.provide(Logger.layer([])),
    Effect.withTracerEnabled(false),
    Effect.runPromise
  )

/** An archiver as a process of its own, on a store; without one in a new folder. */
const archiver = (store = Files.layer(mkdtempSync(join(root, "objects-")))) =>
  Archive.layer("postgres").pipe(Layer.provideMerge(store))

/** Events of so many keys; the nth happened on the nth of these days. */
const publish = Effect.fnUntraced(function* (
  topic: string,
  count: number,
  days: ReadonlyArray<string> = ["2026-01-31"]
) {
  const events = yield* EventBus
  const messages = Array.from({ length: count }, (_, nth): BusMessage => {
    const day = days[nth % days.length] ?? ""
    return message(topic, `KEY-${nth % 7}`, nth + 1, { occurredAt: `${day}T12:00:00.${String(nth).padStart(6, "0")}Z` })
  })
  yield* events.publish(messages)
  return messages
})

/** All that stands on a topic, as it stands there. */
const onBus = Effect.fnUntraced(function* (topic: string) {
  const events = yield* EventBus
  return inOrder(yield* events.read({ topics: [topic], after: new Map(), limit: 100_000 }))
})

const inOrder = <A extends { readonly partition: number; readonly offset: number }>(all: ReadonlyArray<A>) =>
  all.toSorted((a, b) => a.partition - b.partition || a.offset - b.offset)

/** All that a reader sees of it in the archive. */
const inArchive = Effect.fnUntraced(function* (topic: string) {
  const archive = yield* Archive
  const files = yield* archive.files([topic])
  const all = yield* Effect.forEach(files, (file) =>
    Effect.map(archive.read(file), (events) => events.map((event) => ({ ...event, topic, partition: file.partition })))
  )
  return inOrder(all.flat())
})

const bare = (all: ReadonlyArray<Delivery>) =>
  all.map(({ topic, partition, offset, key, traceParent, envelope }) => ({
    topic,
    partition,
    offset,
    key,
    traceParent,
    envelope
  }))

test("what stands on the bus stands in the archive, to every letter and in the order of its partitions", () =>
  run(
    Effect.gen(function* () {
      const topic = unique("topic")
      yield* publish(topic, 40)
      const archive = yield* Archive
      expect(yield* archive.catchUp([topic])).toEqual({ events: 40, files: 4, missing: 0 })
      expect(yield* archive.catchUp([topic])).toEqual({ events: 0, files: 0, missing: 0 })
      yield* publish(topic, 9)
      expect(yield* archive.catchUp([topic])).toMatchObject({ events: 9, missing: 0 })
      const events: ReadonlyArray<unknown> = yield* inArchive(topic)
      expect(events).toEqual(bare(yield* onBus(topic)))
      expect(yield* archive.ends([topic])).toEqual(yield* EventBus.use(({ ends }) => ends([topic])))
    }).pipe(Effect.provide(archiver()))
  ))

test("files are of one day each, whatever the order in which events came", () =>
  run(
    Effect.gen(function* () {
      const topic = unique("topic")
      const days = ["2026-01-31", "2026-02-01", "2026-01-31", "2025-12-24"]
      yield* publish(topic, 60, days)
      const archive = yield* Archive
      yield* archive.catchUp([topic])
      const files = yield* archive.files([topic])
      for (const file of files) {
        const events = yield* archive.read(file)
        expect(new Set(events.map(({ envelope }) => dayOf(envelope.occurredAt)))).toEqual(new Set([file.day]))
        expect(events[0]?.offset).toBe(file.first)
      }
      expect(new Set(files.map(({ day }) => day))).toEqual(new Set(days))
      const events: ReadonlyArray<unknown> = yield* inArchive(topic)
      expect(events).toEqual(bare(yield* onBus(topic)))
    }).pipe(Effect.provide(archiver()))
  ))

describe("an archiver that dies", () => {
  class Death extends Schema.TaggedError<Death>()("Death", {}) {}

  /** A store whose process dies at its nth write: before anything is there, or when it is and nobody has heard of it. */
  const dyingAt = (folder: string, nth: number, written: boolean) =>
    Layer.effect(
      ObjectStore,
      Effect.map(ObjectStore, (store) => {
        let writes = 0
        return ObjectStore.of({
          ...store,
          putNew: (name, content) =>
            ++writes < nth
              ? store.putNew(name, content)
              : Effect.andThen(written ? store.putNew(name, content) : Effect.void, Effect.die(new Death()))
        })
      })
    ).pipe(Layer.provide(Files.layer(folder)))

  for (const written of [false, true])
    test(`neither loses nor doubles an event: ${written ? "after" : "before"} each of its writes`, () =>
      run(
        Effect.gen(function* () {
          const topic = unique("topic")
          yield* publish(topic, 24, ["2026-01-31", "2026-01-31", "2026-01-31", "2026-02-01"])
          const expected: ReadonlyArray<unknown> = bare(yield* onBus(topic))
          let deaths = 0
          for (let nth = 1; ; nth++) {
            const folder = mkdtempSync(join(root, "objects-"))
            const first = yield* Archive.use((archive) => archive.catchUp([topic])).pipe(
              Effect.provide(Layer.fresh(archiver(dyingAt(folder, nth, written)))),
              Effect.exit
            )
            if (Exit.isSuccess(first)) break
            expect(Cause.squash(first.cause)).toBeInstanceOf(Death)
            deaths += 1
            const after = yield* Effect.gen(function* () {
              yield* Archive.use((archive) => archive.catchUp([topic]))
              return yield* inArchive(topic)
            }).pipe(Effect.provide(Layer.fresh(archiver(Files.layer(folder)))))
            expect<ReadonlyArray<unknown>>(after).toEqual(expected)
          }
          expect(deaths).toBeGreaterThan(4)
        })
      ))
})

test("several at the same time write every event once", () =>
  run(
    Effect.gen(function* () {
      const topic = unique("topic")
      yield* publish(topic, 50, ["2026-01-31", "2026-02-01"])
      const store = Files.layer(mkdtempSync(join(root, "objects-")))
      const one = Archive.use((archive) => archive.catchUp([topic])).pipe(Effect.provide(Layer.fresh(archiver(store))))
      const all = yield* Effect.all([one, one, one], { concurrency: "unbounded" })
      yield* one
      const events = yield* Effect.provide(inArchive(topic), archiver(store))
      expect<ReadonlyArray<unknown>>(events).toEqual(bare(yield* onBus(topic)))
      expect(all.reduce((sum, { events }) => sum + events, 0)).toBeLessThanOrEqual(50)
    })
  ))

test("what had gone from the bus before it was archived is told", () =>
  run(
    Effect.gen(function* () {
      const topic = unique("topic")
      yield* publish(topic, 30)
      const sql = yield* SqlClient.SqlClient
      const gone = yield* sql`delete from bus.log where topic = ${topic} and "offset" < 2 returning 1`
      const archive = yield* Archive
      expect(yield* archive.catchUp([topic])).toMatchObject({ events: 30 - gone.length, missing: gone.length })
      expect(gone.length).toBeGreaterThan(0)
    }).pipe(Effect.provide(archiver()))
  ))

test("the archive of another bus is not added to", () =>
  run(
    Effect.gen(function* () {
      const topic = unique("topic")
      yield* publish(topic, 30)
      const archive = yield* Archive
      yield* archive.catchUp([topic])
      const sql = yield* SqlClient.SqlClient
      yield* sql`delete from bus.log where topic = ${topic}`
      yield* sql`update bus.partitions set next_offset = 1 where topic = ${topic}`
      expect(String(yield* Effect.flip(archive.catchUp([topic])))).toMatch(
        /The archive has \S+ up to \d+, the bus ends at 0: this is the archive of another bus/
      )
    }).pipe(Effect.provide(archiver()))
  ))

test("a file that is none of the archive's is told of", () =>
  run(
    Effect.gen(function* () {
      const topic = unique("topic")
      yield* publish(topic, 10)
      const archive = yield* Archive
      yield* archive.catchUp([topic])
      const [file] = yield* archive.files([topic])
      if (file === undefined) throw new Error("nothing was archived")
      writeFileSync(yield* ObjectStore.use(({ localFile }) => localFile(file.name)), "nonsense")
      expect(String(yield* Effect.flip(archive.read(file)))).toContain(file.name)
    }).pipe(Effect.provide(archiver()))
  ))

test("is asked by SQL: each event once, though it was published twice, with its payload", () =>
  run(
    Effect.gen(function* () {
      const [topic, empty] = [unique("topic"), unique("topic")]
      const messages = yield* publish(topic, 12, ["2026-01-31", "2026-02-01"])
      // A relay that died before it knew that it had published.
      yield* EventBus.use((events) => events.publish(messages.slice(0, 3)))
      const archive = yield* Archive
      yield* archive.catchUp([topic])
      const duck = yield* DuckDb.open
      yield* ArchiveViews.create(duck, yield* archive.files([topic]))
      expect(yield* duck.rows("select count(*) as n from log")).toEqual([{ n: 15 }])
      expect(
        yield* duck.rows(
          `select day, count(*) as n, sum((payload->>'n')::int) as sum, min(occurred_at) as first from events group by all order by all`
        )
      ).toEqual([
        { day: "2026-01-31", n: 6, sum: 36, first: "2026-01-31T12:00:00.000Z" },
        { day: "2026-02-01", n: 6, sum: 42, first: "2026-02-01T12:00:00.000Z" }
      ])
      yield* ArchiveViews.create(duck, yield* archive.files([empty]))
      expect(yield* duck.rows("select count(*) as n, max(payload->>'n') as most from events")).toEqual([
        { n: 0, most: null }
      ])
      const failure = yield* Effect.flip(duck.rows("select nothing from events"))
      expect(failure.message).toStartWith('Referenced column "nothing" not found')
    }).pipe(Effect.provide(archiver()))
  ))

test("names say what is in a file, and others are none", () => {
  const name = "archive/bus=kafka/topic=order.events/day=2026-01-31/3-0000000000000042.parquet"
  expect(parse(name)).toEqual({
    name,
    bus: "kafka",
    topic: "order.events",
    day: "2026-01-31",
    partition: 3,
    first: 42
  })
  for (const other of [`${name}.old`, name.replace("kafka", "rabbit"), name.replace("42", "x2"), "warehouse/a.parquet"])
    expect(parse(other)).toBeUndefined()
  expect(["2026-01-31T23:59:59.999+00:00", "2026-01-31T23:30:00-01:00", "soon"].map(dayOf)).toEqual([
    "2026-01-31",
    "2026-02-01",
    "1970-01-01"
  ])
})
