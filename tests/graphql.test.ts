// The graph, as its clients see it: over HTTP as GraphQL clients expect, with the answers, the refusals and the rights of REST.
import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { serverAudits } from "graphql-http"
import { type Answer, Client, text } from "./support/Client.ts"
import { restShop } from "./support/RestShop.ts"

const shop = restShop()

interface Told {
  readonly message: string
  readonly path?: ReadonlyArray<string | number>
  readonly extensions: Readonly<Record<string, unknown>>
}

const ask = (client: Client, query: string, more: Readonly<Record<string, unknown>> = {}, accept?: string) =>
  client.post("/graphql", { query, ...more }, accept === undefined ? {} : { headers: { accept } })

const told = ({ body }: Answer): ReadonlyArray<Told> => {
  const { errors } = body
  return Array.isArray(errors) ? errors : []
}

const codes = (answer: Answer) => told(answer).map(({ extensions }) => extensions["code"])

/** The data of an answer that has nothing to complain about. */
const dataOf = (answer: Answer) => {
  expect([answer.status, told(answer)]).toEqual([200, []])
  return answer.body["data"]
}

const order = async (client: Client, productId: string, qty: number) =>
  text(await client.post("/api/v1/orders", { items: [{ productId, qty }] }, { key: crypto.randomUUID() }), "orderId")

test("it is GraphQL over HTTP to every point of graphql-http's audit", async () => {
  const audits = serverAudits({ url: `${shop().url}/graphql` })
  expect(audits.length).toBeGreaterThan(50)
  const results = await Promise.all(audits.map(({ fn }) => fn()))
  expect(results.flatMap((result) => (result.status === "ok" ? [] : [`${result.name}: ${result.reason}`]))).toEqual([])
})

describe("the graph", () => {
  test("knows a product in catalogue, its stock in inventory and its sale in pricing", async () => {
    const id = await shop().product({ name: "Oat milk", description: "1 l", category: "Oats", price: 2.49 }, 7)
    const admin = await shop().as("ADMIN", "admin")
    const query = `{
      product(id: "${id}") { id name description category price currency version flashSale { id price } inventory { productId onHand reserved available } }
      productInventory(id: "${id}") { available }
    }`
    const product = {
      id,
      name: "Oat milk",
      description: "1 l",
      category: "Oats",
      price: 2.49,
      currency: "USD",
      version: 1,
      flashSale: null,
      inventory: { productId: id, onHand: 7, reserved: 0, available: 7 }
    }
    expect(dataOf(await ask(shop().anyone, query))).toEqual({ product, productInventory: { available: 7 } })

    const sale = await admin.post("/api/v1/flash-sales", {
      productId: id,
      price: 1.99,
      currency: "USD",
      startsAt: new Date(Date.now() - 1_000).toISOString(),
      endsAt: new Date(Date.now() + 3_600_000).toISOString()
    })
    await until(async () => dataOf(await ask(shop().anyone, query)), {
      product: { ...product, flashSale: { id: text(sale, "saleId"), price: 1.99 } },
      productInventory: { available: 7 }
    })
  })

  test("finds products by words and category, and by pages", async () => {
    const ids = [
      await shop().product({ name: "Rye bread", category: "Graph bread" }, 1),
      await shop().product({ name: "Wheat bread", category: "Graph bread" }, 2)
    ]
    const found = (filter: string) =>
      ask(shop().anyone, `{ products(filter: ${filter}) { id inventory { available } } }`)
    const [rye, wheat] = ids.map((id, nth) => ({ id, inventory: { available: nth + 1 } }))
    expect(dataOf(await found(`{ category: "Graph bread" }`))).toEqual({ products: [wheat, rye] })
    expect(dataOf(await found(`{ category: "Graph bread", q: "rye", limit: null }`))).toEqual({ products: [rye] })
    expect(dataOf(await found(`{ category: "Graph bread", limit: 1 }`))).toEqual({ products: [wheat] })

    const page = `query ($cursor: String) { productPage(filter: { category: "Graph bread", limit: 1 }, cursor: $cursor) { items { id } nextCursor } }`
    const first = dataOf(await ask(shop().anyone, page))
    expect(first).toEqual({ productPage: { items: [{ id: wheat?.id }], nextCursor: expect.any(String) } })
    const { nextCursor: cursor } = Object(first).productPage
    expect(dataOf(await ask(shop().anyone, page, { variables: { cursor } }))).toEqual({
      productPage: { items: [{ id: rye?.id }], nextCursor: null }
    })
  })

  test("shows a changed price soon, however often the old one was read", async () => {
    const id = await shop().product({ name: "Butter", price: 3 }, 1)
    const admin = await shop().as("ADMIN", "admin")
    const price = async () => dataOf(await ask(shop().anyone, `{ product(id: "${id}") { price version } }`))
    for (let times = 0; times < 3; times++) expect(await price()).toEqual({ product: { price: 3, version: 1 } })
    await admin.request("PUT", `/api/v1/products/${id}/price`, {
      body: { price: 4.5, currency: "USD", reason: "spring" }
    })
    await until(price, { product: { price: 4.5, version: 2 } })
  })

  test("shows orders and carts to their owners, with the products in them as they are now", async () => {
    const id = await shop().product({ name: "Tea", price: 4 }, 9)
    const ada = await shop().as("GRAPH-ADA", "shopper")
    const orderId = await order(ada, id, 2)
    const cartId = text(await ada.post("/api/v1/carts"), "cartId")
    await ada.request("PUT", `/api/v1/carts/${cartId}/items/${id}`, { body: { qty: 3 } })
    const product = { name: "Tea", inventory: { available: 7 } }
    const line = "productId qty product { name inventory { available } }"
    const query = `{
      order(id: "${orderId}") { id userId region status items { price ${line} } totalAmount currency }
      orders(limit: 5) { items { id status } nextCursor }
      cart(id: "${cartId}") { id userId currency items { ${line} } }
    }`
    expect(dataOf(await ask(ada, query))).toEqual({
      order: {
        id: orderId,
        userId: "GRAPH-ADA",
        region: "us",
        status: "PENDING",
        items: [{ productId: id, qty: 2, price: 4, product }],
        totalAmount: 8,
        currency: "USD"
      },
      orders: { items: [{ id: orderId, status: "PENDING" }], nextCursor: null },
      cart: { id: cartId, userId: "GRAPH-ADA", currency: "USD", items: [{ productId: id, qty: 3, product }] }
    })

    const bob = await ask(await shop().as("GRAPH-BOB", "shopper"), query)
    expect([bob.body["data"], codes(bob).toSorted()]).toEqual([
      { order: null, orders: { items: [], nextCursor: null }, cart: null },
      ["cart_not_found", "order_not_found"]
    ])
    const nobody = await ask(shop().anyone, query)
    expect([nobody.body["data"], codes(nobody)]).toEqual([
      { order: null, orders: null, cart: null },
      ["unauthenticated", "unauthenticated", "unauthenticated"]
    ])
    const forged = await ask(shop().anyone.as("forged"), query)
    expect([forged.status, forged.body["code"]]).toEqual([401, "unauthenticated"])
    const admin = await ask(await shop().as("ADMIN", "admin"), `{ order(id: "${orderId}") { userId } }`)
    expect(dataOf(admin)).toEqual({ order: { userId: "GRAPH-ADA" } })
  })
})

