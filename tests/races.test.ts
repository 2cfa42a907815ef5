import { expect, test } from "bun:test"
import { Effect, Result } from "effect"
import type { ProductId } from "@merkato/domain/kernel/Ids"
import { OutOfStock } from "@merkato/domain/inventory/Stock"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { booksBalance } from "./support/Books.ts"
import { inShop } from "./support/InProcess.ts"
import { cancel, onShelf, place } from "./support/Market.ts"
import { withShop } from "./support/ShopProcess.ts"

const many = (count: number) => Array.from({ length: count }, (_, nth) => nth)

/** All at the same moment. */
const atOnce = { concurrency: "unbounded" } as const

/** How placements ended, one way or the other; anything but an order or a lack of stock fails the test. */
const ended = <E>(results: ReadonlyArray<Result.Result<{ readonly answer: { readonly orderId: string } }, E>>) => {
  const orders: Array<string> = []
  const refusals: Array<OutOfStock> = []
  for (const result of results) {
    if (Result.isSuccess(result)) orders.push(result.success.answer.orderId)
    else if (result.failure instanceof OutOfStock) refusals.push(result.failure)
    else throw new Error(`neither an order nor a lack of stock: ${JSON.stringify(result.failure)}`)
  }
  return { orders, refusals }
}

test(
  "200 shoppers who race for 50 units get exactly 50 of them, every time of 20",
  () =>
    inShop(
      Effect.gen(function* () {
        const inventory = yield* InventoryRpc
        for (const round of many(20)) {
          const productId = yield* onShelf(50)
          const results = yield* Effect.forEach(
            many(200),
            (nth) => Effect.result(place(`USER-${nth}`, `round-${round}`, [{ productId, qty: 1 }])),
            atOnce
          )
          const { orders, refusals } = ended(results)
          expect(new Set(orders).size).toBe(50)
          expect(refusals.map(({ products }) => products)).toEqual(
            many(150).map(() => [{ productId, requested: 1, available: 0 }])
          )
          // Stocked once and reserved fifty times.
          expect({ ...(yield* inventory.Levels({ productId })) }).toEqual({
            productId,
            onHand: 50,
            reserved: 50,
            available: 0,
            version: 51
          })
        }
        yield* booksBalance
      })
    ),
  120_000
)

test(
  "200 connections that race for 50 units are all answered: 50 times 201, 150 times 409 with what is left",
  () =>
    withShop(async (shop) => {
      const productId = await shop.onShelf(50)
      const shoppers = await Promise.all(many(200).map((nth) => shop.as(`USER-${nth}`)))
      const answers = await Promise.all(
        shoppers.map((shopper) =>
          shopper.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key: "the-last-fifty" })
        )
      )
      const placed = answers.filter(({ status }) => status === 201)
      const refused = answers.filter(({ status }) => status !== 201)
      expect(new Set(placed.map(({ body }) => body["orderId"])).size).toBe(50)
      expect(refused.map(({ status, body }) => [status, body["code"], body["products"]])).toEqual(
        many(150).map(() => [409, "out_of_stock", [{ productId, requested: 1, available: 0 }]])
      )
      const [first] = shoppers
      expect((await first?.get(`/api/v1/inventory/${productId}`))?.body).toEqual({
        productId,
        onHand: 50,
        reserved: 50,
        available: 0
      })
      await shop.sql(booksBalance)
    }),
  60_000
)

/** The same two products, now in one order and now in the other. */
const basket = (nth: number, apples: ProductId, pears: ProductId) => {
  const items = [
    { productId: apples, qty: 1 + (nth % 3) },
    { productId: pears, qty: 1 + (nth % 2) }
  ]
  return nth % 2 === 0 ? items : items.toReversed()
}

test(
  "orders of two products in opposite order all end, with an order or with what is missing",
  () =>
    inShop(
      Effect.gen(function* () {
        const inventory = yield* InventoryRpc
        for (const round of many(5)) {
          const [apples, pears] = [yield* onShelf(150), yield* onShelf(120)]
          const results = yield* Effect.forEach(
            many(200),
            (nth) => Effect.result(place(`USER-${nth}`, `round-${round}`, basket(nth, apples, pears))),
            atOnce
          )
          const { orders, refusals } = ended(results)
          expect(orders.length + refusals.length).toBe(200)
          const taken = { apples: 0, pears: 0 }
          for (const [nth, result] of results.entries()) {
            if (Result.isFailure(result)) continue
            taken.apples += 1 + (nth % 3)
            taken.pears += 1 + (nth % 2)
          }
          expect(yield* inventory.Levels({ productId: apples })).toMatchObject({ reserved: taken.apples })
          expect(yield* inventory.Levels({ productId: pears })).toMatchObject({ reserved: taken.pears })
          // Who was refused asked for more than there was, of each product named.
          for (const { products } of refusals) {
            expect(products.length).toBeGreaterThan(0)
            expect(products.filter(({ requested, available }) => requested <= available)).toEqual([])
          }
          // Nobody was refused who could have been served.
          const left = { apples: 150 - taken.apples, pears: 120 - taken.pears }
          for (const [nth, result] of results.entries()) {
            if (Result.isFailure(result)) {
              expect(left.apples < 1 + (nth % 3) || left.pears < 1 + (nth % 2)).toBe(true)
            }
          }
        }
        yield* booksBalance
      })
    ),
  60_000
)

test(
  "units that come back from canceled orders are sold again, and none is lost between buying and canceling",
  () =>
    inShop(
      Effect.gen(function* () {
        const inventory = yield* InventoryRpc
        const [apples, pears] = [yield* onShelf(40), yield* onShelf(40)]
        // Everybody buys, gives back what they got and buys again; the last purchase stays.
        const results = yield* Effect.forEach(
          many(60),
          Effect.fnUntraced(function* (nth) {
            const user = `USER-${nth}`
            for (const time of many(3)) {
              const bought = yield* Effect.result(place(user, `time-${time}`, basket(nth, apples, pears)))
              if (Result.isSuccess(bought)) yield* cancel(user, bought.success.answer.orderId)
            }
            return yield* Effect.result(place(user, "last", basket(nth, apples, pears)))
          }),
          { concurrency: 60 }
        )
        expect(ended(results).orders.length).toBeGreaterThan(0)
        yield* booksBalance
        const { onHand, reserved, available } = yield* inventory.Levels({ productId: apples })
        const kept = results
          .entries()
          .reduce((sum, [nth, result]) => sum + (Result.isSuccess(result) ? 1 + (nth % 3) : 0), 0)
        expect({ onHand, reserved, available }).toEqual({ onHand: 40, reserved: kept, available: 40 - kept })
      })
    ),
  60_000
)
