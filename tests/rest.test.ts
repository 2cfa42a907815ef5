import { describe, expect, test } from "bun:test"
import { type Answer, Client, text } from "./support/Client.ts"
import { restShop } from "./support/RestShop.ts"

const shop = restShop({ MERKATO_PAYMENT_TIMEOUT_MS: "800" })

type Json = Readonly<Record<string, unknown>>

const isJson = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value)

/** The items of a list. */
const itemsOf = (answer: Answer): ReadonlyArray<Json> => {
  const { items } = answer.body
  if (!Array.isArray(items)) throw new Error(`no list in ${answer.status} ${JSON.stringify(answer.body)}`)
  return items.filter(isJson)
}

/** All pages of a list, with something that happens between them. */
const pagesOf = async (client: Client, path: string, between: () => Promise<unknown> = async () => {}) => {
  const pages: Array<ReadonlyArray<Json>> = []
  let cursor = ""
  for (;;) {
    const answer = await client.get(`${path}${cursor}`)
    expect(answer.status).toBe(200)
    pages.push(itemsOf(answer))
    const { nextCursor } = answer.body
    if (nextCursor === null) return pages
    cursor = `&cursor=${encodeURIComponent(String(nextCursor))}`
    await between()
  }
}

const refusal = ({ status, body }: Answer) => [status, body["code"]]

let keys = 0
const key = () => `rest-${++keys}`

const order = (client: Client, items: ReadonlyArray<Json>, fields: Json = {}, as = key()) =>
  client.post("/api/v1/orders", { items, ...fields }, { key: as })

const pay = (client: Client, orderId: string, paymentToken = "tok_ok", as = key()) =>
  client.post(`/api/v1/orders/${orderId}/pay`, { paymentToken }, { key: as })

const adjust = async (productId: string, delta: number) =>
  (await shop().as("ADMIN", "admin")).post(`/api/v1/inventory/${productId}/adjustments`, { delta, reason: "count" })

const levels = async (productId: string) => (await shop().anyone.get(`/api/v1/inventory/${productId}`)).body

/** Asks until the answer is as wanted: what a cache holds may be a moment old. */
const until = async (ask: () => Promise<Answer>, wanted: (answer: Answer) => boolean) => {
  const deadline = Date.now() + 20_000
  for (;;) {
    const answer = await ask()
    if (wanted(answer)) return answer
    if (Date.now() > deadline) throw new Error(`still ${answer.status} ${JSON.stringify(answer.body)}`)
    await Bun.sleep(20)
  }
}

