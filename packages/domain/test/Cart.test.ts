import { describe, expect, test } from "bun:test"
import { Schema } from "effect"
import * as fc from "fast-check"
import { maxQuantity, merge } from "../src/cart/Cart.ts"
import { ProductId } from "../src/kernel/Ids.ts"
import { Item, maxLines } from "../src/pricing/Quote.ts"

const product = (n: number) => ProductId.make(`P${n}`)
const item = (among: number) =>
  fc.record({
    productId: fc.integer({ min: 1, max: among }).map(product),
    qty: fc.integer({ min: 1, max: maxQuantity })
  })

/** A cart: each product once. Often small and overlapping, sometimes full. */
const cart = fc.oneof(
  fc.uniqueArray(item(15), { selector: ({ productId }) => productId, maxLength: 12 }),
  fc.uniqueArray(item(250), {
    selector: ({ productId }) => productId,
    minLength: 60,
    maxLength: maxLines,
    size: "max"
  }),
  fc.uniqueArray(item(250), { selector: ({ productId }) => productId, minLength: maxLines, maxLength: maxLines })
)
/** A list of items as somebody may send it: the same product more than once. */
const list = fc.array(item(8), { maxLength: 30 })

const quantities = (items: ReadonlyArray<Item>) => new Map(items.map(({ productId, qty }) => [productId, qty]))
const products = (items: ReadonlyArray<Item>) => items.map(({ productId }) => productId)
const together = (...carts: ReadonlyArray<ReadonlyArray<Item>>) => new Set(carts.flatMap(products)).size

describe("merging carts", () => {
  test("quantities of the same product add up, at most 99 a line", () => {
    fc.assert(
      fc.property(cart, cart, (into, from) => {
        const [before, added] = [quantities(into), quantities(from)]
        for (const { productId, qty } of merge(into, from)) {
          expect(qty).toBe(Math.min(99, (before.get(productId) ?? 0) + (added.get(productId) ?? 0)))
        }
      })
    )
  })

  test("a product that the guest's list names twice counts twice", () => {
    fc.assert(
      fc.property(list, (from) => {
        const sums = new Map<ProductId, number>()
        for (const { productId, qty } of from) sums.set(productId, (sums.get(productId) ?? 0) + qty)
        const capped = [...sums].map(([productId, qty]) => ({ productId, qty: Math.min(99, qty) }))
        expect(merge([], from)).toEqual(capped)
      })
    )
  })

  test("every line of the target stays in its place, with at least what it had", () => {
    fc.assert(
      fc.property(cart, cart, (into, from) => {
        const merged = merge(into, from).slice(0, into.length)
        expect(products(merged)).toEqual(products(into))
        expect(merged.every(({ qty }, index) => qty >= (into[index]?.qty ?? 100))).toBe(true)
      })
    )
  })

  test("the guest's first products are taken for as long as there is room, and then none", () => {
    fc.assert(
      fc.property(cart, cart, (into, from) => {
        const known = new Set(products(into))
        const fresh = products(from).filter((productId) => !known.has(productId))
        expect(products(merge(into, from))).toEqual([...products(into), ...fresh.slice(0, maxLines - into.length)])
      })
    )
  })

  test("a full cart still takes more of the products it has", () => {
    const full = Array.from({ length: maxLines }, (_, n) => ({ productId: product(n), qty: 1 }))
    const merged = merge(full, [
      { productId: product(1_000), qty: 5 },
      { productId: product(maxLines - 1), qty: 5 }
    ])
    expect(merged).toEqual(full.with(maxLines - 1, { productId: product(maxLines - 1), qty: 6 }))
  })

  test("what comes out is a cart again: valid lines, each product once, at most 100", () => {
    const isCart = Schema.is(Schema.Array(Item).check(Schema.isMaxLength(100)))
    fc.assert(
      fc.property(cart, fc.oneof(cart, list), (into, from) => {
        const merged = merge(into, from)
        expect(isCart(merged)).toBe(true)
        expect(together(merged)).toBe(merged.length)
      })
    )
  })

  test("merging nothing changes nothing, and merging into nothing copies", () => {
    fc.assert(
      fc.property(cart, (items) => {
        expect(merge(items, [])).toEqual(items)
        expect(merge([], items)).toEqual(items)
      })
    )
  })

  test("merging again brings no new products, and nothing at all once the lines are at 99", () => {
    fc.assert(
      fc.property(cart, cart, (into, from) => {
        const once = merge(into, from)
        expect(products(merge(once, from))).toEqual(products(once))
        let all = once
        for (let n = 0; n < maxQuantity; n++) all = merge(all, from)
        expect(merge(all, from)).toEqual(all)
      }),
      { numRuns: 30 }
    )
  })

  test("which cart goes into which makes no difference to the quantities while everything fits", () => {
    fc.assert(
      fc.property(cart, cart, (one, other) => {
        fc.pre(together(one, other) <= maxLines)
        expect(quantities(merge(one, other))).toEqual(quantities(merge(other, one)))
      })
    )
  })

  test("which carts are merged first makes no difference while everything fits", () => {
    fc.assert(
      fc.property(cart, cart, cart, (a, b, c) => {
        fc.pre(together(a, b, c) <= maxLines)
        expect(merge(merge(a, b), c)).toEqual(merge(a, merge(b, c)))
      })
    )
  })

  test("neither cart is changed by it", () => {
    fc.assert(
      fc.property(cart, cart, (into, from) => {
        const before = structuredClone([into, from])
        merge(into, from)
        expect([into, from]).toEqual(before)
      })
    )
  })
})
