// Live connections through two gateways, each a process of its own, with clients that we did not write (ws, eventsource).
import { expect, test } from "bun:test"
import { Effect, Layer } from "effect"
import { EventSource } from "eventsource"
import { UserId } from "@merkato/domain/kernel/Ids"
import { Principal } from "@merkato/domain/kernel/RequestContext"
import { KeyRing } from "@merkato/infra/auth/KeyRing"
import { Tokens } from "@merkato/infra/auth/Tokens"
import { chromium, Page } from "./support/Browser.ts"
import { type Answer, text } from "./support/Client.ts"
import { errorCodes, OrderWatcher, statuses } from "./support/LiveClients.ts"
import { twoGateways } from "./support/TwoGateways.ts"
import { until } from "./support/Until.ts"

const shop = twoGateways()
const gateway = (nth: 0 | 1) => shop().gateways[nth].url

let keys = 0
const key = () => `live-${++keys}`

const placed = async (userId: string) => {
  const productId = await shop().onShelf(10)
  const shopper = await shop().as(userId)
  const order = await shopper.persist(() =>
    shopper.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key: `placed-${productId}` })
  )
  return { shopper, orderId: text(order, "orderId") }
}
const done = ({ status }: Answer) => expect(status).toBe(200)
const pay = async ({ shopper, orderId }: Awaited<ReturnType<typeof placed>>) => {
  const paying = key()
  const body = { paymentToken: "tok_ok" }
  done(await shopper.persist(() => shopper.post(`/api/v1/orders/${orderId}/pay`, body, { key: paying })))
}
const fulfil = async (orderId: string) => {
  const admin = await shop().as("ADMIN", "admin")
  done(await admin.persist(() => admin.post(`/api/v1/orders/${orderId}/fulfil`)))
}

test("two watchers at two gateways see one purchase go from PENDING to PAID to FULFILLED", async () => {
  const token = await shop().token("ADA")
  const all = await OrderWatcher.open(gateway(1), token)
  all.send({ subscribe: "mine" })
  // An answer to what comes after it says that the subscription is there.
  all.send({ subscribe: { orderId: "ORDER-NONE" } })
  expect(errorCodes(await all.have(1))).toEqual(["order_not_found"])
  const order = await placed("ADA")
  const one = await OrderWatcher.open(gateway(0), token)
  one.send({ subscribe: { orderId: order.orderId } })
  expect(await one.have(1)).toEqual([
    { orderId: order.orderId, status: "PENDING", version: 1, occurredAt: expect.any(String) }
  ])
  await all.have(2)
  await pay(order)
  await fulfil(order.orderId)
  const seen = (await one.have(3)).slice(0, 3)
  expect(statuses(seen)).toEqual(["PENDING", "PAID", "FULFILLED"])
  expect((await all.have(4)).slice(1)).toEqual(seen)
  // As the history has it, which is kept with the order.
  const { body } = await order.shopper.get(`/api/v1/orders/${order.orderId}/history`)
  expect(body["items"]).toEqual(
    expect.arrayContaining(
      seen.map(({ occurredAt, status, version }) => expect.objectContaining({ occurredAt, status, version }))
    )
  )
  for (const watcher of [one, all]) watcher.cut()
})

test("who comes back after a cut is told every change since the last version seen, at any gateway", async () => {
  const order = await placed("BOB")
  const token = await shop().token("BOB")
  const before = await OrderWatcher.open(gateway(0), token)
  before.send({ subscribe: { orderId: order.orderId } })
  const [seen] = await before.have(1)
  before.cut()
  await pay(order)
  await fulfil(order.orderId)
  const after = await OrderWatcher.open(gateway(1), token)
  after.send({ subscribe: { orderId: order.orderId, after: seen?.["version"] } })
  const missed = await after.have(2)
  expect(statuses(missed)).toEqual(["PAID", "FULFILLED"])
  // Who has seen all is told nothing: the answer to the next question comes first.
  const upToDate = await OrderWatcher.open(gateway(1), token)
  upToDate.send({ subscribe: { orderId: order.orderId, after: missed[1]?.["version"] } })
  upToDate.send({ subscribe: { orderId: "ORDER-NONE" } })
  expect(errorCodes(await upToDate.have(1))).toEqual(["order_not_found"])
  // "mine" begins with where the newest orders stand.
  const mine = await OrderWatcher.open(gateway(0), token)
  mine.send({ subscribe: "mine" })
  expect(await mine.have(1)).toEqual([missed[1] ?? {}])
  for (const watcher of [after, upToDate, mine]) watcher.cut()
})