describe("products", () => {
  test("are added, and found where Location says, with an entity tag", async () => {
    const admin = await shop().as("ADMIN", "admin")
    const product = { sku: "MILK-1L", name: "Milk", category: "Dairy", price: 1.19, currency: "USD" }
    const added = await admin.post("/api/v1/products", product)
    const productId = text(added, "productId")
    expect([added.status, added.body]).toEqual([201, { ...product, productId, description: "", version: 1 }])
    expect(added.headers.get("location")).toBe(`/api/v1/products/${productId}`)
    const read = await shop().anyone.get(added.headers.get("location") ?? "")
    expect([read.status, read.headers.get("etag"), read.body]).toEqual([200, '"1"', added.body])
    expect(refusal(await admin.post("/api/v1/products", product))).toEqual([409, "sku_taken"])
    expect(refusal(await shop().anyone.get("/api/v1/products/PROD-NONE"))).toEqual([404, "product_not_found"])
  })

  test("are not sent again to who has them (If-None-Match), until they change", async () => {
    const admin = await shop().as("ADMIN", "admin")
    const path = `/api/v1/products/${await shop().product({ name: "Butter" })}`
    const given = (tag: string) => shop().anyone.get(path, { headers: { "if-none-match": tag } })
    for (const tag of ['"1"', 'W/"1"', '"0", "1"', "*"]) {
      const answer = await given(tag)
      expect([answer.status, answer.headers.get("etag")]).toEqual([304, '"1"'])
    }
    for (const tag of ['"2"', "1", "", '"0"']) expect((await given(tag)).status).toBe(200)
    const changed = await admin.request("PATCH", path, {
      body: { name: "Better butter" },
      headers: { "if-match": '"1"' }
    })
    expect([changed.status, changed.headers.get("etag"), changed.body["name"]]).toEqual([200, '"2"', "Better butter"])
    const fresh = await until(
      () => given('"1"'),
      ({ status }) => status === 200
    )
    expect([fresh.headers.get("etag"), fresh.body]).toEqual(['"2"', changed.body])
    const stale = await admin.request("PATCH", path, { body: { name: "Butter" }, headers: { "if-match": '"1"' } })
    expect([...refusal(stale), stale.body["current"]]).toEqual([412, "version_conflict", 2])
    expect((await admin.request("PATCH", path, { body: {}, headers: { "if-match": "*" } })).body).toEqual(changed.body)
    const missing = await admin.request("PATCH", "/api/v1/products/PROD-NONE", { body: { name: "None" } })
    expect(refusal(missing)).toEqual([404, "product_not_found"])
  })

  test("are the same from the cache as when they are read for the first time, in every header", async () => {
    const ada = await shop().as("ADA")
    const client = { anyone: shop().anyone, ada, "ada again": ada }
    const marks = { traceparent: `00-${"ab".repeat(16)}-${"cd".repeat(8)}-00`, "correlation-id": "mine-1" }
    for (const method of ["GET", "HEAD"]) {
      for (const ifNoneMatch of ['"0"', '"1"', "*"]) {
        const path = `/api/v1/products/${await shop().product({ name: "Crème fraîche" })}`
        const headers = { "if-none-match": ifNoneMatch, ...marks }
        const asked = async (who: Client) => {
          const answer = await who.request(method, path, { headers })
          const told = Object.fromEntries(answer.headers)
          expect(told["traceparent"]).toMatch(
            new RegExp(`^00-${"ab".repeat(16)}-(?!0{16}|cdcdcdcdcdcdcdcd)[0-9a-f]{16}-00$`)
          )
          return { status: answer.status, body: answer.body, headers: { ...told, traceparent: "", date: "" } }
        }
        const first = await asked(client.anyone)
        expect(first.status).toBe(ifNoneMatch === '"0"' ? 200 : 304)
        expect(first.headers).toMatchObject({ "correlation-id": "mine-1", etag: '"1"', "cache-control": "no-cache" })
        for (const who of Object.values(client)) expect(await asked(who)).toEqual(first)
      }
    }
  })

  test("in the cache are for nobody with a token that does not hold", async () => {
    const path = `/api/v1/products/${await shop().product()}`
    expect((await shop().anyone.get(path)).status).toBe(200)
    expect((await shop().anyone.get(path)).status).toBe(200)
    const expiring = await shop().token("ADA", "shopper", "us", 2)
    expect((await shop().anyone.as(expiring).get(path)).status).toBe(200)
    expect((await shop().anyone.as(expiring).get(path)).status).toBe(200)
    expect(refusal(await shop().anyone.as("forged").get(path))).toEqual([401, "unauthenticated"])
    const basic = await shop().anyone.get(path, { headers: { authorization: "Basic YTpi" } })
    expect(refusal(basic)).toEqual([401, "unauthenticated"])
    const expired = await until(
      () => shop().anyone.as(expiring).get(path),
      ({ status }) => status === 401
    )
    expect(refusal(expired)).toEqual([401, "unauthenticated"])
  })

  test("from the cache are counted like all requests", async () => {
    const path = `/api/v1/products/${await shop().product()}`
    await shop().anyone.get(path)
    const counts = async () => {
      const metrics = await (await fetch(`${shop().url}/metrics`)).text()
      return [
        'http_requests_total{status="2xx"}',
        'http_requests_total{status="3xx"}',
        "http_request_duration_ms_count"
      ].map((name) =>
        Number(
          metrics
            .split("\n")
            .find((line) => line.startsWith(name))
            ?.split(" ")
            .at(-1)
        )
      )
    }
    const before = await counts()
    for (let n = 0; n < 50; n++) await shop().anyone.get(path)
    for (let n = 0; n < 30; n++) await shop().anyone.get(path, { headers: { "if-none-match": "*" } })
    const after = await counts()
    const more = after.map((count, index) => count - (before[index] ?? Number.NaN))
    // Asking for the counts is a request, too.
    expect(more).toEqual([51, 30, 81])
  })

  test("as a list have an entity tag of their own, which changes with what is in it", async () => {
    const path = "/api/v1/products?category=Tagged"
    await shop().product({ category: "Tagged" })
    const first = await shop().anyone.get(path)
    const tag = first.headers.get("etag") ?? ""
    expect(tag).toMatch(/^W\/"[0-9a-f]{32}"$/)
    expect((await shop().anyone.get(path, { headers: { "if-none-match": tag } })).status).toBe(304)
    await shop().product({ category: "Tagged" })
    const second = await shop().anyone.get(path, { headers: { "if-none-match": tag } })
    expect([second.status, itemsOf(second).length]).toEqual([200, 2])
    expect(second.headers.get("etag")).not.toBe(tag)
  })

  test("as a list are the same when they are asked for again, and others as soon as somebody has changed one", async () => {
    const admin = await shop().as("ADMIN", "admin")
    const productId = await shop().product({ name: "Tahini", category: "Pastes" })
    const paths = ["/api/v1/products?category=Pastes", "/api/v1/products?q=tahini&limit=5", "/api/v1/products?limit=1"]
    const marks = { traceparent: `00-${"ab".repeat(16)}-${"cd".repeat(8)}-00`, "correlation-id": "mine-1" }
    const asked = async (path: string) => {
      const answer = await shop().anyone.get(path, { headers: marks })
      const headers = { ...Object.fromEntries(answer.headers), traceparent: "", date: "" }
      return { status: answer.status, body: answer.body, headers, items: itemsOf(answer) }
    }
    const all = async () => {
      const first = await Promise.all(paths.map(asked))
      for (const _ of [1, 2]) expect(await Promise.all(paths.map(asked))).toEqual(first)
      return first.map(({ items }) => items)
    }
    const [before = []] = await all()
    expect(before.length).toBe(1)
    const price = { price: 3, currency: "USD", reason: "harvest" }
    const dearer = await admin.request("PUT", `/api/v1/products/${productId}/price`, { body: price })
    expect(await all()).toEqual(paths.map(() => [dearer.body]))
    const renamed = await admin.request("PATCH", `/api/v1/products/${productId}`, { body: { description: "fine" } })
    expect(await all()).toEqual(paths.map(() => [renamed.body]))
    await shop().product({ name: "Tahini", category: "Pastes" })
    expect((await all()).map((items) => items.length)).toEqual([2, 2, 1])
  })

  test("come newest first, page by page, nothing twice and nothing left out while more are added", async () => {
    const present: Array<string> = []
    for (let nth = 0; nth < 7; nth++) present.push(await shop().product({ category: "Growing" }))
    const pages = await pagesOf(shop().anyone, "/api/v1/products?category=Growing&limit=2", () =>
      shop().product({ category: "Growing" })
    )
    expect(pages.map((page) => page.length)).toEqual([2, 2, 2, 1])
    expect(pages.flat().map((product) => product["productId"])).toEqual(present.toReversed())
    const all = await shop().anyone.get("/api/v1/products?category=Growing")
    expect([itemsOf(all).length, all.body["nextCursor"]]).toEqual([10, null])
    const exactly = await shop().anyone.get("/api/v1/products?category=Growing&limit=10")
    expect(exactly.body["nextCursor"]).toBeNull()
  })

  test("are 20 a page unless told, and at most 100", async () => {
    await Promise.all(Array.from({ length: 21 }, () => shop().product({ category: "Many" })))
    expect(itemsOf(await shop().anyone.get("/api/v1/products?category=Many")).length).toBe(20)
    expect(itemsOf(await shop().anyone.get("/api/v1/products?category=Many&limit=100")).length).toBe(21)
  })

  test("are found by words of their name, category and description, the last one only begun", async () => {
    const category = "Spices & Herbs"
    const [curry, leaves] = [
      await shop().product({ name: "Madras curry powder", category, description: "Hot, with turmeric." }),
      await shop().product({ name: "Curry leaves", category, description: "Fresh." })
    ]
    await shop().product({ name: "Thyme", category })
    const found = async (query: string) => {
      const answer = await shop().anyone.get(`/api/v1/products?${new URLSearchParams({ q: query })}`)
      expect(answer.status).toBe(200)
      return itemsOf(answer).map((product) => product["productId"])
    }
    expect((await found("curry")).toSorted()).toEqual([curry, leaves].toSorted())
    expect(await found("CURRY leav")).toEqual([leaves])
    expect(await found("turmeric")).toEqual([curry])
    expect((await found("herbs curry")).toSorted()).toEqual([curry, leaves].toSorted())
    expect(await found("curry parsley")).toEqual([])
    for (const odd of ["&|!()", "'", "\\", "a:*b", "curry' | 'thyme", "²³ ½", "漢字 🍎", "%"]) {
      expect(await found(odd)).toEqual([])
    }
    const both = new URLSearchParams({ q: "curry", category: "Dairy" })
    expect(itemsOf(await shop().anyone.get(`/api/v1/products?${both}`))).toEqual([])
    expect(itemsOf(await shop().anyone.get(`/api/v1/products?${new URLSearchParams({ category })}`)).length).toBe(3)
    expect(itemsOf(await shop().anyone.get("/api/v1/products?category=spices"))).toEqual([])
    const categories = itemsOf(await shop().anyone.get("/api/v1/categories"))
    expect(categories).toContainEqual({ category, products: 3 })
  })

  test("are counted by category, also while many come and move at once", async () => {
    const admin = await shop().as("ADMIN", "admin")
    const [here, there] = [`Here ${crypto.randomUUID()}`, `There ${crypto.randomUUID()}`]
    const products = await Promise.all(
      Array.from({ length: 12 }, (_, nth) => shop().product({ category: nth % 2 === 0 ? here : there }))
    )
    // Four of each go over to the other side; one of them only says again where it is.
    await Promise.all(
      products.slice(0, 8).map(async (productId, nth) => {
        const category = nth === 0 ? here : nth % 2 === 0 ? there : here
        const patched = await admin.request("PATCH", `/api/v1/products/${productId}`, { body: { category } })
        expect(patched.status).toBe(200)
      })
    )
    const counted = async () =>
      itemsOf(await shop().anyone.get("/api/v1/categories")).filter(({ category }) =>
        [here, there].includes(String(category))
      )
    expect(await counted()).toEqual([
      { category: here, products: 7 },
      { category: there, products: 5 }
    ])
    for (const productId of products) {
      await admin.request("PATCH", `/api/v1/products/${productId}`, { body: { category: there } })
    }
    expect(await counted()).toEqual([{ category: there, products: 12 }])
  })

  /** How often Postgres had to end a circle of transactions that wait for each other. */
  const deadlocks = async () =>
    (await shop().rows("select deadlocks::int from pg_stat_database where datname = current_database()"))[0]?.[
      "deadlocks"
    ]

  test("change places between two categories at once, without waiting for each other in a circle", async () => {
    const admin = await shop().as("ADMIN", "admin")
    const sides = [`One ${crypto.randomUUID()}`, `Two ${crypto.randomUUID()}`]
    const products = await Promise.all(
      Array.from({ length: 24 }, (_, nth) => shop().product({ category: String(sides[nth % 2]) }))
    )
    const before = await deadlocks()
    for (let round = 1; round <= 10; round++) {
      const statuses = await Promise.all(
        products.map(async (productId, nth) => {
          const body = { category: sides[(nth + round) % 2] }
          return (await admin.request("PATCH", `/api/v1/products/${productId}`, { body })).status
        })
      )
      expect(statuses).toEqual(products.map(() => 200))
    }
    expect(await deadlocks()).toBe(before)
  })

  test("that are searched for come page by page as well", async () => {
    const present: Array<string> = []
    for (let nth = 0; nth < 5; nth++) present.push(await shop().product({ name: `Gnocchi ${"potato ".repeat(nth)}` }))
    const pages = await pagesOf(shop().anyone, "/api/v1/products?q=gnocchi&limit=2", () =>
      shop().product({ name: "Dumplings" })
    )
    const found = pages.flat().map((product) => String(product["productId"]))
    expect(found.toSorted()).toEqual(present.toSorted())
    expect(pages.map((page) => page.length)).toEqual([2, 2, 1])
  })
})

