// A shop whose links to Postgres, ClickHouse, RabbitMQ and an MQTT broker are slow, lose what goes one way, are silent and are cut
// while people buy: each event has its effect, once, and whoever was behind has caught up when the link is mended. Kafka's links
// are in kafka.test.ts, that of an object store is in warehouse-s3.test.ts.
import { afterAll, describe, expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { Redacted } from "effect"
import { lookInto, wrongAtRest } from "./support/Audit.ts"
import { neverOpens } from "./support/Circuits.ts"
import { type Client, text } from "./support/Client.ts"
import { hostOf, type Link, links, through } from "./support/Links.ts"
import { MqttDevice } from "./support/MqttDevice.ts"
import { freePort, runToEnd, temporaryFolder } from "./support/Processes.ts"
import { realServer } from "./support/RealServer.ts"
import { restShop } from "./support/RestShop.ts"
import { Shoppers, stockUp } from "./support/Shoppers.ts"
import { until } from "./support/Until.ts"

/** How long each outage lasts; by night (`MERKATO_OUTAGES=long`) long enough for clients that find out by themselves. */
const night = process.env["MERKATO_OUTAGES"] === "long"
const outageMs = night ? 30_000 : 1_000

/** Milliseconds for all that happens to one link. */
const withinMs = 120_000 + 10 * outageMs

const folder = temporaryFolder()
const fileOf = (name: string, content: unknown) => {
  const path = join(folder.path, name)
  writeFileSync(path, JSON.stringify(content))
  return path
}

const what = "the shop over bad links"
const scale = { deviceId: "scale", secret: "secret of a scale", skus: ["APPLES"] }
const [between, clickhouse, rabbitmq, mosquitto] = await Promise.all([
  links(what),
  realServer("clickhouse", what),
  realServer("rabbitmq", what),
  realServer("mosquitto", what, { MQTT_DEVICES: fileOf("devices.json", [scale]) })
])
afterAll(async () => {
  await Promise.all([between, clickhouse, rabbitmq, mosquitto].map((server) => server?.stop()))
  folder.remove()
}, 60_000)
const areThere = [between, clickhouse, rabbitmq, mosquitto].every((server) => server !== undefined)

const serverUrls = {
  CLICKHOUSE_URL: new URL("shop", clickhouse?.settings["CLICKHOUSE_URL"] ?? "http://nobody").href,
  RABBITMQ_URL: rabbitmq?.settings["RABBITMQ_URL"] ?? "amqp://nobody",
  MQTT_URL: mosquitto?.settings["MQTT_URL"] ?? "mqtt://nobody"
}
type Variable = keyof typeof serverUrls | "DATABASE_URL"

/** Circuits of payments are not tried here; a webhook that failed is due again soon. */
const policies = fileOf("policies.json", {
  "payment.soap": { breaker: neverOpens, retryBudget: null },
  "payment.rest": { breaker: neverOpens, retryBudget: null },
  "webhook.dispatch": { backoff: { kind: "exactly", delaysMs: [300, 300, 300, 300, 300] } }
})

const group = "payments.daily_revenue_clickhouse"

const linkTo = new Map<string, Link>()
const link = (variable: Variable): Link => {
  const found = linkTo.get(variable)
  if (found === undefined) throw new Error(`no link for ${variable}`)
  return found
}

/** What can be wrong with a link, worst last. */
const worsenings: ReadonlyArray<readonly [string, (link: Link) => Promise<void>]> = [
  ["slow", (link) => link.slow(100)],
  ["without answers", (link) => link.silence("downstream")],
  ["without requests", (link) => link.silence("upstream")],
  ["silent", (link) => link.silence()],
  ["cut", (link) => link.cut()]
]

let keys = 0
/** An order and its payment, each asked for until it is settled. */
const buy = async (who: Client, productId: string): Promise<string> => {
  const nth = ++keys
  const basket = { items: [{ productId, qty: 1 }] }
  const orderId = text(await who.persist(() => who.post("/api/v1/orders", basket, { key: `ORDER-${nth}` })), "orderId")
  const pay = () => who.post(`/api/v1/orders/${orderId}/pay`, { paymentToken: "tok_ok" }, { key: `PAY-${nth}` })
  expect((await who.persist(pay)).body["status"]).toBe("PAID")
  return orderId
}

const receiver = () => {
  const told: Array<{ readonly eventId: string; readonly orderId: string; readonly status: number }> = []
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: async (request) => {
      const { eventId, partitionKey: orderId } = Object(await request.json())
      // Everything has to wait once.
      const status = told.some((each) => each.eventId === eventId) ? 204 : 503
      told.push({ eventId, orderId, status })
      return new Response(null, { status })
    }
  })
  return { url: `http://127.0.0.1:${server.port}/`, told, stop: () => server.stop(true) }
}

