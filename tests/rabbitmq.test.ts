// Webhooks that wait in a real RabbitMQ: a receiver that is down for all of the schedule but its end, and kills in the middle.
import { afterAll, describe, expect, test } from "bun:test"
import { rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { Webhook } from "standardwebhooks"
import { type Client, text } from "./support/Client.ts"
import { temporaryFolder } from "./support/Processes.ts"
import { realServer } from "./support/RealServer.ts"
import { type ShopProcess, withShop } from "./support/ShopProcess.ts"
import { until } from "./support/Until.ts"

const rabbitmq = await realServer("rabbitmq", "webhooks that wait in RabbitMQ")
const folder = temporaryFolder()
afterAll(async () => {
  await rabbitmq?.stop()
  folder.remove()
}, 60_000)

/** The schedule, a hundred times as fast: half a minute instead of 52. */
const delaysMs = [300, 1_200, 3_000, 9_000, 18_000]
const policies = join(folder.path, "policies.json")
writeFileSync(policies, JSON.stringify({ "webhook.dispatch": { backoff: { kind: "exactly", delaysMs } } }))
const environment = {
  MERKATO_WEBHOOKS_ALLOW_PRIVATE: "true",
  MERKATO_POLICIES: policies,
  RABBITMQ_URL: rabbitmq?.settings["RABBITMQ_URL"] ?? ""
}

const created = "ecommerce.order.order.created.v1"
const paid = "ecommerce.order.order.paid.v1"

interface Told {
  readonly at: number
  readonly status: number
  readonly body: string
  readonly headers: Readonly<Record<string, string>>
  readonly eventId: string
  readonly eventType: string
  readonly orderId: string
}

/** A receiver that is down until it is told otherwise. */
const receiver = () => {
  const told: Array<Told> = []
  let status = 503
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: async (request) => {
      const body = await request.text()
      const { eventId, eventType, partitionKey } = JSON.parse(body)
      const headers = Object.fromEntries(request.headers)
      told.push({ at: Date.now(), status, body, headers, eventId, eventType, orderId: partitionKey })
      return new Response(null, { status })
    }
  })
  return {
    url: `http://127.0.0.1:${server.port}/`,
    told,
    back: () => {
      status = 204
    },
    stop: () => server.stop(true)
  }
}

const subscribe = async (who: Client, url: string) =>
  text(await who.post("/api/v1/webhooks/subscriptions", { url, eventTypes: [created, paid] }), "secret")

let keys = 0
/** Orders that are paid at once: two events each, in order. */
const buy = async (who: Client, productId: string, orders: number) => {
  const bought: Array<string> = []
  for (let nth = 0; nth < orders; nth++) {
    const key = `rabbit-${++keys}`
    const orderId = text(await who.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key }), "orderId")
    const { status } = await who.post(`/api/v1/orders/${orderId}/pay`, { paymentToken: "tok_ok" }, { key: orderId })
    expect(status).toBe(200)
    bought.push(orderId)
  }
  return bought
}

const deliveries = (shop: ShopProcess) =>
  shop.sql(
    Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql<{ status: string; attempts: number }>`
        select status, attempts from partners.webhook_deliveries order by position`
    )
  )

const isSettled = (all: ReadonlyArray<{ readonly status: string }>) => all.every(({ status }) => status === "DELIVERED")

/** Everything arrived, in order per order, and as it was signed. */
const expectAll = (told: ReadonlyArray<Told>, orders: ReadonlyArray<string>, secret: string) => {
  const arrived = told.filter(({ status }) => status === 204)
  for (const orderId of orders) {
    const events = arrived.filter((each) => each.orderId === orderId).map(({ eventType }) => eventType)
    // Once more is allowed, out of order is not.
    expect([events[0], events.at(-1), events.lastIndexOf(created) < events.indexOf(paid)]).toEqual([
      created,
      paid,
      true
    ])
  }
  for (const { body, headers, eventId } of told) {
    expect(new Webhook(secret).verify(body, headers)).toMatchObject({ eventId })
  }
}

describe.skipIf(rabbitmq === undefined)("webhooks that wait in RabbitMQ", () => {
  test(
    "a receiver that is down for most of the schedule gets everything afterwards, tried when its time has come",
    () =>
      withShop(async (shop) => {
        const { url, told, back, stop } = receiver()
        const ada = await shop.as("ADA")
        const productId = await shop.onShelf(10)
        const secret = await subscribe(ada, url)
        const orders = await buy(ada, productId, 3)
        // What is tried while it is down: the first event of each order, at its time and soon after it.
        const tries = (orderId: string) => told.filter((each) => each.orderId === orderId)
        await until(
          () => Promise.resolve(orders.map((orderId) => tries(orderId).length)),
          (counts) => counts.every((count) => count >= 4)
        )
        back()
        await until(() => deliveries(shop), isSettled)
        for (const orderId of orders) {
          const all = tries(orderId)
          expect(all.slice(0, 4).map(({ eventType }) => eventType)).toEqual([created, created, created, created])
          for (const [nth, delayMs] of delaysMs.slice(0, 3).entries()) {
            const waited = (all[nth + 1]?.at ?? 0) - (all[nth]?.at ?? 0)
            // Without alarms it would be looked at once a minute.
            expect([delayMs, waited >= delayMs, waited < delayMs + 5_000]).toEqual([delayMs, true, true])
          }
        }
        expectAll(told, orders, secret)
        await stop()
      }, environment),
    120_000
  )

  test.each([
    ["killed and started again", false],
    ["killed, and forgets everything", true]
  ])(
    "a RabbitMQ that is %s in the middle loses nothing",
    (_what, forgets) =>
      withShop(async (shop) => {
        const { url, told, back, stop } = receiver()
        const ada = await shop.as("ADA")
        const productId = await shop.onShelf(20)
        const secret = await subscribe(ada, url)
        const before = await buy(ada, productId, 3)
        await until(
          () => Promise.resolve(told.length),
          (count) => count >= 9
        )
        rabbitmq?.kill()
        // What comes meanwhile is owed, and tried, all the same.
        const meanwhile = await buy(ada, productId, 2)
        await until(
          () => Promise.resolve(told.map(({ orderId }) => orderId)),
          (tried) => meanwhile.every((orderId) => tried.includes(orderId))
        )
        if (forgets) rmSync(join(rabbitmq?.folder ?? "nowhere", "rabbitmq", "data"), { recursive: true, force: true })
        await rabbitmq?.start()
        back()
        const after = await buy(ada, productId, 1)
        await until(() => deliveries(shop), isSettled, 90_000)
        expect((await deliveries(shop)).length).toBe(12)
        expectAll(told, [...before, ...meanwhile, ...after], secret)
        await stop()
      }, environment),
    180_000
  )
})
