// A flash sale over REST, in a shop of its own process: what the admin says, what shoppers see, and what orders cost.
import { afterAll, describe, expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { type Answer, text } from "./support/Client.ts"
import { temporaryFolder } from "./support/Processes.ts"
import { restShop } from "./support/RestShop.ts"
import { until } from "./support/Until.ts"

const folder = temporaryFolder()
const limits = join(folder.path, "limits.json")
// A sale that is not made within a second is refused, and the machine may be busy.
writeFileSync(limits, JSON.stringify({ "flash_sale.price": { deadlineMs: 60_000, attemptTimeoutMs: 60_000 } }))
afterAll(folder.remove)

const shop = restShop({ MERKATO_POLICIES: limits })

const sales = "/api/v1/flash-sales"
const refusal = ({ status, body }: Answer) => [status, body["code"]]
const from = (seconds: number) => new Date(Date.now() + seconds * 1_000).toISOString()

interface Wanted {
  readonly productId: string
  readonly price?: number
  readonly currency?: string
  readonly startsAt?: string
  readonly endsAt?: string
}

const schedule = async (sale: Wanted, key?: string) =>
  (await shop().as("ADMIN", "admin")).post(
    sales,
    { price: 0.7, currency: "USD", startsAt: from(-1), endsAt: from(3_600), ...sale },
    key === undefined ? {} : { key }
  )

const cancel = async (saleId: string) => (await shop().as("ADMIN", "admin")).request("DELETE", `${sales}/${saleId}`)

let keys = 0
const order = async (productId: string, fields: Readonly<Record<string, unknown>> = {}) =>
  (await shop().as("ADA")).post("/api/v1/orders", { items: [{ productId, qty: 2 }], ...fields }, { key: `f-${++keys}` })

/** What two units cost in an order of now. */
const cost = async (productId: string) => {
  const placed = await order(productId)
  expect(placed.status).toBe(201)
  return placed.body["totalAmount"]
}

const product = async (productId: string) => shop().anyone.get(`/api/v1/products/${productId}`)
const onSale = ({ body }: Answer) => body["flashSale"] !== undefined

test("a sale is made by an admin, found where Location says, and listed", async () => {
  const productId = await shop().product({}, 10)
  const startsAt = from(600)
  const endsAt = from(1_200)
  const made = await schedule({ productId, startsAt, endsAt })
  const saleId = text(made, "saleId")
  expect([made.status, made.headers.get("location")]).toEqual([201, `${sales}/${saleId}`])
  expect(made.body).toMatchObject({ productId, price: 0.7, currency: "USD", startsAt, endsAt, status: "SCHEDULED" })
  expect((await shop().anyone.get(`${sales}/${saleId}`)).body).toEqual(made.body)
  const listed = async (query: string) => (await shop().anyone.get(`${sales}?productId=${productId}${query}`)).body
  expect(await listed("")).toEqual({ items: [made.body], nextCursor: null })
  expect(await listed("&status=SCHEDULED")).toEqual({ items: [made.body], nextCursor: null })
  expect(await listed("&status=RUNNING")).toEqual({ items: [], nextCursor: null })
  expect(refusal(await shop().anyone.get(`${sales}/SALE-NONE`))).toEqual([404, "flash_sale_not_found"])
  expect(refusal(await shop().anyone.get(`${sales}?status=SOON`))).toEqual([400, "validation_failed"])
})

describe("orders", () => {
  test("cost what the sale says while it runs, and what the shelf says at once when it is canceled", async () => {
    const productId = await shop().product({ price: 1 }, 100)
    expect(await cost(productId)).toBe(2)
    const saleId = text(await schedule({ productId }), "saleId")
    expect(await cost(productId)).toBe(1.4)
    // A total that was seen before the sale is not what it costs now, and the other way round.
    expect(refusal(await order(productId, { expectedTotal: 2 }))).toEqual([409, "price_changed"])
    const bought = await order(productId, { expectedTotal: 1.4 })
    expect([bought.status, bought.body["items"]]).toEqual([201, [{ productId, qty: 2, price: 0.7 }]])
    expect((await cancel(saleId)).status).toBe(204)
    expect(await cost(productId)).toBe(2)
    expect(refusal(await order(productId, { expectedTotal: 1.4 }))).toEqual([409, "price_changed"])
    // What was ordered stays as it was ordered.
    const again = await (await shop().as("ADA")).get(`/api/v1/orders/${text(bought, "orderId")}`)
    expect(again.body["totalAmount"]).toBe(1.4)
    expect((await cancel(saleId)).status).toBe(204)
  })

  test("of a cart cost it, too", async () => {
    const productId = await shop().product({ price: 1 }, 100)
    await schedule({ productId })
    const ada = await shop().as("ADA-OF-THE-CART")
    const cartId = text(await ada.post("/api/v1/carts"), "cartId")
    await ada.request("PUT", `/api/v1/carts/${cartId}/items/${productId}`, { body: { qty: 3 } })
    const bought = await ada.persist(() =>
      ada.post("/api/v1/checkout", { cartId, paymentToken: "tok_ok", expectedTotal: 2.1 }, { key: "cart-on-sale" })
    )
    expect([bought.status, bought.body["totalAmount"]]).toEqual([201, 2.1])
  })
})

test("a product shows its sale while it runs, in lists as well, under another entity tag", async () => {
  const productId = await shop().product({ price: 1, category: "Bargains" }, 10)
  const list = () => shop().anyone.get("/api/v1/products?category=Bargains")
  const [before, listedBefore] = [await product(productId), await list()]
  expect(before.headers.get("etag")).toBe('"1"')
  const made = await schedule({ productId })
  const saleId = text(made, "saleId")
  const flashSale = { saleId, price: 0.7, endsAt: made.body["endsAt"] }
  const during = await until(() => product(productId), onSale)
  expect([during.body, during.headers.get("etag")]).toEqual([{ ...before.body, flashSale }, `"1.${saleId}"`])
  // Both ways to answer: with what is at hand, and with a token that has to be verified first.
  const stranger = await shop().as("SOMEBODY-NEW")
  expect((await stranger.get(`/api/v1/products/${productId}`)).body).toEqual(during.body)
  const given = (tag: string) =>
    shop().anyone.get(`/api/v1/products/${productId}`, { headers: { "if-none-match": tag } })
  expect([(await given('"1"')).status, (await given(`"1.${saleId}"`)).status]).toEqual([200, 304])
  await until(list, (page) => JSON.stringify(page.body).includes(saleId))
  // The tag with the sale in it names the version that the product has.
  const admin = await shop().as("ADMIN", "admin")
  const patched = await admin.request("PATCH", `/api/v1/products/${productId}`, {
    body: { name: "Bargain" },
    headers: { "if-match": `"1.${saleId}"` }
  })
  expect(patched.status).toBe(200)
  await cancel(saleId)
  const after = await until(
    () => product(productId),
    (answer) => !onSale(answer) && answer.headers.get("etag") === '"2"'
  )
  expect(after.body).toEqual({ ...before.body, name: "Bargain", version: 2 })
  const listed = await until(list, (page) => !JSON.stringify(page.body).includes(saleId))
  expect(listed.body).toEqual({ ...listedBefore.body, items: [after.body] })
})

test("starts and ends are on the bus, once each and in order, when their time has come", async () => {
  const productId = await shop().product({ price: 1 }, 10)
  // A window as long as the machine needs to hear of it before it is over.
  const soon = async (seconds: number): Promise<Answer> => {
    const made = await schedule({ productId, startsAt: from(seconds / 2), endsAt: from(seconds) })
    return made.status === 201 ? made : soon(seconds * 2)
  }
  const saleId = text(await soon(1), "saleId")
  const told = () =>
    shop().rows(
      `select envelope ->> 'eventType' as type, envelope -> 'payload' as payload from bus.log
       where topic = 'promo.events' and envelope ->> 'partitionKey' = '${saleId}' order by "offset"`
    )
  const events = await until(told, (rows) => rows.length >= 3)
  const type = (what: string) => `ecommerce.pricing.flash_sale.${what}.v1`
  expect(events.map((event) => event["type"])).toEqual([type("scheduled"), type("started"), type("ended")])
  expect(events[2]?.["payload"]).toMatchObject({ saleId, productId, reason: "over" })
  expect(await cost(productId)).toBe(2)
  expect((await shop().anyone.get(`${sales}/${saleId}`)).body["status"]).toBe("ENDED")
  await until(
    () => product(productId),
    (answer) => !onSale(answer)
  )
  await shop().settled()
  expect((await told()).length).toBe(3)
})

describe("a sale is refused", () => {
  test("to who is not an admin", async () => {
    const productId = await shop().product()
    const sale = { productId, price: 0.7, currency: "USD", startsAt: from(0), endsAt: from(60) }
    expect(refusal(await shop().anyone.post(sales, sale))).toEqual([401, "unauthenticated"])
    const ada = await shop().as("ADA")
    expect(refusal(await ada.post(sales, sale))).toEqual([403, "forbidden"])
    expect(refusal(await ada.request("DELETE", `${sales}/SALE-1`))).toEqual([403, "forbidden"])
    expect(refusal(await cancel("SALE-NONE"))).toEqual([404, "flash_sale_not_found"])
  })

  test("when what it says makes no sense here", async () => {
    const productId = await shop().product({ price: 1 })
    const cases: ReadonlyArray<readonly [Wanted, number, string]> = [
      [{ productId: "PROD-NONE" }, 422, "product_not_found"],
      [{ productId, currency: "EUR" }, 422, "currency_not_supported"],
      [{ productId, price: 1 }, 422, "price_not_lower"],
      [{ productId, price: 0 }, 400, "invalid_value"],
      [{ productId, price: -1 }, 400, "invalid_value"],
      [{ productId, price: 0.123 }, 400, "invalid_value"],
      [{ productId, startsAt: from(60), endsAt: from(30) }, 400, "invalid_value"],
      [{ productId, startsAt: from(-60), endsAt: from(-30) }, 400, "invalid_value"],
      [{ productId, startsAt: "tomorrow" }, 400, "validation_failed"],
      [{ productId, startsAt: "2026-13-01T00:00:00Z" }, 400, "validation_failed"],
      [{ productId, endsAt: "2030-01-01" }, 400, "validation_failed"],
      [{ productId, endsAt: "2030-02-30T00:00:00Z" }, 400, "validation_failed"],
      [{ productId, endsAt: "9999-12-31T23:59:59-12:00" }, 400, "validation_failed"],
      [{ productId, startsAt: "0000-01-01T00:00:00+14:00" }, 400, "validation_failed"]
    ]
    for (const [sale, status, code] of cases)
      expect([sale, ...refusal(await schedule(sale))]).toEqual([sale, status, code])
    expect((await schedule({ productId, endsAt: "2999-12-31T23:59:59.999+05:30" })).status).toBe(201)
    expect(refusal(await schedule({ productId }))).toEqual([409, "flash_sale_overlaps"])
  })
})

test("a request with an Idempotency-Key is answered once", async () => {
  const productId = await shop().product({ price: 1 })
  const sale = { productId, startsAt: from(10), endsAt: from(20) }
  const first = await schedule(sale, "sale-1")
  const again = await schedule(sale, "sale-1")
  expect([again.status, again.body, again.headers.get("idempotent-replayed")]).toEqual([201, first.body, "true"])
  expect(refusal(await schedule({ ...sale, price: 0.5 }, "sale-1"))).toEqual([422, "idempotency_key_reused"])
  expect(refusal(await schedule(sale, "with space"))).toEqual([400, "invalid_value"])
})