describe.skipIf(!areThere)("a shop over bad links", () => {
  const shop = restShop(async (databaseUrl) => {
    const settings: Record<string, string> = {}
    for (const [variable, url] of Object.entries({ ...serverUrls, DATABASE_URL: databaseUrl })) {
      const made = await between?.to(variable, hostOf(url), await freePort())
      if (made === undefined) continue
      linkTo.set(variable, made)
      settings[variable] = through(url, made)
    }
    return { ...settings, MERKATO_POLICIES: policies, MERKATO_WEBHOOKS_ALLOW_PRIVATE: "true" }
  })
  let people: Shoppers | undefined

  const metric = async (name: string) => {
    const metrics = await (await fetch(`${shop().url}/metrics`)).text()
    return Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\d+)$`, "m").exec(metrics)?.[1])
  }

  test("is open, and people buy all the while", async () => {
    const admin = await shop().token("ADMIN", "admin")
    const names = ["BEA", "CYD"]
    const tokens = new Map(await Promise.all(names.map(async (name) => [name, await shop().token(name)] as const)))
    const products = await stockUp(shop().anyone.as(admin))
    people = new Shoppers({ url: shop().url, admin, tokens, products })
  })

  test(
    "to Postgres: who asks is told to come back, what was acknowledged stays, and it goes on by itself",
    async () => {
      const ada = await shop().as("ADA")
      const productId = await shop().product({ sku: "FIGS" }, 100)
      const ordered = new Set<string>()
      for (const [nth, [worse, worsen]] of worsenings.entries()) {
        await worsen(link("DATABASE_URL"))
        const basket = { items: [{ productId, qty: 1 }] }
        const place = () => ada.post("/api/v1/orders", basket, { key: `POSTGRES-${nth}` })
        const asked = place()
        const isAnswered = night || worse === "slow" || worse === "cut"
        await Promise.all([Bun.sleep(outageMs), isAnswered ? asked : undefined])
        await link("DATABASE_URL").mend()
        const { body, headers, status } = await asked
        const told = status === 503 ? `503 ${String(body["code"])}, ${headers.get("retry-after")} s` : String(status)
        const [done, away] = ["201", "503 service_unavailable, 1 s"]
        expect(worse === "slow" ? [done] : isAnswered ? [away] : [done, away]).toContain(told)
        const placed = await ada.persist(place)
        expect([worse, placed.status]).toEqual([worse, 201])
        if (status === 201) expect(placed.body["orderId"]).toBe(body["orderId"])
        ordered.add(text(placed, "orderId"))
      }
      const rows = await shop().rows(
        `select distinct order_id from orders.order_items where product_id = '${productId}'`
      )
      expect(new Set(rows.map((row) => String(row["order_id"])))).toEqual(ordered)
      expect(ordered.size).toBe(worsenings.length)
    },
    withinMs
  )

  test.concurrent(
    "to RabbitMQ: webhooks that wait are sent meanwhile, each once, and wait there again",
    async () => {
      const partner = receiver()
      const eve = await shop().as("EVE")
      const productId = await shop().product({ sku: "PEARS" }, 100)
      const eventTypes = ["ecommerce.order.order.created.v1", "ecommerce.order.order.paid.v1"]
      const subscribed = await eve.post("/api/v1/webhooks/subscriptions", { url: partner.url, eventTypes })
      expect(subscribed.status).toBe(201)
      const orders: Array<string> = []
      const tries = (orderId: string) => partner.told.filter((each) => each.orderId === orderId)
      for (const [, worsen] of worsenings) {
        await worsen(link("RABBITMQ_URL"))
        orders.push(await buy(eve, productId), await buy(eve, productId))
        await until(
          async () => orders.map((orderId) => tries(orderId).length),
          (counts) => counts.every((count) => count >= 4)
        )
        await Bun.sleep(outageMs)
        await link("RABBITMQ_URL").mend()
        await until(
          async () => /.*(Alarms are (?:not )?heard from RabbitMQ)/s.exec(shop().output)?.[1],
          (last) => last === "Alarms are heard from RabbitMQ"
        )
      }
      for (const orderId of orders) {
        expect(tries(orderId).map(({ status }) => status)).toEqual([503, 204, 503, 204])
      }
      await partner.stop()
    },
    withinMs
  )

  test.concurrent(
    "to the MQTT broker: what devices tell is counted when it is heard, and once",
    async () => {
      const apples = await shop().product({ sku: "APPLES" })
      const { deviceId, secret } = scale
      const url = `mqtt://${deviceId}:${encodeURIComponent(secret)}@${hostOf(serverUrls.MQTT_URL)}`
      const device = new MqttDevice(url, deviceId, 5)
      const ada = await shop().as("ADA")
      const onHand = async () => Number((await ada.get(`/api/v1/inventory/${apples}`)).body["onHand"])
      let units = 0
      for (const [nth, [worse, worsen]] of worsenings.entries()) {
        await worsen(link("MQTT_URL"))
        const before = units
        const deltas = Array.from({ length: 40 }, (_, index) => ({
          sku: "APPLES",
          delta: index + 1,
          messageId: `${nth}-${index}`
        }))
        for (const { delta } of deltas) units += delta
        await device.tell(deltas)
        // Acknowledgements are what goes from us to the broker.
        const isHeard = worse === "slow" || worse === "without requests"
        if (isHeard) await until(onHand, (now) => now === units)
        await Bun.sleep(outageMs)
        expect([worse, await onHand()]).toEqual([worse, isHeard ? units : before])
        if (worse === "cut") expect(await metric("mqtt_connected")).toBe(0)
        await link("MQTT_URL").mend()
        await until(onHand, (now) => now === units)
        await until(
          () => metric("mqtt_connected"),
          (connected) => connected === 1
        )
      }
      await device.end()
      const counted = await shop().rows(
        `select count(*)::int as deltas, sum((payload->>'delta')::int)::int as units from inventory.events
        where aggregate_id = '${apples}' and payload->>'reason' = 'SENSOR'`
      )
      expect(counted).toEqual([{ deltas: 40 * worsenings.length, units }])
    },
    withinMs
  )

  test.concurrent(
    "to ClickHouse: the lag tells of it, and it catches up",
    async () => {
      const ada = await shop().as("ADA")
      const productId = await shop().product({ sku: "PLUMS" }, 100)
      const behind = async () => {
        const [row] = await shop().rows(
          `select sum(p.next_offset - coalesce(g.next_offset, 0))::int as events from bus.partitions p
          left join bus.consumer_groups g on (g.consumer_group, g.topic, g.partition) = ('${group}', p.topic, p.partition)
          where p.topic = 'payment.events'`
        )
        return Number(row?.["events"])
      }
      for (const [worse, worsen] of worsenings) {
        await worsen(link("CLICKHOUSE_URL"))
        await buy(ada, productId)
        await Bun.sleep(outageMs)
        if (worse !== "slow") expect([worse, (await behind()) > 0]).toEqual([worse, true])
        if (worse === "cut") {
          await until(
            () => shop().lagOf(group),
            (events) => events > 0
          )
        }
        await link("CLICKHOUSE_URL").mend()
        await until(behind, (events) => events === 0)
      }
    },
    withinMs
  )

  test(
    "has lost nothing at the end, and done nothing twice",
    async () => {
      await people?.stop()
      expect(people?.surprises).toEqual([])
      await shop().settled()
      await until(
        () => shop().lagOf(group),
        (events) => events === 0
      )
      const { settings } = shop()
      const database = Redacted.make(settings["DATABASE_URL"] ?? "")
      expect(await lookInto(database, wrongAtRest)).toEqual([])
      expect(await people?.contradictions(database, "at the end")).toEqual([])
      const parity = await runToEnd("merkato", ["replay", "daily_revenue_clickhouse", "--check"], settings)
      expect([parity.code, parity.stdout]).toEqual([
        0,
        expect.stringMatching(/^live in ClickHouse: [\d,]+ rows compared, 0 differences$/m)
      ])
      const errors = shop()
        .output.split("\n")
        .filter((line) => line.includes('"level":"ERROR"'))
      expect(errors).toEqual([])
      console.log(people?.summary)
    },
    withinMs
  )
})
