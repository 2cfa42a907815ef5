// Partners are told of what happens in the shop: a receiver of their own, which checks signatures by a library of others.
import { afterAll, describe, expect, test } from "bun:test"
import { createHmac } from "node:crypto"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { Webhook } from "standardwebhooks"
import { type Answer, type Client, text } from "./support/Client.ts"
import { temporaryFolder } from "./support/Processes.ts"
import { restShop } from "./support/RestShop.ts"
import { until } from "./support/Until.ts"

/** Three tries, soon after each other: what takes hours otherwise is tested by a clock of its own elsewhere. */
const folder = temporaryFolder()
const policies = join(folder.path, "policies.json")
writeFileSync(
  policies,
  JSON.stringify({
    "webhook.dispatch": { attempts: 3, attemptTimeoutMs: 60_000, backoff: { kind: "exactly", delaysMs: [20, 20] } },
    // A sale that is not made within a second is refused, and the machine may be busy.
    "flash_sale.price": { deadlineMs: 60_000, attemptTimeoutMs: 60_000 }
  })
)
const shop = restShop({ MERKATO_WEBHOOKS_ALLOW_PRIVATE: "true", MERKATO_POLICIES: policies })

interface Received {
  readonly path: string
  readonly headers: Headers
  readonly body: string
  readonly event: { readonly eventId: string; readonly eventType: string; readonly partitionKey: string }
}

/** What each path of the receiver answers; 204 unless told. */
const answers = new Map<string, number>()
const received: Array<Received> = []
const receiver = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch: async (request) => {
    const { pathname: path } = new URL(request.url)
    const body = await request.text()
    received.push({ path, headers: request.headers, body, event: JSON.parse(body) })
    const status = answers.get(path) ?? 204
    return new Response(status === 204 ? null : "said the receiver", { status })
  }
})
afterAll(async () => {
  await receiver.stop(true)
  folder.remove()
})

const at = (path: string) => received.filter((each) => each.path === path)
const created = "ecommerce.order.order.created.v1"
const paid = "ecommerce.order.order.paid.v1"

const subscribe = (who: Client, path: string, eventTypes: ReadonlyArray<string>) =>
  who.post("/api/v1/webhooks/subscriptions", { url: `http://127.0.0.1:${receiver.port}${path}`, eventTypes })

let keys = 0
const buy = async (who: Client, productId: string) => {
  const order = await who.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key: `hook-${++keys}` })
  expect(order.status).toBe(201)
  return text(order, "orderId")
}
const pay = async (who: Client, orderId: string) =>
  expect((await who.post(`/api/v1/orders/${orderId}/pay`, { paymentToken: "tok_ok" }, { key: orderId })).status).toBe(
    200
  )

const items = ({ body }: Answer): ReadonlyArray<Readonly<Record<string, unknown>>> =>
  Array.isArray(body["items"]) ? body["items"] : []

const deliveriesOf = (who: Client, id: string) => async () =>
  items(await who.get(`/api/v1/webhooks/subscriptions/${id}/deliveries?limit=100`))

const statusesOf = (who: Client, id: string) => async () =>
  (await deliveriesOf(who, id)()).map(({ eventType, status, attempts }) => [eventType, status, attempts])

const idOf = (answer: Answer) => text(answer, "subscriptionId")
const headersOf = ({ headers }: Received) => Object.fromEntries(headers)

