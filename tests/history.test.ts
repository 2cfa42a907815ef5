// A shop with a past: what `merkato load --history` writes adds up as if it had happened, and the shop goes on with it.
import { expect, test } from "bun:test"
import { Effect, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import * as History from "../apps/merkato/src/history/History.ts"
import { emailOf } from "../apps/merkato/src/history/People.ts"
import { lookInto, wrongAtRest } from "./support/Audit.ts"
import { Client, text } from "./support/Client.ts"
import { startApp, temporaryFolder } from "./support/Processes.ts"

const size = { products: 200, customers: 500, orders: 3_000, days: 30, besideOrders: false }

/** A shop on a database of its own. */
const shop = Effect.gen(function* () {
  const { url } = yield* TestDatabase.fresh
  const folder = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
  const running = yield* Effect.acquireRelease(
    Effect.promise(() =>
      startApp("shop", ["--no-seed", "--data-dir", folder.path], {
        DATABASE_URL: Redacted.value(url),
        MERKATO_TRACE_SAMPLING: "0"
      })
    ),
    ({ end }) => Effect.promise(() => end("SIGTERM"))
  )
  return { url, visitor: new Client(running.url) }
})

/** Signs a customer of the history in. */
const signIn = async (visitor: Client, n: number) =>
  visitor.as(
    text(await visitor.post("/api/v1/sessions", { email: emailOf(n), password: History.password }), "accessToken")
  )

const someProduct = async (visitor: Client, word: string) => {
  const { body } = await visitor.get(`/api/v1/products?q=${word}&limit=1`)
  const [product] = Array.isArray(body["items"]) ? body["items"] : []
  return String(Object(product)["productId"])
}

test(
  "a history adds up, customers of it see their orders and buy more, and then it still adds up",
  () =>
    Effect.gen(function* () {
      const { url, visitor } = yield* shop
      const loaded = yield* History.load(url, size)
      expect({ written: loaded.written, orders: loaded.orders }).toEqual({ written: true, orders: size.orders })
      yield* Effect.promise(async () => {
        expect(await lookInto(url, wrongAtRest)).toEqual([])

        const customer = await signIn(visitor, 3)
        const { body } = await customer.get("/api/v1/orders?limit=100")
        const orders = Array.isArray(body["items"]) ? body["items"].map(Object) : []
        expect(orders.length).toBeGreaterThan(2)
        const [newest] = orders
        const history = await customer.get(`/api/v1/orders/${newest["orderId"]}/history`)
        expect(history.status).toBe(200)

        const productId = await someProduct(visitor, "apples")
        const cartId = text(await customer.post("/api/v1/carts"), "cartId")
        await customer.request("PUT", `/api/v1/carts/${cartId}/items/${productId}`, { body: { qty: 2 } })
        const bought = await customer.post("/api/v1/checkout", { cartId, paymentToken: "tok_ok" }, { key: "now" })
        expect([bought.status, bought.body["status"]]).toEqual([201, "PAID"])
        const items = [{ productId, qty: 1 }]
        const placed = await customer.post("/api/v1/orders", { items }, { key: "now-too" })
        expect(placed.status).toBe(201)

        expect(await lookInto(url, wrongAtRest)).toEqual([])
      })
    }).pipe(Effect.scoped, Effect.runPromise),
  120_000
)
