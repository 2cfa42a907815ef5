// Checkout over REST: a cart becomes an order that is paid, held, refused or left waiting, and nothing in between.
import { afterAll, afterEach, describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { join } from "node:path"
import { booksBalance } from "./support/Books.ts"
import { patientCircuits } from "./support/Circuits.ts"
import { type Answer, type Client, text } from "./support/Client.ts"
import { temporaryFolder } from "./support/Processes.ts"
import { restShop } from "./support/RestShop.ts"

const folder = temporaryFolder()
afterAll(folder.remove)
patientCircuits(folder.path)

/** More than 50 USD, or the third purchase from a device, is to be looked at; more than 500 USD is refused. */
const rules = {
  review: 60,
  block: 90,
  velocity: { device: [{ windowSeconds: 600, steps: [{ over: 2, points: 60 }] }] },
  amount: {
    high: {
      USD: [
        { over: 5_000, points: 60 },
        { over: 50_000, points: 100 }
      ]
    }
  }
}

const shop = restShop({
  MERKATO_RISK_RULES: JSON.stringify(rules),
  MERKATO_POLICIES: join(folder.path, "policies.json"),
  // Long enough to look at what is under way, however busy the machine.
  MERKATO_PAYMENT_TIMEOUT_MS: "5000"
})

afterEach(() => shop().sql(booksBalance), 60_000)

type Json = Readonly<Record<string, unknown>>

const many = (count: number) => Array.from({ length: count }, (_, nth) => nth)
const refusal = ({ status, body }: Answer) => [status, body["code"]]
const isReplayed = ({ headers }: Answer) => headers.get("idempotent-replayed") === "true"
const statusOf = ({ status, body }: Answer) => [status, body["status"]]

let keys = 0
const freshKey = () => `checkout-${++keys}`
let people = 0
/** Somebody whom the shop has never seen. */
const somebody = () => shop().as(`SHOPPER-${++people}`)
const admin = () => shop().as("ADMIN", "admin")

const put = async (client: Client, cartId: string, productId: string, qty: number) =>
  expect((await client.request("PUT", `/api/v1/carts/${cartId}/items/${productId}`, { body: { qty } })).status).toBe(
    200
  )

/** A cart with something in it. */
const cartOf = async (client: Client, items: ReadonlyArray<readonly [productId: string, qty: number]>) => {
  const cartId = text(await client.post("/api/v1/carts"), "cartId")
  for (const [productId, qty] of items) await put(client, cartId, productId, qty)
  return cartId
}

const checkout = (client: Client, cartId: string, fields: Json = {}, key = freshKey(), headers = {}) =>
  client.post("/api/v1/checkout", { cartId, paymentToken: "tok_ok", ...fields }, { key, headers })

const pay = (client: Client, orderId: string, paymentToken = "tok_ok", key = freshKey(), headers = {}) =>
  client.post(`/api/v1/orders/${orderId}/pay`, { paymentToken }, { key, headers })

const levels = async (productId: string) => {
  const { onHand, reserved, available } = (await shop().anyone.get(`/api/v1/inventory/${productId}`)).body
  return { onHand, reserved, available }
}

const inCart = async (client: Client, cartId: string) => (await client.get(`/api/v1/carts/${cartId}`)).body["items"]

/** Looks until it is as wanted; what it was last when that does not come. */
const until = async <A>(look: () => Promise<A>, wanted: (found: A) => boolean): Promise<A> => {
  const deadline = Date.now() + 30_000
  for (;;) {
    const found = await look()
    if (wanted(found) || Date.now() > deadline) return found
    await Bun.sleep(20)
  }
}

const comesToHold = async (
  client: Client,
  cartId: string,
  left: ReadonlyArray<{ readonly productId: string; readonly qty: number }>
) =>
  expect<unknown>(
    await until(
      () => inCart(client, cartId),
      (items) => Bun.deepEquals(items, left)
    )
  ).toEqual(left)

const emptied = (client: Client, cartId: string) => comesToHold(client, cartId, [])

const ordersOf = async (client: Client): Promise<ReadonlyArray<unknown>> => {
  const { items } = (await client.get("/api/v1/orders?limit=100")).body
  return Array.isArray(items) ? items : []
}

const eventsOf = async (client: Client, orderId: string) => {
  const { items } = (await client.get(`/api/v1/orders/${orderId}/history`)).body
  return Array.isArray(items) ? items.map((entry: Json) => [entry["status"], entry["reason"]]) : []
}

/** What the gateways have taken for an order, attempt by attempt. */
const chargesOf = (orderId: string) =>
  shop().rows(
    `select attempt_id, amount::float8 from psp.attempts where order_id = '${orderId}' and status = 'captured'`
  )

const saga = (orderId: string) =>
  shop().rows(`select * from orders.sagas where order_id = '${orderId}' order by begun_at`)

describe("a checkout", () => {
  test("makes a paid order of a cart, says where it is, and takes out of the cart what was ordered", async () => {
    const ada = await somebody()
    const [milk, bread, tea] = [
      await shop().product({ price: 1.25 }, 10),
      await shop().product({}, 10),
      await shop().product({}, 10)
    ]
    const cartId = await cartOf(ada, [
      [milk, 2],
      [bread, 1]
    ])
    const bought = await checkout(ada, cartId, { expectedTotal: 3.5 })
    expect(statusOf(bought)).toEqual([201, "PAID"])
    const orderId = text(bought, "orderId")
    expect(bought.body).toMatchObject({
      items: [
        { productId: milk, qty: 2, price: 1.25 },
        { productId: bread, qty: 1, price: 1 }
      ],
      totalAmount: 3.5,
      currency: "USD"
    })
    expect(bought.headers.get("location")).toBe(`/api/v1/orders/${orderId}`)
    expect(isReplayed(bought)).toBe(false)
    expect((await ada.get(`/api/v1/orders/${orderId}`)).body).toEqual(bought.body)
    expect(await eventsOf(ada, orderId)).toEqual([
      ["PENDING", null],
      ["PENDING", null],
      ["PAID", null]
    ])
    expect(await levels(milk)).toEqual({ onHand: 8, reserved: 0, available: 8 })
    expect(await chargesOf(orderId)).toEqual([{ attempt_id: expect.any(String), amount: 3.5 }])
    await emptied(ada, cartId)
    // It is a cart like before.
    await put(ada, cartId, tea, 1)
    expect(statusOf(await checkout(ada, cartId))).toEqual([201, "PAID"])
    await emptied(ada, cartId)
  }, 60_000)

  test("takes only what was ordered: what came into the cart meanwhile stays", async () => {
    const ada = await somebody()
    const [milk, bread] = [await shop().product({}, 10), await shop().product({}, 10)]
    const cartId = await cartOf(ada, [[milk, 2]])
    // The gateway has the money, and is asked what became of it only after a while.
    const buying = checkout(ada, cartId, { paymentToken: "tok_lost" })
    await until(
      () =>
        shop().rows(
          `select from payments.payments join orders.order_items using (order_id) where product_id = '${milk}'`
        ),
      (rows) => rows.length > 0
    )
    await put(ada, cartId, milk, 5)
    await put(ada, cartId, bread, 1)
    const bought = await buying
    expect(statusOf(bought)).toEqual([201, "PAID"])
    expect(bought.body["items"]).toMatchObject([{ productId: milk, qty: 2 }])
    const left = [
      { productId: milk, qty: 3 },
      { productId: bread, qty: 1 }
    ]
    await comesToHold(ada, cartId, left)
  }, 60_000)

  test("asked for again under its key is answered again, whatever is in the cart by then; another payload is refused", async () => {
    const ada = await somebody()
    const productId = await shop().product({}, 10)
    const cartId = await cartOf(ada, [[productId, 1]])
    const first = await checkout(ada, cartId, {}, "again")
    expect([...statusOf(first), isReplayed(first)]).toEqual([201, "PAID", false])
    await emptied(ada, cartId)
    await put(ada, cartId, productId, 4)
    const second = await checkout(ada, cartId, {}, "again")
    expect([...statusOf(second), isReplayed(second), second.body]).toEqual([201, "PAID", true, first.body])
    expect(second.headers.get("location")).toBe(first.headers.get("location"))
    for (const other of [{ expectedTotal: 1 }, { paymentToken: "tok_lost" }, { rail: "card" }]) {
      expect(refusal(await checkout(ada, cartId, other, "again"))).toEqual([422, "idempotency_key_reused"])
    }
    expect(refusal(await checkout(ada, "CART-NONE", {}, "again"))).toEqual([422, "idempotency_key_reused"])
    // A key belongs to its user.
    const bob = await somebody()
    expect(refusal(await checkout(bob, cartId, {}, "again"))).toEqual([422, "cart_not_found"])
    expect((await ordersOf(ada)).length).toBe(1)
    expect(await levels(productId)).toEqual({ onHand: 9, reserved: 0, available: 9 })
  }, 60_000)

  test("sent 20 times at once under one key is one order and one charge", async () => {
    const ada = await somebody()
    const productId = await shop().product({}, 100)
    const cartId = await cartOf(ada, [[productId, 2]])
    const answers = await Promise.all(many(20).map(() => ada.persist(() => checkout(ada, cartId, {}, "twins"))))
    expect(answers.map(statusOf)).toEqual(many(20).map(() => [201, "PAID"]))
    expect(answers.filter((answer) => !isReplayed(answer)).length).toBe(1)
    const orderIds = new Set(answers.map((answer) => text(answer, "orderId")))
    expect(orderIds.size).toBe(1)
    expect((await ordersOf(ada)).length).toBe(1)
    expect(await chargesOf([...orderIds].join())).toEqual([{ attempt_id: expect.any(String), amount: 2 }])
    expect(await levels(productId)).toEqual({ onHand: 98, reserved: 0, available: 98 })
    await emptied(ada, cartId)
  }, 60_000)

  test("of one cart under 20 keys at once is one order and one charge; the others are told so", async () => {
    const ada = await somebody()
    const productId = await shop().product({}, 7)
    const cartId = await cartOf(ada, [[productId, 1]])
    const answers = await Promise.all(
      many(20).map((nth) => ada.persist(() => checkout(ada, cartId, {}, `each-${nth}`)))
    )
    const paid = answers.filter(({ status }) => status === 201)
    expect(paid.length).toBe(1)
    const orderId = paid.map((answer) => text(answer, "orderId")).join()
    for (const { status, body } of answers.filter((answer) => answer !== paid[0])) {
      expect(status).toBe(409)
      // Whoever comes late meets the cart that the first one has emptied.
      if (body["code"] !== "cart_empty") expect(body).toMatchObject({ code: "cart_ordered", orderId })
    }
    expect((await ordersOf(ada)).length).toBe(1)
    expect((await chargesOf(orderId)).length).toBe(1)
    expect(await levels(productId)).toEqual({ onHand: 6, reserved: 0, available: 6 })
    await emptied(ada, cartId)
    await put(ada, cartId, productId, 2)
    expect(statusOf(await checkout(ada, cartId))).toEqual([201, "PAID"])
  }, 60_000)

  test("of a cart that was only repeated is of the same cart: what changes nothing makes no new version", async () => {
    const ada = await somebody()
    const [milk, bread] = [await shop().product({}, 5), await shop().product({}, 5)]
    const cartId = await cartOf(ada, [[milk, 2]])
    const version = () => shop().rows(`select version from cart.carts where cart_id = '${cartId}'`)
    const before = await version()
    await put(ada, cartId, milk, 2)
    await ada.request("DELETE", `/api/v1/carts/${cartId}/items/${bread}`)
    expect(await version()).toEqual(before)
    await put(ada, cartId, milk, 3)
    expect(await version()).not.toEqual(before)
  }, 60_000)

  test("under another key does not buy again while its order waits for its money; when that is canceled, it does", async () => {
    const ada = await somebody()
    const productId = await shop().product({}, 5)
    const cartId = await cartOf(ada, [[productId, 1]])
    const away = await checkout(ada, cartId, { paymentToken: "tok_all_down" })
    expect(refusal(away)).toEqual([503, "payment_unavailable"])
    const orderId = text(away, "orderId")
    const again = await checkout(ada, cartId)
    expect(again.body).toMatchObject({ status: 409, code: "cart_ordered", cartId, orderId })
    expect(statusOf(await ada.post(`/api/v1/orders/${orderId}/cancel`))).toEqual([200, "CANCELED"])
    expect(statusOf(await checkout(ada, cartId))).toEqual([201, "PAID"])
    expect((await ordersOf(ada)).length).toBe(2)
    expect(await levels(productId)).toEqual({ onHand: 4, reserved: 0, available: 4 })
  }, 60_000)

  test("of a cart that was changed meanwhile does not buy again what was in it before that is taken out", async () => {
    const ada = await somebody()
    const [milk, bread] = [await shop().product({}, 5), await shop().product({}, 5)]
    const cartId = await cartOf(ada, [[milk, 1]])
    const orderId = text(await checkout(ada, cartId, { paymentToken: "tok_all_down" }), "orderId")
    await put(ada, cartId, milk, 2)
    await put(ada, cartId, bread, 1)
    const again = await checkout(ada, cartId)
    expect(again.body).toMatchObject({ status: 409, code: "cart_ordered", cartId, orderId })
    expect(await ordersOf(ada)).toHaveLength(1)
    const paid = await ada.persist(() => pay(ada, orderId, "tok_ok", "at-last"))
    expect(statusOf(paid)).toEqual([200, "PAID"])
    const left = [
      { productId: milk, qty: 1 },
      { productId: bread, qty: 1 }
    ]
    await comesToHold(ada, cartId, left)
    expect(statusOf(await checkout(ada, cartId))).toEqual([201, "PAID"])
    expect(await levels(milk)).toEqual({ onHand: 3, reserved: 0, available: 3 })
    expect(await levels(bread)).toEqual({ onHand: 4, reserved: 0, available: 4 })
    await emptied(ada, cartId)
  }, 60_000)

  test("under another key is told to wait while the first one is under way", async () => {
    const ada = await somebody()
    const productId = await shop().product({}, 5)
    const cartId = await cartOf(ada, [[productId, 1]])
    const first = checkout(ada, cartId, { paymentToken: "tok_lost" }, "first-of-two")
    await until(
      () => ordersOf(ada),
      (orders) => orders.length === 1
    )
    expect(refusal(await checkout(ada, cartId, {}, "second-of-two"))).toEqual([409, "payment_in_progress"])
    await first
    const paid = await ada.persist(() => checkout(ada, cartId, { paymentToken: "tok_lost" }, "first-of-two"))
    expect(statusOf(paid)).toEqual([201, "PAID"])
    const second = await checkout(ada, cartId, {}, "second-of-two")
    expect(["cart_ordered", "cart_empty"]).toContain(String(second.body["code"]))
    expect((await ordersOf(ada)).length).toBe(1)
  }, 60_000)

  test("is nothing for guests, even of their own cart", async () => {
    const made = await shop().anyone.post("/api/v1/carts")
    const guest = shop().anyone.as(text(made, "guestToken"))
    const productId = await shop().product({}, 1)
    await put(guest, text(made, "cartId"), productId, 1)
    expect(refusal(await checkout(guest, text(made, "cartId")))).toEqual([403, "forbidden"])
    expect(refusal(await checkout(shop().anyone, text(made, "cartId")))).toEqual([401, "unauthenticated"])
    expect(await levels(productId)).toEqual({ onHand: 1, reserved: 0, available: 1 })
  })
})

describe("a checkout that is refused", () => {
  test("of an empty cart, of one that is not there, or is somebody else's, says so", async () => {
    const [ada, eve] = [await somebody(), await somebody()]
    const productId = await shop().product({}, 5)
    const [empty, full] = [await cartOf(ada, []), await cartOf(ada, [[productId, 1]])]
    const guest = await shop().anyone.post("/api/v1/carts")
    expect(refusal(await checkout(ada, empty))).toEqual([409, "cart_empty"])
    expect(refusal(await checkout(ada, "CART-NONE"))).toEqual([422, "cart_not_found"])
    expect(refusal(await checkout(eve, full))).toEqual([422, "cart_not_found"])
    expect(refusal(await checkout(await admin(), full))).toEqual([422, "cart_not_found"])
    expect(refusal(await checkout(ada, text(guest, "cartId")))).toEqual([422, "cart_not_found"])
    expect(await ordersOf(ada)).toEqual([])
    expect(await levels(productId)).toEqual({ onHand: 5, reserved: 0, available: 5 })
  })

  test("keeps its refusal under its key, though the reason is gone", async () => {
    const ada = await somebody()
    const productId = await shop().product({}, 5)
    const cartId = await cartOf(ada, [])
    const first = await checkout(ada, cartId, {}, "kept")
    await put(ada, cartId, productId, 1)
    const again = await checkout(ada, cartId, {}, "kept")
    expect([refusal(first), isReplayed(first)]).toEqual([[409, "cart_empty"], false])
    expect([refusal(again), isReplayed(again)]).toEqual([[409, "cart_empty"], true])
    expect(statusOf(await checkout(ada, cartId))).toEqual([201, "PAID"])
  })

  test("for another total than the shopper saw, or for more than there is, leaves nothing reserved", async () => {
    const ada = await somebody()
    const [milk, bread] = [await shop().product({}, 5), await shop().product({}, 1)]
    const cartId = await cartOf(ada, [[milk, 2]])
    const changed = await checkout(ada, cartId, { expectedTotal: 1.99 })
    expect(refusal(changed)).toEqual([409, "price_changed"])
    await put(ada, cartId, bread, 2)
    const short = await checkout(ada, cartId)
    expect(refusal(short)).toEqual([409, "out_of_stock"])
    expect(short.body["products"]).toEqual([{ productId: bread, requested: 2, available: 1 }])
    expect(await levels(milk)).toEqual({ onHand: 5, reserved: 0, available: 5 })
    expect(await levels(bread)).toEqual({ onHand: 1, reserved: 0, available: 1 })
    expect(await ordersOf(ada)).toEqual([])
    expect(await inCart(ada, cartId)).toEqual([
      { productId: milk, qty: 2 },
      { productId: bread, qty: 2 }
    ])
    const names = await shop().rows(
      "select outcome from orders.sagas where kind = 'checkout' and outcome in ('price_changed', 'out_of_stock')"
    )
    expect(names.length).toBeGreaterThanOrEqual(2)
  })

  test("by the bank ends its order: canceled, the stock back, the cart as it was, the refusal kept", async () => {
    const ada = await somebody()
    const productId = await shop().product({}, 5)
    const cartId = await cartOf(ada, [[productId, 3]])
    const declined = await checkout(ada, cartId, { paymentToken: "tok_declined" }, "declined")
    expect([refusal(declined), isReplayed(declined)]).toEqual([[402, "payment_declined"], false])
    expect(await levels(productId)).toEqual({ onHand: 5, reserved: 0, available: 5 })
    const [order] = await shop().rows(
      `select order_id, status from orders.orders join orders.order_items using (order_id) where product_id = '${productId}'`
    )
    expect(order?.["status"]).toBe("CANCELED")
    const orderId = String(order?.["order_id"])
    expect((await eventsOf(ada, orderId)).at(-1)).toEqual(["CANCELED", "payment_declined"])
    const again = await checkout(ada, cartId, { paymentToken: "tok_declined" }, "declined")
    expect([refusal(again), isReplayed(again)]).toEqual([[402, "payment_declined"], true])
    expect((await ordersOf(ada)).length).toBe(1)
    expect(refusal(await pay(ada, orderId))).toEqual([409, "not_payable"])
    expect(await inCart(ada, cartId)).toEqual([{ productId, qty: 3 }])
    expect(statusOf(await checkout(ada, cartId))).toEqual([201, "PAID"])
    expect(await levels(productId)).toEqual({ onHand: 2, reserved: 0, available: 2 })
  }, 60_000)
})

describe("a risky purchase", () => {
  /** 60 USD of something, of which there are 3. */
  const risky = () => shop().product({ price: 60 }, 3)

  test("is held: the stock stays reserved, and it is neither paid nor canceled by its shopper", async () => {
    const ada = await somebody()
    const productId = await risky()
    const cartId = await cartOf(ada, [[productId, 1]])
    const held = await checkout(ada, cartId, {}, "held")
    expect(statusOf(held)).toEqual([202, "HELD"])
    const orderId = text(held, "orderId")
    expect(held.headers.get("location")).toBe(`/api/v1/orders/${orderId}`)
    expect(await levels(productId)).toEqual({ onHand: 3, reserved: 1, available: 2 })
    expect(refusal(await pay(ada, orderId))).toEqual([409, "not_payable"])
    expect(refusal(await ada.post(`/api/v1/orders/${orderId}/cancel`))).toEqual([409, "not_cancelable"])
    expect(refusal(await (await admin()).post(`/api/v1/orders/${orderId}/fulfil`))).toEqual([409, "not_fulfillable"])
    const again = await checkout(ada, cartId, {}, "held")
    expect([...statusOf(again), isReplayed(again), again.body]).toEqual([202, "HELD", true, held.body])
    expect(await chargesOf(orderId)).toEqual([])
    expect(await eventsOf(ada, orderId)).toEqual([
      ["PENDING", null],
      ["HELD", null]
    ])
    await emptied(ada, cartId)
    // The goods wait as long as a review may take.
    const [reservation] = await shop().rows(
      `select extract(epoch from expires_at - created_at) > 23 * 3600 as long from inventory.reservations where order_id = '${orderId}'`
    )
    expect(reservation).toEqual({ long: true })
  }, 60_000)

  test("that is released waits for its payment, and is not held again; what the shopper put into the cart since stays", async () => {
    const ada = await somebody()
    const productId = await risky()
    const cartId = await cartOf(ada, [[productId, 1]])
    const orderId = text(await checkout(ada, cartId), "orderId")
    await emptied(ada, cartId)
    await put(ada, cartId, productId, 1)
    const released = await (await admin()).post(`/api/v1/orders/${orderId}/release`)
    expect(statusOf(released)).toEqual([200, "PENDING"])
    expect(refusal(await (await admin()).post(`/api/v1/orders/${orderId}/release`))).toEqual([409, "not_held"])
    expect(refusal(await (await admin()).post(`/api/v1/orders/${orderId}/reject`))).toEqual([409, "not_held"])
    expect(await levels(productId)).toEqual({ onHand: 3, reserved: 1, available: 2 })
    expect(statusOf(await pay(ada, orderId))).toEqual([200, "PAID"])
    expect(await levels(productId)).toEqual({ onHand: 2, reserved: 0, available: 2 })
    await shop().settled()
    expect(await inCart(ada, cartId)).toEqual([{ productId, qty: 1 }])
  }, 60_000)

  test("that is rejected is canceled, and its stock is back", async () => {
    const ada = await somebody()
    const productId = await risky()
    const orderId = text(await checkout(ada, await cartOf(ada, [[productId, 2]])), "orderId")
    const wrongHands = [
      await ada.post(`/api/v1/orders/${orderId}/release`),
      await ada.post(`/api/v1/orders/${orderId}/reject`)
    ]
    expect(wrongHands.map(refusal)).toEqual([
      [403, "forbidden"],
      [403, "forbidden"]
    ])
    const rejected = await (await admin()).post(`/api/v1/orders/${orderId}/reject`)
    expect(statusOf(rejected)).toEqual([200, "CANCELED"])
    expect(await levels(productId)).toEqual({ onHand: 3, reserved: 0, available: 3 })
    expect((await eventsOf(ada, orderId)).at(-1)).toEqual(["CANCELED", "rejected"])
    expect(refusal(await pay(ada, orderId))).toEqual([409, "not_payable"])
    expect(refusal(await (await admin()).post(`/api/v1/orders/${orderId}/release`))).toEqual([409, "not_held"])
  }, 60_000)

  test("released and rejected at once is one of both, 20 times", async () => {
    const ada = await somebody()
    const productId = await shop().product({ price: 60 }, 20)
    const reviewer = await admin()
    const ends: Array<unknown> = []
    for (const _ of many(20)) {
      const orderId = text(await checkout(ada, await cartOf(ada, [[productId, 1]])), "orderId")
      const both = await Promise.all(
        ["release", "reject"].map((verdict) => reviewer.post(`/api/v1/orders/${orderId}/${verdict}`))
      )
      expect(both.map(({ status }) => status).toSorted()).toEqual([200, 409])
      ends.push((await ada.get(`/api/v1/orders/${orderId}`)).body["status"])
    }
    const waiting = ends.filter((status) => status === "PENDING").length
    expect(ends.filter((status) => status === "CANCELED").length).toBe(20 - waiting)
    expect(await levels(productId)).toEqual({ onHand: 20, reserved: waiting, available: 20 - waiting })
  }, 60_000)

  test("that goes too far is refused, and leaves nothing behind", async () => {
    const ada = await somebody()
    const productId = await shop().product({ price: 600 }, 3)
    const cartId = await cartOf(ada, [[productId, 1]])
    const blocked = await checkout(ada, cartId, {}, "blocked")
    expect(refusal(blocked)).toEqual([403, "risk_blocked"])
    // Whoever tries is told no more than that.
    expect(JSON.stringify(blocked.body)).not.toMatch(/amount|score|rule/)
    const again = await checkout(ada, cartId, {}, "blocked")
    expect([refusal(again), isReplayed(again)]).toEqual([[403, "risk_blocked"], true])
    expect(await ordersOf(ada)).toEqual([])
    expect(await levels(productId)).toEqual({ onHand: 3, reserved: 0, available: 3 })
    expect(await shop().rows(`select from inventory.reservations where '${productId}' = any(product_ids)`)).toEqual([])
    expect(await inCart(ada, cartId)).toEqual([{ productId, qty: 1 }])
    const assessed = await (await admin()).get("/ops/risk/assessments?decision=block")
    expect(assessed.body["items"]).toMatchObject([{ userId: `SHOPPER-${people}`, decision: "block" }])
  }, 60_000)

  test("of an order that is paid later is held and refused as well", async () => {
    const ada = await somebody()
    const productId = await shop().product({ price: 60 }, 100)
    const place = async (qty: number) =>
      text(await ada.post("/api/v1/orders", { items: [{ productId, qty }] }, { key: freshKey() }), "orderId")
    const [big, tooBig] = [await place(1), await place(10)]
    const held = await pay(ada, big, "tok_ok", "held-payment")
    expect(statusOf(held)).toEqual([202, "HELD"])
    const again = await pay(ada, big, "tok_ok", "held-payment")
    expect([...statusOf(again), isReplayed(again)]).toEqual([202, "HELD", true])
    expect(refusal(await pay(ada, tooBig))).toEqual([403, "risk_blocked"])
    // The order itself is as it was.
    expect(statusOf(await ada.get(`/api/v1/orders/${tooBig}`))).toEqual([200, "PENDING"])
    expect(await levels(productId)).toEqual({ onHand: 100, reserved: 11, available: 89 })
    expect(statusOf(await (await admin()).post(`/api/v1/orders/${big}/release`))).toEqual([200, "PENDING"])
    expect(statusOf(await pay(ada, big))).toEqual([200, "PAID"])
    expect(statusOf(await ada.post(`/api/v1/orders/${tooBig}/cancel`))).toEqual([200, "CANCELED"])
    expect(await levels(productId)).toEqual({ onHand: 99, reserved: 0, available: 99 })
  }, 60_000)

  test("is judged by its device too: risk hears the client's name for it, as a digest", async () => {
    const ada = await somebody()
    const productId = await shop().product({}, 5)
    const named = await checkout(ada, await cartOf(ada, [[productId, 1]]), {}, freshKey(), { "x-device-id": "phone-1" })
    const unnamed = await checkout(ada, await cartOf(ada, [[productId, 1]]))
    const placed = text(
      await ada.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key: freshKey() }),
      "orderId"
    )
    expect(statusOf(await pay(ada, placed, "tok_ok", freshKey(), { "x-device-id": "phone-2" }))).toEqual([200, "PAID"])
    const device = async (orderId: string) =>
      (await shop().rows(`select device from risk.assessments where order_id = '${orderId}'`)).map(
        (row) => row["device"]
      )
    const digest = (name: string) => createHash("sha256").update(name).digest("hex").slice(0, 32)
    expect(await device(text(named, "orderId"))).toEqual([digest("phone-1")])
    expect(await device(text(unnamed, "orderId"))).toEqual([null])
    expect(await device(placed)).toEqual([digest("phone-2")])
  }, 60_000)
})

