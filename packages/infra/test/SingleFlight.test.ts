import { expect, test } from "bun:test"
import { Deferred, Effect, Fiber } from "effect"
import * as SingleFlight from "../src/cache/SingleFlight.ts"

test("a crowd that asks for the same at once reads it once, and who comes later reads again", () =>
  Effect.runPromise(
    Effect.gen(function* () {
      const flight = SingleFlight.make<string, never>()
      const [began, mayEnd] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      const reads: Array<string> = []
      const read = (key: string) =>
        Effect.gen(function* () {
          const nth = reads.push(key)
          yield* Deferred.succeed(began, undefined)
          yield* Deferred.await(mayEnd)
          return `${key} ${nth}`
        })
      const crowd = yield* Effect.forEach(["a", "a", "a", "b"], (key) => Effect.forkChild(flight.once(key, read(key))))
      yield* Deferred.await(began)
      // The one who came first goes away; the read goes on for the others.
      const [first, ...others] = crowd
      if (first !== undefined) yield* Fiber.interrupt(first)
      yield* Deferred.succeed(mayEnd, undefined)
      expect(yield* Effect.forEach(others, Fiber.join)).toEqual(["a 1", "a 1", "b 2"])
      expect(reads).toEqual(["a", "b"])
      expect(yield* flight.once("a", read("a"))).toBe("a 3")
    })
  ))

test("a read that fails fails for all, and is not remembered", () =>
  Effect.runPromise(
    Effect.gen(function* () {
      const flight = SingleFlight.make<string, string>()
      const failing = flight.once("a", Effect.andThen(Effect.yieldNow, Effect.fail("away")))
      const both = yield* Effect.all([Effect.flip(failing), Effect.flip(failing)], { concurrency: 2 })
      expect(both).toEqual(["away", "away"])
      expect(yield* flight.once("a", Effect.succeed("back"))).toBe("back")
    })
  ))
