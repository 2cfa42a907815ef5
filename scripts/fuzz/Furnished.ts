/** What there is in a shop, for requests by chance to name: nobody guesses an id. */
export interface Known {
  readonly products: ReadonlyArray<string>
  readonly carts: ReadonlyArray<string>
  readonly orders: ReadonlyArray<string>
  readonly sales: ReadonlyArray<string>
  readonly subscriptions: ReadonlyArray<string>
  readonly currencies: ReadonlyArray<string>
  readonly paymentTokens: ReadonlyArray<string>
}

/** Asks the shop for one thing, which it has to do; its id. */
type Ask = (
  method: "POST" | "PUT",
  path: string,
  body: Readonly<Record<string, unknown>>,
  id?: string
) => Promise<string>

const asking =
  (url: string, token: string): Ask =>
  async (method, path, body, id = "") => {
    const response = await fetch(`${url}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        "content-type": "application/json",
        "idempotency-key": crypto.randomUUID()
      },
      body: JSON.stringify(body)
    })
    const answer: unknown = await response.json()
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${JSON.stringify(answer)}`)
    return String(Object(answer)[id])
  }

/** Puts a little of everything into a shop: what is sold, and what a shopper has of it. */
export const furnish = async (url: string, shopperToken: string, adminToken: string): Promise<Known> => {
  const [admin, shopper] = [asking(url, adminToken), asking(url, shopperToken)]
  const product = async (nth: number) => {
    const fields = { sku: `FUZZ-${crypto.randomUUID()}`, name: `Fuzzy peach ${nth}`, category: "Fruit" }
    const productId = await admin("POST", "/api/v1/products", { ...fields, price: 1.5, currency: "USD" }, "productId")
    await admin("POST", `/api/v1/inventory/${productId}/adjustments`, { delta: 100_000, reason: "delivery" })
    return productId
  }
  const products = await Promise.all([1, 2, 3].map(product))
  const productId = products[0]
  const cart = async () => {
    const cartId = await shopper("POST", "/api/v1/carts", {}, "cartId")
    await shopper("PUT", `/api/v1/carts/${cartId}/items/${productId}`, { qty: 2 })
    return cartId
  }
  const order = () => shopper("POST", "/api/v1/orders", { items: [{ productId, qty: 1 }] }, "orderId")
  const pay = (orderId: string) => shopper("POST", `/api/v1/orders/${orderId}/pay`, { paymentToken: "tok_ok" })
  const carts = await Promise.all([cart(), cart(), cart()])
  const orders = await Promise.all([order(), order(), order(), order()])
  await Promise.all(orders.slice(0, 2).map(pay))
  const hour = 3_600_000
  const at = (ms: number) => new Date(Date.now() + ms).toISOString()
  const sale = { productId: products[2], price: 1, currency: "USD", startsAt: at(hour), endsAt: at(2 * hour) }
  const hook = { url: "https://partner.example/hook", eventTypes: ["ecommerce.product.product.updated.v1"] }
  return {
    products,
    carts,
    orders,
    sales: [await admin("POST", "/api/v1/flash-sales", sale, "saleId")],
    subscriptions: [await shopper("POST", "/api/v1/webhooks/subscriptions", hook, "subscriptionId")],
    currencies: ["USD"],
    paymentTokens: ["tok_ok", "tok_declined"]
  }
}