describe("a checkout whose gateways are both down", () => {
  test("is told when to come back and which order waits, pays that under the same key, and not another", async () => {
    const ada = await somebody()
    const productId = await shop().product({}, 5)
    const cartId = await cartOf(ada, [[productId, 2]])
    const away = await checkout(ada, cartId, { paymentToken: "tok_all_down" }, "down")
    expect(refusal(away)).toEqual([503, "payment_unavailable"])
    expect(Number(away.headers.get("retry-after"))).toBeGreaterThanOrEqual(1)
    const orderId = text(away, "orderId")
    expect(statusOf(await ada.get(`/api/v1/orders/${orderId}`))).toEqual([200, "PENDING"])
    expect(await levels(productId)).toEqual({ onHand: 5, reserved: 2, available: 3 })
    expect(await inCart(ada, cartId)).toEqual([{ productId, qty: 2 }])
    // Still down: the same order, and nothing more reserved.
    const still = await checkout(ada, cartId, { paymentToken: "tok_all_down" }, "down")
    expect([refusal(still), still.body["orderId"]]).toEqual([[503, "payment_unavailable"], orderId])
    expect((await ordersOf(ada)).length).toBe(1)
    expect(await levels(productId)).toEqual({ onHand: 5, reserved: 2, available: 3 })
    // Paid by itself, it is what the checkout has made; and the cart is empty.
    expect(statusOf(await pay(ada, orderId))).toEqual([200, "PAID"])
    await emptied(ada, cartId)
    const after = await checkout(ada, cartId, { paymentToken: "tok_all_down" }, "down")
    expect([...statusOf(after), after.body["orderId"]]).toEqual([201, "PAID", orderId])
    expect((await chargesOf(orderId)).length).toBe(1)
    expect((await ordersOf(ada)).length).toBe(1)
  }, 60_000)

  test("leaves an order that may be held as it is paid; the key then says so, and makes no other", async () => {
    const ada = await somebody()
    const productId = await shop().product({}, 5)
    const worn = { "x-device-id": "worn-phone" }
    for (const _ of many(2)) {
      expect(statusOf(await checkout(ada, await cartOf(ada, [[productId, 1]]), {}, freshKey(), worn))).toEqual([
        201,
        "PAID"
      ])
    }
    const cartId = await cartOf(ada, [[productId, 1]])
    const orderId = text(await checkout(ada, cartId, { paymentToken: "tok_all_down" }, "then-held"), "orderId")
    expect(statusOf(await pay(ada, orderId, "tok_ok", freshKey(), worn))).toEqual([202, "HELD"])
    await emptied(ada, cartId)
    const again = await checkout(ada, cartId, { paymentToken: "tok_all_down" }, "then-held")
    expect([...statusOf(again), again.body["orderId"]]).toEqual([202, "HELD", orderId])
    expect((await ordersOf(ada)).length).toBe(3)
    expect(await levels(productId)).toEqual({ onHand: 3, reserved: 1, available: 2 })
  }, 60_000)

  test("leaves an order that may be canceled; the key then buys anew", async () => {
    const ada = await somebody()
    const productId = await shop().product({}, 5)
    const cartId = await cartOf(ada, [[productId, 1]])
    const orderId = text(await checkout(ada, cartId, { paymentToken: "tok_all_down" }, "regretted"), "orderId")
    expect(statusOf(await ada.post(`/api/v1/orders/${orderId}/cancel`))).toEqual([200, "CANCELED"])
    const anew = await checkout(ada, cartId, { paymentToken: "tok_all_down" }, "regretted")
    expect(refusal(anew)).toEqual([503, "payment_unavailable"])
    expect(text(anew, "orderId")).not.toBe(orderId)
    expect(await levels(productId)).toEqual({ onHand: 5, reserved: 1, available: 4 })
  }, 60_000)

  test("and whose reservation is lost meanwhile is over: its order cannot be paid later, and it does not say so", async () => {
    const ada = await somebody()
    const productId = await shop().product({}, 5)
    const cartId = await cartOf(ada, [[productId, 1]])
    const going = checkout(ada, cartId, { paymentToken: "tok_all_down" }, "lost")
    const [row] = await until(
      () =>
        shop().rows(`select order_id, reservation_id from orders.orders join orders.order_items using (order_id)
          where product_id = '${productId}'`),
      (rows) => rows.length > 0
    )
    // As when it ends by itself, and orders hears of it.
    await shop().rows(
      `update inventory.reservations set expires_at = '2020-01-01' where reservation_id = '${String(row?.["reservation_id"])}'`
    )
    await shop().rows(
      `with lost as (
        update orders.orders set reservation_lost = true, version = version + 1
        where order_id = '${String(row?.["order_id"])}' returning *
      ), history as (
        insert into orders.order_status_history (order_id, version, status, event, occurred_at)
        select order_id, version, status, 'ecommerce.order.reservation.lost.v1', updated_at from lost
      ), told as (
        insert into orders.events (event_id, event_type, aggregate_id, version, occurred_at, region, trace_parent,
          correlation_id, payload)
        select gen_random_uuid(), 'ecommerce.order.reservation.lost.v1', order_id, version, updated_at, region, '', 'test',
          jsonb_build_object('orderId', order_id, 'userId', user_id, 'reservationId', reservation_id)
        from lost returning position, aggregate_id, version
      )
      insert into orders.outbox (position, aggregate_id, version) select * from told`
    )
    const answer = await going
    expect(answer.body).toMatchObject({ status: 409, code: "not_payable", orderStatus: "CANCELED" })
    expect(statusOf(await checkout(ada, cartId))).toEqual([201, "PAID"])
  }, 60_000)
})

