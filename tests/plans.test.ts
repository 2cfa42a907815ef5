// How the statements behave when the shop has grown: it gets a past of hundreds of thousands of rows, people shop, and Postgres
// tells the plan of every statement that ran, in the foreground and behind. None may touch more than a few rows.
import { expect, test } from "bun:test"
import { Effect, Layer, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { readFileSync, statSync } from "node:fs"
import { dirname, join } from "node:path"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import * as History from "../apps/merkato/src/history/History.ts"
import { type Answer, Client, text, tokenFor } from "./support/Client.ts"
import { startApp, temporaryFolder } from "./support/Processes.ts"
import { until } from "./support/Until.ts"

/** The past of the shop: all of it within a day, so that nothing of it is forgotten yet. */
const past = { products: 3_000, customers: 12_000, orders: 12_000, days: 1, besideOrders: true }
/** What a statement may touch in one step of its plan; pages of lists and batches of consumers have at most 500. */
const fewRows = 1_000

const settings = {
  fsync: "off",
  full_page_writes: "off",
  synchronous_commit: "off",
  autovacuum: "off",
  session_preload_libraries: "auto_explain",
  "auto_explain.log_analyze": "on",
  "auto_explain.log_timing": "off",
  "auto_explain.log_format": "json"
}

interface Plan {
  readonly "Node Type": string
  readonly "Relation Name"?: string
  readonly "Index Name"?: string
  readonly "Actual Rows": number
  readonly "Actual Loops": number
  readonly "Rows Removed by Filter"?: number
  readonly "Rows Removed by Index Recheck"?: number
  readonly Plans?: ReadonlyArray<Plan>
}
interface Explained {
  readonly "Query Text": string
  readonly Plan: Plan
}

const nodes = (plan: Plan): ReadonlyArray<Plan> => [plan, ...(plan.Plans ?? []).flatMap(nodes)]

/** An index of words gives its matches as a map of their places: none of them has been looked at yet. */
const mapsOfWords: ReadonlySet<string | undefined> = new Set(["products_search", "products_name_search"])

/** Rows that a step looked at, whether it kept them or not. */
const touched = (plan: Plan) =>
  mapsOfWords.has(plan["Index Name"])
    ? 0
    : (plan["Actual Rows"] + (plan["Rows Removed by Filter"] ?? 0) + (plan["Rows Removed by Index Recheck"] ?? 0)) *
      plan["Actual Loops"]

/** The plans in a piece of the server's log. */
const explained = (log: string): ReadonlyArray<Explained> =>
  [...log.matchAll(/plan:\n((?:\t.*\n)+)/g)].map(
    ([, json = ""]) => JSON.parse(json.replaceAll(/^\t/gm, "")) as Explained
  )

const items = ({ body }: Answer): ReadonlyArray<Readonly<Record<string, unknown>>> =>
  Array.isArray(body["items"]) ? body["items"] : []

/** Partners of years: one is owed much, and has been told much; others want to hear of what does not happen here. */
const partnersOfYears = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`
    insert into partners.webhook_subscriptions
      (subscription_id, owner_id, hears_all, url, event_types, status, secret, created_at)
    select 'HOOK-' || n, 'USER-' || n, false, 'https://hooks.example.com', '{of.none}', 'ACTIVE', '', '2026-01-01'
    from generate_series(1, 3000) n`
  yield* sql`
    insert into partners.webhook_deliveries
      (delivery_id, subscription_id, aggregate_id, event_id, event_type, body, status, attempts, created_at)
    select 'DLV-' || n, 'HOOK-1', 'ORDER-' || n / 2, 'E-' || n, 'of.none', '{}',
      case n % 2 when 0 then 'PENDING' else 'DELIVERED' end, 1, now()
    from generate_series(1, 20000) n`
  yield* sql`
    insert into partners.webhook_delivery_attempts (delivery_id, attempted_at, duration_ms, request_headers)
    select 'DLV-' || n, now(), 1, '{}' from generate_series(1, 20000) n`
  yield* sql`
    insert into partners.webhook_delays (group_id, key, due_at, arrivals)
    select 'HOOK-1', 'ORDER-' || n, now() + interval '1 day', 1 from generate_series(1, 10000) n`
  for (const table of ["subscriptions", "deliveries", "delivery_attempts", "delays"]) {
    yield* sql.unsafe(`analyze partners.webhook_${table}`)
  }
})

