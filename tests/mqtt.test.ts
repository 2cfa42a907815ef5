// Devices tell of shelves over MQTT: a real Mosquitto, devices on clients of others, and plugs pulled everywhere.
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { spawn } from "node:child_process"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { programOf } from "../scripts/server/Mosquitto.ts"
import { defaultCache } from "../scripts/server/Servers.ts"
import { text } from "./support/Client.ts"
import { startCollector } from "./support/Collector.ts"
import { listener, MqttDevice, type Told } from "./support/MqttDevice.ts"
import { runToEnd, temporaryFolder } from "./support/Processes.ts"
import { realServer } from "./support/RealServer.ts"
import { type ShopProcess, withShop } from "./support/ShopProcess.ts"
import { until } from "./support/Until.ts"

const skus = ["APPLES", "PEARS", "PLUMS", "FIGS", "DATES"] as const
const deviceIds = ["scale-1", "scale-2", "scale-3", "gate-1", "gate-2", "robot-1"] as const
const secretOf = (deviceId: string) => `secret of ${deviceId}`

const folder = temporaryFolder()
const devicesFile = join(folder.path, "devices.json")
writeFileSync(
  devicesFile,
  JSON.stringify([
    ...deviceIds.map((deviceId) => ({ deviceId, secret: secretOf(deviceId), skus })),
    { deviceId: "scale-9", secret: secretOf("scale-9"), skus: ["MELONS", "NOBODYS", "LATER"] }
  ])
)
const mosquitto = await realServer("mosquitto", "stock over MQTT", { MQTT_DEVICES: devicesFile })
afterAll(async () => {
  await mosquitto?.stop()
  folder.remove()
}, 30_000)
const url = mosquitto?.settings["MQTT_URL"] ?? ""
const { port } = new URL(url === "" ? "mqtt://nobody" : url)

const urlOf = (deviceId: string) => `mqtt://${deviceId}:${encodeURIComponent(secretOf(deviceId))}@127.0.0.1:${port}`

