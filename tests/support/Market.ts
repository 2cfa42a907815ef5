import { ConfigProvider, Context, Effect, Layer, type Scope } from "effect"
import type { PgClient } from "@effect/sql-pg"
import type { SqlClient } from "effect/sql"
import { Sku } from "@merkato/domain/catalogue/Product"
import { IdempotencyKey, type OrderId, type ProductId } from "@merkato/domain/kernel/Ids"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import type { Switchboard } from "@merkato/rpc/contract/Contract"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { patientCircuits } from "./Circuits.ts"
import { as, type clients, contextsOn } from "./InProcess.ts"
import { temporaryFolder } from "./Processes.ts"

export const admin = as("ADMIN", "admin")
export const shopper = (userId: string) => as(userId, "shopper")

let products = 0

/** A new product with so many units on the shelf, for 1.00 USD each. */
export const onShelf = Effect.fnUntraced(function* (units: number) {
  const nth = ++products
  const { productId } = yield* admin(
    (yield* CatalogueRpc).AddProduct({
      sku: Sku.make(`SKU-${nth}`),
      name: `Product ${nth}`,
      description: "",
      category: "Test",
      priceMinor: 100,
      currency: "USD"
    })
  )
  yield* admin((yield* InventoryRpc).Adjust({ productId, delta: units, reason: "delivery" }))
  return productId
})

/** Somebody orders something, under a key of their own. */
export const place = Effect.fnUntraced(function* (
  userId: string,
  key: string,
  items: ReadonlyArray<{ readonly productId: ProductId; readonly qty: number }>
) {
  const orders = yield* OrdersRpc
  return yield* shopper(userId)(orders.Place({ idempotencyKey: IdempotencyKey.make(key), items }))
})

/** Somebody pays an order, under a key of their own. */
export const pay = Effect.fnUntraced(function* (userId: string, key: string, orderId: OrderId, token = "tok_ok") {
  const orders = yield* OrdersRpc
  return yield* shopper(userId)(
    orders.Pay({
      idempotencyKey: IdempotencyKey.make(key),
      orderId,
      paymentToken: PaymentToken.make(token),
      rail: "auto"
    })
  )
})

export const cancel = Effect.fnUntraced(function* (userId: string, orderId: OrderId) {
  return yield* shopper(userId)((yield* OrdersRpc).Cancel({ orderId }))
})

/** Runs a test against all contexts in this process, set up as the environment would do it. */
export const inShopSetUp = <A, E>(
  environment: Readonly<Record<string, string>>,
  test: Effect.Effect<
    A,
    E,
    Layer.Success<typeof clients> | SqlClient.SqlClient | PgClient.PgClient | Switchboard | Scope.Scope
  >
): Promise<A> =>
  Effect.gen(function* () {
    const database = yield* TestDatabase.fresh
    const folder = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
    patientCircuits(folder.path)
    const context = yield* Layer.build(
      contextsOn(database.url, folder.path).pipe(
        Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env: environment })))
      )
    )
    return yield* Effect.provideContext(test, Context.merge(yield* Effect.context<Scope.Scope>(), context))
  }).pipe(Effect.scoped, Effect.withTracerEnabled(false), Effect.runPromise)