describe("a refusal", () => {
  /** The same wish over REST and as a query. */
  const wishes = [
    ["/api/v1/products/PROD-NONE", `{ product(id: "PROD-NONE") { id } }`, "product_not_found"],
    ["/api/v1/products/no%20id", `{ product(id: "no id") { id } }`, "validation_failed"],
    ["/api/v1/inventory/no%20id", `{ productInventory(id: "no id") { onHand } }`, "validation_failed"],
    ["/api/v1/products?limit=101", `{ products(filter: { limit: 101 }) { id } }`, "validation_failed"],
    ["/api/v1/products?cursor=x", `{ productPage(cursor: "x") { nextCursor } }`, "invalid_value"],
    ["/api/v1/orders?limit=0", `{ orders(limit: 0) { nextCursor } }`, "validation_failed"],
    ["/api/v1/orders/ORDER-NONE", `{ order(id: "ORDER-NONE") { id } }`, "order_not_found"],
    ["/api/v1/carts/CART-NONE", `{ cart(id: "CART-NONE") { id } }`, "cart_not_found"]
  ] as const
  for (const [path, query, code] of wishes) {
    test(`has the code of REST: ${code} for ${query}`, async () => {
      const client = await shop().as("GRAPH-CAROL", "shopper")
      expect((await client.get(path)).body["code"]).toBe(code)
      const answer = await ask(client, query)
      expect([answer.status, codes(answer)]).toEqual([200, [code]])
    })
  }

  test("has the members of REST's problem, and the trace of the request", async () => {
    const answer = await ask(shop().anyone, `{ first: product(id: "PROD-NONE") { id } }`)
    const rest = await shop().anyone.get("/api/v1/products/PROD-NONE")
    expect(told(answer)).toEqual([
      {
        message: String(rest.body["detail"]),
        path: ["first"],
        locations: [{ line: 1, column: 3 }],
        extensions: {
          code: "product_not_found",
          productIds: rest.body["productIds"],
          traceId: answer.headers.get("traceparent")?.slice(3, 35)
        }
      } as Told
    ])
    expect(answer.headers.get("correlation-id")).toMatch(/^\S+$/)
  })

  test("of a whole request is told by the status to those who expect it, and in the body to all", async () => {
    // Whose answers are not held against the contract of REST.
    const client = new Client(shop().url)
    const modern = "application/graphql-response+json"
    const many = Array.from({ length: 31 }, (_, nth) => `p${nth}: product(id: "P") { id }`).join(" ")
    const wide = Array.from({ length: 700 }, () => "product(id: 1) { id }").join(" ")
    const costly = `{ orders(limit: 100) { items { items { product { id sku name price inventory { onHand } } } } } }`
    for (const [query, code] of [
      ["{ product", "validation_failed"],
      ["{ nothing }", "validation_failed"],
      ["query A { __typename } query B { __typename }", "validation_failed"],
      ["mutation { __typename }", "operation_not_supported"],
      [`{ ${many} }`, "too_many_aliases"],
      [`{ ${wide} }`, "validation_failed"],
      [costly, "query_too_costly"],
      [`{ __typename } #${"x".repeat(16_384)}`, "query_too_long"]
    ] as const) {
      for (const [accept, status] of [[modern, 400] as const, ["application/json", 200] as const]) {
        const answer = await ask(client, query, {}, accept)
        expect([query.slice(0, 40), answer.status, codes(answer)]).toEqual([query.slice(0, 40), status, [code]])
        expect(answer.body).not.toHaveProperty("data")
        expect(answer.headers.get("content-type")).toBe(`${accept}; charset=utf-8`)
      }
    }
  })

  test("of what is no query at all has the status of REST, too", async () => {
    const post = (body: string, headers: Record<string, string> = { "content-type": "application/json" }) =>
      fetch(`${shop().url}/graphql`, { method: "POST", body, headers })
    const query = JSON.stringify({ query: "{ __typename }" })
    for (const [response, status, code] of [
      [await post(`{"query":"{ a }","query":"{ b }"}`), 400, "validation_failed"],
      [await post(`[${query}]`), 400, "validation_failed"],
      [await post("query=x", { "content-type": "application/x-www-form-urlencoded" }), 415, "unsupported_media_type"],
      [
        await post(query, { "content-type": "application/json", "content-encoding": "gzip" }),
        415,
        "unsupported_media_type"
      ],
      [await post(query, { "content-type": "application/json", accept: "text/html" }), 406, "not_acceptable"]
    ] as const) {
      const { errors } = Object(await response.json())
      expect([response.status, errors.length, errors[0].extensions.code]).toEqual([status, 1, code])
    }
    const put = await shop().anyone.request("PUT", "/graphql", { body: {} })
    expect([put.status, put.headers.get("allow"), put.body["code"]]).toEqual([
      405,
      "GET, POST, HEAD",
      "method_not_allowed"
    ])
    const large = await post(JSON.stringify({ query: "x".repeat(1_100_000) }))
    expect(large.status).toBe(413)
  })
})

