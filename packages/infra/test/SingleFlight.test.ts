import { expect, test } from "bun:test"
import { Deferred, Effect, Fiber } from "effect"
import * as SingleFlight from "../src/cache/SingleFlight.ts"

test("a crowd that asks for the same at once reads it once, and who comes later reads again", () =>
  Effect.runPromise(
    Effect.gen(function* () {
      const [lastBegan, mayEnd] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      const reads: Array<string> = []
      const read = (key: string) =>
        Effect.gen(function* () {
          const nth = reads.push(key)
          if (key === "b") yield* Deferred.succeed(lastBegan, undefined)
          yield* Deferred.await(mayEnd)
          return `${key} ${nth}`
        })
      const once = yield* SingleFlight.make(read)
      const crowd = yield* Effect.forEach(["a", "a", "a", "b"], (key) => Effect.forkChild(once(key)))
      yield* Deferred.await(lastBegan)
      // All have asked. The one who came first goes away; the read goes on for the others.
      const [first, ...others] = crowd
      if (first !== undefined) yield* Fiber.interrupt(first)
      yield* Deferred.succeed(mayEnd, undefined)
      expect(yield* Effect.forEach(others, Fiber.join)).toEqual(["a 1", "a 1", "b 2"])
      expect(reads).toEqual(["a", "b"])
      expect(yield* once("a")).toBe("a 3")
    })
  ))

test("a read that fails fails for all, and is not remembered", () =>
  Effect.runPromise(
    Effect.gen(function* () {
      let answer: Effect.Effect<string, string> = Effect.fail("away")
      const once = yield* SingleFlight.make((_: string) => Effect.andThen(Effect.yieldNow, answer))
      const both = yield* Effect.all([Effect.flip(once("a")), Effect.flip(once("a"))], { concurrency: 2 })
      expect(both).toEqual(["away", "away"])
      answer = Effect.succeed("back")
      expect(yield* once("a")).toBe("back")
    })
  ))
