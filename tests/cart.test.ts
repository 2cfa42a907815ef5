import { describe, expect, test } from "bun:test"
import { type Answer, type Client, text } from "./support/Client.ts"
import { restShop } from "./support/RestShop.ts"

const shop = restShop()

/** A stranger's new cart, and the way of the guest who owns it. */
const guestCart = async () => {
  const made = await shop().anyone.post("/api/v1/carts")
  expect(made.status).toBe(201)
  const guestToken = text(made, "guestToken")
  return { made, cartId: text(made, "cartId"), guestToken, guest: shop().anyone.as(guestToken) }
}

const cartOf = async (client: Client) => text(await client.post("/api/v1/carts"), "cartId")

const set = (client: Client, cartId: string, productId: string, qty: unknown) =>
  client.request("PUT", `/api/v1/carts/${cartId}/items/${productId}`, { body: { qty } })

const remove = (client: Client, cartId: string, productId: string) =>
  client.request("DELETE", `/api/v1/carts/${cartId}/items/${productId}`)

const merge = (client: Client, cartId: string, guestToken: string) =>
  client.post(`/api/v1/carts/${cartId}/merge`, { guestToken })

const items = async (client: Client, cartId: string) => {
  const answer = await client.get(`/api/v1/carts/${cartId}`)
  expect(answer.status).toBe(200)
  return answer.body["items"]
}

const refusal = ({ status, body }: Answer) => [status, body["code"]]

describe("a guest's cart", () => {
  test("is made for a stranger, with the token that it needs from then on", async () => {
    const { made, cartId, guest } = await guestCart()
    expect(made.body).toEqual({ cartId, items: [], currency: "USD", guestToken: expect.any(String) })
    expect(made.headers.get("location")).toBe(`/api/v1/carts/${cartId}`)
    expect(made.headers.get("cache-control")).toBe("no-store")
    const read = await guest.get(`/api/v1/carts/${cartId}`)
    expect([read.status, read.body]).toEqual([200, { cartId, items: [], currency: "USD" }])
  })

  test("does not exist for other guests, shoppers and administrators, and asks strangers for the token", async () => {
    const { cartId, guest } = await guestCart()
    const milk = await shop().product()
    await set(guest, cartId, milk, 2)
    const mine = await cartOf(await shop().as("EVE"))
    const others = [(await guestCart()).guest, await shop().as("EVE"), await shop().as("ADMIN", "admin")]
    for (const other of others) {
      expect(refusal(await other.get(`/api/v1/carts/${cartId}`))).toEqual([404, "cart_not_found"])
      expect(refusal(await set(other, cartId, milk, 9))).toEqual([404, "cart_not_found"])
      expect(refusal(await remove(other, cartId, milk))).toEqual([404, "cart_not_found"])
      expect(refusal(await merge(other, cartId, (await guestCart()).guestToken))).toEqual([404, "cart_not_found"])
    }
    for (const stranger of [shop().anyone, shop().anyone.as("")]) {
      expect(refusal(await stranger.get(`/api/v1/carts/${cartId}`))).toEqual([401, "unauthenticated"])
      expect(refusal(await set(stranger, cartId, milk, 9))).toEqual([401, "unauthenticated"])
      expect(refusal(await remove(stranger, cartId, milk))).toEqual([401, "unauthenticated"])
    }
    expect(refusal(await set(guest, mine, milk, 9))).toEqual([404, "cart_not_found"])
    expect(await items(guest, cartId)).toEqual([{ productId: milk, qty: 2 }])
  })

  test("that is not there is the same as one that is somebody else's", async () => {
    const { cartId } = await guestCart()
    const eve = await shop().as("EVE")
    const strip = ({ status, body }: Answer, id: string) => [
      status,
      JSON.stringify({ ...body, traceId: "" }).replaceAll(id, "ID")
    ]
    expect(strip(await eve.get(`/api/v1/carts/${cartId}`), cartId)).toEqual(
      strip(await eve.get("/api/v1/carts/CART-NONE"), "CART-NONE")
    )
  })
})

