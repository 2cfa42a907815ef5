// What consumers of the REST surface were shown, by example: each request has to be answered as it was when it was recorded in
// tests/golden/rest-examples.json. What is added to an answer breaks nobody; what changes or goes does.
// MERKATO_UPDATE_GOLDEN=1 records what is new, and what changed on purpose.
import { expect, test } from "bun:test"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { FindMyWay } from "effect/http"
import { HttpApi } from "effect/http-api"
import { Api } from "@merkato/rpc/rest/Api"
import { type Answer, text } from "./support/Client.ts"
import { differences, type Example, Examples } from "./support/Examples.ts"
import { restShop } from "./support/RestShop.ts"
import { until } from "./support/Until.ts"

const golden = join(import.meta.dir, "golden/rest-examples.json")

const receiver = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("thanks") })

/** More than 50 USD is to be looked at. */
const rules = { review: 60, block: 90, amount: { high: { USD: [{ over: 5_000, points: 60 }] } } }
const shop = restShop({ MERKATO_RISK_RULES: JSON.stringify(rules), MERKATO_WEBHOOKS_ALLOW_PRIVATE: "true" })

const itemsOf = ({ body }: Answer): ReadonlyArray<Readonly<Record<string, unknown>>> =>
  Array.isArray(body["items"]) ? body["items"] : []

const identity = async (examples: Examples) => {
  const anyone = examples.of("anyone", shop().anyone)
  const person = { email: "ada@example.com", password: "correct horse", name: "Ada" }
  const credentials = { email: person.email, password: person.password }
  await anyone("register", "POST", "/api/v1/customers", { body: person })
  await anyone("register: taken", "POST", "/api/v1/customers", { body: person })
  await anyone("register: invalid", "POST", "/api/v1/customers", { body: { ...person, email: "ada" } })
  const session = await anyone("sign in", "POST", "/api/v1/sessions", { body: credentials })
  await anyone("sign in: wrong", "POST", "/api/v1/sessions", { body: { ...credentials, password: "battery staple" } })
  const refreshToken = text(session, "refreshToken")
  await anyone("go on with a session", "POST", "/api/v1/sessions/refresh", { body: { refreshToken } })
  const signedIn = examples.of("Ada", shop().anyone.as(text(session, "accessToken")))
  await signedIn("sign out", "DELETE", "/api/v1/sessions")
}

const catalogue = async (examples: Examples) => {
  const [anyone, admin] = [
    examples.of("anyone", shop().anyone),
    examples.of("an administrator", await shop().as("ADMIN", "admin"))
  ]
  const body = { sku: "MILK-1L", name: "Milk", category: "Dairy", price: 1.19, currency: "USD" }
  const productId = text(await admin("add a product", "POST", "/api/v1/products", { body }), "productId")
  const path = `/api/v1/products/${productId}`
  await admin("add a product: taken", "POST", "/api/v1/products", { body })
  await anyone("add a product: not signed in", "POST", "/api/v1/products", { body })
  await anyone("a product", "GET", path)
  await anyone("a product: I have it", "GET", path, { headers: { "if-none-match": '"1"' } })
  await anyone("a product: none", "GET", "/api/v1/products/PROD-NONE")
  const change = { name: "Whole milk" }
  await admin("change a product", "PATCH", path, { body: change, headers: { "if-match": '"1"' } })
  await admin("change a product: stale", "PATCH", path, { body: change, headers: { "if-match": '"1"' } })
  const price = { price: 1.29, currency: "USD", reason: "harvest" }
  await admin("set a price", "PUT", `${path}/price`, { body: price })
  await anyone("prices", "GET", `${path}/prices?limit=1`)
  await anyone("products", "GET", "/api/v1/products?limit=1")
  await anyone("search", "GET", "/api/v1/products?q=milk&category=Dairy")
  await anyone("suggestions", "GET", "/api/v1/search/suggestions?q=mil")
  await anyone("facets", "GET", "/api/v1/search/facets?q=milk")
  await anyone("categories", "GET", "/api/v1/categories")
  const adjustments = `/api/v1/inventory/${productId}/adjustments`
  await admin("adjust stock", "POST", adjustments, { body: { delta: 100, reason: "delivery" } })
  await admin("adjust stock: too little", "POST", adjustments, { body: { delta: -101, reason: "count" } })
  await until(
    () => shop().anyone.get(`/api/v1/inventory/${productId}`),
    ({ body }) => body["onHand"] === 100
  )
  await anyone("stock", "GET", `/api/v1/inventory/${productId}`)
  return productId
}

