// The object store of the archive and the warehouse on a real S3 (versitygw).
import { afterAll, describe, expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { Context, Effect, Layer, Redacted, Schedule } from "effect"
import type { Envelope } from "@merkato/domain/kernel/Event"
import { Archive } from "@merkato/infra/archive/Archive"
import { EventBus } from "@merkato/infra/events/EventBus"
import * as PostgresEventBus from "@merkato/infra/events/PostgresEventBus"
import { ObjectStore } from "@merkato/infra/objects/ObjectStore"
import * as S3 from "@merkato/infra/objects/S3"
import { Policies } from "@merkato/infra/policy/Policies"
import * as Database from "@merkato/infra/postgres/Database"
import * as Migrations from "@merkato/infra/postgres/Migrations"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { message, unique } from "../packages/infra/test/EventBus.contract.ts"
import { objectStoreContract } from "../packages/infra/test/ObjectStore.contract.ts"
import { hostOf, links, through } from "./support/Links.ts"
import { freePort, temporaryFolder } from "./support/Processes.ts"
import { realServer } from "./support/RealServer.ts"

const what = "objects in a real S3"
const [server, between] = await Promise.all([realServer("s3", what), links(what)])
const folder = temporaryFolder()
afterAll(async () => {
  await Promise.all([server?.stop(), between?.stop()])
  folder.remove()
}, 30_000)

const setting = (name: string) => server?.settings[name] ?? ""

const options: S3.S3Options = {
  bucket: setting("S3_BUCKET"),
  endpoint: setting("S3_ENDPOINT"),
  region: setting("S3_REGION"),
  accessKeyId: setting("S3_ACCESS_KEY_ID"),
  secretAccessKey: Redacted.make(setting("S3_SECRET_ACCESS_KEY")),
  copies: folder.path
}

const at = (changed: Partial<S3.S3Options> = {}) =>
  S3.layer({ ...options, ...changed }).pipe(
    Layer.provide(
      Policies.layerWith({ "object.store": { attempts: 2, attemptTimeoutMs: 2_000, backoff: { firstMs: 1 } } })
    )
  )

/** A link to it; with its address the requests are signed. */
const linked = (name: string) =>
  Effect.promise(async () => {
    const link = await between?.to(name, hostOf(setting("S3_ENDPOINT")), await freePort())
    if (link === undefined) throw new Error("there is no link")
    return link
  })

describe.skipIf(server === undefined || between === undefined)("objects in a real S3", () => {
  objectStoreContract("S3", at())

  const refusal = (layer: ReturnType<typeof at>) =>
    Layer.build(layer).pipe(Effect.scoped, Effect.flip, Effect.map(String), Effect.runPromise)

  test("what cannot be used is told in a sentence, at the start and without the key", async () => {
    expect(await refusal(at({ bucket: "another" }))).toMatch(/S3_BUCKET.* cannot be used: bucket another: .*404/)
    const wrongKey = await refusal(at({ secretAccessKey: Redacted.make("geheim") }))
    expect(wrongKey).toMatch(/cannot be used: bucket merkato: .*403/)
    expect(wrongKey).not.toContain("geheim")
    const nobody = `http://127.0.0.1:${await freePort()}`
    expect(await refusal(at({ endpoint: nobody }))).toContain("cannot be used: bucket merkato: ")
  })

  test("the archive in it is written once by several, and read back to every letter", () =>
    Effect.gen(function* () {
      const { url } = yield* TestDatabase.fresh
      const database = Database.layer({ url, maxConnections: 4, applicationName: "test" })
      yield* Effect.provide(Migrations.run(PostgresEventBus.migrations), database)
      const bus = PostgresEventBus.layer.pipe(Layer.provide(database))
      yield* Effect.gen(function* () {
        const topic = unique("topic")
        const events = yield* EventBus
        yield* events.publish(Array.from({ length: 60 }, (_, nth) => message(topic, `KEY-${nth % 9}`, nth + 1)))
        const archiver = Layer.fresh(Archive.layer("postgres").pipe(Layer.provideMerge(at())))
        const one = Archive.use((archive) => archive.catchUp([topic])).pipe(Effect.provide(archiver))
        const written = yield* Effect.all([one, one, one], { concurrency: "unbounded" })
        expect(written.reduce((sum, { events }) => sum + events, 0)).toBe(60)
        const stands = yield* events.read({ topics: [topic], after: new Map(), limit: 1_000 })
        const archived = yield* Archive.use((archive) =>
          Effect.flatMap(archive.files([topic]), (files) => Effect.forEach(files, (file) => archive.read(file)))
        ).pipe(Effect.provide(archiver))
        const envelopes = (all: ReadonlyArray<{ readonly envelope: Envelope }>) =>
          all.map(({ envelope }) => envelope).toSorted((a, b) => a.aggregateVersion - b.aggregateVersion)
        expect(envelopes(archived.flat())).toEqual(envelopes(stands))
      }).pipe(Effect.provide(bus))
    }).pipe(Effect.scoped, Effect.withTracerEnabled(false), Effect.runPromise))

  test("what was written and never answered is there, whole, and nobody writes it again", () =>
    Effect.gen(function* () {
      const link = yield* linked("answers")
      yield* Effect.gen(function* () {
        const store = yield* ObjectStore
        const write = (text: string) => store.putNew("links/answers", new TextEncoder().encode(text))
        yield* Effect.promise(() => link.silence("downstream"))
        expect(yield* Effect.flip(write("first"))).toMatchObject({ _tag: "ObjectStoreUnavailable" })
        yield* Effect.promise(link.mend)
        expect(yield* write("second")).toBe(false)
        expect(new TextDecoder().decode(yield* store.get("links/answers"))).toBe("first")
      }).pipe(Effect.provide(at({ endpoint: new URL(through(setting("S3_ENDPOINT"), link)).origin })))
    }).pipe(Effect.runPromise))

  test(
    "an archiver over a bad link goes on by itself, and writes everything down once",
    () =>
      Effect.gen(function* () {
        const link = yield* linked("archiver")
        const { url } = yield* TestDatabase.fresh
        const database = Database.layer({ url, maxConnections: 4, applicationName: "test" })
        yield* Effect.provide(Migrations.run(PostgresEventBus.migrations), database)
        const data = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
        const limits = { attemptTimeoutMs: 1_000, attempts: 2, backoff: { kind: "exactly", delaysMs: [100] } }
        writeFileSync(join(data.path, "policies.json"), JSON.stringify({ "object.store": limits }))
        const said = join(data.path, "said")
        const args = ["archive", "run", "--follow", "--every", "1s", "--data-dir", data.path]
        yield* Effect.acquireRelease(
          Effect.sync(() =>
            Bun.spawn([process.execPath, "apps/merkato/src/main.ts", ...args], {
              cwd: join(import.meta.dir, ".."),
              env: {
                ...process.env,
                ...server?.settings,
                S3_ENDPOINT: new URL(through(setting("S3_ENDPOINT"), link)).origin,
                DATABASE_URL: Redacted.value(url)
              },
              stdout: "ignore",
              stderr: Bun.file(said)
            })
          ),
          (archiver) =>
            Effect.promise(() => {
              archiver.kill()
              return archiver.exited
            })
        )
        const context = yield* Layer.build(PostgresEventBus.layer.pipe(Layer.provide(database)))
        const topic = "order.events"
        const events = Context.get(context, EventBus)
        const archive = Layer.fresh(Archive.layer("postgres").pipe(Layer.provideMerge(at())))
        let published = 0
        const publish = (count: number) =>
          events.publish(Array.from({ length: count }, () => message(topic, `KEY-${published % 5}`, ++published)))
        const archived = Archive.use((archive) =>
          Effect.flatMap(archive.files([topic]), (files) => Effect.forEach(files, (file) => archive.read(file)))
        ).pipe(
          Effect.provide(archive),
          Effect.map((files) => files.flat())
        )
        const caughtUp = Effect.repeat(archived, {
          until: (all) => all.length >= published,
          times: 200,
          schedule: Schedule.spaced("50 millis")
        })
        const line = /^This pass broke off, the next one goes on: ObjectStoreUnavailable: S3: Connection\w+$/m
        const brokeOff = Effect.promise(async () => line.test(await Bun.file(said).text())).pipe(
          Effect.repeat({ until: (did) => did, times: 200, schedule: Schedule.spaced("50 millis") })
        )
        yield* publish(20)
        yield* caughtUp
        const outages = [
          () => link.slow(50),
          () => link.silence("downstream"),
          () => link.silence("upstream"),
          () => link.silence(),
          link.cut
        ]
        for (const worsen of outages) {
          yield* Effect.promise(worsen)
          yield* publish(20)
          yield* Effect.sleep("1500 millis")
          if (worsen === link.cut) expect(yield* brokeOff).toBe(true)
          yield* Effect.promise(link.mend)
          yield* caughtUp
        }
        const envelopes = (all: ReadonlyArray<{ readonly envelope: Envelope }>) =>
          all.map(({ envelope }) => envelope).toSorted((a, b) => a.aggregateVersion - b.aggregateVersion)
        const stands = yield* events.read({ topics: [topic], after: new Map(), limit: 1_000 })
        expect(stands.length).toBe(published)
        expect(envelopes(yield* archived)).toEqual(envelopes(stands))
      }).pipe(Effect.scoped, Effect.withTracerEnabled(false), Effect.runPromise),
    120_000
  )

  test("more names than one answer lists are listed all", () =>
    ObjectStore.use((store) =>
      Effect.gen(function* () {
        const names = Array.from({ length: 1_003 }, (_, nth) => `many/${String(nth).padStart(4, "0")}`)
        yield* Effect.forEach(names, (name) => store.putNew(name, new Uint8Array(1)), {
          concurrency: 16,
          discard: true
        })
        expect((yield* store.list("many/")).map(({ name }) => name)).toEqual(names)
      })
    ).pipe(Effect.provide(at()), Effect.runPromise))
})