/** What people do in a shop, once; `tag` makes it theirs. */
const shopping = async (url: string, dataDir: string, tag: string) => {
  const visitor = new Client(url)
  const admin = visitor.as(await tokenFor(dataDir, "ADMIN", "admin"))
  const account = { email: `${tag}@example.com`, password: "correct horse battery" }
  await visitor.post("/api/v1/customers", { ...account, name: "Ada" })
  const session = await visitor.post("/api/v1/sessions", account)
  const ada = visitor.as(text(session, "accessToken"))
  await visitor.post("/api/v1/sessions/refresh", { refreshToken: text(session, "refreshToken") })
  const product = { sku: `SKU-${tag}`, name: `Kiwi ${tag}`, category: `Fruit ${tag}`, price: 1, currency: "USD" }
  const productId = text(await admin.post("/api/v1/products", product), "productId")
  // The shop is its own partner: it takes what it tells for a visitor who wants a cart.
  const types = ["created", "paid"].map((what) => `ecommerce.order.order.${what}.v1`)
  const hook = await ada.post("/api/v1/webhooks/subscriptions", { url: `${url}/api/v1/carts`, eventTypes: types })
  expect(hook.status).toBe(201)
  await admin.request("PATCH", `/api/v1/products/${productId}`, { body: { description: `fresh ${tag}` } })
  await admin.request("PUT", `/api/v1/products/${productId}/price`, {
    body: { price: 2, currency: "USD", reason: "harvest" }
  })
  await admin.post(`/api/v1/inventory/${productId}/adjustments`, { delta: 100, reason: "delivery" })
  for (const path of [
    `products/${productId}`,
    `products/${productId}/prices`,
    `products?q=${tag}`,
    // In every description, and in the names of many.
    "products?q=growers",
    "products?q=apples",
    `products?category=Fruit%20${tag}`,
    "products",
    "categories",
    `inventory/${productId}`
  ]) {
    expect((await visitor.get(`/api/v1/${path}`)).status).toBe(200)
  }
  const guestCart = await visitor.post("/api/v1/carts")
  const guest = visitor.as(text(guestCart, "guestToken"))
  const fill = (who: Client, cartId: string) =>
    who.request("PUT", `/api/v1/carts/${cartId}/items/${productId}`, { body: { qty: 2 } })
  await fill(guest, text(guestCart, "cartId"))
  const cartId = text(await ada.post("/api/v1/carts"), "cartId")
  await ada.post(`/api/v1/carts/${cartId}/merge`, { guestToken: text(guestCart, "guestToken") })
  await fill(ada, cartId)
  const paymentToken = "tok_ok"
  const bought = await ada.post("/api/v1/checkout", { cartId, paymentToken }, { key: `c-${tag}` })
  expect([bought.status, bought.body["status"]]).toEqual([201, "PAID"])
  const place = async (nth: number) =>
    text(await ada.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key: `o-${tag}-${nth}` }), "orderId")
  const [paid, canceled] = [await place(1), await place(2)]
  expect((await ada.post(`/api/v1/orders/${paid}/pay`, { paymentToken }, { key: `p-${tag}` })).status).toBe(200)
  await ada.post(`/api/v1/orders/${canceled}/cancel`)
  expect((await admin.post(`/api/v1/orders/${paid}/fulfil`)).status).toBe(200)
  const declined = { paymentToken: "tok_declined" }
  await ada.post(`/api/v1/orders/${await place(3)}/pay`, declined, { key: `d-${tag}` })
  for (const path of ["orders", `orders/${paid}`, `orders/${paid}/history`, "notifications"]) {
    expect((await ada.get(`/api/v1/${path}`)).status).toBe(200)
  }
  for (const path of ["/api/v1/orders", `/ops/sagas/${paid}`, "/ops/risk/assessments"]) {
    expect((await admin.get(path)).status).toBe(200)
  }
  const hooks = "/api/v1/webhooks/subscriptions"
  const [subscription] = items(await ada.get(hooks))
  const path = `${hooks}/${String(subscription?.["subscriptionId"])}`
  const told = await until(
    async () => items(await ada.get(`${path}/deliveries?status=DELIVERED`)),
    (all) => all.length > 0
  )
  const deliveryId = String(told[0]?.["deliveryId"])
  expect((await ada.get(`/api/v1/webhooks/deliveries/${deliveryId}`)).status).toBe(200)
  expect((await ada.post(`/api/v1/webhooks/deliveries/${deliveryId}/redeliver`)).status).toBe(202)
  expect((await ada.post(`${path}/replay`, { after: deliveryId })).status).toBe(202)
  expect((await ada.post(`${path}/rotate-secret`)).status).toBe(200)
  await ada.request("DELETE", "/api/v1/sessions")
}