/** Publishes with the client that Mosquitto brings along; what it said, and how it ended. */
const mosquittoPub = (deviceId: string, sku: string, message: string, ...more: ReadonlyArray<string>) => {
  const program = programOf("mosquitto_pub", { cache: defaultCache() })
  if (program === undefined) throw new Error("there is no mosquitto_pub")
  const args = ["-h", "127.0.0.1", "-p", port, "-u", deviceId, "-P", secretOf(deviceId), "-q", "1", "-V", "5"]
  return new Promise<{ readonly code: number | null; readonly output: string }>((resolve) => {
    const child = spawn(program.command, [...args, "-t", `iot/inventory/${sku}/delta`, "-m", message, ...more], {
      env: { ...process.env, ...program.environment },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let output = ""
    child.stdout.on("data", (chunk) => void (output += String(chunk)))
    child.stderr.on("data", (chunk) => void (output += String(chunk)))
    child.once("close", (code) => resolve({ code, output }))
  })
}

/** Ten thousand of them by night (`bun run nightly:devices`). */
const messageCount = Number(process.env["MERKATO_MQTT_MESSAGES"] ?? 1_000)

/** Milliseconds that all of them may take on a busy machine. */
const withinMs = 120_000 + 40 * messageCount

/** The same doubles in [0, 1) for the same seed (mulberry32). */
const seeded = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let mixed = Math.imul(seed ^ (seed >>> 15), seed | 1)
  mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
}

const pick = <A>(all: readonly [A, ...ReadonlyArray<A>], random: () => number): A =>
  all[Math.floor(random() * all.length)] ?? all[0]

/** In another order (Fisher and Yates). */
const shuffled = <A>(all: ReadonlyArray<A>, random: () => number): ReadonlyArray<A> => {
  const cards = [...all]
  return all.flatMap(() => cards.splice(Math.floor(random() * cards.length), 1))
}

const collector = startCollector()
afterAll(() => collector.stop())

describe.skipIf(mosquitto === undefined)("a shop that hears its devices", () => {
  let shop: ShopProcess
  let closed: Promise<void> = Promise.resolve()
  const closing = Promise.withResolvers<void>()
  beforeAll(
    () =>
      new Promise<void>((resolve, reject) => {
        const environment = { MQTT_URL: url, OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, MERKATO_TRACE_SAMPLING: "0" }
        closed = withShop(async (opened) => {
          shop = opened
          resolve()
          await closing.promise
        }, environment)
        closed.catch(reject)
      }),
    60_000
  )
  afterAll(async () => {
    closing.resolve()
    await closed
  }, 60_000)

  const product = async (sku: string, units: number) => {
    const admin = await shop.as("ADMIN", "admin")
    const fields = { sku, name: `Product ${sku}`, category: "Test", price: 1, currency: "USD" }
    const productId = text(await admin.post("/api/v1/products", fields), "productId")
    if (units > 0) await admin.post(`/api/v1/inventory/${productId}/adjustments`, { delta: units, reason: "delivery" })
    return productId
  }
  const levels = async (productId: string) => (await (await shop.as("X")).get(`/api/v1/inventory/${productId}`)).body
  const onHand = (productId: string, units: number) =>
    until(
      () => levels(productId),
      (now) => now["onHand"] === units
    )
  const merkato = (...args: ReadonlyArray<string>) =>
    runToEnd("merkato", args, { DATABASE_URL: Redacted.value(shop.database) })
  const rows = <A extends object>(query: string) =>
    shop.sql(Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe<A>(query)))

  test("takes what mosquitto_pub publishes, once, in one trace from there to the event", async () => {
    const productId = await product("MELONS", 10)
    const traceId = "4bf92f3577b34da6a3ce929d0e0e4736"
    const traced = ["-D", "PUBLISH", "user-property", "traceparent", `00-${traceId}-00f067aa0ba902b7-01`]
    const message = JSON.stringify({ delta: -2, reason: "SENSOR", messageId: "m-1", deviceId: "scale-9" })
    expect(await mosquittoPub("scale-9", "MELONS", message, ...traced)).toEqual({ code: 0, output: "" })
    await onHand(productId, 8)
    expect(await mosquittoPub("scale-9", "MELONS", message)).toEqual({ code: 0, output: "" })
    expect((await mosquittoPub("scale-9", "MELONS", '{"delta": 5, "reason": "REFILL"}')).code).toBe(0)
    expect(await onHand(productId, 13)).toMatchObject({ available: 13, reserved: 0 })
    const query = `select payload->>'delta' as delta, payload->>'reason' as reason, split_part(trace_parent, '-', 2) as trace
      from inventory.events where aggregate_id = '${productId}' order by version`
    const [, first, second, ...none] = await rows<{ delta: string; reason: string; trace: string }>(query)
    expect(first).toEqual({ delta: "-2", reason: "SENSOR", trace: traceId })
    expect([second?.delta, none]).toEqual(["5", []])
    const spans = await until(
      async () => collector.spans.filter((span) => span.traceId === traceId),
      (found) => ["publish inventory.events", "Deltas.apply"].every((name) => found.some((span) => span.name === name))
    )
    expect(spans.find(({ name }) => name === "receive iot/inventory/+/delta")).toMatchObject({
      parentId: "00f067aa0ba902b7",
      attributes: { "messaging.system": "mqtt", "messaging.destination.name": "iot/inventory/MELONS/delta" }
    })
  })

  test("is told nothing by strangers, nor by devices of shelves that are not theirs", async () => {
    const message = '{"delta": 1, "reason": "SENSOR"}'
    const stranger = await mosquittoPub("scale-8", "MELONS", message)
    expect(stranger).toMatchObject({ code: 135, output: expect.stringContaining("Not authorized") })
    expect((await mosquittoPub("scale-9", "APPLES", message)).output).toContain("Not authorized")
  })

  test("puts what it cannot apply into the dead letters, and tries it again when it is put back", async () => {
    const broker = await listener(urlOf("scale-9"), "iot/inventory/+/delta/dlq")
    const unknown = '{"delta": 3, "reason": "SENSOR", "messageId": "n-1"}'
    const refused: ReadonlyArray<readonly [string, string, string]> = [
      ["NOBODYS", unknown, "unknown_sku"],
      ["MELONS", "not even JSON", "malformed_message"],
      ["MELONS", '{"delta": 0, "reason": "SENSOR"}', "malformed_message"],
      ["MELONS", '{"delta": -14, "reason": "SENSOR"}', "stock_would_be_negative"],
      ["MELONS", '{"delta": -3, "reason": "SENSOR", "messageId": "m-1", "deviceId": "scale-9"}', "message_id_reused"]
    ]
    for (const [sku, message] of refused) expect((await mosquittoPub("scale-9", sku, message)).code).toBe(0)
    const told = await until(
      async () => broker.heard(),
      (heard) => heard.length === refused.length
    )
    await broker.end()
    const letters = told.map(({ topic, payload }) => ({ sku: topic.split("/")[2], ...JSON.parse(payload.toString()) }))
    expect(letters).toMatchObject(refused.map(([sku, message, code]) => ({ sku, message, code })))
    expect(letters[3].reason).toBe("The delta -14 takes more than the 13 units that are free")

    const list = async () => {
      const { stdout } = await merkato("dlq", "list", "--json")
      return stdout.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line)]))
    }
    const listed = await list()
    const group = "inventory.device-deltas"
    expect(listed.map(({ failure }) => failure)).toEqual(
      letters.map(({ code, reason }) => ({
        topic: "inventory.events",
        consumerGroup: group,
        attempts: 1,
        reason: `${code}: ${reason}`
      }))
    )
    const productId = await product("NOBODYS", 0)
    const again = await merkato("dlq", "requeue", "--event-id", listed[0].envelope.eventId)
    expect([again.code, again.stdout]).toEqual([0, "1 event put back.\n"])
    await onHand(productId, 3)
    // It is the device's message still: published once more, it changes nothing.
    await mosquittoPub("scale-9", "NOBODYS", unknown)
    await mosquittoPub("scale-9", "NOBODYS", '{"delta": 1, "reason": "SENSOR"}')
    await onHand(productId, 4)
    // What is refused again says by the same code why.
    const reused = listed[4].envelope.eventId
    expect((await merkato("dlq", "requeue", "--event-id", reused)).code).toBe(0)
    const back = await until(list, (letters) => letters.some(({ failure }) => failure.attempts > 1))
    const { envelope, failure } = back.find(({ failure }) => failure.attempts > 1)
    expect({ eventId: envelope.eventId, consumerGroup: failure.consumerGroup }).toEqual({
      eventId: reused,
      consumerGroup: group
    })
    expect(failure.reason).toMatch(/^DeltaRefused: message_id_reused: Message m-1 came before /)
  })

  test(
    `${messageCount} deltas, doubled and shuffled, add up to the right stock, whoever is killed meanwhile`,
    async () => {
      const before = 1_000_000
      const products = await Promise.all(skus.map((sku) => product(sku, before)))
      const random = seeded(7)
      const all = Array.from({ length: messageCount }, (_, nth): readonly [number, Told] => {
        const delta = Math.floor(random() * 41) - 20 || 7
        return [nth % deviceIds.length, { sku: pick(skus, random), delta, messageId: `m${nth}` }]
      })
      const ofDevice = deviceIds.map((_, index) => {
        const own = all.flatMap(([owner, told]) => (owner === index ? [told] : []))
        return shuffled([...own, ...own.filter(() => random() < 0.15)], random)
      })
      const devices = deviceIds.map(
        (deviceId, index) => new MqttDevice(urlOf(deviceId), deviceId, index % 2 === 0 ? 4 : 5)
      )
      const parts = 4
      for (let part = 0; part < parts; part++) {
        const telling = devices.map((device, index) => {
          const own = ofDevice[index] ?? []
          const size = Math.ceil(own.length / parts)
          return device.tell(own.slice(part * size, (part + 1) * size))
        })
        const underWay = Promise.all(telling)
        if (part === 1) {
          await Promise.race(telling)
          mosquitto?.kill()
          await mosquitto?.start()
        }
        if (part === 2) {
          for (const device of devices) device.cut()
          mosquitto?.kill()
          await shop.running().end("SIGKILL")
          // A shop that is started while nobody answers there says so, and ends.
          await mosquitto?.start()
          await shop.restart("SIGKILL")
        }
        await underWay
      }
      await Promise.all(devices.map((device) => device.settled()))
      // Behind all of them, in the order of the shop's session: when it is there, so are they.
      const last = await product("LATER", 0)
      await mosquittoPub("scale-9", "LATER", '{"delta": 1, "reason": "LAST", "messageId": "last"}')
      await until(
        () => levels(last),
        (now) => now["onHand"] === 1,
        withinMs
      )
      await Promise.all(devices.map((device) => device.end()))
      const stock = await Promise.all(products.map(async (productId) => (await levels(productId))["onHand"]))
      const right = skus.map((sku) =>
        all.reduce((sum, [, told]) => (told.sku === sku ? sum + told.delta : sum), before)
      )
      expect(stock).toEqual(right)
      const [adjusted] = await rows<{ count: number; distinct: number }>(
        `select count(*)::int as count, count(distinct message_id)::int as distinct from inventory.device_messages where device_id ~ '^(scale|gate|robot)-[1-3]$'`
      )
      expect(adjusted).toEqual({ count: messageCount, distinct: messageCount })
      expect(devices.reduce((sum, device) => sum + device.sent, 0)).toBeGreaterThan(messageCount * 1.1)
      const [refused] = await rows<{ count: number }>(
        `select count(*)::int as count from bus.log where topic = 'inventory.events.dlq' and key in ('${skus.join("', '")}')`
      )
      expect(refused?.count).toBe(0)
    },
    withinMs
  )
})