describe("prices", () => {
  test("have a history: newest first, each until the next one began, the last one still holding", async () => {
    const admin = await shop().as("ADMIN", "admin")
    const productId = await shop().product({ price: 1, currency: "USD" })
    const path = `/api/v1/products/${productId}`
    const changes: Array<readonly [before: number, after: number]> = []
    for (const [price, currency] of [
      [1.5, "USD"],
      [2, "EUR"],
      [0.99, "EUR"]
    ] as const) {
      await Bun.sleep(2)
      const before = Date.now()
      const answer = await admin.request("PUT", `${path}/price`, { body: { price, currency, reason: `to ${price}` } })
      expect([answer.status, answer.body["price"], answer.body["currency"]]).toEqual([200, price, currency])
      changes.unshift([before, Date.now()])
    }
    const pages = await pagesOf(shop().anyone, `${path}/prices?limit=1`)
    expect(pages.map((page) => page.length)).toEqual([1, 1, 1, 1])
    const periods = pages.flat()
    expect(periods.map(({ price, currency, reason }) => [price, currency, reason])).toEqual([
      [0.99, "EUR", "to 0.99"],
      [2, "EUR", "to 2"],
      [1.5, "USD", "to 1.5"],
      [1, "USD", "first price"]
    ])
    expect(periods.map(({ validTo }) => validTo)).toEqual([
      null,
      ...periods.slice(0, -1).map(({ validFrom }) => validFrom)
    ])
    for (const [at, [before, after]] of changes.entries()) {
      const validFrom = String(periods[at]?.["validFrom"])
      expect(validFrom).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
      expect(Date.parse(validFrom)).toBeWithin(before, after + 1)
    }
    expect(itemsOf(await shop().anyone.get(`${path}/prices`))).toEqual([...periods])
    const now = await until(
      () => shop().anyone.get(path),
      ({ body }) => body["version"] === 4
    )
    expect(now.body).toMatchObject({ price: 0.99, currency: "EUR" })
    const price = { price: 1, currency: "USD", reason: "none" }
    const guarded = (version: number) =>
      admin.request("PUT", `${path}/price`, { body: price, headers: { "if-match": `"${version}"` } })
    expect([refusal(await guarded(3)), refusal(await guarded(5))]).toEqual([
      [412, "version_conflict"],
      [412, "version_conflict"]
    ])
    expect(itemsOf(await shop().anyone.get(`${path}/prices`))).toEqual([...periods])
    const replaced = await guarded(4)
    expect([replaced.status, replaced.headers.get("etag"), replaced.body["price"]]).toEqual([200, '"5"', 1])
    const missing = await admin.request("PUT", "/api/v1/products/PROD-NONE/price", { body: price })
    expect(refusal(missing)).toEqual([404, "product_not_found"])
    expect(refusal(await shop().anyone.get("/api/v1/products/PROD-NONE/prices"))).toEqual([404, "product_not_found"])
  })
})

