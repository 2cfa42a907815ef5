// The shop with a Redis behind its caches: what it takes from there, and that a Redis that is away makes nothing wrong.
import { afterAll, describe, expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { RedisClient } from "bun"
import { DateTime, Effect, Logger, Schedule } from "effect"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import { product } from "../packages/services/test/OrderHistory.contract.ts"
import { type Answer, text } from "./support/Client.ts"
import { as, inShop } from "./support/InProcess.ts"
import { freePort, runToEnd, temporaryFolder } from "./support/Processes.ts"
import { realServer } from "./support/RealServer.ts"
import { restShop } from "./support/RestShop.ts"
import { until } from "./support/Until.ts"

const redis = await realServer("redis", "the shop with a Redis")
afterAll(() => redis?.stop(), 30_000)
const url = redis?.settings["REDIS_URL"] ?? ""

const folder = temporaryFolder()
const limits = join(folder.path, "limits.json")
// A sale that is not made within a second is refused, and the machine may be busy.
writeFileSync(limits, JSON.stringify({ "flash_sale.price": { deadlineMs: 60_000, attemptTimeoutMs: 60_000 } }))
afterAll(folder.remove)

describe.skipIf(redis === undefined)("a shop with a Redis behind its caches", () => {
  const shop = restShop({ REDIS_URL: url, MERKATO_POLICIES: limits })

  const get = (productId: string) => shop().anyone.get(`/api/v1/products/${productId}`)
  const rename = async (productId: string, name: string) => {
    const admin = await shop().as("ADMIN", "admin")
    expect((await admin.request("PATCH", `/api/v1/products/${productId}`, { body: { name } })).status).toBe(200)
  }
  const nameOf = (answer: Answer) => text(answer, "name")
  const keptVersion = async (productId: string) => {
    const client = new RedisClient(url)
    const version = await client.hget(`product:${productId}`, "version")
    client.close()
    return Number(version)
  }
  const ask = async <A>(question: (client: RedisClient) => Promise<A>) => {
    const client = new RedisClient(url)
    try {
      return await question(client)
    } finally {
      client.close()
    }
  }
  const levels = async (productId: string) => (await shop().anyone.get(`/api/v1/inventory/${productId}`)).body
  const stockKey = (productId: string) => `inventory:${productId}`
  const snapshotSays = (productId: string, column: string, value: number) =>
    until(
      () => ask((client) => client.hget(stockKey(productId), `MAIN.${column}`)),
      (kept) => kept === String(value)
    )
  const replay = (name: string, ...args: ReadonlyArray<string>) =>
    runToEnd("merkato", ["replay", name, ...args], shop().settings)

  test("tells stock as Redis has it from the events; damaged there, a replay finds and mends it", async () => {
    const [wrong, gone] = [await shop().product({}, 10), await shop().product({}, 5)]
    await snapshotSays(wrong, "on_hand", 10)
    await snapshotSays(gone, "on_hand", 5)
    const ada = await shop().as("ADA")
    const placed = await ada.post("/api/v1/orders", { items: [{ productId: wrong, qty: 3 }] }, { key: "held" })
    expect(placed.status).toBe(201)
    await snapshotSays(wrong, "reserved", 3)
    const orderId = text(placed, "orderId")
    const status = () => ask((client) => client.hmget(`order_status:${orderId}`, "version", "value"))
    await until(status, ([version, value]) => version === "1" && /"status":"PENDING"/.test(String(value)))
    expect((await ada.post(`/api/v1/orders/${orderId}/cancel`)).status).toBe(200)
    await until(status, ([version, value]) => version === "2" && value === null)
    await snapshotSays(wrong, "reserved", 0)
    await ask((client) => client.hset(stockKey(wrong), { "MAIN.on_hand": "9" }))
    await ask((client) => client.del(stockKey(gone)))
    await until(
      () => levels(wrong),
      (told) => told["onHand"] === 9
    )
    expect(await levels(wrong)).toEqual({ productId: wrong, onHand: 9, reserved: 0, available: 9 })
    expect(await levels(gone)).toEqual({ productId: gone, onHand: 5, reserved: 0, available: 5 })
    expect(await levels("nothing")).toEqual({ productId: "nothing", onHand: 0, reserved: 0, available: 0 })

    const mended = await replay("inventory_snapshot")
    expect(mended.code).toBe(1)
    expect(mended.stdout).toMatch(/^rebuilt in Redis: 2 rows compared, 0 differences$/m)
    expect(mended.stdout).toMatch(/^live in Redis: 2 rows compared, 2 differences:$/m)
    expect(mended.stdout).toContain(`product_id=${wrong} warehouse_id=MAIN: on_hand is 9, Postgres says 10\n`)
    expect(mended.stdout).toContain(`product_id=${gone} warehouse_id=MAIN: missing, Postgres has it\n`)
    expect(await levels(wrong)).toMatchObject({ onHand: 10, reserved: 0 })
    const again = await replay("inventory_snapshot", "--check")
    expect([again.code, again.stdout]).toEqual([
      0,
      expect.stringMatching(/^live in Redis: 2 rows compared, 0 differences$/m)
    ])
  }, 60_000)

  test("keeps prices of sales there until these are over; damaged there, a replay finds and mends them", async () => {
    const productId = await shop().product({ price: 2 })
    const admin = await shop().as("ADMIN", "admin")
    const endsAt = new Date(Date.now() + 3_600_000).toISOString()
    const startsAt = new Date(Date.now() - 1_000).toISOString()
    const sale = { productId, price: 1.5, currency: "USD", startsAt, endsAt }
    const made = await admin.post("/api/v1/flash-sales", sale)
    expect(made.status).toBe(201)
    const [key, column] = [`flash_price:${productId}`, `${text(made, "saleId")}.price_minor`]
    const kept = () => ask((client) => client.hget(key, column))
    await until(kept, (price) => price === "150")
    expect(await ask((client) => client.pexpiretime(key))).toBe(Date.parse(endsAt))

    await ask((client) => client.hset(key, { [column]: "1" }))
    const mended = await replay("flash_sale_price_map")
    expect(mended.code).toBe(1)
    expect(mended.stdout).toMatch(/^rebuilt in Redis: 1 row compared, 0 differences$/m)
    expect(mended.stdout).toContain(`sale_id=${text(made, "saleId")}: price_minor is 1, Postgres says 150\n`)
    expect(await kept()).toBe("150")
    // What was called off counts for nothing, on either side.
    expect((await admin.request("DELETE", `/api/v1/flash-sales/${text(made, "saleId")}`)).status).toBe(204)
    await until(
      () => ask((client) => client.hget(key, `${text(made, "saleId")}.state`)),
      (state) => state === "CANCELED"
    )
    const after = await replay("flash_sale_price_map", "--check")
    expect([after.code, after.stdout]).toEqual([
      0,
      expect.stringMatching(/^live in Redis: 0 rows compared, 0 differences$/m)
    ])
  }, 60_000)

  test("keeps what it read there, and takes from there what another process has read", async () => {
    const productId = await shop().product()
    expect((await get(productId)).status).toBe(200)
    expect(await keptVersion(productId)).toBe(1)

    const [read, other] = [await shop().product({ name: "Read" }), await shop().product({ name: "Not read yet" })]
    await get(read)
    const client = new RedisClient(url)
    const value = String(await client.hget(`product:${read}`, "value")).replaceAll(read, other)
    await client.hset(`product:${other}`, { version: "1", value })
    client.close()
    expect(nameOf(await get(other))).toBe("Read")
  })

  test("drops what has changed, there as here", async () => {
    const productId = await shop().product({ name: "Old" })
    await get(productId)
    await rename(productId, "New")
    await until(
      () => get(productId),
      (answer) => nameOf(answer) === "New"
    )
    await until(
      () => keptVersion(productId),
      (version) => version === 2
    )
  })

  test("keeps what the graph asks for as well, and drops it in the same way", async () => {
    const productId = await shop().product({ name: "Old" })
    // The event of its making would drop what is kept before it.
    await shop().settled()
    const named = (name: string) => ({ data: { product: { name } } })
    const ask = () => shop().anyone.post("/graphql", { query: `{ product(id: "${productId}") { name } }` })
    const kept = async () => {
      const client = new RedisClient(url)
      const [version, value] = await client.hmget(`gql:product:${productId}`, "version", "value")
      client.close()
      return { version: Number(version), value }
    }
    expect((await ask()).body).toEqual(named("Old"))
    expect(await kept()).toEqual({ version: 1, value: expect.stringContaining('"Old"') })
    await rename(productId, "New")
    await until(ask, ({ body }) => Bun.deepEquals(body, named("New")))
    await until(kept, ({ version }) => version === 2)
  })

  test("reads on while Redis hangs, and a Redis that comes back does not bring back what has changed", async () => {
    const [known, unknown] = [await shop().product({ name: "Old" }), await shop().product({ name: "Unread" })]
    await get(known)
    redis?.freeze()
    try {
      expect(nameOf(await get(unknown))).toBe("Unread")
      expect(await levels(unknown)).toMatchObject({ onHand: 0 })
      await rename(known, "New")
      await until(
        () => get(known),
        (answer) => nameOf(answer) === "New"
      )
    } finally {
      redis?.thaw()
    }
    await until(
      () => keptVersion(known),
      (version) => version === 2
    )
    expect(nameOf(await get(known))).toBe("New")
  }, 60_000)

  test("reads on while Redis is dead, and uses it again when it is back", async () => {
    const productId = await shop().product({}, 7)
    await snapshotSays(productId, "on_hand", 7)
    // As if it had lost what it was told last: a stock of before.
    await ask((client) => client.hset(stockKey(productId), { "MAIN.on_hand": "1" }))
    redis?.kill()
    expect((await get(productId)).status).toBe(200)
    expect(await levels(productId)).toMatchObject({ onHand: 7 })
    const delivered = await shop().product({}, 3)
    const lag = () => shop().lagOf("inventory.inventory_snapshot")
    await until(lag, (events) => events > 0)
    await rename(productId, "While it was away")
    await until(
      () => get(productId),
      (answer) => nameOf(answer) === "While it was away"
    )
    await redis?.start()
    await until(
      () => keptVersion(productId),
      (version) => version === 2
    )
    await until(
      async () => {
        const another = await shop().product()
        await get(another)
        return await keptVersion(another)
      },
      (version) => version === 1
    )
    // What another process of Redis has is not believed, and built anew.
    expect(await levels(productId)).toMatchObject({ onHand: 7 })
    await snapshotSays(productId, "on_hand", 7)
    await snapshotSays(delivered, "on_hand", 3)
    await until(lag, (events) => events === 0)
  }, 120_000)

  test("is told by the policies of the edge and by a gauge", async () => {
    const admin = await shop().as("ADMIN", "admin")
    const { items } = (await admin.get("/ops/policies")).body as { items: ReadonlyArray<Record<string, unknown>> }
    expect(items.find(({ operation }) => operation === "cache.shared")).toMatchObject({ usedBy: "the edge" })
    const metrics = await (await fetch(`${shop().url}/metrics`)).text()
    expect(metrics).toMatch(/^product_shared_cache_hit_ratio\S* [01]/m)
    expect(metrics).toMatch(/^inventory_cache_hit_ratio\S* [01]/m)
    expect(metrics).toMatch(/^consumer_group_lag\{[^}]*inventory\.inventory_snapshot[^}]*\} \d/m)
  })
})

