import { expect, test } from "bun:test"
import { Effect, Layer, Metric } from "effect"
import { TestClock } from "effect/testing"
import { BusUnavailable, EventBus } from "../src/events/EventBus.ts"
import * as Lag from "../src/events/Lag.ts"

const readings = [
  { group: "cart.empty-ordered", topic: "order.events" },
  { group: "orders.end-expired", topic: "inventory.events" }
] as const

const gauges = Effect.forEach(readings, (reading) =>
  Effect.map(Metric.value(Metric.withAttributes(Lag.lag, reading)), ({ value }) => value)
)

test("the lag of each group is told every quarter of a minute; of a bus that is away, as it was", () => {
  let behind: Effect.Effect<number, BusUnavailable> = Effect.succeed(0)
  const bus = Layer.mock(EventBus)({ lag: (group) => (group === "orders.end-expired" ? behind : Effect.succeed(7)) })
  return Effect.gen(function* () {
    behind = Effect.succeed(5)
    yield* Effect.forkChild(Lag.watch(readings))
    yield* TestClock.adjust("1 second")
    expect(yield* gauges).toEqual([7, 5])
    behind = Effect.fail(new BusUnavailable({ cause: "away" }))
    yield* TestClock.adjust("15 seconds")
    expect(yield* gauges).toEqual([7, 5])
    behind = Effect.succeed(0)
    yield* TestClock.adjust("15 seconds")
    expect(yield* gauges).toEqual([7, 0])
  }).pipe(Effect.provide(Layer.merge(bus, TestClock.layer())), Effect.runPromise)
})
