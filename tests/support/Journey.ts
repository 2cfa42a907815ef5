import { type Answer, Client, text } from "./Client.ts"

/** One step of a journey: what was asked, and what came back. */
export interface Step {
  readonly asked: string
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: unknown
}

const told = [
  "content-type",
  "location",
  "etag",
  "cache-control",
  "idempotent-replayed",
  "retry-after",
  "www-authenticate"
]

const uuid = "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
const id = new RegExp(`(?:[A-Z]+-)?${uuid}`, "g")

/** Puts names in the place of ids, times and secrets, the same name for the same id. */
class Names {
  readonly #ids = new Map<string, string>()

  give(value: unknown, field = ""): unknown {
    if (Array.isArray(value)) return value.map((item) => this.give(item))
    if (typeof value === "object" && value !== null) {
      return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, this.give(inner, name)]))
    }
    if (typeof value !== "string") return value
    if (/^(?:traceId|nextCursor|accessToken|refreshToken|guestToken)$/.test(field)) return `<${field}>`
    if (/^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(value)) return "<time>"
    return value.replaceAll(id, (found) => {
      const known = this.#ids.get(found) ?? `${found.replace(new RegExp(uuid), "")}#${this.#ids.size + 1}`
      this.#ids.set(found, known)
      return known
    })
  }
}

/**
 * A purchase with everything around it, from the first look to the last notification, with every refusal on the way;
 * on an empty shop. The answers, in words that do not depend on when and where they were given.
 */