const flashSales = async (examples: Examples) => {
  const [anyone, admin] = [
    examples.of("anyone", shop().anyone),
    examples.of("an administrator", await shop().as("ADMIN", "admin"))
  ]
  const productId = await shop().product({ sku: "SALE-1", price: 5 })
  const window = { startsAt: "2099-01-01T08:00:00.000Z", endsAt: "2099-01-01T09:00:00.000Z" }
  const body = { productId, price: 4, currency: "USD", ...window }
  const saleId = text(await admin("schedule a sale", "POST", "/api/v1/flash-sales", { body, key: "sale-1" }), "saleId")
  await anyone("a sale", "GET", `/api/v1/flash-sales/${saleId}`)
  await anyone("sales", "GET", "/api/v1/flash-sales")
  await admin("call a sale off", "DELETE", `/api/v1/flash-sales/${saleId}`)
}

const carts = async (examples: Examples, productId: string) => {
  const anyone = examples.of("anyone", shop().anyone)
  const guestCart = await anyone("a guest's cart", "POST", "/api/v1/carts")
  const guestToken = text(guestCart, "guestToken")
  const guest = examples.of("a guest", shop().anyone.as(guestToken))
  const item = `/api/v1/carts/${text(guestCart, "cartId")}/items/${productId}`
  await guest("put into a cart", "PUT", item, { body: { qty: 2 } })
  const ada = examples.of("Ada", await shop().as("ADA"))
  const cartId = text(await ada("a cart of mine", "POST", "/api/v1/carts"), "cartId")
  await ada("take a guest's cart over", "POST", `/api/v1/carts/${cartId}/merge`, { body: { guestToken } })
  await ada("my cart", "GET", `/api/v1/carts/${cartId}`)
  await ada("take out of a cart", "DELETE", `/api/v1/carts/${cartId}/items/${productId}`)
  await ada("check out: empty", "POST", "/api/v1/checkout", {
    body: { cartId, paymentToken: "tok_ok" },
    key: "empty-1"
  })
  await ada("put into my cart", "PUT", `/api/v1/carts/${cartId}/items/${productId}`, { body: { qty: 3 } })
  const body = { cartId, paymentToken: "tok_ok", expectedTotal: 3.87 }
  await ada("check out", "POST", "/api/v1/checkout", { body, key: "checkout-1" })
  await ada("check out: again", "POST", "/api/v1/checkout", { body, key: "checkout-1" })
  const other = { ...body, expectedTotal: 1 }
  await ada("check out: the key of another", "POST", "/api/v1/checkout", { body: other, key: "checkout-1" })
}

const orders = async (examples: Examples, productId: string) => {
  const client = await shop().as("BOB")
  const [bob, admin] = [examples.of("Bob", client), examples.of("an administrator", await shop().as("ADMIN", "admin"))]
  const place = (name: string, qty: number, key: string) =>
    bob(name, "POST", "/api/v1/orders", { body: { items: [{ productId, qty }] }, key })
  const idOf = (answer: Answer) => text(answer, "orderId")
  const pay = (name: string, orderId: string, paymentToken: string, key: string) =>
    bob(name, "POST", `/api/v1/orders/${orderId}/pay`, { body: { paymentToken }, key })
  const orderId = idOf(await place("order", 2, "order-1"))
  await place("order: out of stock", 99, "order-2")
  const key = await bob("order: no key", "POST", "/api/v1/orders", { body: { items: [{ productId, qty: 1 }] } })
  expect(key.status).toBe(400)
  await pay("pay: declined", orderId, "tok_declined", "pay-1")
  await pay("pay", orderId, "tok_ok", "pay-2")
  await pay("pay: paid already", orderId, "tok_ok", "pay-3")
  await bob("cancel: paid already", "POST", `/api/v1/orders/${orderId}/cancel`)
  await bob("fulfil: not for me", "POST", `/api/v1/orders/${orderId}/fulfil`)
  await admin("fulfil", "POST", `/api/v1/orders/${orderId}/fulfil`)
  await bob("an order", "GET", `/api/v1/orders/${orderId}`)
  await bob("history", "GET", `/api/v1/orders/${orderId}/history`)
  await bob("an order: none", "GET", "/api/v1/orders/ORDER-NONE")
  await until(
    () => client.get("/api/v1/notifications"),
    (told) => itemsOf(told)[0]?.["kind"] === "order.fulfilled"
  )
  await bob("notifications", "GET", "/api/v1/notifications?limit=1")
  const canceled = idOf(await place("order to cancel", 1, "order-3"))
  await bob("cancel", "POST", `/api/v1/orders/${canceled}/cancel`)
  await bob("orders", "GET", "/api/v1/orders?limit=1")
  const dear = await shop().product({ sku: "DEAR-1", price: 60 }, 10)
  const held = async (name: string, nth: number) => {
    const answer = await bob(`order to ${name}`, "POST", "/api/v1/orders", {
      body: { items: [{ productId: dear, qty: 1 }] },
      key: `order-${name}`
    })
    await pay(nth === 1 ? "pay: held" : `pay: held, to ${name}`, idOf(answer), "tok_ok", `pay-${name}`)
    return idOf(answer)
  }
  await admin("release", "POST", `/api/v1/orders/${await held("release", 1)}/release`)
  await admin("reject", "POST", `/api/v1/orders/${await held("reject", 2)}/reject`)
}

