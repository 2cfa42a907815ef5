import { expect, test } from "bun:test"
import { Context, Effect, Metric } from "effect"
import { TestClock } from "effect/testing"
import * as PageCache from "../src/cache/PageCache.ts"

const limits = { name: "test_page", characters: 1_000, ttlMs: 1_000 }
const page = (body: string) => ({ body })

const run = <A, E>(effect: Effect.Effect<A, E>) => Effect.runPromise(Effect.provide(effect, TestClock.layer()))

/** A cache, with the services of the test's fiber for all that wants them. */
const cached = Effect.gen(function* () {
  const cache = yield* PageCache.make<{ readonly body: string }>(limits)
  const services = yield* Effect.context<never>()
  return {
    ...cache,
    put: (key: string, body: string, moment = cache.moment()) => cache.put(key, moment, page(body), services),
    peek: (key: string) => cache.peek(key, services)?.body,
    hit: () => cache.hit(services)
  }
})

test("a change drops every page, and a page that was asked for before it is not kept", () =>
  run(
    Effect.gen(function* () {
      const cache = yield* cached
      cache.put("/a", "one")
      cache.put("/b", "two")
      expect([cache.peek("/a"), cache.peek("/b"), cache.peek("/c")]).toEqual(["one", "two", undefined])
      const before = cache.moment()
      cache.dropAll()
      expect([cache.peek("/a"), cache.peek("/b")]).toEqual([undefined, undefined])
      cache.put("/a", "read before the change and put after it", before)
      expect(cache.peek("/a")).toBeUndefined()
      cache.put("/a", "three")
      expect(cache.peek("/a")).toBe("three")
    })
  ))

test("a page is given out for its time to live and no longer", () =>
  run(
    Effect.gen(function* () {
      const cache = yield* cached
      cache.put("/a", "one")
      yield* TestClock.adjust(999)
      expect(cache.peek("/a")).toBe("one")
      yield* TestClock.adjust(1)
      expect(cache.peek("/a")).toBeUndefined()
    })
  ))

test("the pages that were put longest ago make room, and one that is too large is not kept", () =>
  run(
    Effect.gen(function* () {
      const cache = yield* cached
      const keys = Array.from({ length: 150 }, (_, n) => `/${n + 100}`)
      // Ten characters each, with the key.
      for (const key of keys) cache.put(key, "123456")
      expect(keys.filter((key) => cache.peek(key) !== undefined)).toEqual(keys.slice(50))
      cache.put("/150", "654321")
      cache.put("/250", "123456")
      expect([cache.peek("/150"), cache.peek("/151"), cache.peek("/152")]).toEqual(["654321", undefined, "123456"])
      cache.put("/251", "1234567")
      expect([cache.peek("/251"), cache.peek("/152")]).toEqual([undefined, "123456"])
    })
  ))

test("the ratio of hits is told", () =>
  run(
    Effect.gen(function* () {
      const cache = yield* cached
      for (let n = 0; n < 16; n++) cache.put(`/${n}`, "page")
      for (let n = 0; n < 48; n++) cache.hit()
      const told = (yield* Metric.snapshot).find(({ id }) => id === "test_page_cache_hit_ratio")
      expect(told?.state).toEqual({ value: 0.75 })
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  ))

test("without a cache nothing is kept", () => {
  const none = PageCache.none<{ readonly body: string }>()
  none.put("/a", none.moment(), page("one"), Context.empty())
  expect(none.peek("/a", Context.empty())).toBeUndefined()
})
