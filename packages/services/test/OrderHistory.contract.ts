// What whoever keeps the orders of customers promises, in Postgres or elsewhere.
import { expect } from "bun:test"
import { Effect } from "effect"
import { Sku } from "@merkato/domain/catalogue/Product"
import { IdempotencyKey, UserId } from "@merkato/domain/kernel/Ids"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { as } from "./Requests.ts"

export const admin = as("ADMIN", "admin")

let keys = 0
export const idempotencyKey = () => IdempotencyKey.make(`key-${++keys}`)

/** A product for this much, of which there is enough. */
export const product = (sku: string, priceMinor: number) =>
  admin(
    Effect.gen(function* () {
      const { productId } = yield* (yield* CatalogueRpc).AddProduct({
        sku: Sku.make(sku),
        name: sku,
        description: "",
        category: "test",
        priceMinor,
        currency: "USD"
      })
      yield* (yield* InventoryRpc).Adjust({ productId, delta: 100, reason: "delivery" })
      return productId
    })
  )

/** Customers see their orders newest first, page by page, and nobody else's; once it is known what they did. */
export const customersSeeTheirOrders = <E, R>(untilKnown: Effect.Effect<unknown, E, R>) =>
  Effect.gen(function* () {
    const orders = yield* OrdersRpc
    const productId = yield* product("PLUM", 200)
    const place = (qty: number) =>
      Effect.map(
        orders.Place({ idempotencyKey: idempotencyKey(), items: [{ productId, qty }] }),
        ({ answer }) => answer
      )
    const [ada, bob] = [as("ADA", "shopper", "eu"), as("BOB", "shopper")]
    const placed = yield* ada(Effect.forEach([1, 2, 3, 4, 5], place))
    yield* bob(place(1))
    const [first, second] = placed
    if (first === undefined || second === undefined) throw new Error("there are no orders")
    yield* ada(
      orders.Pay({
        idempotencyKey: idempotencyKey(),
        orderId: first.orderId,
        paymentToken: PaymentToken.make("tok_ok"),
        rail: "auto"
      })
    )
    yield* admin(orders.Fulfil({ orderId: first.orderId }))
    yield* ada(orders.Cancel({ orderId: second.orderId }))
    yield* untilKnown

    const userId = UserId.make("ADA")
    const pages: Array<
      ReadonlyArray<{ readonly orderId: string; readonly status: string; readonly totalMinor: number }>
    > = []
    let cursor: string | null = null
    do {
      const page: { readonly items: (typeof pages)[number]; readonly nextCursor: string | null } = yield* ada(
        orders.ListOfCustomer({ userId, limit: 2, ...(cursor === null ? {} : { cursor }) })
      )
      pages.push(page.items.map(({ orderId, status, totalMinor }) => ({ orderId, status, totalMinor })))
      cursor = page.nextCursor
    } while (cursor !== null)
    const statuses = ["FULFILLED", "CANCELED", "PENDING", "PENDING", "PENDING"]
    const expected = placed
      .map(({ orderId, totalMinor }, nth) => ({ orderId, status: statuses[nth], totalMinor }))
      .toReversed()
    expect(pages.map((page) => page.length)).toEqual([2, 2, 1])
    expect<unknown>(pages.flat()).toEqual(expected)

    const { items } = yield* admin(orders.ListOfCustomer({ userId, limit: 1 }))
    expect(items[0]).toMatchObject({ userId: "ADA", region: "eu", items: 1, currency: "USD", version: 1 })
    expect(yield* bob(Effect.flip(orders.ListOfCustomer({ userId, limit: 1 })))).toMatchObject({ _tag: "Forbidden" })
    const strange = orders.ListOfCustomer({ userId, limit: 1, cursor: "bm90IG91cnM" })
    expect(yield* ada(Effect.flip(strange))).toMatchObject({ _tag: "InvalidValue" })
  })