test(
  "no statement touches more than a few rows, however many there are",
  () =>
    Effect.gen(function* () {
      const { url } = yield* TestDatabase.temporary("merkato-plans-", settings)
      const folder = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
      /** Opens a shop, lets people in, and closes it when what they did has had its effects. */
      const open = (tags: ReadonlyArray<string>) =>
        Effect.gen(function* () {
          const shop = yield* Effect.acquireRelease(
            Effect.promise(() =>
              startApp("shop", ["--no-seed", "--data-dir", folder.path], {
                DATABASE_URL: Redacted.value(url),
                MERKATO_TRACE_SAMPLING: "0",
                MERKATO_WEBHOOKS_ALLOW_PRIVATE: "true"
              })
            ),
            ({ end }) => Effect.promise(() => end("SIGTERM"))
          )
          for (const tag of tags) yield* Effect.promise(() => shopping(shop.url, folder.path, tag))
          yield* Effect.sleep("4 seconds")
        }).pipe(Effect.scoped)
      const database = yield* Layer.build(
        Database.layer({ url, maxConnections: 1, applicationName: "test", statementTimeoutMs: 0 })
      )
      const grow = Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* History.load(url, past)
        yield* partnersOfYears
        yield* sql`alter system set auto_explain.log_min_duration = 0`
        yield* sql`select pg_reload_conf()`
        const [size] = yield* sql<{ orders: number; events: number; folder: string }>`
          select (select count(*) from orders.orders) as orders, (select count(*) from orders.events) as events,
            current_setting('data_directory') as folder`
        return size ?? { orders: 0, events: 0, folder: "" }
      })

      yield* open(["one", "two", "three"])
      const { orders, events, folder: cluster } = yield* Effect.provide(grow, database)
      expect(orders).toBeGreaterThan(past.orders)
      const log = join(dirname(cluster), "postgres.log")
      const from = statSync(log).size
      yield* open(["four", "five"])
      const plans = explained(readFileSync(log, "utf8").slice(from))
      const statements = new Set(plans.map((plan) => plan["Query Text"]))
      console.log(`${statements.size} statements, ${plans.length} plans, ${orders} orders, ${events} events`)
      const greedy = plans.flatMap((plan) =>
        nodes(plan.Plan)
          .filter((node) => touched(node) > fewRows)
          .map((node) => ({
            statement: plan["Query Text"].trim(),
            step: `${node["Node Type"]} ${node["Index Name"] ?? node["Relation Name"] ?? ""}`,
            rows: touched(node)
          }))
      )
      expect(statements.size).toBeGreaterThan(80)
      expect(greedy).toEqual([])
    }).pipe(Effect.scoped, Effect.runPromise),
  300_000
)
