import { describe, expect, test } from "bun:test"
import { DateTime, Effect, Result, Schema } from "effect"
import * as fc from "fast-check"
import { Price, PriceMinor, ProductNotFound } from "../src/catalogue/Product.ts"
import { OrderId, ProductId, ReservationId, UserId } from "../src/kernel/Ids.ts"
import { Currency, maxMinor, maxPriceMinor } from "../src/kernel/Money.ts"
import { Order } from "../src/orders/Order.ts"
import { created, evolve } from "../src/orders/OrderEvents.ts"
import {
  CurrencyNotSupported,
  type Item,
  Items,
  Line,
  LineQuantity,
  maxLines,
  mergeItems,
  Quantity,
  Quote,
  quote
} from "../src/pricing/Quote.ts"

const product = (n: number) => ProductId.make(`P${n}`)
const priced = (currency: Currency, ...prices: ReadonlyArray<readonly [ProductId, number]>) =>
  new Map(prices.map(([productId, priceMinor]) => [productId, new Price({ productId, priceMinor, currency })]))

const currency = fc.constantFrom(...Currency.literals)
const priceMinor = fc.oneof(
  fc.integer({ min: 1, max: 10_000 }),
  fc.integer({ min: 1, max: maxPriceMinor }),
  fc.constantFrom(1, maxPriceMinor)
)
const items = (among: number) =>
  fc.array(
    fc.record({ productId: fc.integer({ min: 1, max: among }).map(product), qty: fc.integer({ min: 1, max: 99 }) }),
    { minLength: 1, maxLength: maxLines, size: "max" }
  )
/** What a shopper asks for, and a price for everything in it. */
const order = fc.tuple(items(120), currency).chain(([wanted, of]) =>
  fc.array(priceMinor, { minLength: 120, maxLength: 120 }).map((prices) => ({
    wanted,
    of,
    prices: priced(of, ...prices.map((price, n) => [product(n + 1), price] as const))
  }))
)

const unitsOf = (wanted: ReadonlyArray<Item>, productId: ProductId) =>
  wanted.filter((item) => item.productId === productId).reduce((sum, { qty }) => sum + qty, 0)

describe("lines for the same product", () => {
  test("become one line with all their units, in the order of first appearance", () => {
    fc.assert(
      fc.property(items(20), (wanted) => {
        const distinct = [...new Set(wanted.map(({ productId }) => productId))]
        expect(mergeItems(wanted)).toEqual(
          distinct.map((productId) => ({ productId, qty: unitsOf(wanted, productId) }))
        )
      })
    )
  })

  test("are left as they are when each product stands once", () => {
    fc.assert(
      fc.property(items(120), (wanted) => {
        const merged = mergeItems(wanted)
        expect(mergeItems(merged)).toEqual(merged)
      })
    )
  })

  test("put together are still a valid line of an order, 100 times 99 units too", () => {
    const one = Array.from({ length: maxLines }, () => ({ productId: product(1), qty: 99 }))
    expect(Schema.is(Items)(one)).toBe(true)
    expect(mergeItems(one)).toEqual([{ productId: product(1), qty: 9_900 }])
    const is = Schema.is(LineQuantity)
    expect([0, 1, 9_900, 9_901, 1.5].map((qty) => is(qty))).toEqual([false, true, true, false, false])
  })
})

describe("what a shopper may ask for", () => {
  const is = Schema.is(Items)

  test("is 1 to 100 lines of 1 to 99 units", () => {
    fc.assert(fc.property(items(120), is))
    const line = (qty: number) => ({ productId: product(1), qty })
    expect(is([])).toBe(false)
    expect(is(Array.from({ length: 101 }, () => line(1)))).toBe(false)
    expect([0, -1, 100, 1.5, Number.NaN].filter((qty) => is([line(qty)]))).toEqual([])
    expect([1, 99].every(Schema.is(Quantity))).toBe(true)
  })
})