describe("stock", () => {
  test("is all zeros for a product without any, and for one that is not there", async () => {
    for (const productId of [await shop().product(), "PROD-NONE"]) {
      expect(await levels(productId)).toEqual({ productId, onHand: 0, reserved: 0, available: 0 })
    }
  })

  test("is added and taken away, never below zero nor beyond what a warehouse holds", async () => {
    const productId = await shop().product()
    expect(refusal(await adjust(productId, -1))).toEqual([409, "stock_would_be_negative"])
    expect((await adjust(productId, 10)).status).toBe(201)
    const less = await adjust(productId, -4)
    expect([less.status, less.body]).toEqual([201, { productId, onHand: 6, reserved: 0, available: 6 }])
    const refused = await adjust(productId, -7)
    expect([...refusal(refused), refused.body["available"]]).toEqual([409, "stock_would_be_negative", 6])
    expect((await adjust(productId, -6)).body).toEqual({ productId, onHand: 0, reserved: 0, available: 0 })
    expect(refusal(await adjust(productId, -1))).toEqual([409, "stock_would_be_negative"])
    expect(refusal(await adjust("PROD-NONE", 1))).toEqual([404, "product_not_found"])
    await shop().rows(`update inventory.inventory_stock set on_hand = 999999999 where product_id = '${productId}'`)
    expect((await adjust(productId, 1)).body["onHand"]).toBe(1_000_000_000)
    expect(refusal(await adjust(productId, 1))).toEqual([409, "stock_would_overflow"])
    expect(refusal(await adjust(productId, 1_000_000))).toEqual([409, "stock_would_overflow"])
    expect((await adjust(productId, -1_000_000)).body["onHand"]).toBe(999_000_000)
  })

  test("that is reserved is not taken away", async () => {
    const productId = await shop().product({}, 5)
    expect((await order(await shop().as("ADA"), [{ productId, qty: 3 }])).status).toBe(201)
    expect(await levels(productId)).toEqual({ productId, onHand: 5, reserved: 3, available: 2 })
    expect(refusal(await adjust(productId, -3))).toEqual([409, "stock_would_be_negative"])
    expect((await adjust(productId, -2)).body).toEqual({ productId, onHand: 3, reserved: 3, available: 0 })
  })
})