export const journey = async (url: string, adminToken: string): Promise<ReadonlyArray<Step>> => {
  const steps: Array<Step> = []
  const names = new Names()
  const note = (asked: string, answer: Answer) => {
    const headers = told.flatMap((name) => {
      const value = answer.headers.get(name)
      // A weak tag is a digest of ids.
      return value === null ? [] : [[name, value.startsWith("W/") ? "<weak>" : String(names.give(value))]]
    })
    const headersTold = Object.fromEntries(headers)
    steps.push({
      asked: String(names.give(asked)),
      status: answer.status,
      headers: headersTold,
      body: names.give(answer.body)
    })
    return answer
  }
  const visitor = new Client(url)
  const admin = visitor.as(adminToken)
  const ask = async (
    who: Client,
    method: string,
    path: string,
    body?: unknown,
    more: { key?: string; headers?: Record<string, string> } = {}
  ) => note(`${method} ${path}`, await who.request(method, path, { ...more, ...(body === undefined ? {} : { body }) }))
  /** Asks until it is so: for what follows from events. */
  const askUntil = async (who: Client, path: string, isSo: (answer: Answer) => boolean) => {
    for (;;) {
      const answer = await who.get(path)
      if (isSo(answer)) return note(`GET ${path}`, answer)
      await Bun.sleep(20)
    }
  }

  // Who one is.
  const ada = { email: "ada@example.com", password: "correct horse battery" }
  await ask(visitor, "POST", "/api/v1/customers", { ...ada, name: "Ada" })
  await ask(visitor, "POST", "/api/v1/customers", { ...ada, name: "Ada" })
  await ask(visitor, "POST", "/api/v1/customers", { email: "no", password: "x", name: "" })
  await ask(visitor, "POST", "/api/v1/sessions", { ...ada, password: "wrong horse" })
  const session = await ask(visitor, "POST", "/api/v1/sessions", ada)
  const shopper = visitor.as(text(session, "accessToken"))
  await ask(visitor, "POST", "/api/v1/sessions/refresh", { refreshToken: text(session, "refreshToken") })
  await ask(visitor, "POST", "/api/v1/sessions/refresh", { refreshToken: "stolen" })
  await visitor.post("/api/v1/customers", { email: "bob@example.com", password: ada.password, name: "Bob" })
  const bob = visitor.as(
    text(await visitor.post("/api/v1/sessions", { email: "bob@example.com", password: ada.password }), "accessToken")
  )

  // What there is.
  const milk = {
    sku: "MILK-1L",
    name: "Whole milk",
    description: "3.5 % fat",
    category: "Dairy",
    price: 1.19,
    currency: "USD"
  }
  await ask(shopper, "POST", "/api/v1/products", milk)
  await ask(visitor, "POST", "/api/v1/products", milk)
  const milkId = text(await ask(admin, "POST", "/api/v1/products", milk), "productId")
  await ask(admin, "POST", "/api/v1/products", milk)
  await ask(admin, "POST", "/api/v1/products", { ...milk, sku: "MILK-2", price: 1.195 })
  const tea = { sku: "TEA-20", name: "Green tea ☕", category: "Drinks", price: 2.49, currency: "USD" }
  const teaId = text(await ask(admin, "POST", "/api/v1/products", tea), "productId")
  const yen = { sku: "SAKE", name: "Sake", category: "Drinks", price: 1800, currency: "JPY" }
  const sakeId = text(await ask(admin, "POST", "/api/v1/products", yen), "productId")
  await ask(visitor, "GET", `/api/v1/products/${milkId}`)
  await ask(visitor, "GET", `/api/v1/products/${milkId}`, undefined, { headers: { "if-none-match": '"1"' } })
  await ask(admin, "PATCH", `/api/v1/products/${teaId}`, { description: "From Assam" })
  await ask(admin, "PUT", `/api/v1/products/${teaId}/price`, { price: 2.99, currency: "USD", reason: "harvest" })
  await askUntil(visitor, `/api/v1/products/${teaId}`, ({ body }) => body["version"] === 3)
  await ask(visitor, "GET", `/api/v1/products/${teaId}/prices`)
  await ask(visitor, "GET", "/api/v1/products/nothing")
  await ask(visitor, "GET", "/api/v1/products?limit=1")
  await ask(visitor, "GET", "/api/v1/products?q=milk")
  await ask(visitor, "GET", "/api/v1/products?category=Drinks")
  await ask(visitor, "GET", "/api/v1/products?limit=0")
  await ask(visitor, "GET", "/api/v1/products?cursor=nonsense")
  await ask(visitor, "GET", "/api/v1/categories")
  for (const productId of [milkId, teaId, sakeId]) {
    await ask(admin, "POST", `/api/v1/inventory/${productId}/adjustments`, { delta: 10, reason: "delivery" })
  }
  await ask(admin, "POST", `/api/v1/inventory/${milkId}/adjustments`, { delta: -11, reason: "lost" })
  await ask(admin, "POST", "/api/v1/inventory/nothing/adjustments", { delta: 1, reason: "found" })
  await ask(shopper, "POST", `/api/v1/inventory/${milkId}/adjustments`, { delta: 1, reason: "found" })
  await ask(visitor, "GET", `/api/v1/inventory/${milkId}`)
  await ask(visitor, "GET", "/api/v1/inventory/nothing")

  // Into the cart, as a guest and then as oneself.
  const guestCart = await ask(visitor, "POST", "/api/v1/carts")
  const guest = visitor.as(text(guestCart, "guestToken"))
  const guestItems = `/api/v1/carts/${text(guestCart, "cartId")}/items`
  await ask(guest, "PUT", `${guestItems}/${milkId}`, { qty: 2 })
  await ask(guest, "PUT", `${guestItems}/${milkId}`, { qty: 100 })
  await ask(guest, "PUT", `${guestItems}/nothing`, { qty: 1 })
  await ask(shopper, "GET", `/api/v1/carts/${text(guestCart, "cartId")}`)
  const cart = `/api/v1/carts/${text(await ask(shopper, "POST", "/api/v1/carts"), "cartId")}`
  await ask(shopper, "PUT", `${cart}/items/${teaId}`, { qty: 1 })
  await ask(shopper, "POST", `${cart}/merge`, { guestToken: text(guestCart, "guestToken") })
  await ask(shopper, "POST", `${cart}/merge`, { guestToken: "forged" })
  await ask(shopper, "DELETE", `${cart}/items/${teaId}`)
  await ask(shopper, "GET", cart)

  // The order.
  const items = [
    { productId: milkId, qty: 2 },
    { productId: teaId, qty: 1 }
  ]
  await ask(visitor, "POST", "/api/v1/orders", { items }, { key: "o-0" })
  await ask(shopper, "POST", "/api/v1/orders", { items })
  await ask(shopper, "POST", "/api/v1/orders", { items: [], note: 1 }, { key: "o-0" })
  await ask(shopper, "POST", "/api/v1/orders", { items, expectedTotal: 1 }, { key: "o-1" })
  await ask(shopper, "POST", "/api/v1/orders", { items, expectedTotal: 1 }, { key: "o-1" })
  const order = `/api/v1/orders/${text(await ask(shopper, "POST", "/api/v1/orders", { items, expectedTotal: 5.37 }, { key: "o-2" }), "orderId")}`
  await ask(shopper, "POST", "/api/v1/orders", { items, expectedTotal: 5.37 }, { key: "o-2" })
  await ask(shopper, "POST", "/api/v1/orders", { items }, { key: "o-2" })
  await ask(
    shopper,
    "POST",
    "/api/v1/orders",
    {
      items: [
        { productId: milkId, qty: 9 },
        { productId: teaId, qty: 99 }
      ]
    },
    { key: "o-3" }
  )
  await ask(shopper, "POST", "/api/v1/orders", { items: [{ productId: "nothing", qty: 1 }] }, { key: "o-4" })
  await ask(shopper, "POST", "/api/v1/orders", { items: [...items, { productId: sakeId, qty: 1 }] }, { key: "o-5" })
  await ask(shopper, "POST", "/api/v1/orders", { items, currency: "XXX" }, { key: "o-6" })
  await ask(visitor, "GET", `/api/v1/inventory/${milkId}`)
  await ask(bob, "GET", order)
  await ask(bob, "POST", `${order}/pay`, { paymentToken: "tok_ok" }, { key: "p-0" })
  await ask(bob, "POST", `${order}/cancel`)

  // Its payment.
  await ask(shopper, "POST", `${order}/pay`, { paymentToken: "tok_ok" })
  await ask(shopper, "POST", `${order}/pay`, { paymentToken: "4111111111111111" }, { key: "p-1" })
  await ask(shopper, "POST", `${order}/pay`, { paymentToken: "tok_declined" }, { key: "p-2" })
  await ask(shopper, "POST", `${order}/pay`, { paymentToken: "tok_declined" }, { key: "p-2" })
  await ask(shopper, "POST", `${order}/pay`, { paymentToken: "tok_all_down" }, { key: "p-3" })
  await ask(shopper, "POST", `${order}/pay`, { paymentToken: "tok_ok", rail: "card" }, { key: "p-4" })
  await ask(shopper, "POST", `${order}/pay`, { paymentToken: "tok_ok", rail: "card" }, { key: "p-4" })
  await ask(shopper, "POST", `${order}/pay`, { paymentToken: "tok_ok" }, { key: "p-5" })
  await ask(shopper, "POST", `${order}/cancel`)
  await ask(visitor, "GET", `/api/v1/inventory/${milkId}`)
  await ask(shopper, "POST", `${order}/fulfil`)
  await ask(admin, "POST", `${order}/fulfil`)
  await ask(admin, "POST", `${order}/fulfil`)
  await ask(shopper, "GET", `${order}/history`)

  // One whose answer gets lost at the gateway, and one that is not wanted after all.
  const lost = text(
    await ask(shopper, "POST", "/api/v1/orders", { items: [{ productId: sakeId, qty: 1 }] }, { key: "o-7" }),
    "orderId"
  )
  await ask(shopper, "POST", `/api/v1/orders/${lost}/pay`, { paymentToken: "tok_lost" }, { key: "p-6" })
  const other = text(
    await ask(
      shopper,
      "POST",
      "/api/v1/orders",
      { items: [{ productId: milkId, qty: 3 }], currency: "USD" },
      { key: "o-8" }
    ),
    "orderId"
  )
  await ask(shopper, "POST", `/api/v1/orders/${other}/cancel`)
  await ask(shopper, "POST", `/api/v1/orders/${other}/cancel`)
  await ask(shopper, "POST", `/api/v1/orders/${other}/pay`, { paymentToken: "tok_ok" }, { key: "p-7" })
  await ask(visitor, "GET", `/api/v1/inventory/${milkId}`)

  // What one can read afterwards.
  const graph = {
    query: `query ($order: ID!) {
      product(id: "nothing") { id }
      order(id: $order) { status totalAmount items { qty product { name price inventory { onHand available } } } }
      orders(limit: 2) { items { id } nextCursor }
    }`,
    variables: { order: order.slice("/api/v1/orders/".length) }
  }
  for (const who of [shopper, bob, visitor]) await ask(who, "POST", "/graphql", graph)
  await ask(shopper, "GET", order)
  await ask(shopper, "GET", "/api/v1/orders")
  await ask(shopper, "GET", "/api/v1/orders?limit=1")
  await ask(bob, "GET", "/api/v1/orders")
  await ask(admin, "GET", "/api/v1/orders?limit=2")
  await ask(visitor, "GET", "/api/v1/orders")
  await ask(shopper, "GET", "/api/v1/orders/nothing")
  await askUntil(
    shopper,
    "/api/v1/notifications",
    ({ body }) => Array.isArray(body["items"]) && body["items"].length === 7
  )
  await ask(shopper, "GET", "/api/v1/notifications?limit=3")
  await ask(visitor, "GET", "/api/v1/notifications")
  await ask(shopper, "DELETE", "/api/v1/sessions")
  await ask(visitor.as("not.a.token"), "GET", "/api/v1/orders")
  await ask(visitor, "GET", "/api/v1/nowhere")
  return steps
}
