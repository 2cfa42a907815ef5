import { expect, test } from "bun:test"
import { Effect, Option } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import * as VersionedCache from "../src/cache/VersionedCache.ts"

const make = VersionedCache.make<string>({ name: "test", capacity: 3, ttlMs: 1_000 })

const run = <A, E>(effect: Effect.Effect<A, E>) => Effect.runPromise(Effect.provide(effect, TestClock.layer()))

test("a slow reader's older value does not outlive what dropped it", () =>
  run(
    Effect.gen(function* () {
      const cache = yield* make
      yield* cache.put("p", 1, "one")
      yield* cache.drop("p", 2)
      expect(yield* cache.get("p")).toBeUndefined()
      yield* cache.put("p", 1, "one, read before the change and put after it")
      expect(yield* cache.get("p")).toBeUndefined()
      yield* cache.put("p", 2, "two")
      expect(yield* cache.get("p")).toBe("two")
    })
  ))

test("a value is given out for its time to live and no longer", () =>
  run(
    Effect.gen(function* () {
      const cache = yield* make
      yield* cache.put("p", 1, "one")
      yield* TestClock.adjust(999)
      expect(yield* cache.get("p")).toBe("one")
      yield* TestClock.adjust(1)
      expect(yield* cache.get("p")).toBeUndefined()
    })
  ))

test("the entry that was put longest ago makes room", () =>
  run(
    Effect.gen(function* () {
      const cache = yield* make
      for (const key of ["a", "b", "c"]) yield* cache.put(key, 1, key)
      yield* cache.put("a", 2, "a again")
      yield* cache.put("d", 1, "d")
      expect(yield* Effect.forEach(["a", "b", "c", "d"], cache.get)).toEqual(["a again", undefined, "c", "d"])
    })
  ))

test("whatever the order of puts and drops, nothing older than the newest version known is given out", () =>
  fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 1, max: 6 })), { maxLength: 20 }), (steps) =>
      run(
        Effect.gen(function* () {
          const cache = yield* make
          let newest = 0
          for (const [isPut, version] of steps) {
            yield* isPut ? cache.put("p", version, String(version)) : cache.drop("p", version)
            newest = Math.max(newest, version)
            const given = Option.fromUndefinedOr(yield* cache.get("p"))
            if (Option.isSome(given)) expect(Number(given.value)).toBe(newest)
          }
        })
      )
    ),
    { numRuns: 200 }
  ))
