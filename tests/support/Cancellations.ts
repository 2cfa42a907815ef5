import { expect } from "bun:test"
import * as Ids from "@merkato/domain/kernel/Ids"
import { NotCancelable, NotYourOrder } from "@merkato/domain/orders/Order"
import { type Answer, Client, text } from "./Client.ts"
import type { ServedShop } from "./ServedShop.ts"

const place = async (client: Client, productId: string): Promise<string> =>
  text(await client.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key: crypto.randomUUID() }), "orderId")

const said = ({ status, body }: Answer) => [status, body["code"] ?? body["status"]]

const read = async (client: Client, orderId: string): Promise<unknown> =>
  (
    await client.post("/graphql", {
      query: `{ order(id: "${orderId}") { status } orders(limit: 20) { items { id } } }`
    })
  ).body["data"]

/**
 * The domain's rule, at every door: a customer may cancel only PENDING orders they own, an administrator those of everybody.
 * What is denied changes nothing.
 */
export const invalidCancellationsAreDenied = async (shop: ServedShop): Promise<void> => {
  const [ada, eve, admin] = await Promise.all([shop.as("ADA"), shop.as("EVE"), shop.as("ADMIN", "admin")])
  const tea = await shop.product(20)
  const [pending, paid, fulfilled, canceled] = [
    await place(ada, tea),
    await place(ada, tea),
    await place(ada, tea),
    await place(ada, tea)
  ]
  for (const orderId of [paid, fulfilled]) {
    const payment = { paymentToken: "tok_ok" }
    const answer = await ada.post(`/api/v1/orders/${orderId}/pay`, payment, { key: crypto.randomUUID() })
    expect(said(answer)).toEqual([200, "PAID"])
  }
  expect(said(await admin.post(`/api/v1/orders/${fulfilled}/fulfil`))).toEqual([200, "FULFILLED"])
  expect(said(await ada.post(`/api/v1/orders/${canceled}/cancel`))).toEqual([200, "CANCELED"])
  const statuses = [
    [pending, "PENDING"],
    [paid, "PAID"],
    [fulfilled, "FULFILLED"],
    [canceled, "CANCELED"]
  ] as const
  const overRpc = (userId: string, role: "shopper" | "admin", orderId: string) =>
    shop.rpc(userId, role, (orders) => orders.Cancel({ orderId: Ids.OrderId.make(orderId) }))

  for (const [orderId, status] of statuses) {
    const rest = `/api/v1/orders/${orderId}/cancel`
    expect([status, said(await shop.anyone.post(rest))]).toEqual([status, [401, "unauthenticated"]])
    expect([status, said(await eve.post(rest))]).toEqual([status, [403, "not_your_order"]])
    expect(await overRpc("EVE", "shopper", orderId)).toEqual(new NotYourOrder())
    expect(await read(eve, orderId)).toEqual({ order: null, orders: { items: [] } })
    if (status === "PENDING") continue
    expect([status, said(await ada.post(rest))]).toEqual([status, [409, "not_cancelable"]])
    expect([status, said(await admin.post(rest))]).toEqual([status, [409, "not_cancelable"]])
    expect(await overRpc("ADA", "shopper", orderId)).toEqual(new NotCancelable({ orderStatus: status }))
    expect(await overRpc("ADMIN", "admin", orderId)).toEqual(new NotCancelable({ orderStatus: status }))
  }
  const own = statuses.map(([id]) => ({ id })).toReversed()
  for (const [orderId, status] of statuses) {
    expect(await read(ada, orderId)).toEqual({ order: { status }, orders: { items: own } })
    expect(said(await admin.get(`/api/v1/orders/${orderId}`))).toEqual([200, status])
  }
  const price = { price: 0.5, currency: "USD", reason: "a present" }
  expect(said(await ada.request("PUT", `/api/v1/products/${tea}/price`, { body: price }))).toEqual([403, "forbidden"])

  expect(said(await ada.post(`/api/v1/orders/${pending}/cancel`))).toEqual([200, "CANCELED"])
  expect(await overRpc("ADMIN", "admin", await place(ada, tea))).toMatchObject({ status: "CANCELED" })
}