const webhooks = async (examples: Examples) => {
  const client = await shop().as("PARTNER")
  const partner = examples.of("a partner", client)
  const path = "/api/v1/webhooks/subscriptions"
  const body = { url: "http://127.0.0.1:80/hook", eventTypes: ["ecommerce.product.product.updated.v1"] }
  const first = text(await partner("subscribe", "POST", path, { body }), "subscriptionId")
  await partner("subscribe: not a URL", "POST", path, { body: { ...body, url: "hook" } })
  await partner("a subscription", "GET", `${path}/${first}`)
  await partner("subscriptions", "GET", path)
  await partner("rotate a secret", "POST", `${path}/${first}/rotate-secret`)
  await partner("enable", "POST", `${path}/${first}/enable`)
  await partner("unsubscribe", "DELETE", `${path}/${first}`)
  // One that is delivered, at a port that is another each time.
  const url = `${receiver.url}hook`
  const subscriptionId = text(await client.post(path, { ...body, url }), "subscriptionId")
  await shop().product({ sku: "HOOKED-1" })
  const list = `${path}/${subscriptionId}/deliveries`
  const delivered = await until(
    () => client.get(list),
    (answer) => itemsOf(answer).some(({ status }) => status === "DELIVERED")
  )
  const deliveryId = String(itemsOf(delivered)[0]?.["deliveryId"])
  await partner("deliveries", "GET", list)
  await partner("a delivery", "GET", `/api/v1/webhooks/deliveries/${deliveryId}`)
  await partner("replay", "POST", `${path}/${subscriptionId}/replay`, { body: { after: deliveryId } })
  await partner("redeliver", "POST", `${list}/${deliveryId}/redeliver`)
  await until(
    () => client.get(list),
    (answer) => itemsOf(answer).every(({ status }) => status === "DELIVERED")
  )
  await partner("redeliver by id", "POST", `/api/v1/webhooks/deliveries/${deliveryId}/redeliver`)
}

/** Operations of the API that no example shows; those for people who run the shop are not for consumers. */
const untold = (examples: Readonly<Record<string, Example>>): ReadonlyArray<string> => {
  const router = FindMyWay.make<string>()
  const missing = new Set<string>()
  HttpApi.reflect(Api, {
    onGroup: () => {},
    onEndpoint: ({ group, endpoint: { method, path, identifier } }) => {
      if (group.identifier === "ops") return
      missing.add(`${group.identifier}.${identifier}`)
      if (path.startsWith("/")) router.on(method, `/${path.slice(1)}`, `${group.identifier}.${identifier}`)
    }
  })
  for (const { request, response } of Object.values(examples)) {
    const [method, path] = [String(request["method"]), String(request["path"]).split("?")[0] ?? ""]
    const operation = router.find(asMethod(method), path)?.handler
    if (operation !== undefined && Number(response["status"]) < 300) missing.delete(operation)
  }
  return [...missing]
}

const methods = ["GET", "POST", "PUT", "PATCH", "DELETE"] as const
const asMethod = (method: string) => methods.find((known) => known === method) ?? "GET"

test("every operation answers as in the examples that consumers were shown", async () => {
  const examples = new Examples()
  try {
    await identity(examples)
    const productId = await catalogue(examples)
    await flashSales(examples)
    await carts(examples, productId)
    await orders(examples, productId)
    await webhooks(examples)
  } finally {
    await receiver.stop(true)
  }
  expect(untold(examples.all)).toEqual([])
  if (process.env["MERKATO_UPDATE_GOLDEN"] === "1") writeFileSync(golden, `${JSON.stringify(examples.all, null, 2)}\n`)
  const expected: Readonly<Record<string, Example>> = JSON.parse(readFileSync(golden, "utf8"))
  expect(Object.keys(expected)).toEqual(Object.keys(examples.all))
  expect(differences(expected, examples.all)).toEqual([])
}, 120_000)