describe("a quote", () => {
  test("is exact: each line at its price, and their sum to the last unit", () => {
    fc.assert(
      fc.property(order, fc.boolean(), ({ wanted, of, prices }, named) => {
        const lines = mergeItems(wanted).map(({ productId, qty }) => ({
          productId,
          qty,
          priceMinor: prices.get(productId)?.priceMinor ?? -1
        }))
        const total = Number(lines.reduce((sum, line) => sum + BigInt(line.qty) * BigInt(line.priceMinor), 0n))
        expect(quote(mergeItems(wanted), prices, named ? of : undefined)).toEqual(
          Result.succeed(
            new Quote({
              lines,
              itemsMinor: total,
              discountMinor: 0,
              taxMinor: 0,
              shippingMinor: 0,
              totalMinor: total,
              currency: of
            })
          )
        )
      })
    )
  })

  test("has a total of items less discount plus tax and shipping", () => {
    fc.assert(
      fc.property(order, ({ wanted, prices }) => {
        const { itemsMinor, discountMinor, taxMinor, shippingMinor, totalMinor } = Result.getOrThrow(
          quote(mergeItems(wanted), prices, undefined)
        )
        expect(totalMinor).toBe(itemsMinor - discountMinor + taxMinor + shippingMinor)
      })
    )
  })

  test("costs the same however the lines are ordered", () => {
    fc.assert(
      fc.property(order, ({ wanted, of, prices }) => {
        const total = (lines: ReadonlyArray<Item>) => Result.getOrThrow(quote(lines, prices, of)).totalMinor
        expect(total(wanted.toReversed())).toBe(total(wanted))
        expect(total(mergeItems(wanted))).toBe(total(wanted))
      })
    )
  })

  test("names every product that has no price, and no other", () => {
    fc.assert(
      fc.property(order, fc.array(fc.integer({ min: 1, max: 120 })), ({ wanted, of, prices }, gone) => {
        const missing = new Set(gone.map(product))
        const known = new Map([...prices].filter(([productId]) => !missing.has(productId)))
        const lines = mergeItems(wanted)
        const productIds = lines.map(({ productId }) => productId).filter((productId) => missing.has(productId))
        fc.pre(productIds.length > 0)
        expect(quote(lines, known, of)).toEqual(Result.fail(new ProductNotFound({ productIds })))
      })
    )
  })

  test("names missing products even when the others are sold in another currency", () => {
    const [known, missing] = [product(1), product(2)]
    const asked = [known, missing].map((productId) => ({ productId, qty: 1 }))
    expect(quote(asked, priced("EUR", [known, 100]), "USD")).toEqual(
      Result.fail(new ProductNotFound({ productIds: [missing] }))
    )
  })

  test("is refused when any product is sold in another currency than the one asked for", () => {
    fc.assert(
      fc.property(order, fc.nat(), currency, ({ wanted, of, prices }, at, other) => {
        fc.pre(other !== of)
        const lines = mergeItems(wanted)
        const odd = lines[at % lines.length]?.productId ?? product(0)
        const mixed = new Map([...prices, ...priced(other, [odd, 100])])
        expect(quote(lines, mixed, of)).toEqual(Result.fail(new CurrencyNotSupported({ currency: of })))
        if (lines.length > 1) {
          expect(quote(lines, mixed, undefined)).toEqual(
            Result.fail(new CurrencyNotSupported({ currency: lines[0]?.productId === odd ? other : of }))
          )
        }
      })
    )
  })

  test("is refused, not converted, when no product is sold in the currency asked for", () => {
    fc.assert(
      fc.property(order, currency, ({ wanted, of, prices }, other) => {
        fc.pre(other !== of)
        expect(quote(mergeItems(wanted), prices, other)).toEqual(
          Result.fail(new CurrencyNotSupported({ currency: other }))
        )
      })
    )
  })
})

describe("the largest order there can be", () => {
  const at = DateTime.makeUnsafe("2025-06-01T12:00:00.000Z")
  const everything = Array.from({ length: maxLines }, (_, n) => ({ productId: product(n), qty: 9_900 }))

  test("has the dearest price allowed, and not one unit more", () => {
    const is = Schema.is(PriceMinor)
    expect([0, 1, maxPriceMinor, maxPriceMinor + 1].map((price) => is(price))).toEqual([false, true, true, false])
    expect(Schema.is(Line)({ productId: product(1), qty: 9_900, priceMinor: maxPriceMinor })).toBe(true)
  })

  test("is a valid quote in every currency, exact, and within a double", () => {
    for (const of of Currency.literals) {
      const prices = priced(of, ...everything.map(({ productId }) => [productId, maxPriceMinor] as const))
      const quoted = Result.getOrThrow(quote(everything, prices, of))
      expect(Schema.is(Quote)(quoted)).toBe(true)
      expect(BigInt(quoted.totalMinor)).toBe(100n * 9_900n * BigInt(maxPriceMinor))
      expect(Number.isSafeInteger(quoted.totalMinor)).toBe(true)
      expect(quoted.totalMinor).toBeLessThanOrEqual(maxMinor)
    }
  })

  test("goes through its event and back without losing a unit", () => {
    for (const of of Currency.literals) {
      // Odd in the last digit, so that every decimal place is in use.
      const prices = priced(of, ...everything.map(({ productId }) => [productId, maxPriceMinor - 1] as const))
      const { lines: ordered, ...amounts } = Result.getOrThrow(quote(everything, prices, of))
      const placed = new Order({
        ...amounts,
        orderId: OrderId.make("ORDER-1"),
        userId: UserId.make("USER-1"),
        region: "us",
        status: "PENDING",
        items: ordered,
        reservationId: ReservationId.make("RES-1"),
        paymentAttemptId: null,
        reservationLost: false,
        reviewed: false,
        version: 1,
        createdAt: at,
        updatedAt: at
      })
      const event = created(placed)
      const payload: unknown = JSON.parse(JSON.stringify(event.payload))
      expect(Effect.runSync(evolve(undefined, { ...event, payload, occurredAt: at, region: "us" }))).toEqual(placed)
    }
  })
})
