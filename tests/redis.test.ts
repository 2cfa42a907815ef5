// The shop with a Redis behind its caches: what it takes from there, and that a Redis that is away makes nothing wrong.
import { afterAll, describe, expect, test } from "bun:test"
import { RedisClient } from "bun"
import { type Answer, text } from "./support/Client.ts"
import { freePort, runToEnd, temporaryFolder } from "./support/Processes.ts"
import { realServer } from "./support/RealServer.ts"
import { restShop } from "./support/RestShop.ts"
import { until } from "./support/Until.ts"

const redis = await realServer("redis", "the shop with a Redis")
afterAll(() => redis?.stop(), 30_000)
const url = redis?.settings["REDIS_URL"] ?? ""

describe.skipIf(redis === undefined)("a shop with a Redis behind its caches", () => {
  const shop = restShop({ REDIS_URL: url })

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
    const productId = await shop().product()
    redis?.kill()
    expect((await get(productId)).status).toBe(200)
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
  }, 60_000)

  test("is told by the policies of the edge and by a gauge", async () => {
    const admin = await shop().as("ADMIN", "admin")
    const { items } = (await admin.get("/ops/policies")).body as { items: ReadonlyArray<Record<string, unknown>> }
    expect(items.find(({ operation }) => operation === "cache.shared")).toMatchObject({ usedBy: "the edge" })
    const metrics = await (await fetch(`${shop().url}/metrics`)).text()
    expect(metrics).toMatch(/^product_shared_cache_hit_ratio\S* [01]/m)
  })
})

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