describe("orders", () => {
  test("are placed, with the stock reserved, and found where Location says", async () => {
    const ada = await shop().as("ADA", "shopper", "eu")
    const [milk, bread] = [await shop().product({ price: 1.19 }, 9), await shop().product({ price: 3.39 }, 9)]
    const placed = await order(ada, [
      { productId: milk, qty: 2 },
      { productId: bread, qty: 1 },
      { productId: milk, qty: 1 }
    ])
    const orderId = text(placed, "orderId")
    expect([placed.status, placed.body]).toEqual([
      201,
      {
        orderId,
        userId: "ADA",
        region: "eu",
        status: "PENDING",
        items: [
          { productId: milk, qty: 3, price: 1.19 },
          { productId: bread, qty: 1, price: 3.39 }
        ],
        itemsAmount: 6.96,
        discountAmount: 0,
        taxAmount: 0,
        shippingAmount: 0,
        totalAmount: 6.96,
        currency: "USD",
        createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
        updatedAt: text(placed, "createdAt")
      }
    ])
    expect(placed.headers.get("location")).toBe(`/api/v1/orders/${orderId}`)
    expect(placed.headers.get("idempotent-replayed")).toBeNull()
    expect(placed.headers.get("cache-control")).toBe("no-store")
    expect((await ada.get(`/api/v1/orders/${orderId}`)).body).toEqual(placed.body)
    expect(await levels(milk)).toMatchObject({ onHand: 9, reserved: 3, available: 6 })
  })

  test("placed again under the same key are the same order, told so, and nothing is done twice", async () => {
    const ada = await shop().as("ADA")
    const productId = await shop().product({}, 5)
    const first = await order(ada, [{ productId, qty: 2 }], {}, "again")
    const second = await order(ada, [{ productId, qty: 2 }], {}, "again")
    expect([second.status, second.headers.get("idempotent-replayed"), second.body]).toEqual([201, "true", first.body])
    expect(second.headers.get("location")).toBe(first.headers.get("location"))
    expect(refusal(await order(ada, [{ productId, qty: 3 }], {}, "again"))).toEqual([422, "idempotency_key_reused"])
    expect(refusal(await order(ada, [{ productId, qty: 2 }], { currency: "USD" }, "again"))).toEqual([
      422,
      "idempotency_key_reused"
    ])
    expect(await levels(productId)).toMatchObject({ reserved: 2 })
    const bob = await order(await shop().as("BOB"), [{ productId, qty: 3 }], {}, "again")
    expect([bob.status, bob.body["userId"]]).toEqual([201, "BOB"])
  })

  test("are refused for what is out of stock, changed in price, sold in another currency or not there", async () => {
    const ada = await shop().as("ADA")
    const [milk, rice] = [await shop().product({}, 2), await shop().product({ price: 2, currency: "EUR" }, 2)]
    const cases: ReadonlyArray<readonly [Json, number, string, Json]> = [
      [
        {
          items: [
            { productId: milk, qty: 3 },
            { productId: rice, qty: 9 }
          ],
          currency: "USD"
        },
        422,
        "currency_not_supported",
        { currency: "USD" }
      ],
      [{ items: [{ productId: milk, qty: 1 }], currency: "EUR" }, 422, "currency_not_supported", { currency: "EUR" }],
      [{ items: [{ productId: milk, qty: 1 }], currency: "ZZZ" }, 422, "currency_not_supported", { currency: "ZZZ" }],
      [
        {
          items: [
            { productId: "PROD-NONE", qty: 1 },
            { productId: milk, qty: 1 }
          ]
        },
        422,
        "product_not_found",
        { productIds: ["PROD-NONE"] }
      ],
      [
        { items: [{ productId: milk, qty: 2 }], expectedTotal: 1.99 },
        409,
        "price_changed",
        { expectedTotal: 1.99, actualTotal: 2, currency: "USD" }
      ],
      [
        { items: [{ productId: milk, qty: 3 }] },
        409,
        "out_of_stock",
        { products: [{ productId: milk, requested: 3, available: 2 }] }
      ],
      [
        {
          items: [
            { productId: milk, qty: 2 },
            { productId: milk, qty: 2 }
          ]
        },
        409,
        "out_of_stock",
        { products: [{ productId: milk, requested: 4, available: 2 }] }
      ]
    ]
    for (const [body, status, code, rest] of cases) {
      const sent = key()
      const first = await ada.post("/api/v1/orders", body, { key: sent })
      expect(first.body).toMatchObject({ status, code, ...rest })
      const again = await ada.post("/api/v1/orders", body, { key: sent })
      expect([again.status, again.body["code"]]).toEqual([status, code])
      // A currency that nobody trades in is refused before the key is looked at.
      if (body["currency"] !== "ZZZ") expect(again.headers.get("idempotent-replayed")).toBe("true")
    }
    expect(await levels(milk)).toMatchObject({ reserved: 0 })
    const exact = await order(ada, [{ productId: milk, qty: 2 }], { expectedTotal: 2, currency: "USD" })
    expect(exact.status).toBe(201)
  })

  test("are listed newest first to their owner, page by page while more are placed; all of them to an administrator", async () => {
    const cyd = await shop().as("CYD")
    const productId = await shop().product({}, 50)
    const present: Array<string> = []
    for (let nth = 0; nth < 5; nth++) present.push(text(await order(cyd, [{ productId, qty: 1 }]), "orderId"))
    await order(await shop().as("DAN"), [{ productId, qty: 1 }])
    const pages = await pagesOf(cyd, "/api/v1/orders?limit=2", () => order(cyd, [{ productId, qty: 1 }]))
    expect(pages.flat().map((each) => each["orderId"])).toEqual(present.toReversed())
    const all = await cyd.get("/api/v1/orders")
    expect([itemsOf(all).length, all.body["nextCursor"]]).toEqual([7, null])
    expect(new Set(itemsOf(all).map((each) => each["userId"]))).toEqual(new Set(["CYD"]))
    const everybodys = itemsOf(await (await shop().as("ADMIN", "admin")).get("/api/v1/orders?limit=100"))
    expect(new Set(everybodys.map((each) => each["userId"])).isSupersetOf(new Set(["CYD", "DAN"]))).toBe(true)
    expect((await (await shop().as("NEW")).get("/api/v1/orders")).body).toEqual({ items: [], nextCursor: null })
  })

  test("of others cannot be seen, paid, canceled or handed over", async () => {
    const productId = await shop().product({}, 5)
    const orderId = text(await order(await shop().as("ADA"), [{ productId, qty: 1 }]), "orderId")
    const eve = await shop().as("EVE")
    expect(refusal(await eve.get(`/api/v1/orders/${orderId}`))).toEqual([404, "order_not_found"])
    expect(refusal(await eve.get(`/api/v1/orders/${orderId}/history`))).toEqual([404, "order_not_found"])
    expect(refusal(await eve.post(`/api/v1/orders/${orderId}/cancel`))).toEqual([403, "not_your_order"])
    expect(refusal(await pay(eve, orderId))).toEqual([403, "not_your_order"])
    expect(refusal(await eve.post(`/api/v1/orders/${orderId}/fulfil`))).toEqual([403, "forbidden"])
    expect(refusal(await eve.get("/api/v1/orders/ORDER-NONE"))).toEqual([404, "order_not_found"])
    expect(refusal(await eve.post("/api/v1/orders/ORDER-NONE/cancel"))).toEqual([404, "order_not_found"])
    expect(refusal(await pay(eve, "ORDER-NONE"))).toEqual([404, "order_not_found"])
    const admin = await shop().as("ADMIN", "admin")
    expect((await admin.get(`/api/v1/orders/${orderId}`)).body["status"]).toBe("PENDING")
    expect(refusal(await pay(admin, orderId))).toEqual([403, "not_your_order"])
    expect((await admin.post(`/api/v1/orders/${orderId}/cancel`)).body["status"]).toBe("CANCELED")
  })

  test("are paid and handed over; their history says so, and so do the notifications", async () => {
    const fay = await shop().as("FAY")
    const admin = await shop().as("ADMIN", "admin")
    const productId = await shop().product({ price: 5 }, 3)
    const orderId = text(await order(fay, [{ productId, qty: 2 }]), "orderId")
    expect(refusal(await admin.post(`/api/v1/orders/${orderId}/fulfil`))).toEqual([409, "not_fulfillable"])
    const declined = await pay(fay, orderId, "tok_declined", "declined")
    expect([...refusal(declined), declined.body["reason"]]).toEqual([402, "payment_declined", "the bank refused"])
    const again = await pay(fay, orderId, "tok_declined", "declined")
    expect([again.status, again.headers.get("idempotent-replayed")]).toEqual([402, "true"])
    const away = await pay(fay, orderId, "tok_all_down")
    expect(refusal(away)).toEqual([503, "payment_unavailable"])
    expect(Number(away.headers.get("retry-after"))).toBeGreaterThan(0)
    const paid = await pay(fay, orderId, "tok_ok", "paid")
    expect([paid.status, paid.body["status"], paid.body["totalAmount"]]).toEqual([200, "PAID", 10])
    const twice = await pay(fay, orderId, "tok_ok", "paid")
    expect([twice.status, twice.headers.get("idempotent-replayed"), twice.body]).toEqual([200, "true", paid.body])
    expect(refusal(await pay(fay, orderId, "tok_declined", "paid"))).toEqual([422, "idempotency_key_reused"])
    expect(refusal(await pay(fay, orderId))).toEqual([409, "not_payable"])
    expect(refusal(await fay.post(`/api/v1/orders/${orderId}/cancel`))).toEqual([409, "not_cancelable"])
    expect(await levels(productId)).toEqual({ productId, onHand: 1, reserved: 0, available: 1 })

    const fulfilled = await admin.post(`/api/v1/orders/${orderId}/fulfil`)
    expect([fulfilled.status, fulfilled.body["status"]]).toEqual([200, "FULFILLED"])
    expect(refusal(await admin.post(`/api/v1/orders/${orderId}/fulfil`))).toEqual([409, "not_fulfillable"])
    expect(refusal(await admin.post("/api/v1/orders/ORDER-NONE/fulfil"))).toEqual([404, "order_not_found"])
    const history = await fay.get(`/api/v1/orders/${orderId}/history`)
    expect(history.body["nextCursor"]).toBeNull()
    const entries = itemsOf(history)
    expect(entries.map(({ version }) => version)).toEqual(entries.map((_, index) => index + 1))
    expect(entries.map(({ status }) => status).filter((status, at, all) => status !== all[at - 1])).toEqual([
      "PENDING",
      "PAID",
      "FULFILLED"
    ])
    expect(entries.map(({ event }) => event)).toContain("ecommerce.order.payment.failed.v1")

    const told = await until(
      () => fay.get("/api/v1/notifications"),
      (answer) => itemsOf(answer).length === 3
    )
    expect(itemsOf(told).map(({ kind, orderId: of, readAt }) => [kind, of, readAt])).toEqual([
      ["order.fulfilled", orderId, null],
      ["order.paid", orderId, null],
      ["order.created", orderId, null]
    ])
    const pages = await pagesOf(fay, "/api/v1/notifications?limit=1")
    expect(pages.flat()).toEqual([...itemsOf(told)])
    expect((await (await shop().as("NEW")).get("/api/v1/notifications")).body).toEqual({ items: [], nextCursor: null })
  })

  test("that are canceled give their stock back, once", async () => {
    const ada = await shop().as("ADA")
    const productId = await shop().product({}, 4)
    const orderId = text(await order(ada, [{ productId, qty: 4 }]), "orderId")
    expect(refusal(await order(ada, [{ productId, qty: 1 }]))).toEqual([409, "out_of_stock"])
    const canceled = await ada.post(`/api/v1/orders/${orderId}/cancel`)
    expect([canceled.status, canceled.body["status"]]).toEqual([200, "CANCELED"])
    expect(await levels(productId)).toEqual({ productId, onHand: 4, reserved: 0, available: 4 })
    expect(refusal(await ada.post(`/api/v1/orders/${orderId}/cancel`))).toEqual([409, "not_cancelable"])
    expect(refusal(await pay(ada, orderId))).toEqual([409, "not_payable"])
    expect(await levels(productId)).toMatchObject({ available: 4 })
  })

  test("whose payment is under way are neither canceled nor paid again; who asks is told when to come back", async () => {
    const ada = await shop().as("ADA")
    const productId = await shop().product({}, 1)
    const orderId = text(await order(ada, [{ productId, qty: 1 }]), "orderId")
    const silent = pay(ada, orderId, "tok_timeout", "silent")
    await until(
      () => ada.get(`/api/v1/orders/${orderId}/history`),
      (answer) => itemsOf(answer).some(({ event }) => event === "ecommerce.order.payment.started.v1")
    )
    const [canceled, other, same] = await Promise.all([
      ada.post(`/api/v1/orders/${orderId}/cancel`),
      pay(ada, orderId),
      pay(ada, orderId, "tok_timeout", "silent")
    ])
    expect(refusal(canceled)).toEqual([409, "payment_in_progress"])
    expect(refusal(other)).toEqual([409, "payment_in_progress"])
    expect(refusal(same)).toEqual([409, "request_in_progress"])
    expect((await silent).status).toBe(503)
  })
})

