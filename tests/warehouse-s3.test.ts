// The object store of the archive and the warehouse on a real S3 (versitygw).
import { afterAll, describe, expect, test } from "bun:test"
import { Effect, Layer, Redacted } from "effect"
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
import { freePort, temporaryFolder } from "./support/Processes.ts"
import { realServer } from "./support/RealServer.ts"

const server = await realServer("s3", "objects in a real S3")
const folder = temporaryFolder()
afterAll(async () => {
  await server?.stop()
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
    Layer.provide(Policies.layerWith({ "object.store": { attempts: 2, backoff: { firstMs: 1 } } }))
  )

describe.skipIf(server === undefined)("objects in a real S3", () => {
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