describe("items", () => {
  test("are set, changed and taken out again; their order stays", async () => {
    const ada = await shop().as("ADA")
    const made = await ada.post("/api/v1/carts")
    expect(made.body).toEqual({ cartId: expect.any(String), userId: "ADA", items: [], currency: "USD" })
    const cartId = text(made, "cartId")
    const [milk, bread] = [await shop().product(), await shop().product()]
    expect((await set(ada, cartId, milk, 3)).body["items"]).toEqual([{ productId: milk, qty: 3 }])
    expect((await set(ada, cartId, bread, 99)).status).toBe(200)
    const changed = await set(ada, cartId, milk, 1)
    expect(changed.body).toEqual({
      cartId,
      userId: "ADA",
      items: [
        { productId: milk, qty: 1 },
        { productId: bread, qty: 99 }
      ],
      currency: "USD"
    })
    expect((await remove(ada, cartId, milk)).body["items"]).toEqual([{ productId: bread, qty: 99 }])
    expect((await remove(ada, cartId, milk)).status).toBe(200)
    expect(await items(ada, cartId)).toEqual([{ productId: bread, qty: 99 }])
  })

  test("of products that are not there are refused, and so are quantities that make no sense", async () => {
    const ada = await shop().as("ADA")
    const cartId = await cartOf(ada)
    const milk = await shop().product()
    expect(refusal(await set(ada, cartId, "PROD-NONE", 1))).toEqual([404, "product_not_found"])
    for (const qty of [0, -1, 1.5, 100, "1", null]) {
      expect(refusal(await set(ada, cartId, milk, qty))).toEqual([400, "validation_failed"])
    }
    expect(await items(ada, cartId)).toEqual([])
  })

  test("are at most 100 different ones, all there when set at the same time; those that are in may still change", async () => {
    const ada = await shop().as("ADA")
    const cartId = await cartOf(ada)
    const [last = "", ...products] = await Promise.all(Array.from({ length: 101 }, () => shop().product()))
    const answers = await Promise.all(products.map((productId) => set(ada, cartId, productId, 1)))
    expect(answers.map(({ status }) => status)).toEqual(products.map(() => 200))
    expect(refusal(await set(ada, cartId, last, 1))).toEqual([409, "cart_full"])
    expect((await set(ada, cartId, products[99] ?? "", 7)).status).toBe(200)
    await remove(ada, cartId, products[0] ?? "")
    expect((await set(ada, cartId, last, 1)).status).toBe(200)
    expect(refusal(await set(ada, cartId, products[0] ?? "", 1))).toEqual([409, "cart_full"])

    const { cartId: from, guest, guestToken } = await guestCart()
    await set(guest, from, products[1] ?? "", 1)
    await set(guest, from, products[0] ?? "", 1)
    const merged = await merge(ada, cartId, guestToken)
    expect(merged.status).toBe(200)
    expect(merged.body["items"]).toHaveLength(100)
    expect(merged.body["items"]).toContainEqual({ productId: products[1] ?? "", qty: 2 })
  })
})

describe("a guest who signs in", () => {
  test("takes the cart along: quantities add up, to 99 a line at most; a repeat changes nothing", async () => {
    const [milk, bread, tea] = [await shop().product(), await shop().product(), await shop().product()]
    const { cartId: from, guest, guestToken } = await guestCart()
    await set(guest, from, milk, 2)
    await set(guest, from, bread, 60)
    await set(guest, from, tea, 5)
    const second = await cartOf(guest)
    await set(guest, second, tea, 1)
    const ada = await shop().as("ADA")
    const into = await cartOf(ada)
    await set(ada, into, bread, 50)
    await set(ada, into, milk, 1)

    const merged = await merge(ada, into, guestToken)
    const sums = [
      { productId: bread, qty: 99 },
      { productId: milk, qty: 3 },
      { productId: tea, qty: 6 }
    ]
    expect([merged.status, merged.body]).toEqual([200, { cartId: into, userId: "ADA", items: sums, currency: "USD" }])
    expect(await items(guest, from)).toEqual([])
    expect(await items(guest, second)).toEqual([])

    await shop().settled()
    const before = await shop().fingerprint()
    const again = await merge(ada, into, guestToken)
    expect([again.status, again.body["items"]]).toEqual([200, sums])
    expect(await shop().fingerprint()).toBe(before)
  })

  test("at the same time in several windows takes it along once", async () => {
    const milk = await shop().product()
    const { cartId: from, guest, guestToken } = await guestCart()
    await set(guest, from, milk, 5)
    const ada = await shop().as("ADA")
    const into = await cartOf(ada)
    const answers = await Promise.all(Array.from({ length: 6 }, () => merge(ada, into, guestToken)))
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200))
    expect(await items(ada, into)).toEqual([{ productId: milk, qty: 5 }])
    expect(await items(guest, from)).toEqual([])
  })

  test("has to prove that the cart was theirs", async () => {
    const ada = await shop().as("ADA")
    const into = await cartOf(ada)
    const { guestToken } = await guestCart()
    const [head = "", claims = ""] = guestToken.split(".")
    const forgeries = [
      "",
      "not a token",
      `${head}.${claims}.AAAA`,
      await shop().token("BOB"),
      await shop().token("BOB", "admin"),
      await shop().token("GUEST-1", "guest", "us", -10)
    ]
    for (const forged of forgeries) {
      expect(refusal(await merge(ada, into, forged))).toEqual([422, "invalid_guest_token"])
    }
    expect(refusal(await merge(shop().anyone, into, guestToken))).toEqual([401, "unauthenticated"])
    expect(refusal(await ada.post(`/api/v1/carts/${into}/merge`, {}))).toEqual([400, "validation_failed"])
    expect(await items(ada, into)).toEqual([])
  })
})