describe("money", () => {
  test("is exact in currencies of two, no and three decimals", async () => {
    const ada = await shop().as("ADA")
    const cases = [
      ["USD", 0.1, 3, "0.3"],
      ["USD", 19.99, 99, "1979.01"],
      ["USD", 1.1, 7, "7.7"],
      ["USD", 4.35, 100 - 1, "430.65"],
      ["JPY", 149, 7, "1043"],
      ["JPY", 1_000_000_000, 99, "99000000000"],
      ["KWD", 1.005, 3, "3.015"],
      ["KWD", 0.001, 9, "0.009"]
    ] as const
    for (const [currency, price, qty, total] of cases) {
      const productId = await shop().product({ price, currency }, qty)
      expect((await shop().anyone.get(`/api/v1/products/${productId}`)).body).toMatchObject({ price, currency })
      const placed = await order(ada, [{ productId, qty }], { expectedTotal: Number(total) })
      expect(placed.body).toMatchObject({ totalAmount: Number(total), itemsAmount: Number(total), currency })
      const response = await fetch(`${shop().url}/api/v1/orders/${text(placed, "orderId")}`, {
        headers: { authorization: `Bearer ${ada.token ?? ""}` }
      })
      expect(await response.text()).toContain(`"totalAmount":${total},`)
      expect(response.status).toBe(200)
    }
  })

  test("of the largest order there can be does not overflow", async () => {
    const ada = await shop().as("ADA")
    const productId = await shop().product({ price: 10_000_000, currency: "USD" }, 9_900)
    const items = Array.from({ length: 100 }, () => ({ productId, qty: 99 }))
    const placed = await order(ada, items)
    expect([placed.status, placed.body]).toMatchObject([
      201,
      { items: [{ productId, qty: 9_900, price: 10_000_000 }], totalAmount: 99_000_000_000 }
    ])
    const orderId = text(placed, "orderId")
    const held = await pay(ada, orderId)
    expect([held.status, held.body["status"]]).toEqual([202, "HELD"])
    const admin = await shop().as("ADMIN", "admin")
    const released = await admin.post(`/api/v1/orders/${orderId}/release`)
    expect([released.status, released.body["status"]]).toEqual([200, "PENDING"])
    const paid = await pay(ada, orderId)
    expect([paid.status, paid.body["status"], paid.body["totalAmount"]]).toEqual([200, "PAID", 99_000_000_000])
    const wrong = await order(ada, [{ productId, qty: 1 }], { expectedTotal: 1e308 })
    expect(refusal(wrong)).toEqual([409, "price_changed"])
  })
})

