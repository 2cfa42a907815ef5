// The shared cache, and rows of read models, on a real Redis.
import { afterAll, describe, expect, test } from "bun:test"
import { Effect, Layer, Logger, Stream } from "effect"
import { Redis } from "effect/persistence"
import * as fc from "fast-check"
import { realServer } from "../../../tests/support/RealServer.ts"
import * as RedisRows from "../src/cache/RedisRows.ts"
import * as RedisWhereNamed from "../src/cache/RedisWhereNamed.ts"
import { SharedCache } from "../src/cache/SharedCache.ts"
import * as Projection from "../src/projection/Projection.ts"
import type { RowStore } from "../src/projection/RowStore.ts"

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

/** What somebody has in their drawers: made once, changed often, thrown away at a time. */
const drawers = Projection.make({
  name: "drawers",
  context: "home",
  topic: "catalogue.events",
  key: { cupboard: "text", room: "text", drawer: "text" },
  once: { made_of: "text", kept_until: "timestamptz" },
  latest: { spoons: "bigint", label: "text" },
  events: []
})
const later = "2125-01-01T00:00:00.000Z"
const shape = { prefix: "cupboard:", until: "kept_until" }

/** What each event of a drawer tells: the first one knows what it is made of, the second one takes its label away. */
const story: ReadonlyArray<Projection.Row> = [
  { spoons: 9_007_199_254_740_991, label: 'A "label"', made_of: "wood", kept_until: later, version: 1 },
  { spoons: 0, label: null, made_of: null, kept_until: null, version: 2 },
  { spoons: 10, label: "ten\nspoons", made_of: null, kept_until: null, version: 3 }
].map((row) => ({ cupboard: "C.1", room: "kitchen", drawer: "D.1", ...row }))

const merged = (rows: ReadonlyArray<Projection.Row>) => {
  const [first, ...others] = rows
  return first === undefined ? [] : [others.reduce(Projection.merge(drawers), first)]
}

const inRedis = <A, E>(
  body: (store: RowStore, redis: typeof Redis.Redis.Service) => Effect.Effect<A, E>,
  projection = drawers
) =>
  Effect.gen(function* () {
    const redis = yield* Redis.Redis
    yield* redis.send("FLUSHALL")
    return yield* body(RedisRows.make(projection, shape, redis), redis)
  }).pipe(Effect.provide(Layer.merge(RedisWhereNamed.connected(url), Logger.layer([]))), Effect.runPromise)

const live = (store: RowStore) => Effect.map(Stream.runCollect(store.scan("live")), (pages) => pages.flat())

describe.skipIf(redis === undefined)("rows in Redis", () => {
  test("are the same in whatever order events come, however often, and in whatever batches", () =>
    inRedis((store) =>
      Effect.gen(function* () {
        yield* store.begin
        yield* store.swap
        let runs = 0
        yield* Effect.promise(() =>
          fc.assert(
            fc.asyncProperty(
              fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 6 }),
              fc.integer({ min: 0, max: 6 }),
              (order, cut) =>
                Effect.gen(function* () {
                  const cupboard = `C.${++runs}`
                  const rowsOf = (nths: ReadonlyArray<number>) =>
                    merged(nths.flatMap((nth) => story.slice(nth, nth + 1))).map((row) => ({ ...row, cupboard }))
                  for (const batch of [order.slice(0, cut), order.slice(cut)]) {
                    expect(yield* store.write("live", rowsOf(batch))).toBe(true)
                  }
                  const expected = rowsOf([...new Set(order)].toSorted())
                  expect(yield* store.find("live", expected)).toEqual(expected)
                }).pipe(Effect.runPromise)
            ),
            { numRuns: 50, examples: [[[2, 0, 1], 1]] }
          )
        )
      })
    ))

  test("are built aside, and readers see the one or the other", () =>
    inRedis((store, redis) =>
      Effect.gen(function* () {
        const [row = story[0]] = story
        const other = { ...row, cupboard: "C.2", drawer: "D.2", version: 7 } as Projection.Row
        const rows = row === undefined ? [] : [row]
        const read = RedisRows.reader(drawers, shape, redis)
        expect([yield* store.isBuilt, yield* store.write("live", rows), yield* store.write("next", rows)]).toEqual([
          false,
          false,
          false
        ])
        expect((yield* Effect.flip(read(["C.1"])))._tag).toBe("NotBuilt")
        yield* store.begin
        expect([yield* store.isBuilt, yield* store.write("next", rows)]).toEqual([false, true])
        yield* store.swap
        expect([yield* store.isBuilt, yield* store.write("next", rows)]).toEqual([true, false])
        expect<unknown>([yield* live(store), yield* read(["C.1"]), yield* read(["C.2"])]).toEqual([rows, rows, []])
        // Another one in its place: what it does not have is gone.
        yield* store.begin
        yield* store.write("next", [other])
        expect<unknown>([yield* live(store), yield* read(["C.2"])]).toEqual([rows, []])
        yield* store.swap
        expect<unknown>([yield* live(store), yield* read(["C.1"]), yield* read(["C.2"])]).toEqual([
          [other],
          [],
          [other]
        ])
        yield* store.begin
        yield* store.write("next", rows)
        yield* store.abandon
        expect([yield* store.write("next", rows), (yield* live(store)).length]).toEqual([false, 1])
        expect(yield* redis.send("KEYS", "*next*")).toEqual([])
      })
    ))

  test("are forgotten with the last end of those of a key, and only if all have one", () =>
    inRedis((store, redis) =>
      Effect.gen(function* () {
        yield* store.begin
        yield* store.swap
        const [row] = story
        const drawer = (name: string, kept_until: string | null) =>
          store.write("live", [{ ...row, drawer: name, kept_until, version: 1 } as Projection.Row])
        const endOf = redis.send<number>("PEXPIRETIME", "cupboard:C.1")
        yield* drawer("A", later)
        expect(yield* endOf).toBe(Date.parse(later))
        yield* drawer("B", "2124-01-01T00:00:00.000Z")
        expect(yield* endOf).toBe(Date.parse(later))
        yield* drawer("C", null)
        expect(yield* endOf).toBe(-1)
        yield* drawer("C", "2126-01-01T00:00:00.000Z")
        expect(yield* endOf).toBe(Date.parse("2126-01-01T00:00:00.000Z"))
        yield* store.write("live", [
          { ...row, cupboard: "OLD", kept_until: "2020-01-01T00:00:00.000Z" } as Projection.Row
        ])
        expect((yield* live(store)).map(({ cupboard }) => cupboard)).toEqual(["C.1", "C.1", "C.1"])
      })
    ))

  test(
    "of a Redis that died are not believed until they are built anew",
    () =>
      inRedis((store, redis_) =>
        Effect.gen(function* () {
          yield* store.begin
          yield* store.write("next", story)
          yield* store.swap
          const read = RedisRows.reader(drawers, shape, redis_)
          expect((yield* read(["C.1"])).length).toBe(1)
          redis?.kill()
          yield* until(Effect.result(store.isBuilt), ({ _tag }) => _tag === "Failure")
          yield* Effect.promise(async () => redis?.start())
          expect(yield* until(Effect.result(store.isBuilt), ({ _tag }) => _tag === "Success")).toMatchObject({
            success: false
          })
          yield* until(Effect.flip(read(["C.1"])), ({ _tag }) => _tag === "NotBuilt")
          yield* store.begin
          yield* store.write("next", story)
          yield* store.swap
          expect(yield* store.isBuilt).toBe(true)
        })
      ),
    60_000
  )
})

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
