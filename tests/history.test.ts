// A shop with a past: what `merkato load --history` writes adds up as if it had happened, and the shop goes on with it.
import { expect, test } from "bun:test"
import { Effect, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { join } from "node:path"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import * as History from "../apps/merkato/src/history/History.ts"
import { emailOf } from "../apps/merkato/src/history/People.ts"
import { lookInto, wrongAtRest } from "./support/Audit.ts"
import { Client, text, tokenFor } from "./support/Client.ts"
import { startApp, temporaryFolder } from "./support/Processes.ts"

const size = { products: 200, customers: 500, orders: 3_000, days: 300, besideOrders: false }

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
  return { url, folder: folder.path, visitor: new Client(running.url) }
})

/** Whether there are notifications, processes and bookings of gateways, and none that are older than a shop keeps them. */
const kept = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<Readonly<Record<string, boolean>>>`
    with newest as (select max(created_at) as at from orders.orders)
    select (select min(created_at) > newest.at - interval '91 days' from notifications.notifications) as notifications,
      (select min(begun_at) > newest.at - interval '31 days' from orders.sagas) as processes,
      (select min(created_at) > newest.at - interval '181 days' from psp.attempts) as bookings
    from newest`
)

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
        // Of what contexts forget it has the young only.
        const [lately] = await lookInto(url, kept)
        expect(lately).toEqual({ notifications: true, processes: true, bookings: true })

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
        // What is a week old may be forgotten; what is younger is missed.
        await lookInto(
          url,
          Effect.flatMap(
            SqlClient.SqlClient,
            (sql) => sql`
              delete from bus.log where event_id = (
                select event_id from bus.log where topic = 'order.events' and published_at < (select max(published_at) from bus.log) - interval '3 days'
                order by published_at desc limit 1)`
          )
        )
        const missed = await lookInto(url, wrongAtRest)
        expect(missed.join()).toContain("every event of orders is on the bus")
        expect(missed.join()).toContain("the bus has no gaps")
      })
    }).pipe(Effect.scoped, Effect.runPromise),
  120_000
)

/** How many of each there are, and how much was told of it. */
const census = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<Readonly<Record<string, number>>>`
    select (select count(*) from catalogue.products) as products, (select count(*) from identity.users) as customers,
      (select count(*) from orders.orders) as orders, (select count(distinct email) from identity.users) as emails,
      (select count(distinct order_id) from payments.payments where status = 'CAPTURED') as paid`
)

const program = join(import.meta.dir, "../apps/merkato/src/main.ts")

const historyCommand = (url: Redacted.Redacted, dataDir: string) =>
  Bun.spawn(
    [process.execPath, program, "load", "--history", "--data-dir", dataDir].concat([
      "--products",
      "100",
      "--customers",
      "3000",
      "--orders",
      "4000",
      "--days",
      "3"
    ]),
    { env: { ...process.env, DATABASE_URL: Redacted.value(url) }, stdout: "pipe", stderr: "pipe" }
  )

test(
  "a history that is killed in the middle is gone on with, and is written once however often it is asked for",
  () =>
    Effect.gen(function* () {
      const { url, folder } = yield* shop
      yield* Effect.promise(async () => {
        const killed = historyCommand(url, folder)
        const begun = async () =>
          lookInto(
            url,
            Effect.flatMap(SqlClient.SqlClient, (sql) =>
              sql<{ orders: number }>`select count(*) as orders from orders.orders`.pipe(
                Effect.map(([row]) => row?.orders ?? 0)
              )
            )
          )
        // It is killed once some of its orders are there; should it be done by then, it is only asked for twice.
        while ((await begun()) === 0 && killed.exitCode === null) await Bun.sleep(20)
        killed.kill("SIGKILL")
        await killed.exited

        const again = historyCommand(url, folder)
        const said = await new Response(again.stdout).text()
        expect(await again.exited).toBe(0)
        expect(said).toMatch(/4,000 orders in .*orders\/s.*bytes an order|nothing was changed/)
        expect(await lookInto(url, wrongAtRest)).toEqual([])
        const counted = (await lookInto(url, census))[0] ?? {}
        expect(counted).toMatchObject({ products: 100, customers: 3_000, orders: 4_000, emails: 3_000 })

        const third = historyCommand(url, folder)
        expect(await new Response(third.stdout).text()).toBe(
          "This shop has this history already; nothing was changed.\n"
        )
        expect((await lookInto(url, census))[0]).toEqual(counted)
      })
      const other = yield* Effect.flip(History.load(url, { ...size, besideOrders: true }))
      expect(other.reason).toContain("has a history of 100 products, 3000 customers and 4000 orders already")
    }).pipe(Effect.scoped, Effect.runPromise),
  180_000
)

test(
  "a shop in which somebody has ordered is left alone unless it is meant",
  () =>
    Effect.gen(function* () {
      const { url, folder, visitor } = yield* shop
      yield* Effect.promise(async () => {
        const admin = visitor.as(await tokenFor(folder, "ADMIN", "admin"))
        const product = { sku: "KIWI", name: "Kiwi", category: "Fruit", price: 20, currency: "USD" }
        const productId = text(await admin.post("/api/v1/products", product), "productId")
        await admin.post(`/api/v1/inventory/${productId}/adjustments`, { delta: 10, reason: "delivery" })
        const shopper = visitor.as(await tokenFor(folder, "USER-1", "shopper"))
        const placed = await shopper.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key: "mine" })
        expect(placed.status).toBe(201)
      })
      const refused = yield* Effect.flip(History.load(url, size))
      expect(refused.reason).toContain("--beside-orders")
      expect((yield* Effect.promise(() => lookInto(url, census)))[0]).toMatchObject({ orders: 1, customers: 0 })
      const small = { ...size, orders: 40, days: 1, besideOrders: true }
      expect((yield* History.load(url, small)).written).toBe(true)
      yield* Effect.promise(async () => expect(await lookInto(url, wrongAtRest)).toEqual([]))
    }).pipe(Effect.scoped, Effect.runPromise),
  120_000
)
