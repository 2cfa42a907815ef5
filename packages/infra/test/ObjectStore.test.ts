// The object store in a folder, and what only that side has to keep.
import { afterAll, expect, test } from "bun:test"
import { Effect } from "effect"
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Files from "../src/objects/Files.ts"
import { ObjectStore } from "../src/objects/ObjectStore.ts"
import { objectStoreContract } from "./ObjectStore.contract.ts"

const folder = mkdtempSync(join(tmpdir(), "merkato-objects-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

objectStoreContract("files", Files.layer(folder))

test("what a writer left that was killed is no object", () =>
  ObjectStore.use((store) =>
    Effect.gen(function* () {
      yield* store.putNew("kept", new Uint8Array(1))
      mkdirSync(join(folder, ".unfinished"), { recursive: true })
      writeFileSync(join(folder, ".unfinished", "half"), "half")
      expect((yield* store.list("")).map(({ name }) => name)).not.toContain(".unfinished/half")
      rmSync(join(folder, ".unfinished", "half"))
      yield* store.putNew("kept/of/none", new Uint8Array(1)).pipe(Effect.flip)
      expect(readdirSync(join(folder, ".unfinished"))).toEqual([])
    })
  ).pipe(Effect.provide(Files.layer(folder)), Effect.runPromise))
