// What devices tell of shelves: each message counts once, in its order, and no shelf ever holds less than is reserved of it.
import { expect, test } from "bun:test"
import { Effect, Schema } from "effect"
import * as fc from "fast-check"
import { Sku } from "../src/catalogue/Product.ts"
import { applyDeltas, type DeviceDelta, DeviceMessage, type Shelf } from "../src/inventory/DeviceDelta.ts"
import { maxUnits } from "../src/inventory/Stock.ts"
import { Id, ProductId } from "../src/kernel/Ids.ts"

const shelf = (onHand: number, reserved = 0): Shelf => ({
  productId: ProductId.make("P1"),
  onHand,
  reserved,
  version: 4
})
const told = (delta: number, messageId?: string, deviceId?: string, sku = "A"): DeviceDelta => ({
  sku: Sku.make(sku),
  delta,
  reason: "SENSOR",
  ...(messageId === undefined ? {} : { messageId }),
  ...(deviceId === undefined ? {} : { deviceId: Id.make(deviceId) })
})
const codes = (outcomes: ReturnType<typeof applyDeltas>) =>
  outcomes.map((outcome) =>
    outcome._tag === "Applied"
      ? [outcome.shelf.onHand, outcome.shelf.version]
      : outcome._tag === "Duplicate"
        ? "duplicate"
        : outcome.code
  )

test("deltas are applied in their order, each with a version of its own", () => {
  const outcomes = applyDeltas(new Map([["A", shelf(3, 1)]]), new Map(), [told(-3), told(-2), told(5), told(-3)])
  expect(codes(outcomes)).toEqual(["stock_would_be_negative", [1, 5], [6, 6], [3, 7]])
})

test("a message counts once: in the batch, and when it was applied before", () => {
  const known = new Map([["gate A m1", 2]])
  const shelves = new Map([["A", shelf(0)]])
  const deltas = [told(2, "m1", "gate"), told(4, "m2", "gate"), told(4, "m2", "gate"), told(4, "m2", "scale"), told(4)]
  expect(codes(applyDeltas(shelves, known, deltas))).toEqual(["duplicate", [4, 5], "duplicate", [8, 6], [12, 7]])
})

test("a name that comes again with another delta is told of, and not taken for the same", () => {
  const outcomes = applyDeltas(new Map([["A", shelf(9)]]), new Map(), [told(1, "m1"), told(-1, "m1")])
  expect(codes(outcomes)).toEqual([[10, 5], "message_id_reused"])
})

test("what was refused is not remembered: it may count when it comes again", () => {
  const outcomes = applyDeltas(new Map([["A", shelf(0)]]), new Map(), [told(-1, "m1"), told(1), told(-1, "m1")])
  expect(codes(outcomes)).toEqual(["stock_would_be_negative", [1, 5], [0, 6]])
})

test("SKUs that nobody has are refused, and shelves that would overflow", () => {
  const shelves = new Map([["A", shelf(maxUnits)]])
  expect(codes(applyDeltas(shelves, new Map(), [told(1), told(1, "m", "d", "B")]))).toEqual([
    "stock_would_overflow",
    "unknown_sku"
  ])
})

test("whatever comes, a shelf has what was there and what was applied, and covers what is reserved", () => {
  const message = fc.record({
    sku: fc.constantFrom("A", "B", "nobody's"),
    delta: fc.integer({ min: -5, max: 5 }).filter((delta) => delta !== 0),
    messageId: fc.option(fc.constantFrom("m1", "m2", "m3", "m4"), { nil: undefined }),
    deviceId: fc.option(fc.constantFrom("d1", "d2"), { nil: undefined })
  })
  fc.assert(
    fc.property(fc.array(message, { maxLength: 40 }), fc.nat(5), (messages, reserved) => {
      const shelves = new Map([
        ["A", shelf(5, reserved)],
        ["B", shelf(8, reserved)]
      ])
      const deltas = messages.map(({ sku, delta, messageId, deviceId }) => ({
        ...told(delta, messageId, deviceId),
        sku: sku as Sku
      }))
      const outcomes = applyDeltas(shelves, new Map(), deltas)
      expect(outcomes.length).toBe(deltas.length)
      const counted = new Set<string>()
      const level = new Map([...shelves].map(([sku, { onHand }]) => [sku, onHand]))
      for (const outcome of outcomes) {
        if (outcome._tag !== "Applied") continue
        const { sku, delta, messageId, deviceId } = outcome.delta
        level.set(sku, (level.get(sku) ?? 0) + delta)
        expect(outcome.shelf.onHand).toBe(level.get(sku) ?? -1)
        expect(outcome.shelf.onHand).toBeGreaterThanOrEqual(reserved)
        const name = `${deviceId} ${sku} ${messageId}`
        if (messageId !== undefined) expect(counted.has(name)).toBe(false)
        counted.add(name)
      }
    })
  )
})

test("a message that makes no sense is none", async () => {
  const decode = Schema.decodeUnknownEffect(DeviceMessage)
  const read = (message: unknown) => Effect.runPromise(Effect.isSuccess(decode(message)))
  expect(await read({ delta: 1, reason: "SENSOR" })).toBe(true)
  expect(await read({ delta: 1, reason: "SENSOR", messageId: "7f", deviceId: "scale-1", battery: 0.4 })).toBe(true)
  for (const message of [
    { delta: 0, reason: "SENSOR" },
    { delta: 1.5, reason: "SENSOR" },
    { delta: "1", reason: "SENSOR" },
    { delta: 1 },
    { delta: 2_000_000, reason: "SENSOR" },
    { delta: 1, reason: "SENSOR", messageId: "with blanks" },
    { delta: 1, reason: "SENSOR", messageId: "" },
    [1]
  ]) {
    expect([message, await read(message)]).toEqual([message, false])
  }
})