describe("every answer", () => {
  test("carries the caller's Correlation-Id, or a new one for what cannot be one", async () => {
    const sent = async (id: string) =>
      (await shop().anyone.get("/api/v1/categories", { headers: { "correlation-id": id } })).headers.get(
        "correlation-id"
      )
    expect(await sent("my-request/1:a")).toBe("my-request/1:a")
    expect(await sent("x".repeat(128))).toBe("x".repeat(128))
    for (const bad of ["x".repeat(129), "with space", "é"]) expect(await sent(bad)).toMatch(/^[0-9a-f-]{36}$/)
    const ids = await Promise.all(Array.from({ length: 5 }, () => shop().anyone.get("/api/v1/categories")))
    expect(new Set(ids.map(({ headers }) => headers.get("correlation-id"))).size).toBe(5)
  })

  test("goes on with the caller's trace, and makes one where that is none", async () => {
    const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    const sent = async (traceparent: string) =>
      (await shop().anyone.get("/api/v1/products/PROD-NONE", { headers: { traceparent } })).headers.get("traceparent")
    for (const flags of ["00", "01"]) {
      const answered = await sent(`00-${trace}-00f067aa0ba902b7-${flags}`)
      expect(answered?.slice(0, 36)).toBe(`00-${trace}-`)
      expect(answered).not.toContain("00f067aa0ba902b7")
    }
    for (const bad of [`00-${"0".repeat(32)}-00f067aa0ba902b7-00`, `00-${trace.toUpperCase()}-1-00`, "nonsense", ""]) {
      expect(await sent(bad)).toMatch(/^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[01]$/)
    }
  })

  test("of an address that is not there is a problem, and of a method that is not there says which are", async () => {
    const eve = await shop().as("EVE")
    for (const path of [
      "/nothing",
      "/api/v1",
      "/api/v2/products",
      "/api/v1/orders/X/refund",
      "/api/v1/products/X/Y/Z"
    ]) {
      for (const method of ["GET", "POST", "DELETE"]) {
        expect(refusal(await eve.request(method, path))).toEqual([404, "route_not_found"])
      }
    }
    const cases = [
      ["DELETE", "/api/v1/products", "GET, HEAD, POST"],
      ["PUT", "/api/v1/orders", "GET, HEAD, POST"],
      ["DELETE", "/api/v1/products/X", "GET, HEAD, PATCH"],
      ["GET", "/api/v1/orders/X/pay", "POST"],
      ["GET", "/api/v1/carts", "POST"],
      ["PATCH", "/api/v1/carts/X/items/Y", "DELETE, PUT"],
      ["GET", "/api/v1/sessions", "DELETE, POST"],
      ["OPTIONS", "/api/v1/categories", "GET, HEAD"],
      ["PROPFIND", "/api/v1/categories", "GET, HEAD"],
      ["POST", "/healthz", "GET, HEAD"],
      ["POST", "/", "GET, HEAD"],
      ["DELETE", "/openapi.json", "GET, HEAD"]
    ] as const
    for (const [method, path, allow] of cases) {
      const answer = await shop().anyone.request(method, path)
      expect(refusal(answer)).toEqual([405, "method_not_allowed"])
      expect(answer.headers.get("allow")?.split(", ").toSorted().join(", ")).toBe(allow)
    }
  })

  test("to HEAD is that to GET without the body", async () => {
    const path = `/api/v1/products/${await shop().product()}`
    for (const [address, status] of [
      [path, 200],
      ["/api/v1/products", 200],
      ["/api/v1/products/PROD-NONE", 404],
      ["/none", 404],
      ["/", 200]
    ] as const) {
      const got = await fetch(`${shop().url}${address}`)
      const head = await fetch(`${shop().url}${address}`, { method: "HEAD" })
      const body = await got.text()
      expect([head.status, await head.text(), got.status, body.length > 0]).toEqual([status, "", status, true])
      expect(head.headers.get("content-type")).toBe(got.headers.get("content-type"))
      expect(head.headers.get("etag")).toBe(got.headers.get("etag"))
      expect(head.headers.has("traceparent")).toBe(true)
    }
  })

  test("protects browsers: nothing is sniffed, framed, or stored of what is private", async () => {
    const productId = await shop().product()
    const path = `/api/v1/products/${productId}`
    const none = { "if-none-match": '"1"' }
    const answers = [
      await fetch(`${shop().url}${path}`),
      await fetch(`${shop().url}${path}`, { headers: none }),
      await fetch(`${shop().url}/api/v1/orders`),
      await fetch(`${shop().url}/nothing`),
      await fetch(`${shop().url}/`),
      await fetch(`${shop().url}/docs`),
      await fetch(`${shop().url}/openapi.json`),
      await fetch(`${shop().url}/readyz`),
      await fetch(`${shop().url}/api/v1/products`, { method: "POST", body: "x".repeat(1_100_000) })
    ]
    expect(answers.map(({ status }) => status)).toEqual([200, 304, 401, 404, 200, 200, 200, 200, 413])
    for (const { headers } of answers) {
      expect(headers.get("x-content-type-options")).toBe("nosniff")
      expect(headers.get("x-frame-options")).toBe("DENY")
      expect(headers.get("referrer-policy")).toBe("no-referrer")
      expect(headers.get("content-security-policy")).toContain("default-src 'none'")
      expect(headers.get("content-security-policy")).toContain("frame-ancestors 'none'")
      expect(headers.get("correlation-id")).toMatch(/./)
      expect(headers.get("traceparent")).toMatch(/^00-/)
      expect(headers.get("server")).toBeNull()
      expect(headers.get("x-powered-by")).toBeNull()
    }
    expect(answers.slice(0, 3).map(({ headers }) => headers.get("cache-control"))).toEqual([
      "no-cache",
      "no-cache",
      "no-store"
    ])
    await Promise.all(answers.map((answer) => answer.text()))
  })
})

