// The object store of the archive and the warehouse on a real S3 (versitygw).
import { afterAll, describe, expect, test } from "bun:test"
import { Effect, Layer, Redacted } from "effect"
import { ObjectStore } from "@merkato/infra/objects/ObjectStore"
import * as S3 from "@merkato/infra/objects/S3"
import { Policies } from "@merkato/infra/policy/Policies"
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