test("nobody hears of the orders of others, administrators neither; the answer is as if there were none", async () => {
  const order = await placed("CARL")
  for (const token of [await shop().token("EVE"), await shop().token("ADMIN", "admin")]) {
    const watcher = await OrderWatcher.open(gateway(1), token)
    watcher.send({ subscribe: { orderId: order.orderId } })
    watcher.send({ subscribe: { orderId: "ORDER-NONE" } })
    const [others, none] = await watcher.have(2)
    expect(errorCodes([others ?? {}, none ?? {}])).toEqual(["order_not_found", "order_not_found"])
    expect(others?.["error"]).toMatchObject({ status: 404, title: "Order not found", orderId: order.orderId })
    watcher.cut()
  }
  const eve = await OrderWatcher.open(gateway(0), await shop().token("EVE"))
  eve.send({ subscribe: "mine" })
  eve.send({ subscribe: { orderId: order.orderId } })
  await eve.have(1)
  const carl = await OrderWatcher.open(gateway(0), await shop().token("CARL"))
  carl.send({ subscribe: { orderId: order.orderId } })
  await pay(order)
  // Both hear through the same process, which tells Carl after it could have told Eve.
  expect(statuses(await carl.have(2))).toEqual(["PENDING", "PAID"])
  eve.send({ subscribe: { orderId: "ORDER-NONE" } })
  expect(errorCodes(await eve.have(2))).toEqual(["order_not_found", "order_not_found"])
  for (const watcher of [eve, carl]) watcher.cut()
})

const shortToken = (seconds: number) =>
  Effect.gen(function* () {
    const tokens = yield* Tokens
    return yield* tokens.issue(new Principal({ userId: UserId.make("DORA"), role: "shopper", region: "us" }), seconds)
  }).pipe(Effect.provide(Layer.provide(Tokens.layer, KeyRing.layer(shop().dataDir))), Effect.runPromise)

test("a socket is for who says who they are, and ends with the token unless a newer one comes", async () => {
  const stranger = await OrderWatcher.open(gateway(0))
  stranger.send({ subscribe: "mine" })
  expect(await stranger.closed).toBe("4401 unauthenticated")
  expect(errorCodes(stranger.frames)).toEqual(["unauthenticated"])
  expect(await (await OrderWatcher.open(gateway(0), "nonsense")).closed).toBe("4401 unauthenticated")

  const renewed = await OrderWatcher.open(gateway(0), await shortToken(4))
  renewed.send({ auth: await shop().token("DORA") })
  // Expires after the first token of the other, which goes on.
  const expiring = await OrderWatcher.open(gateway(0), await shortToken(5))
  expect(await expiring.closed).toBe("4401 token_expired")
  expect(errorCodes(expiring.frames)).toEqual(["unauthenticated"])
  const other = await OrderWatcher.open(gateway(0), await shop().token("EVE"))
  other.send({ auth: await shop().token("DORA") })
  expect(await other.closed).toBe("4403 forbidden")
  renewed.send({ subscribe: { orderId: "ORDER-NONE" } })
  expect(errorCodes(await renewed.have(1))).toEqual(["order_not_found"])
  renewed.cut()
})

test("what a client may send is bounded", async () => {
  const token = await shop().token("FAY")
  const many = await OrderWatcher.open(gateway(0), token)
  many.sendRaw("{nonsense")
  many.send({ subscribe: "everything" })
  expect(errorCodes(await many.have(2))).toEqual(["validation_failed", "validation_failed"])
  const large = await OrderWatcher.open(gateway(0), token)
  large.sendRaw(JSON.stringify({ auth: "a".repeat(10_000) }))
  expect(await large.closed).toBe("1009 frame_too_large")
  const bytes = await OrderWatcher.open(gateway(0), token)
  bytes.sendRaw(new TextEncoder().encode("{}"))
  expect(await bytes.closed).toBe("1003 text_frames_only")
  const plain = await fetch(`${gateway(0)}/ws/orders`)
  expect([plain.status, await plain.json()]).toEqual([426, expect.objectContaining({ code: "upgrade_required" })])
  many.cut()
})

/** What an EventSource of another make is told, by event and id. */
const saleWatcher = (url: string) => {
  const told: Array<readonly [event: string, id: string, data: unknown]> = []
  const source = new EventSource(`${url}/sse/flash-sales`)
  for (const event of ["flash_sale.started", "flash_sale.ended"]) {
    source.addEventListener(event, ({ data, lastEventId }) => told.push([event, lastEventId, JSON.parse(data)]))
  }
  return { told, source }
}

const saleOf = async (productId: string) => {
  const admin = await shop().as("ADMIN", "admin")
  const window = { startsAt: new Date().toISOString(), endsAt: new Date(Date.now() + 3_600_000).toISOString() }
  const sale = await admin.persist(() =>
    admin.post(
      "/api/v1/flash-sales",
      { productId, price: 0.5, currency: "USD", ...window },
      { key: `sale-${productId}` }
    )
  )
  const saleId = text(sale, "saleId")
  return { saleId, cancel: () => admin.request("DELETE", `/api/v1/flash-sales/${saleId}`) }
}

/** Reads an event stream until it has what is wanted, or ends. */
const readStream = async (url: string, lastEventId: string | undefined, wanted: (text: string) => boolean) => {
  const response = await fetch(`${url}/sse/flash-sales`, {
    headers: lastEventId === undefined ? {} : { "last-event-id": lastEventId }
  })
  expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/event-stream"])
  const decoder = new TextDecoder()
  let seen = ""
  const reader = response.body?.getReader()
  for (;;) {
    const part = await reader?.read()
    if (part === undefined || part.done) return seen
    seen += decoder.decode(part.value)
    if (wanted(seen)) {
      await reader?.cancel()
      return seen
    }
  }
}

