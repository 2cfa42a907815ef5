/** What is done in the shop before anybody comes, and when everybody has gone. */
import { Effect, Result } from "effect"
import * as Ids from "@merkato/domain/kernel/Ids"
import { Sku } from "@merkato/domain/catalogue/Product"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import type { Clients } from "../shop/Contracts.ts"
import { as, insist } from "./Asking.ts"
import type { Memory } from "./Memory.ts"

const productCount = 4
const firstUnits = 30

/** Fills the shop before anything goes wrong. */
export const furnish = (memory: Memory): Effect.Effect<void, unknown, Clients> =>
  Effect.gen(function* () {
    const catalogue = yield* CatalogueRpc
    const inventory = yield* InventoryRpc
    const add = (nth: number) =>
      catalogue.AddProduct({
        sku: Sku.make(`SKU-${nth}`),
        name: `Product ${nth}`,
        description: "",
        category: "All",
        priceMinor: 100 * nth + 99,
        currency: "USD"
      })
    for (let nth = 1; nth <= productCount; nth++) {
      const product = yield* add(nth)
      yield* inventory.Adjust({ productId: product.productId, delta: firstUnits, reason: "first stock" })
      memory.products.push(product)
    }
    memory.scarce = yield* add(productCount + 1)
  }).pipe(as("ADMIN-1"))

/** Ends the orders whose goods are kept for a day because of a review: at the end of a run nobody comes any more. */
export const tidyUp = (memory: Memory, orderIds: ReadonlyArray<string>): Effect.Effect<void, never, Clients> =>
  Effect.flatMap(OrdersRpc, (orders) =>
    Effect.forEach(
      orderIds,
      (orderId) =>
        Effect.gen(function* () {
          const order = { orderId: Ids.OrderId.make(orderId) }
          const ended =
            Result.isSuccess(yield* insist(orders.Reject(order))) ||
            Result.isSuccess(yield* insist(orders.Cancel(order)))
          if (ended) memory.note({ _tag: "Canceled", orderId })
        }),
      { discard: true }
    )
  ).pipe(as("ADMIN-1"))
