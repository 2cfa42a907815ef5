import { describe, expect, test } from "bun:test"
import { Clock, Effect } from "effect"
import { firstShown, heldBetween, type Sale } from "../invariants/SaleTimes.ts"
import { Faults, faultNames } from "../kernel/Faults.ts"
import { History } from "../kernel/History.ts"
import { World } from "../kernel/World.ts"

/** A world in which nothing goes wrong, with two processes of which the second one's clock changes, once and before it dies. */
const clocks = () => {
  const world = new World(1, new History(), new Faults(1, new Set(faultNames)))
  const begin = world.now
  const right = world.spawn("right")
  const wrong = world.spawn("wrong")
  world.leap(30_000)
  world.setClock(wrong, 5_000)
  const shows = Effect.runSyncWith(wrong.context)(Clock.currentTimeMillis) - begin
  world.leap(30_000)
  world.kill(wrong)
  const pricingClocks = world.clocks.filter(({ process }) => process === right || process === wrong)
  return { begin, shows, pricingClocks }
}

const { begin, shows, pricingClocks } = clocks()
const after = (seconds: number) => begin + seconds * 1_000

const saleOf = (from: number, until: number, times: Partial<Sale> = {}): Sale => ({
  saleId: "SALE",
  productId: "PRODUCT",
  priceMinor: 1,
  startsAt: after(from),
  endsAt: after(until),
  canceled: false,
  madeFrom: begin,
  madeBy: begin,
  overFrom: firstShown({ pricingClocks }, after(until), begin),
  goneFrom: firstShown({ pricingClocks }, after(until), begin),
  goneBy: Infinity,
  ...times
})

const held = (sale: Sale, from: number, until: number) => {
  const { maybe, certainly } = heldBetween({ pricingClocks }, sale, after(from), after(until))
  return certainly ? (maybe ? "certainly" : "a contradiction") : maybe ? "maybe" : "no"
}

describe("clocks", () => {
  test("are known for as long as a process lives", () => {
    expect(shows).toBe(35_000)
    expect(pricingClocks.map(({ from, to, skewMs }) => [from - begin, to - begin, skewMs])).toEqual([
      [0, Infinity, 0],
      [0, 30_000, 0],
      [30_000, 60_000, 5_000]
    ])
  })

  test("show a time first where they are ahead, and not before somebody looks or after their process died", () => {
    const first = (seconds: number, notBefore = 0) =>
      firstShown({ pricingClocks }, after(seconds), after(notBefore)) - begin
    expect([first(20), first(31), first(40), first(64), first(66)]).toEqual([20_000, 30_000, 35_000, 59_000, 66_000])
    expect([first(40, 50), first(20, 61)]).toEqual([50_000, 61_000])
  })
})

describe("a sale's price", () => {
  test("holds from its start until before its end where all clocks are right", () => {
    const sale = saleOf(10, 20)
    const asked = [
      [8, 9.999],
      [9, 10],
      [10, 11],
      [19, 19.999],
      [19, 20],
      [20, 21]
    ] as const
    expect(asked.map(([from, until]) => held(sale, from, until))).toEqual([
      "no",
      "maybe",
      "certainly",
      "certainly",
      "maybe",
      "no"
    ])
  })

  test("may hold by one clock and not by another", () => {
    const sale = saleOf(40, 50)
    expect([34, 35, 40, 44.9, 45, 49, 50].map((seconds) => held(sale, seconds, seconds))).toEqual([
      "no",
      "maybe",
      "certainly",
      "certainly",
      "maybe",
      "maybe",
      "no"
    ])
  })

  test("holds neither before the sale was made nor after it is gone, and is uncertain in between", () => {
    const sale = saleOf(0, 20, {
      madeFrom: after(2),
      madeBy: after(4),
      goneFrom: after(10),
      goneBy: after(12)
    })
    expect([1, 2, 4, 5, 9, 10, 11, 12, 13].map((seconds) => held(sale, seconds, seconds))).toEqual([
      "no",
      "maybe",
      "maybe",
      "certainly",
      "certainly",
      "maybe",
      "maybe",
      "maybe",
      "no"
    ])
  })
})