describe("an order whose checkout runs", () => {
  test("is neither paid by another request nor canceled; where it stands is to be seen, and no token", async () => {
    const ada = await somebody()
    const productId = await shop().product({}, 5)
    const cartId = await cartOf(ada, [[productId, 1]])
    const buying = checkout(ada, cartId, { paymentToken: "tok_lost" }, "running")
    const [row] = await until(
      () =>
        shop().rows(
          `select order_id from orders.orders join orders.order_items using (order_id)
         where product_id = '${productId}' and payment_attempt_id is not null`
        ),
      (rows) => rows.length > 0
    )
    const orderId = String(row?.["order_id"])
    const reviewer = await admin()
    const running = await reviewer.get(`/ops/sagas/${orderId}`)
    const [kept] = await saga(orderId)
    const meanwhile = await Promise.all([
      pay(ada, orderId),
      ada.post(`/api/v1/orders/${orderId}/cancel`),
      checkout(ada, cartId, { paymentToken: "tok_lost" }, "running")
    ])
    expect(meanwhile.map(refusal)).toEqual([
      [409, "payment_in_progress"],
      [409, "payment_in_progress"],
      [409, "request_in_progress"]
    ])
    expect(running.status).toBe(200)
    expect(running.body).toMatchObject({
      orderId,
      kind: "checkout",
      step: "authorise",
      outcome: null,
      attempt: 1,
      epoch: 1
    })
    // What is kept of the token while it is needed cannot be read, and nobody is shown even that.
    const work = Object(kept?.["work"])
    expect(work.paymentToken).toEqual(expect.stringMatching(/.{20}/))
    expect(JSON.stringify(kept, (_, value) => (typeof value === "bigint" ? String(value) : value))).not.toContain(
      "tok_lost"
    )
    for (const secret of ["tok_lost", work.paymentToken, "paymentToken", "work"]) {
      expect(JSON.stringify(running.body)).not.toContain(secret)
    }
    expect(statusOf(await buying)).toEqual([201, "PAID"])
    const done = await reviewer.get(`/ops/sagas/${orderId}`)
    expect(done.body).toMatchObject({ step: "done", outcome: "paid", sagaId: running.body["sagaId"] })
    expect((await reviewer.get(`/ops/sagas/${text(done, "sagaId")}`)).body).toEqual(done.body)
    expect(Object((await saga(orderId))[0]?.["work"]).paymentToken).toBeNull()
    // Nobody but those who run the shop.
    expect(refusal(await ada.get(`/ops/sagas/${orderId}`))).toEqual([403, "forbidden"])
    expect(refusal(await shop().anyone.get(`/ops/sagas/${orderId}`))).toEqual([401, "unauthenticated"])
    expect(refusal(await reviewer.get("/ops/sagas/ORDER-NONE"))).toEqual([404, "order_process_not_found"])
  }, 60_000)
})

test("nothing went wrong that nobody foresaw, and no token is in the log", () => {
  expect(shop().output).not.toContain('"level":"ERROR"')
  expect(shop().output).not.toMatch(/tok_(?:ok|lost|declined|all_down)/)
})

test("placed by checkout, orders count as placed", async () => {
  const placed = async () => {
    const metrics = await (await fetch(`${shop().url}/metrics`)).text()
    return Number(/^orders_created_total(?:\{[^}]*\})? (\d+)/m.exec(metrics)?.[1] ?? 0)
  }
  const before = await placed()
  const ada = await somebody()
  const productId = await shop().product({}, 1)
  expect(statusOf(await checkout(ada, await cartOf(ada, [[productId, 1]])))).toEqual([201, "PAID"])
  expect(await placed()).toBe(before + 1)
})
