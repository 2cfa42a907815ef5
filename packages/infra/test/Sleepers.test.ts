// Who is woken by what is published, by this process and by others: never by what they do not read, and by nothing for 2 s.
import { expect, test } from "bun:test"
import { Effect, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { Sleepers } from "../src/events/postgres/Sleepers.ts"
import { message } from "./EventBus.contract.ts"

const sold = "shop.thing.sold.v1"
const event = (topic: string, eventType: string) => message(topic, "KEY", 1, { eventType })

/** Somebody who sleeps again whenever they wake up; how often they did, and whether it was for something that they want. */
const sleeping = (sleepers: Sleepers, topic: string, eventTypes?: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const wakings: Array<"wanted" | "perhaps"> = []
    const self = yield* sleepers.add({ topics: [topic], ...(eventTypes && { eventTypes }) })
    self.rise()
    const sleep = Effect.map(self.sleep, () => void wakings.push(self.rise() ? "wanted" : "perhaps"))
    yield* Effect.forkScoped(Effect.forever(sleep))
    return wakings
  })

/** Whoever is awake does what they have to do. */
const settled = TestClock.adjust(0)

const run = (body: Effect.Effect<void, never, Scope.Scope>) =>
  body.pipe(Effect.scoped, Effect.provide(TestClock.layer()), Effect.runPromise)

test("what this process publishes wakes who wants it, and nobody else", () =>
  run(
    Effect.gen(function* () {
      const sleepers = new Sleepers()
      const all = yield* sleeping(sleepers, "orders")
      const some = yield* sleeping(sleepers, "orders", [sold])
      const others = yield* sleeping(sleepers, "payments")
      yield* settled
      sleepers.published([event("orders", "shop.thing.made.v1")])
      yield* settled
      expect([all, some, others]).toEqual([["wanted"], [], []])
      sleepers.published([event("payments", sold), event("orders", sold)])
      yield* settled
      expect([all, some, others]).toEqual([["wanted", "wanted"], ["wanted"], ["wanted"]])
    })
  ))

test("what others publish wakes who reads there, once: only they can say whether they want it", () =>
  run(
    Effect.gen(function* () {
      const sleepers = new Sleepers()
      const some = yield* sleeping(sleepers, "orders", [sold])
      const others = yield* sleeping(sleepers, "payments")
      yield* settled
      const ends = (orders: number) => [
        { topic: "orders", partition: 0, end: 7 },
        { topic: "orders", partition: 1, end: orders }
      ]
      sleepers.moved(ends(1))
      yield* settled
      sleepers.moved(ends(1))
      yield* settled
      expect([some, others]).toEqual([["perhaps"], []])
      sleepers.moved(ends(2))
      yield* settled
      expect([some, others]).toEqual([["perhaps", "perhaps"], []])
    })
  ))

test("who is busy when something is published finds it when they go to sleep", () =>
  run(
    Effect.gen(function* () {
      const sleepers = new Sleepers()
      const self = yield* sleepers.add({ topics: ["orders"] })
      expect(self.rise()).toBe(false)
      sleepers.published([event("orders", sold)])
      sleepers.moved([{ topic: "orders", partition: 0, end: 1 }])
      yield* self.sleep
      expect([self.rise(), self.rise()]).toEqual([true, false])
    })
  ))

test("who hears of nothing looks after 2 seconds, and who is gone is not woken any more", () =>
  run(
    Effect.gen(function* () {
      const sleepers = new Sleepers()
      const all = yield* sleeping(sleepers, "orders")
      yield* TestClock.adjust("1999 millis")
      expect(all).toEqual([])
      yield* TestClock.adjust("1 millis")
      expect(all).toEqual(["perhaps"])
      const gone = yield* Effect.scoped(sleepers.add({ topics: ["orders"] }))
      gone.rise()
      sleepers.published([event("orders", sold)])
      expect(gone.rise()).toBe(false)
    })
  ))
