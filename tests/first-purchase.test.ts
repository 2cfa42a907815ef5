import { expect, test } from "bun:test"
import { Effect, Schedule } from "effect"
import { Sku } from "@merkato/domain/catalogue/Product"
import { IdempotencyKey } from "@merkato/domain/kernel/Ids"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { NotificationsRpc } from "@merkato/rpc/notifications/NotificationsRpc"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { as, inShop } from "./support/InProcess.ts"

const admin = as("ADMIN", "admin")
const ada = as("ADA", "shopper")

test(
  "a shopper buys what an administrator put on the shelf, and is told so",
  () =>
    inShop(
      Effect.gen(function* () {
        const catalogue = yield* CatalogueRpc
        const inventory = yield* InventoryRpc
        const orders = yield* OrdersRpc
        const { productId } = yield* admin(
          catalogue.AddProduct({
            sku: Sku.make("MILK"),
            name: "Milk",
            description: "",
            category: "Dairy",
            priceMinor: 119,
            currency: "USD"
          })
        )
        yield* admin(inventory.Adjust({ productId, delta: 10, reason: "delivery" }))
        const { answer: order } = yield* ada(
          orders.Place({ idempotencyKey: IdempotencyKey.make("one"), items: [{ productId, qty: 3 }] })
        )
        expect(order).toMatchObject({ status: "PENDING", totalMinor: 357, currency: "USD", userId: "ADA" })
        expect(yield* inventory.Levels({ productId })).toMatchObject({ onHand: 10, reserved: 3, available: 7 })
        const { answer: paid } = yield* ada(
          orders.Pay({
            idempotencyKey: IdempotencyKey.make("two"),
            orderId: order.orderId,
            paymentToken: PaymentToken.make("tok_ok"),
            rail: "auto"
          })
        )
        expect(paid.status).toBe("PAID")
        expect(yield* inventory.Levels({ productId })).toMatchObject({ onHand: 7, reserved: 0, available: 7 })
        const notifications = yield* NotificationsRpc
        const feed = yield* ada(notifications.List({ limit: 10 })).pipe(
          Effect.repeat({
            until: ({ items }) => items.length === 2,
            schedule: Schedule.spaced("20 millis"),
            times: 250
          })
        )
        expect(feed.items.map(({ kind }) => kind)).toEqual(["order.paid", "order.created"])
      })
    ),
  60_000
)