describe("the document at /openapi.json", () => {
  const read = async (): Promise<Json> => {
    const answer = await shop().anyone.get("/openapi.json")
    expect(answer.status).toBe(200)
    return answer.body
  }

  interface Operation {
    readonly method: string
    readonly path: string
    readonly id: string
    readonly is: Json
  }

  const operationsOf = (document: Json): ReadonlyArray<Operation> =>
    Object.entries(isJson(document["paths"]) ? document["paths"] : {}).flatMap(([path, item]) =>
      Object.entries(isJson(item) ? item : {}).flatMap(([method, is]) =>
        isJson(is) ? [{ method: method.toUpperCase(), path, id: String(is["operationId"]), is }] : []
      )
    )

  const listIn = (value: unknown): ReadonlyArray<Json> => (Array.isArray(value) ? value.filter(isJson) : [])

  test("is OpenAPI 3.1: every reference leads somewhere, every parameter of a path is declared, every answer described", async () => {
    const document = await read()
    expect(document["openapi"]).toBe("3.1.0")
    expect(document["info"]).toMatchObject({ title: expect.stringMatching(/./), version: expect.stringMatching(/./) })
    const references = [...JSON.stringify(document).matchAll(/"\$ref":"([^"]*)"/g)].map(([, to = ""]) => to)
    expect(references.length).toBeGreaterThan(100)
    for (const reference of new Set(references)) {
      const found = reference
        .replace(/^#\//, "")
        .split("/")
        .reduce<unknown>((place, step) => (isJson(place) ? place[step] : undefined), document)
      expect([reference, isJson(found)]).toEqual([reference, true])
    }
    const operations = operationsOf(document)
    expect(new Set(operations.map(({ id }) => id)).size).toBe(operations.length)
    expect(operations.length).toBe(51)
    for (const { path, is, id } of operations) {
      const parameters = listIn(is["parameters"])
      const inPath = parameters.filter((parameter) => parameter["in"] === "path")
      expect([id, inPath.map(({ name }) => `{${String(name)}}`)]).toEqual([id, path.match(/\{\w+\}/g) ?? []])
      for (const { name, required, schema } of parameters) {
        expect([id, typeof name, typeof required, isJson(schema)]).toEqual([id, "string", "boolean", true])
      }
      expect(inPath.every(({ required }) => required === true)).toBe(true)
      expect(typeof is["summary"]).toBe("string")
      const answers = Object.entries(isJson(is["responses"]) ? is["responses"] : {})
      expect(answers.some(([status]) => /^2\d\d$/.test(status))).toBe(true)
      for (const [status, answer] of answers) {
        expect(status).toMatch(/^[2345]\d\d$/)
        expect(isJson(answer) && typeof answer["description"] === "string" && answer["description"] !== "").toBe(true)
      }
    }
    const names = Object.keys(
      isJson(document["components"]) && isJson(document["components"]["schemas"])
        ? document["components"]["schemas"]
        : {}
    )
    expect(names.filter((name) => /_\d+$/.test(name))).toEqual([])
  })

  test("says of every operation whether it needs a token, and that is how it is", async () => {
    const document = await read()
    expect(document["components"]).toMatchObject({
      securitySchemes: { bearer: { type: "http", scheme: "Bearer", bearerFormat: "JWT" } }
    })
    for (const { method, path, is, id } of operationsOf(document)) {
      const options = is["requestBody"] === undefined ? {} : { body: {} }
      const answer = await shop().anyone.request(method, path.replaceAll(/\{\w+\}/g, "NONE"), options)
      expect([id, JSON.stringify(is["security"]) === '[{"bearer":[]}]']).toEqual([id, answer.status === 401])
    }
  })

  test("documents where new things are, their tags and when to come back, as these tests have seen it", async () => {
    const telling = ["location", "etag", "retry-after", "idempotent-replayed", "www-authenticate"]
    const operations = operationsOf(await read())
    const documented = new Map(
      operations.flatMap(({ id, is }) =>
        Object.entries(isJson(is["responses"]) ? is["responses"] : {}).map(([status, answer]) => [
          `${id} ${status}`,
          Object.keys(isJson(answer) && isJson(answer["headers"]) ? answer["headers"] : {}).map((name) =>
            name.toLowerCase()
          )
        ])
      )
    )
    for (const [answer, names] of shop().contract.headersSeen) {
      const told = telling.filter((name) => names.has(name))
      expect([answer, told.filter((name) => documented.get(answer)?.includes(name) !== true)]).toEqual([answer, []])
    }
    // A key has to be sent where its absence is a mistake, and nowhere else.
    for (const { id, is } of operations) {
      const needed = JSON.stringify(is["responses"]).includes("idempotency_key_required")
      const keys = listIn(is["parameters"]).filter(({ name }) => name === "idempotency-key")
      expect([id, keys.some(({ required }) => required === true)]).toEqual([id, needed])
    }
  })

  test("documents every status that these tests have seen, with the body it had", async () => {
    const document = await read()
    const documented = new Map(
      operationsOf(document).map(({ id, is }) => [
        id,
        new Set(Object.keys(isJson(is["responses"]) ? is["responses"] : {}).map(Number))
      ])
    )
    const { seen } = shop().contract
    expect([...seen.keys()].toSorted()).toEqual([...documented.keys()].filter((id) => seen.has(id)).toSorted())
    for (const [id, statuses] of seen) {
      const missing = [...statuses].filter((status) => documented.get(id)?.has(status) !== true)
      expect([id, missing]).toEqual([id, []])
    }
    // These tests have met every operation but those of sessions and carts, which have files of their own.
    const untried = [...documented.keys()].filter((id) => !/^(identity|carts)\./.test(id) && !seen.has(id))
    expect(untried).toEqual([])
  })
})

describe("pages for people", () => {
  test("/docs works without the internet: its script comes with it, and it may talk to this shop only", async () => {
    const response = await fetch(`${shop().url}/docs`)
    expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/html"])
    const policy = response.headers.get("content-security-policy") ?? ""
    expect(policy).not.toMatch(/https?:|\*/)
    expect(policy).toContain("connect-src 'self'")
    const page = await response.text()
    const [markup = "", ...scripts] = page.split(/<script\b/)
    expect(scripts.length).toBeGreaterThan(0)
    expect(markup).not.toMatch(/<(?:link|img|iframe)\b/)
    for (const script of scripts) expect(script.slice(0, script.indexOf(">"))).not.toContain("src=")
    expect(page).toContain('"withDefaultFonts":false')
    expect(page).toContain("/api/v1/orders/{orderId}/pay")
  })

  test("/ links to what is there", async () => {
    const response = await fetch(`${shop().url}/`)
    expect(response.headers.get("content-type")).toStartWith("text/html")
    const page = await response.text()
    const links = [...page.matchAll(/href="([^"]+)"/g)].map(([, href = ""]) => href)
    expect(links.length).toBeGreaterThan(4)
    for (const link of links) {
      const answer = await fetch(`${shop().url}${link}`)
      expect([link, answer.status]).toEqual([link, 200])
      await answer.text()
    }
  })

  test("/metrics counts for Prometheus, /healthz and /readyz say how it goes", async () => {
    const metrics = await (await fetch(`${shop().url}/metrics`)).text()
    for (const name of [
      "orders_created_total",
      "order_creation_latency_ms_bucket",
      "inventory_reservation_failures_total"
    ]) {
      expect(metrics).toContain(name)
    }
    expect((await shop().anyone.get("/healthz")).body).toEqual({ status: "ok" })
    expect((await shop().anyone.get("/readyz")).body).toEqual({ status: "ready" })
  })
})

test("nothing went wrong that nobody foresaw", () => {
  expect(shop().output).not.toContain('"level":"ERROR"')
})
