import { describe, expect, test } from "bun:test"
import { Effect, Random, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import * as Ids from "../src/kernel/Ids.ts"

/** RFC 9562: version 7 in the third group, variant 10 in the fourth. */
const uuid7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

const millis = fc.oneof(
  fc.constantFrom(0, 1, 2 ** 48 - 1),
  fc.integer({ min: 0, max: 2 ** 48 - 1 }),
  fc.integer({ min: Date.UTC(2020), max: Date.UTC(2100) })
)
/** Doubles in [0, 1), both ends included as far as they are. */
const dice = fc.array(
  fc.oneof(fc.constantFrom(0, 1 - 2 ** -53), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })),
  {
    minLength: 1
  }
)
/** Throws these dice over and over. */
const source = (values: ReadonlyArray<number>) => {
  let throws = 0
  return () => values[throws++ % values.length] ?? 0
}

describe("UUIDv7", () => {
  test("every time and every throw of the dice give the form of RFC 9562", () => {
    fc.assert(
      fc.property(millis, dice, (at, values) => {
        expect(Ids.uuidV7(at, source(values))).toMatch(uuid7)
      }),
      { numRuns: 1_000 }
    )
  })

  test("the first 48 bits are the time", () => {
    fc.assert(
      fc.property(millis, dice, (at, values) => {
        expect(Number.parseInt(Ids.uuidV7(at, source(values)).replaceAll("-", "").slice(0, 12), 16)).toBe(at)
      })
    )
  })

  test("a later id sorts after an earlier one, whatever the dice", () => {
    fc.assert(
      fc.property(millis, millis, dice, dice, (a, b, first, second) => {
        fc.pre(a !== b)
        const [one, other] = [Ids.uuidV7(a, source(first)), Ids.uuidV7(b, source(second))]
        expect(one < other).toBe(a < b)
      }),
      { numRuns: 1_000 }
    )
  })

  test("all 74 random bits are used", () => {
    const bits = (value: number) => BigInt(`0x${Ids.uuidV7(0, () => value).replaceAll("-", "")}`)
    const random = (1n << 128n) - 1n - (0xffffffffffffn << 80n) - (0xfn << 76n) - (0b11n << 62n)
    expect(bits(0) & random).toBe(0n)
    expect(bits(1 - 2 ** -53) & random).toBe(random)
  })
})

const many = 100_000
const manyIds = Effect.forEach(Array.from({ length: many }), () => Ids.next)

describe("fresh ids", () => {
  test("100,000 ids of one millisecond are all different", async () => {
    const ids = await Effect.runPromise(Effect.provide(manyIds, TestClock.layer()))
    expect(new Set(ids).size).toBe(many)
    // The clock stood still, so it is the dice alone that tell them apart.
    expect(new Set(ids.map((id) => id.slice(0, 13))).size).toBe(1)
  })

  test("ids made one after the other sort by the time they were made", async () => {
    const made = Effect.gen(function* () {
      const ids: Array<string> = []
      for (let n = 0; n < 500; n++) {
        yield* TestClock.adjust("1 millis")
        ids.push(yield* Ids.nextOrderId)
      }
      return ids
    })
    const ids = await Effect.runPromise(Effect.provide(made, TestClock.layer()))
    expect(ids.toSorted()).toEqual(ids)
  })

  test("a seeded run makes the same ids again, and another seed makes others", async () => {
    const run = (seed: string) =>
      Effect.forEach(Array.from({ length: 50 }), () => Ids.next).pipe(
        Random.withSeed(seed),
        Effect.provide(TestClock.layer()),
        Effect.runPromise
      )
    expect(await run("a")).toEqual(await run("a"))
    expect(await run("a")).not.toEqual(await run("b"))
  })

  test("every kind of id carries its prefix, is valid, and has at most 64 characters", () => {
    const kinds: ReadonlyArray<readonly [Effect.Effect<string>, string]> = [
      [Ids.nextUserId, "USER-"],
      [Ids.nextGuestId, "GUEST-"],
      [Ids.nextProductId, "PROD-"],
      [Ids.nextCartId, "CART-"],
      [Ids.nextOrderId, "ORDER-"],
      [Ids.next, ""]
    ]
    for (const [next, prefix] of kinds) {
      const id = Effect.runSync(next)
      expect(id).toStartWith(prefix)
      expect(id.slice(prefix.length)).toMatch(uuid7)
      expect(Schema.is(Ids.Id)(id)).toBe(true)
      expect(id.length).toBeLessThanOrEqual(64)
    }
  })
})

const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
const branded = {
  Id: Ids.Id,
  UserId: Ids.UserId,
  ProductId: Ids.ProductId,
  CartId: Ids.CartId,
  OrderId: Ids.OrderId,
  ReservationId: Ids.ReservationId,
  AttemptId: Ids.AttemptId,
  EventId: Ids.EventId,
  AssessmentId: Ids.AssessmentId
}

for (const [name, schema] of Object.entries(branded)) {
  const is = Schema.is(schema)
  describe(`the schema ${name}`, () => {
    test("accepts 1 to 64 of [A-Za-z0-9_-], USER-1 too", () => {
      fc.assert(
        fc.property(fc.array(fc.constantFrom(...allowed), { minLength: 1, maxLength: 64, size: "max" }), (letters) =>
          is(letters.join(""))
        )
      )
      for (const id of ["USER-1", "-", "_", "0", "A".repeat(64)]) expect(is(id)).toBe(true)
    })

    test("refuses nothing at all, 65 characters, and what is no string", () => {
      for (const id of ["", "A".repeat(65), 1, null, undefined, ["USER-1"]]) expect(is(id)).toBe(false)
    })

    test("refuses every other character, wherever it stands", () => {
      const other = fc.integer({ min: 0, max: 0xffff }).map((code) => String.fromCharCode(code))
      fc.assert(
        fc.property(fc.constantFrom("", "USER-1"), other, fc.constantFrom("", "x"), (before, letter, after) => {
          expect(is(before + letter + after)).toBe(allowed.includes(letter))
        })
      )
      for (const id of ["USER-1\n", "\nUSER-1", "a b", "a/b", "..", "a'--", "ÄRGER", "Ⅷ", "а"])
        expect(is(id)).toBe(false)
    })
  })
}

describe("the schema IdempotencyKey", () => {
  const is = Schema.is(Ids.IdempotencyKey)

  test("accepts 1 to 255 printable ASCII characters", () => {
    for (let code = 0x21; code <= 0x7e; code++) expect(is(String.fromCharCode(code))).toBe(true)
    expect(is("k".repeat(255))).toBe(true)
  })

  test("refuses nothing at all, 256 characters, blanks, control characters and everything beyond ASCII", () => {
    for (const key of ["", "k".repeat(256), "a b", "a\tb", "key\n", "\u0000", "\u007f", "é", "🍎"])
      expect(is(key)).toBe(false)
  })
})
