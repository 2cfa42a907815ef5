// What contexts do by themselves: it goes on whatever happens to it, and ends with its process.
import { expect, test } from "bun:test"
import { Effect, Fiber, Layer, Logger } from "effect"
import { TestClock } from "effect/testing"
import { unending } from "../src/context/Unending.ts"

/** Runs a test under the virtual clock, with what was logged. */
const watched = <A>(test: (said: ReadonlyArray<string>) => Effect.Effect<A>): Promise<A> => {
  const said: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => said.push(`${logLevel} ${String(message)}`))
  return test(said).pipe(Effect.provide(Layer.merge(Logger.layer([logger]), TestClock.layer())), Effect.runPromise)
}

test("work that dies, or waits for somebody who is interrupted, is told as a mistake and begins anew", () =>
  watched((said) =>
    Effect.gen(function* () {
      let begun = 0
      const ends = [Effect.die(new Error("a row that cannot be read")), Effect.interrupt, Effect.never]
      const fiber = yield* Effect.forkChild(
        unending(
          "inventory",
          Effect.suspend(() => ends[begun++] ?? Effect.never)
        )
      )
      yield* TestClock.adjust("999 millis")
      expect([begun, said.length]).toEqual([1, 1])
      expect(said[0]).toStartWith("Error What inventory does by itself broke off; it begins anew")
      yield* TestClock.adjust("1 millis")
      expect([begun, said.length]).toEqual([2, 2])
      yield* TestClock.adjust("1 second")
      expect([begun, said.length]).toEqual([3, 2])
      yield* Fiber.interrupt(fiber)
    })
  ))

test("work ends with its process, and nothing is said about that", () =>
  watched((said) =>
    Effect.gen(function* () {
      let begun = 0
      const fiber = yield* Effect.forkChild(
        unending(
          "inventory",
          Effect.suspend(() => {
            begun += 1
            return Effect.sleep("1 hour")
          })
        )
      )
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(fiber)
      yield* TestClock.adjust("1 day")
      expect([begun, said]).toEqual([1, []])
    })
  ))