describe("a partner", () => {
  test("is told of an order in the order of its events, signed as the standard has it and with X-BV-Signature", async () => {
    const ada = await shop().as("ADA")
    const productId = await shop().product({}, 10)
    const subscription = await subscribe(ada, "/ada", [created, paid])
    expect([subscription.status, subscription.body["status"]]).toEqual([201, "ACTIVE"])
    const secret = text(subscription, "secret")
    const orderId = await buy(ada, productId)
    await pay(ada, orderId)
    // Somebody else's order is none of theirs.
    await buy(await shop().as("BOB"), productId)
    await buy(ada, productId)
    await until(
      () => Promise.resolve(at("/ada")),
      (all) => all.length === 3
    )
    const told = at("/ada").filter(({ event }) => event.partitionKey === orderId)
    expect(told.map(({ event }) => event.eventType)).toEqual([created, paid])
    for (const each of at("/ada")) {
      expect(new Webhook(secret).verify(each.body, headersOf(each))).toMatchObject({ payload: { userId: "ADA" } })
      expect(each.headers.get("webhook-id")).toBe(each.event.eventId)
      expect(each.headers.get("x-bv-signature")).toBe(createHmac("sha256", secret).update(each.body).digest("hex"))
    }
    // Kept as it was sent, and with what came of it; the secret is shown no more.
    const [last] = await until(deliveriesOf(ada, idOf(subscription)), (all) =>
      all.every(({ status }) => status === "DELIVERED")
    )
    const log = await ada.get(`/api/v1/webhooks/deliveries/${String(last?.["deliveryId"])}`)
    expect(log.body).toMatchObject({ attempts: 1, log: [{ responseStatus: 204, error: null }] })
    // Deliveries about different orders need not arrive in the order in which they are listed.
    const sent = at("/ada").find(({ event }) => event.eventId === last?.["eventId"])
    expect(text(log, "body")).toBe(sent?.body ?? "")
    const kept = await ada.get("/api/v1/webhooks/subscriptions")
    expect(JSON.stringify(kept.body)).not.toContain("whsec_")
    const rows = await shop().rows("select secret from partners.webhook_subscriptions")
    expect(JSON.stringify(rows)).not.toContain("whsec_")
  })

  test("who is an administrator hears of everybody's orders, of stock, products and sales", async () => {
    const admin = await shop().as("ADMIN", "admin")
    const types = [
      created,
      "ecommerce.inventory.stock.adjusted.v1",
      "ecommerce.product.product.updated.v1",
      "ecommerce.pricing.flash_sale.started.v1"
    ]
    expect((await subscribe(admin, "/all", types)).status).toBe(201)
    const productId = await shop().product({}, 10)
    const sale = {
      productId,
      price: 0.5,
      currency: "USD",
      startsAt: "2025-01-01T00:00:00Z",
      endsAt: "2100-01-01T00:00:00Z"
    }
    expect((await admin.post("/api/v1/flash-sales", sale)).status).toBe(201)
    await buy(await shop().as("BOB"), productId)
    await until(
      () => Promise.resolve(at("/all").map(({ event }) => event.eventType)),
      (told) => types.every((type) => told.includes(type))
    )
  })

  test("gets a new secret, and for a while both sign", async () => {
    const eve = await shop().as("EVE")
    const productId = await shop().product({}, 10)
    const subscription = await subscribe(eve, "/eve", [created])
    const rotated = await eve.post(`/api/v1/webhooks/subscriptions/${idOf(subscription)}/rotate-secret`)
    expect([rotated.status, typeof rotated.body["previousSecretUntil"]]).toEqual([200, "string"])
    const [old, current] = [text(subscription, "secret"), text(rotated, "secret")]
    expect(current).not.toBe(old)
    await buy(eve, productId)
    const [told] = await until(
      () => Promise.resolve(at("/eve")),
      (all) => all.length > 0
    )
    if (told === undefined) throw new Error("nothing came")
    for (const secret of [old, current])
      expect(() => new Webhook(secret).verify(told.body, headersOf(told))).not.toThrow()
    const other = `whsec_${Buffer.alloc(32).toString("base64")}`
    expect(() => new Webhook(other).verify(told.body, headersOf(told))).toThrow()
    const hex = (secret: string) => createHmac("sha256", secret).update(told.body).digest("hex")
    expect(told.headers.get("x-bv-signature")).toBe(hex(current))
    expect(told.headers.get("x-bv-signature-previous")).toBe(hex(old))
  })

  test("who cannot be reached is tried as often as the policy says; then it is told and lies with the dead letters, until it is redelivered", async () => {
    const fay = await shop().as("FAY")
    const productId = await shop().product({}, 10)
    answers.set("/fay", 503)
    const id = idOf(await subscribe(fay, "/fay", [created]))
    const orderId = await buy(fay, productId)
    await until(statusesOf(fay, id), (all) => JSON.stringify(all) === JSON.stringify([[created, "FAILED", 3]]))
    expect(at("/fay").map(({ event }) => event.partitionKey)).toEqual([orderId, orderId, orderId])
    // Each try is signed anew; the id stays.
    expect(new Set(at("/fay").map(({ headers }) => headers.get("webhook-id"))).size).toBe(1)
    const published = async (topic: string) => {
      const rows = await shop().rows(`select envelope::text as envelope from bus.log where topic = '${topic}'`)
      return rows
        .map(({ envelope }) => String(envelope))
        .filter((envelope) => envelope.includes(orderId) || envelope.includes(id))
    }
    const failed = await until(
      () => published("partner.events"),
      (all) => all.length > 0
    )
    expect(failed).toHaveLength(1)
    expect(JSON.parse(failed[0] ?? "")).toMatchObject({
      eventType: "ecommerce.webhook.delivery.failed.v1",
      partitionKey: id,
      payload: { subscriptionId: id, ownerId: "FAY", attempts: 3, reason: "answered 503" }
    })
    await until(
      () => published("order.events.dlq"),
      (all) => all.length === 1
    )
    answers.delete("/fay")
    const [delivery] = await deliveriesOf(fay, id)()
    const deliveryId = String(delivery?.["deliveryId"])
    const again = await fay.post(`/api/v1/webhooks/subscriptions/${id}/deliveries/${deliveryId}/redeliver`)
    expect([again.status, again.body["status"]]).toEqual([202, "PENDING"])
    await until(statusesOf(fay, id), (all) => JSON.stringify(all) === JSON.stringify([[created, "DELIVERED", 1]]))
    expect(at("/fay")).toHaveLength(4)
    const { body } = await fay.get(`/api/v1/webhooks/deliveries/${deliveryId}`)
    expect(body["log"]).toMatchObject([
      { responseStatus: 204 },
      { responseStatus: 503, responseBody: "said the receiver" },
      { responseStatus: 503 },
      { responseStatus: 503 }
    ])
  })

  test("lies with the dead letters also where the first try to put it there comes to nothing", async () => {
    const hal = await shop().as("HAL")
    const productId = await shop().product({}, 10)
    await shop().rows("create sequence bus.tries")
    await shop().rows(`
      create function bus.stumble() returns trigger language plpgsql as $$
        begin if nextval('bus.tries') = 1 then raise exception 'not this time'; end if; return new; end $$`)
    await shop().rows(`
      create trigger stumble before insert on bus.log for each row when (new.topic = 'order.events.dlq')
        execute function bus.stumble()`)
    answers.set("/hal", 410)
    await subscribe(hal, "/hal", [created])
    const orderId = await buy(hal, productId)
    const letters = () =>
      shop().rows(`select from bus.log where topic = 'order.events.dlq' and envelope ->> 'partitionKey' = '${orderId}'`)
    await until(letters, (all) => all.length > 0)
    expect(await letters()).toHaveLength(1)
    expect(await shop().rows("select last_value::int from bus.tries")).toEqual([{ last_value: 2 }])
    await shop().rows("drop function bus.stumble cascade")
    await shop().rows("drop sequence bus.tries")
  })

  test("who answers 410 is left alone, until they say otherwise and have it replayed", async () => {
    const gus = await shop().as("GUS")
    const productId = await shop().product({}, 10)
    answers.set("/gus", 410)
    const id = idOf(await subscribe(gus, "/gus", [created]))
    const path = `/api/v1/webhooks/subscriptions/${id}`
    await buy(gus, productId)
    await until(
      async () => (await gus.get(path)).body["status"],
      (status) => status === "GONE"
    )
    await buy(gus, productId)
    await until(statusesOf(gus, id), (all) => all.length === 2)
    expect(await statusesOf(gus, id)()).toEqual([
      [created, "SKIPPED", 0],
      [created, "FAILED", 1]
    ])
    expect((await gus.post(`${path}/replay`, {})).body).toMatchObject({ status: 409, code: "subscription_not_active" })
    answers.delete("/gus")
    expect((await gus.post(`${path}/enable`)).body["status"]).toBe("ACTIVE")
    const first = await gus.post(`${path}/replay`, { limit: 1 })
    expect([first.status, first.body["queued"]]).toEqual([202, 1])
    const second = await gus.post(`${path}/replay`, { limit: 1, after: first.body["nextAfter"] })
    expect(second.body).toEqual({ queued: 1, nextAfter: null })
    await until(statusesOf(gus, id), (all) => all.every(([, status]) => status === "DELIVERED"))
    expect(at("/gus")).toHaveLength(3)
  })

  test("sees and changes nobody else's, and is told what is wrong", async () => {
    const [hal, ida] = [await shop().as("HAL"), await shop().as("IDA")]
    const id = idOf(await subscribe(hal, "/hal", [created]))
    const path = `/api/v1/webhooks/subscriptions/${id}`
    for (const ask of [
      ida.get(path),
      ida.get(`${path}/deliveries`),
      ida.post(`${path}/rotate-secret`),
      ida.post(`${path}/enable`),
      ida.post(`${path}/replay`, {}),
      ida.request("DELETE", path)
    ]) {
      expect((await ask).body).toMatchObject({ status: 404, code: "subscription_not_found" })
    }
    expect((await ida.get("/api/v1/webhooks/subscriptions")).body).toEqual({ items: [], nextCursor: null })
    expect((await ida.post("/api/v1/webhooks/deliveries/DLV-1/redeliver")).body["code"]).toBe("delivery_not_found")
    expect((await shop().anyone.get("/api/v1/webhooks/subscriptions")).status).toBe(401)
    expect((await subscribe(hal, "/hal", ["ecommerce.payment.payment.captured.v1"])).status).toBe(400)
    expect((await subscribe(hal, "/hal", [])).status).toBe(400)
    const ours = `http://127.0.0.1:${receiver.port}/hal`
    const notUrls = ["", " ", ` ${ours}`, `${ours}\n`, `${ours}\u0000`, `${ours}?\ud800`, `${ours}\u0007`]
    for (const url of ["ftp://hooks.example.com/", ...notUrls]) {
      const answer = await hal.post("/api/v1/webhooks/subscriptions", { url, eventTypes: [created] })
      expect(answer.body).toMatchObject({ status: 400, errors: [{ path: "url" }] })
    }
    expect((await hal.request("DELETE", path)).status).toBe(204)
    expect((await hal.get(path)).status).toBe(404)
  })
})
