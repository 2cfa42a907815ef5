// The process that sends webhooks is killed in the midst of it: each arrives at least once, in the order of its aggregate.
import { afterAll, expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { Webhook } from "standardwebhooks"
import { text } from "./support/Client.ts"
import { temporaryFolder } from "./support/Processes.ts"
import { withShop } from "./support/ShopProcess.ts"
import { until } from "./support/Until.ts"

const folder = temporaryFolder()
afterAll(() => folder.remove())
const policies = join(folder.path, "policies.json")
// What a killed process had taken is taken again when its lease ends: 20 s after the time that a try may take.
writeFileSync(policies, JSON.stringify({ "webhook.dispatch": { attemptTimeoutMs: 2_000 } }))
const environment = { MERKATO_WEBHOOKS_ALLOW_PRIVATE: "true", MERKATO_POLICIES: policies }

const created = "ecommerce.order.order.created.v1"
const paid = "ecommerce.order.order.paid.v1"

/** A receiver that takes so many milliseconds to answer, so that there is always something under way. */
const slowlyMs = 100
const orderCount = 30

test(
  "a sender that is killed in the midst of deliveries leaves none out and none out of order, and the log says what arrived",
  () =>
    withShop(async (shop) => {
      const told: Array<{ readonly eventId: string; readonly eventType: string; readonly orderId: string }> = []
      let [underWay, verified] = [0, 0]
      let secret = ""
      const receiver = Bun.serve({
        hostname: "127.0.0.1",
        port: 0,
        fetch: async (request) => {
          const body = await request.text()
          const { eventId, eventType, partitionKey } = JSON.parse(body)
          underWay += 1
          told.push({ eventId, eventType, orderId: partitionKey })
          new Webhook(secret).verify(body, Object.fromEntries(request.headers))
          verified += 1
          await Bun.sleep(slowlyMs)
          underWay -= 1
          return new Response(null, { status: 204 })
        }
      })
      const url = `http://127.0.0.1:${receiver.port}/`
      const ada = await shop.as("ADA")
      const productId = await shop.onShelf(orderCount)
      secret = text(await ada.post("/api/v1/webhooks/subscriptions", { url, eventTypes: [created, paid] }), "secret")
      const orders: Array<string> = []
      let kills = 0
      /** Kills the process while requests of its are under way. */
      const killed = async () => {
        await until(
          () => Promise.resolve(underWay),
          (requests) => requests > 0
        )
        kills += 1
        await shop.restart("SIGKILL")
      }
      for (let nth = 0; nth < orderCount; nth++) {
        const who = await shop.as("ADA")
        const order = await who.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key: `killed-${nth}` })
        const orderId = text(order, "orderId")
        orders.push(orderId)
        const payment = await who.post(`/api/v1/orders/${orderId}/pay`, { paymentToken: "tok_ok" }, { key: orderId })
        expect(payment.status).toBe(200)
        if (nth % 10 === 5) await killed()
      }
      expect(kills).toBe(3)
      const log = () =>
        shop.sql(
          Effect.flatMap(
            SqlClient.SqlClient,
            (sql) => sql<{ eventId: string; status: string; answered: ReadonlyArray<number> }>`
            select d.event_id as "eventId", d.status, array_agg(a.response_status) as answered
            from partners.webhook_deliveries d left join partners.webhook_delivery_attempts a using (delivery_id)
            group by d.event_id, d.status`
          )
        )
      const settled = await until(
        log,
        (all) => all.length === 2 * orderCount && all.every(({ status }) => status === "DELIVERED"),
        120_000
      )
      for (const orderId of orders) {
        const types = told.filter((each) => each.orderId === orderId).map(({ eventType }) => eventType)
        expect([types[0], types.at(-1), types.lastIndexOf(created) < types.indexOf(paid)]).toEqual([
          created,
          paid,
          true
        ])
      }
      // Somebody was killed who had asked: the receiver heard some twice, and knows them by their ids.
      expect(new Set(told.map(({ eventId }) => eventId)).size).toBe(2 * orderCount)
      expect(told.length).toBeGreaterThan(2 * orderCount)
      expect(verified).toBe(told.length)
      // One answer is written down for each: those that nobody lived to hear are not.
      expect(new Set(settled.map(({ answered }) => JSON.stringify(answered)))).toEqual(new Set(["[204]"]))
      await receiver.stop(true)
    }, environment),
  240_000
)
