// What every side of the ObjectStore port keeps. Names are new in every test, so the store may be an old one.
import { describe, expect, test } from "bun:test"
import { Effect, type Layer } from "effect"
import { readFile } from "node:fs/promises"
import { ObjectStore } from "../src/objects/ObjectStore.ts"

type Store = ObjectStore["Service"]

const bytes = (text: string) => new TextEncoder().encode(text)
const text = (content: Uint8Array | undefined) =>
  content === undefined ? undefined : new TextDecoder().decode(content)

let made = 0
const unique = () => `test/${process.pid}-${Date.now().toString(36)}-${++made}`

export const objectStoreContract = (side: string, layer: Layer.Layer<ObjectStore, unknown>) => {
  const run = <A>(work: (store: Store) => Effect.Effect<A, unknown>) =>
    ObjectStore.use(work).pipe(Effect.provide(layer), Effect.runPromise)

  describe(`object store: ${side}`, () => {
    test("gives back what was written, to every byte; and nothing of what is not there", () =>
      run((store) =>
        Effect.gen(function* () {
          const folder = unique()
          const content = Uint8Array.from({ length: 300_000 }, (_, nth) => (nth * 31) % 251)
          expect(yield* store.putNew(`${folder}/day=2026-01-31/a.parquet`, content)).toBe(true)
          expect(yield* store.putNew(`${folder}/empty`, new Uint8Array())).toBe(true)
          expect(yield* store.get(`${folder}/day=2026-01-31/a.parquet`)).toEqual(content)
          expect((yield* store.get(`${folder}/empty`))?.length).toBe(0)
          expect(yield* store.get(`${folder}/nothing`)).toBeUndefined()
          const path = yield* store.localFile(`${folder}/day=2026-01-31/a.parquet`)
          expect(path).toEndWith(`${folder}/day=2026-01-31/a.parquet`)
          expect(new Uint8Array(yield* Effect.promise(() => readFile(path)))).toEqual(content)
          expect(yield* store.localFile(`${folder}/day=2026-01-31/a.parquet`)).toBe(path)
          expect(yield* Effect.flip(store.localFile(`${folder}/nothing`))).toMatchObject({
            _tag: "ObjectStoreUnavailable"
          })
        })
      ))

    test("a name is given once: of many who want it at the same time one gets it, and what that one wrote stays", () =>
      run((store) =>
        Effect.gen(function* () {
          const name = `${unique()}/contested`
          const writers = Array.from({ length: 12 }, (_, nth) => `writer ${nth}`)
          const won = yield* Effect.forEach(writers, (writer) => store.putNew(name, bytes(writer)), {
            concurrency: "unbounded"
          })
          expect(won.filter((isNew) => isNew)).toHaveLength(1)
          expect(text(yield* store.get(name))).toBe(`writer ${won.indexOf(true)}`)
          expect(yield* store.putNew(name, bytes("late"))).toBe(false)
          expect(text(yield* store.get(name))).toBe(`writer ${won.indexOf(true)}`)
        })
      ))

    test("lists by how names begin, in their order, with their sizes", () =>
      run((store) =>
        Effect.gen(function* () {
          const folder = unique()
          for (const name of ["b/2", "a/1", "b/10", "c"]) yield* store.putNew(`${folder}/${name}`, bytes(name))
          const names = (prefix: string) =>
            Effect.map(store.list(`${folder}/${prefix}`), (all) =>
              all.map(({ name, size }) => `${name.slice(folder.length + 1)} ${size}`)
            )
          expect(yield* names("")).toEqual(["a/1 3", "b/10 4", "b/2 3", "c 1"])
          expect(yield* names("b/")).toEqual(["b/10 4", "b/2 3"])
          expect(yield* names("b/1")).toEqual(["b/10 4"])
          expect(yield* names("nothing/")).toEqual([])
        })
      ))

    test("what is removed is gone, and may be removed again", () =>
      run((store) =>
        Effect.gen(function* () {
          const folder = unique()
          yield* store.putNew(`${folder}/a`, bytes("a"))
          yield* store.remove(`${folder}/a`)
          yield* store.remove(`${folder}/a`)
          expect(yield* store.get(`${folder}/a`)).toBeUndefined()
          expect(yield* store.list(`${folder}/`)).toEqual([])
          expect(yield* store.putNew(`${folder}/a`, bytes("again"))).toBe(true)
        })
      ))

    for (const name of ["../outside", "a/../b", "/etc/passwd", "a//b", ".unfinished/a", "a/.hidden", "ä", ""])
      test(`no object is called ${JSON.stringify(name)}`, () =>
        run((store) =>
          Effect.gen(function* () {
            const exit = yield* Effect.exit(store.putNew(name, bytes("a")))
            expect(String(exit)).toContain("No object can be called")
          })
        ))
  })
}
