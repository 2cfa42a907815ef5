// What consumers do waits for no disk: a server that crashes loses the end of it. Nothing of that may be missing afterwards.
import { expect, test } from "bun:test"
import { chmodSync } from "node:fs"
import { Context, Effect, Layer, Logger, type Redacted, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as Consumer from "@merkato/infra/events/Consumer"
import { EventBus } from "@merkato/infra/events/EventBus"
import * as PostgresEventBus from "@merkato/infra/events/PostgresEventBus"
import * as Database from "@merkato/infra/postgres/Database"
import { EmbeddedPostgres } from "@merkato/infra/postgres/EmbeddedPostgres"
import * as Migrations from "@merkato/infra/postgres/Migrations"
import { eventually, message, numberOf } from "../packages/infra/test/EventBus.contract.ts"
import { killPostgres } from "./support/Crash.ts"
import { temporaryFolder } from "./support/Processes.ts"

const topic = "order.events"
const group = "shop.count"
const eventCount = 400

/** A server that writes what nobody waits for only every 10 seconds, and is killed when its scope ends. */
const server = (dataDir: string) =>
  Effect.gen(function* () {
    const { url } = yield* EmbeddedPostgres.start({ dataDir, settings: { wal_writer_delay: "10s" } })
    yield* Effect.addFinalizer(() => Effect.sync(() => killPostgres(dataDir)))
    return url
  })

const folder = Effect.acquireRelease(
  Effect.sync(() => {
    const made = temporaryFolder()
    chmodSync(made.path, 0o755) // the embedded Postgres runs as another user when this is root
    return made
  }),
  ({ remove }) => Effect.sync(remove)
).pipe(Effect.map(({ path }) => path))

interface Urls {
  readonly bus: Redacted.Redacted
  readonly context: Redacted.Redacted
}

const on = <A, E>(urls: Urls, body: Effect.Effect<A, E, EventBus | SqlClient.SqlClient | Scope.Scope>) =>
  Effect.gen(function* () {
    const database = (url: Redacted.Redacted) => Database.layer({ url, maxConnections: 4, applicationName: "test" })
    yield* Effect.provide(Migrations.run(PostgresEventBus.migrations), database(urls.bus))
    const context = yield* Layer.build(
      Layer.merge(PostgresEventBus.layer.pipe(Layer.provide(database(urls.bus))), database(urls.context))
    )
    return yield* Effect.provideContext(body, Context.merge(yield* Effect.context<Scope.Scope>(), context))
  }).pipe(Effect.scoped)

const effects = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  return (yield* sql<{ n: number }>`select n from shop.effects order by n`).map(({ n }) => n)
})

const consumed = Effect.gen(function* () {
  const bus = yield* EventBus
  const sql = yield* SqlClient.SqlClient
  yield* Effect.forkScoped(
    Consumer.run(
      "shop",
      Consumer.make({
        group,
        topic,
        eventTypes: ["ecommerce.test.counted.v1"],
        mode: "apply",
        handle: (envelope) => sql`insert into shop.effects (n) values (${numberOf({ envelope })})`
      })
    )
  )
  yield* eventually(effects, (all) => all.length >= eventCount, 30_000)
  yield* eventually(bus.lag(group, [topic]), (left) => left === 0, 30_000)
})

const published = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* Migrations.run({ schema: "shop", folder: undefined, common: true })
  yield* sql`create table shop.effects (n integer not null)`
  const { publish } = yield* EventBus
  for (let n = 1; n <= eventCount; n += 1) {
    yield* publish([message(topic, `KEY-${n}`, n, { eventType: "ecommerce.test.counted.v1" })])
  }
})

const all = Array.from({ length: eventCount }, (_, index) => index + 1)

const quietly = <A, E>(body: Effect.Effect<A, E, Scope.Scope>) =>
  body.pipe(Effect.scoped, Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Effect.runPromise)

test("the server crashes: what a group did and lost is done again, and nothing twice", () =>
  quietly(
    Effect.gen(function* () {
      const dataDir = yield* folder
      const crash = <A, E>(body: Effect.Effect<A, E, EventBus | SqlClient.SqlClient | Scope.Scope>) =>
        Effect.scoped(Effect.flatMap(server(dataDir), (url) => on({ bus: url, context: url }, body)))
      yield* crash(Effect.andThen(published, consumed))
      const left = yield* crash(effects)
      expect(left.length).toBeLessThan(eventCount)
      expect(yield* crash(Effect.andThen(consumed, effects))).toEqual(all)
    })
  ))

test("the context's server crashes, and the bus's does not: nothing was lost that the bus takes for done", () =>
  quietly(
    Effect.gen(function* () {
      const dataDir = yield* folder
      const bus = yield* server(yield* folder)
      const crash = <A, E>(body: Effect.Effect<A, E, EventBus | SqlClient.SqlClient | Scope.Scope>) =>
        Effect.scoped(Effect.flatMap(server(dataDir), (context) => on({ bus, context }, body)))
      yield* crash(Effect.andThen(published, consumed))
      expect(yield* crash(effects)).toEqual(all)
    })
  ))