describe("a persisted query", () => {
  const query = "query Persisted($id: ID!) { productInventory(id: $id) { onHand } }"
  const sha256Hash = createHash("sha256").update(query).digest("hex")
  const extensions = { persistedQuery: { version: 1, sha256Hash } }
  const variables = { id: "PROD-NONE" }

  test("is asked for by its hash alone, once its text was sent, by GET too", async () => {
    const unknown = await shop().anyone.post("/graphql", { extensions, variables })
    expect([unknown.status, told(unknown)[0]?.message, codes(unknown)]).toEqual([
      200,
      "PersistedQueryNotFound",
      ["persisted_query_not_found"]
    ])
    const known = { productInventory: { onHand: 0 } }
    expect(dataOf(await ask(shop().anyone, query, { extensions, variables }))).toEqual(known)
    expect(dataOf(await shop().anyone.post("/graphql", { extensions, variables }))).toEqual(known)
    const parameters = { extensions: JSON.stringify(extensions), variables: JSON.stringify(variables) }
    expect(dataOf(await shop().anyone.get(`/graphql?${new URLSearchParams(parameters)}`))).toEqual(known)
  })

  test("is not kept under a hash that is another's", async () => {
    const other = { persistedQuery: { version: 1, sha256Hash: "0".repeat(64) } }
    expect(codes(await ask(shop().anyone, "{ __typename }", { extensions: other }))).toEqual([
      "persisted_query_mismatch"
    ])
    expect(codes(await shop().anyone.post("/graphql", { extensions: other }))).toEqual(["persisted_query_not_found"])
  })
})

/** Asks until the answer is as wanted: what a cache holds may be a moment old. */
const until = async (read: () => Promise<unknown>, wanted: unknown) => {
  const deadline = Date.now() + 20_000
  let last = await read()
  while (!Bun.deepEquals(last, wanted) && Date.now() < deadline) {
    await Bun.sleep(20)
    last = await read()
  }
  expect(last).toEqual(wanted)
}