test("flash sales are told by both gateways under the same ids, and a stream is taken up where it was left", async () => {
  const watchers = [saleWatcher(gateway(0)), saleWatcher(gateway(1))] as const
  await until(
    async () => watchers.every(({ source }) => source.readyState === source.OPEN),
    (open) => open
  )
  const [first, second] = [await shop().onShelf(5), await shop().onShelf(5)]
  const sale = await saleOf(first)
  await until(
    async () => watchers.every(({ told }) => told.length === 1),
    (all) => all
  )
  await sale.cancel()
  const other = await saleOf(second)
  await until(
    async () => watchers.every(({ told }) => told.length === 3),
    (all) => all
  )
  const [{ told }, { told: alsoTold }] = watchers
  expect(alsoTold).toEqual(told)
  expect(told.map(([event, , data]) => [event, data])).toEqual([
    ["flash_sale.started", expect.objectContaining({ saleId: sale.saleId, productId: first, price: 0.5 })],
    ["flash_sale.ended", expect.objectContaining({ saleId: sale.saleId, reason: "canceled" })],
    ["flash_sale.started", expect.objectContaining({ saleId: other.saleId, productId: second })]
  ])
  const ids = told.map(([, id]) => id)
  const resumed = await readStream(gateway(1), ids[0], (seen) => seen.includes(ids[2] ?? "never"))
  expect([...resumed.matchAll(/^id: (.+)$/gm)].map(([, id]) => id)).toEqual(ids.slice(1))
  const unknown = await readStream(gateway(1), "NO-SUCH-EVENT", (seen) => seen.includes("data:"))
  expect(unknown).toContain('event: resume_not_possible\ndata: {"code":"resume_not_possible"}')
  for (const { source } of watchers) source.close()
})

/** What runs in the page: a socket that watches one's orders, and a source of sales, as a page of the shop would have them. */
const script = (token: string) => `
  window.seen = { frames: [], sales: [], blocked: [] }
  addEventListener("securitypolicyviolation", ({ blockedURI }) => seen.blocked.push(blockedURI))
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws/orders")
  socket.onmessage = ({ data }) => seen.frames.push(JSON.parse(data))
  socket.onopen = () => {
    socket.send(JSON.stringify({ auth: ${JSON.stringify(token)} }))
    socket.send(JSON.stringify({ subscribe: "mine" }))
  }
  window.source = new EventSource("/sse/flash-sales")
  for (const name of ["flash_sale.started", "flash_sale.ended"]) {
    source.addEventListener(name, ({ type, lastEventId, data }) => {
      seen.sales.push({ type, id: lastEventId, saleId: JSON.parse(data).saleId })
    })
  }
  undefined`

test("a real browser, on a page of the shop, sees a purchase and a sale as they happen", async () => {
  const program = await chromium("WebSocket and EventSource in Chromium")
  if (program === undefined) return
  const page = await Page.open(program, `${gateway(0)}/docs`)
  try {
    const is = (condition: string) =>
      until(
        () => page.evaluate(condition),
        (met) => met === true
      )
    await is(`location.pathname === "/docs" && document.readyState === "complete"`)
    await page.evaluate(script(await shop().token("HAL")))
    await is("source.readyState === EventSource.OPEN")
    const order = await placed("HAL")
    await is("seen.frames.length === 1")
    await pay(order)
    await is("seen.frames.length === 2")
    await fulfil(order.orderId)
    const sale = await saleOf(await shop().onShelf(5))
    await is("seen.frames.length === 3 && seen.sales.length === 1")
    await sale.cancel()
    await is("seen.sales.length === 2")
    const { orderId } = order
    const { saleId } = sale
    expect(await page.evaluate("seen")).toEqual({
      frames: ["PENDING", "PAID", "FULFILLED"].map((status) => expect.objectContaining({ orderId, status })),
      sales: ["flash_sale.started", "flash_sale.ended"].map((type) => ({ type, id: expect.any(String), saleId })),
      blocked: []
    })
  } finally {
    await page.close()
  }
}, 300_000)

test("a gateway that stops says so to everybody, and they find the other one", async () => {
  const order = await placed("GIL")
  const token = await shop().token("GIL")
  const watcher = await OrderWatcher.open(gateway(1), token)
  watcher.send({ subscribe: { orderId: order.orderId } })
  const [seen] = await watcher.have(1)
  const stream = readStream(gateway(1), undefined, () => false)
  const open = () => fetch(`${gateway(1)}/metrics`).then((response) => response.text())
  await until(open, (metrics) => /live_connections\{channel="sse_flash_sales"\} 1/.test(metrics))
  await shop().gateways[1].end("SIGTERM")
  expect(await watcher.closed).toStartWith("1001")
  expect((await stream).match(/retry: \d+/g)).toHaveLength(2)
  await pay(order)
  const again = await OrderWatcher.open(gateway(0), token)
  again.send({ subscribe: { orderId: order.orderId, after: seen?.["version"] } })
  expect(statuses(await again.have(1))).toEqual(["PAID"])
  again.cut()
})