test.skipIf(redis === undefined)(
  "who shows the prices of sales is told what Redis has of them, and orders are priced by Postgres",
  () =>
    inShop(
      Effect.gen(function* () {
        const pricing = yield* PricingRpc
        const productId = yield* product("PLUM", 200)
        const nowMs = Date.now()
        const { answer } = yield* as(
          "ADMIN",
          "admin"
        )(
          pricing.ScheduleFlashSale({
            productId,
            priceMinor: 150,
            currency: "USD",
            startsAt: DateTime.makeUnsafe(nowMs - 1_000),
            endsAt: DateTime.makeUnsafe(nowMs + 3_600_000)
          })
        )
        const client = new RedisClient(`${url}/1`)
        const [key, column] = [`flash_price:${productId}`, `${answer.saleId}.price_minor`]
        yield* Effect.promise(() =>
          until(
            () => client.hget(key, column),
            (price) => price === "150"
          )
        )
        yield* Effect.promise(() => client.hset(key, { [column]: "120" }))
        const shown = Effect.map(pricing.PriceMap({ productIds: [productId, productId], limit: 10 }), ({ items }) =>
          items.map(({ saleId, priceMinor }) => [saleId, priceMinor])
        )
        expect<unknown>(yield* shown).toEqual([[answer.saleId, 120]])
        expect((yield* pricing.Quote({ items: [{ productId, qty: 1 }] })).lines[0]?.priceMinor).toBe(150)
        // What is not whole is no price; and without all of it Postgres is asked.
        yield* Effect.promise(() => client.hdel(key, column))
        expect(yield* shown).toEqual([])
        yield* Effect.promise(() => client.send("FLUSHDB", []))
        yield* Effect.repeat(shown, {
          until: ([first]) => first?.[1] === 150,
          times: 200,
          schedule: Schedule.spaced("50 millis")
        })
        expect<unknown>(yield* shown).toEqual([[answer.saleId, 150]])
        client.close()
      }).pipe(Effect.provide(Logger.layer([]))),
      { REDIS_URL: `${url}/1`, MERKATO_POLICIES: limits }
    ),
  60_000
)

test("says in a sentence that no Redis answers there", async () => {
  const { path, remove } = temporaryFolder()
  const nobody = await freePort()
  const args = ["--no-seed", "--data-dir", path, "--port", String(await freePort())]
  const { code, stderr } = await runToEnd("shop", args, { REDIS_URL: `redis://:geheim@127.0.0.1:${nobody}` })
  remove()
  expect(code).toBe(1)
  expect(stderr).toMatch(new RegExp(`^REDIS_URL cannot be used: 127\\.0\\.0\\.1:${nobody}: [^\\n]+\\n$`, "m"))
  expect(stderr).not.toContain("geheim")
}, 60_000)
