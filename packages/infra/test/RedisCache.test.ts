// The shared cache on a real Redis.
import { afterAll, describe, expect, test } from "bun:test"
import { Effect, Layer, Logger } from "effect"
import { realServer } from "../../../tests/support/RealServer.ts"
import * as RedisWhereNamed from "../src/cache/RedisWhereNamed.ts"
import { SharedCache } from "../src/cache/SharedCache.ts"

const redis = await realServer("redis", "the shared cache in Redis")
afterAll(() => redis?.stop(), 30_000)
const url = redis?.settings["REDIS_URL"] ?? ""

const minuteMs = 60_000

const run = <A, E>(effect: Effect.Effect<A, E, SharedCache>, at = url) =>
  Effect.runPromise(Effect.provide(effect, Layer.merge(RedisWhereNamed.layer(at), Logger.layer([]))))

/** Asks again, for a while, until it is as wanted. */
const until = <A, E, R>(ask: Effect.Effect<A, E, R>, wanted: (answer: A) => boolean): Effect.Effect<A, E, R> =>
  Effect.flatMap(ask, (answer) =>
    wanted(answer) ? Effect.succeed(answer) : Effect.andThen(Effect.sleep("20 millis"), until(ask, wanted))
  )

describe.skipIf(redis === undefined)("a cache in Redis", () => {
  test("keeps the latest version, in whatever order they come", () =>
    run(
      Effect.gen(function* () {
        const cache = yield* SharedCache
        expect(yield* cache.find("a")).toBeUndefined()
        yield* cache.put("a", 2, "two", minuteMs)
        yield* cache.put("a", 1, "one, read before the change and put after it", minuteMs)
        expect(yield* cache.find("a")).toEqual({ version: 2, value: "two" })
        yield* cache.put("a", 10, "ten: versions are numbers", minuteMs)
        expect(yield* cache.find("a")).toEqual({ version: 10, value: "ten: versions are numbers" })
      })
    ))

  test("remembers what was dropped, and takes only what is not older", () =>
    run(
      Effect.gen(function* () {
        const cache = yield* SharedCache
        yield* cache.put("b", 1, "one", minuteMs)
        yield* cache.drop("b", 2, minuteMs)
        expect(yield* cache.find("b")).toBeUndefined()
        yield* cache.put("b", 1, "one, read before the change and put after it", minuteMs)
        expect(yield* cache.find("b")).toBeUndefined()
        yield* cache.put("b", 2, "two", minuteMs)
        yield* cache.drop("b", 2, minuteMs)
        expect(yield* cache.find("b")).toEqual({ version: 2, value: "two" })
      })
    ))

  test("forgets both when their time is over", () =>
    run(
      Effect.gen(function* () {
        const cache = yield* SharedCache
        yield* cache.put("c", 5, "five", 50)
        yield* until(cache.find("c"), (found) => found === undefined)
        yield* cache.drop("d", 9, 50)
        const taken = Effect.andThen(cache.put("d", 1, "from the start", minuteMs), cache.find("d"))
        expect(yield* until(taken, (found) => found !== undefined)).toEqual({ version: 1, value: "from the start" })
      })
    ))

  test(
    "goes on after Redis was killed and started again",
    () =>
      run(
        Effect.gen(function* () {
          const cache = yield* SharedCache
          yield* cache.put("e", 1, "one", minuteMs)
          redis?.kill()
          const away = yield* until(Effect.result(cache.find("e")), ({ _tag }) => _tag === "Failure")
          expect(away).toMatchObject({ failure: { _tag: "SharedCacheUnavailable" } })
          yield* Effect.promise(async () => redis?.start())
          // The new process knows no scripts.
          yield* until(Effect.result(cache.put("e", 2, "two", minuteMs)), ({ _tag }) => _tag === "Success")
          expect(yield* cache.find("e")).toEqual({ version: 2, value: "two" })
        })
      ),
    60_000
  )

  test("says in a sentence, and without a secret, that nobody answers or that it is no address", async () => {
    const nobody = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
    nobody.stop(true)
    const refusal = (at: string) => run(SharedCache, at).then(() => "it answered", String)
    const refused = [
      await refusal(`redis://merkato:geheim@127.0.0.1:${nobody.port}`),
      await refusal("127.0.0.1:6379"),
      await refusal("http://geheim@127.0.0.1:6379")
    ]
    expect(refused).toEqual([
      expect.stringMatching(new RegExp(`REDIS_URL cannot be used: 127\\.0\\.0\\.1:${nobody.port}: .+`)),
      expect.stringContaining("REDIS_URL cannot be used: expected redis://host:port"),
      expect.stringContaining("REDIS_URL cannot be used: expected redis://host:port")
    ])
    expect(String(refused)).not.toContain("geheim")
  })
})
