import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { execFileSync } from "node:child_process"
import { ownerOf } from "@merkato/infra/postgres/DataFolder"
import { lookInto, wrongAtRest } from "./support/Audit.ts"
import { Client, text, tokenFor } from "./support/Client.ts"
import { databaseOf, kill, killPostgres } from "./support/Crash.ts"
import { freePort, postmasterOf, type Running, runToEnd, startApp, temporaryFolder } from "./support/Processes.ts"
import { stockUp } from "./support/Shoppers.ts"

const processes = 3

const folder = temporaryFolder()
let shop: Running
let port: number
let admin: Client
let ada: Client
let productId: string

/** The other processes of the shop. */
const siblings = (): ReadonlyArray<number> =>
  execFileSync("ps", ["-A", "-o", "pid=,ppid=,args="], { encoding: "utf8" })
    .split("\n")
    .filter((line) => line.includes("sibling.ts") && Number(line.trim().split(/\s+/)[1]) === shop.pid)
    .map((line) => Number(line.trim().split(/\s+/)[0]))

const until = async (isSo: () => boolean | Promise<boolean>) => {
  while (!(await isSo())) await Bun.sleep(20)
}

const answers = (url: string) =>
  fetch(`${url}/readyz`, { keepalive: false }).then(
    (response) => response.ok,
    () => false
  )

const start = async () => {
  shop = await startApp("shop", [
    "--data-dir",
    folder.path,
    "--port",
    String(port),
    "--no-seed",
    "--processes",
    String(processes)
  ])
  await until(() => siblings().length === processes - 1 && shop.output().includes("Merkato is open"))
}

/** Orders and pays, as often as it takes. */
const buy = async (key: string) => {
  const placed = await ada.persist(() => ada.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key }))
  const order = `/api/v1/orders/${text(placed, "orderId")}`
  const paid = await ada.persist(() => ada.post(`${order}/pay`, { paymentToken: "tok_ok" }, { key: `${key}-pay` }))
  expect(paid.body["status"]).toBe("PAID")
}

const buyMany = (name: string, count: number) =>
  Promise.all(Array.from({ length: count }, (_, nth) => buy(`${name}-${nth}`)))

beforeAll(async () => {
  port = await freePort()
  await start()
  admin = new Client(shop.url, await tokenFor(folder.path, "ADMIN", "admin"))
  ada = admin.as(await tokenFor(folder.path, "ADA", "shopper"))
  productId = (await stockUp(admin))[0] ?? ""
}, 120_000)

afterAll(async () => {
  for (const pid of [...siblings(), shop.pid]) kill(pid)
  killPostgres(folder.path)
  folder.remove()
})

describe(`a shop of ${processes} processes`, () => {
  test("what one changes the others do not answer from their caches", async () => {
    const path = `/api/v1/products/${productId}`
    const read = async () => {
      const answer = await fetch(`${shop.url}${path}`, { keepalive: false })
      return ((await answer.json()) as { description?: string }).description
    }
    const readMany = () => Promise.all(Array.from({ length: 40 }, read))
    const before = new Set(await readMany())
    expect(before.size).toBe(1)
    expect((await admin.request("PATCH", path, { body: { description: "as of now" } })).status).toBe(200)
    await until(async () => (await readMany()).every((description) => description === "as of now"))
  }, 60_000)

  test("one of them killed while people buy: another takes its place, and nothing is lost or done twice", async () => {
    const [victim = 0] = siblings()
    const buying = buyMany("sibling", 30)
    await Bun.sleep(150)
    kill(victim)
    await buying
    await until(() => siblings().length === processes - 1 && !siblings().includes(victim))
    expect(shop.output()).toContain("another one takes its place")
    await buyMany("after", 10)
    expect(await lookInto(await databaseOf(folder.path), wrongAtRest)).toEqual([])
  }, 120_000)

  test("a second shop does not get in at the same port", async () => {
    const other = temporaryFolder()
    const second = await runToEnd("shop", ["--data-dir", other.path, "--port", String(port), "--processes", "2"])
    expect(postmasterOf(other.path)).toBeUndefined()
    other.remove()
    expect(second).toMatchObject({ code: 1, stdout: "" })
    expect(second.stderr).toBe(`Port ${port} is in use: cannot listen on 0.0.0.0:${port}\n`)
  }, 60_000)

  test("the first one killed: the others stop by themselves, and the shop starts again where it was", async () => {
    const left = siblings()
    const buying = buyMany("first", 20)
    await Bun.sleep(150)
    kill(shop.pid)
    await until(() => left.every((pid) => !isRunning(pid)))
    await start()
    await buying
    expect(await lookInto(await databaseOf(folder.path), wrongAtRest)).toEqual([])
  }, 120_000)

  test("told to stop while people buy: it answers what it was asked, and nothing of it stays", async () => {
    const left = siblings()
    const asked = Array.from({ length: 20 }, (_, nth) =>
      ada.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key: `last-${nth}` })
    )
    await Bun.sleep(30)
    const ended = shop.end("SIGTERM")
    const statuses = (await Promise.all(asked)).map(({ status }) => status)
    expect(statuses.filter((status) => status !== 201 && status !== 503)).toEqual([])
    expect(await ended).toBe(130)
    expect(left.filter(isRunning)).toEqual([])
    expect(postmasterOf(folder.path)).toBeUndefined()
    expect(ownerOf(folder.path)).toBeUndefined()
    expect(await answers(shop.url)).toBe(false)
    expect(shop.output()).not.toMatch(/"level":"(?:ERROR|FATAL)"/)
  }, 60_000)
})

const isRunning = (pid: number) => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
