import { afterAll, expect, test } from "bun:test"
import { renameSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect } from "effect"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { operationNames, operations } from "@merkato/infra/policy/operations"
import { contextNames, contexts } from "@merkato/services/contexts"
import { type Answer, Client, text, tokenFor } from "./support/Client.ts"
import { temporaryFolder } from "./support/Processes.ts"
import { restShop } from "./support/RestShop.ts"
import { ThreeProcesses } from "./support/ThreeProcesses.ts"

const folder = temporaryFolder()
const file = join(folder.path, "limits.json")
afterAll(folder.remove)

const shop = restShop({ MERKATO_POLICIES: file, MERKATO_PAYMENT_TIMEOUT_MS: "700" })

const refusal = ({ status, body }: Answer) => [status, body["code"]]

/** Puts the file there whole: the shop may look at any moment. */
const write = (overrides: unknown) => {
  writeFileSync(`${file}.new`, JSON.stringify(overrides))
  renameSync(`${file}.new`, file)
}

type Fields = Readonly<Record<string, unknown>>

const isFields = (value: unknown): value is Fields => typeof value === "object" && value !== null

const itemsOf = ({ body }: Answer): ReadonlyArray<Fields> => {
  const items: unknown = body["items"]
  return Array.isArray(items) ? items.filter(isFields) : []
}

const operation = (answer: Answer, name: string) => itemsOf(answer).find((item) => item["operation"] === name)

/** Asks until the answer is as wanted; the last answer when that does not happen in time. */
const until = async (ask: () => Promise<Answer>, wanted: (answer: Answer) => boolean) => {
  const deadline = Date.now() + 30_000
  for (;;) {
    const answer = await ask()
    if (wanted(answer) || Date.now() > deadline) return answer
    await Bun.sleep(200)
  }
}

test("strangers are asked who they are, shoppers are refused", async () => {
  expect(refusal(await shop().anyone.get("/ops/policies"))).toEqual([401, "unauthenticated"])
  const ada = await shop().as("ADA")
  expect(refusal(await ada.get("/ops/policies"))).toEqual([403, "forbidden"])
})

test("the metrics tell how far behind each consumer group is", async () => {
  const groups = contextNames.flatMap((name) => contexts[name].reads.map(({ group }) => group))
  const told = async () => {
    const metrics = await (await fetch(`${shop().url}/metrics`)).text()
    return groups.filter((group) =>
      new RegExp(`^consumer_group_lag\\{[^}]*group="${group}"[^}]*\\} 0$`, "m").test(metrics)
    )
  }
  const deadline = Date.now() + 40_000
  while ((await told()).length < groups.length && Date.now() < deadline) await Bun.sleep(100)
  expect(await told()).toEqual(groups)
}, 60_000)

test("an admin sees every operation once, its limits and where they come from, and a closed circuit", async () => {
  const admin = await shop().as("ADMIN", "admin")
  const answer = await admin.get("/ops/policies")
  expect(answer.status).toBe(200)
  expect(answer.headers.get("cache-control")).toBe("no-store")
  expect(itemsOf(answer).map((item) => item["operation"])).toEqual(expect.arrayContaining([...operationNames]))
  expect(itemsOf(answer).length).toBe(operationNames.length)
  expect(answer.body["unreachable"]).toEqual([])
  expect(operation(answer, "payment.soap")).toMatchObject({
    usedBy: "payments",
    later: false,
    limits: { attempts: 5, attemptTimeoutMs: 700, breaker: { failuresInARow: 5, openMs: 30_000 } },
    origins: { attemptTimeoutMs: "environment" },
    breaker: { state: "closed", retryAfterSeconds: 0 }
  })
})

test("revenue per minute is told to an admin, with the minute's payments as decimal amounts", async () => {
  const productId = await shop().product({ price: 2.5 }, 10)
  const ada = await shop().as("ADA")
  const placed = await ada.post("/api/v1/orders", { items: [{ productId, qty: 3 }] }, { key: "minute-order" })
  const paid = await ada.post(
    `/api/v1/orders/${text(placed, "orderId")}/pay`,
    { paymentToken: "tok_ok" },
    { key: "minute-pay" }
  )
  expect(paid.status).toBe(200)
  const from = new Date(Date.parse(text(placed, "createdAt")) - 60_000).toISOString()
  const range = `from=${from}&to=${new Date(Date.parse(from) + 10 * 60_000).toISOString()}`
  const admin = await shop().as("ADMIN", "admin")
  const ask = () => admin.get(`/ops/revenue/minutes?${range}`)
  const answer = await until(ask, (each) => itemsOf(each).length > 0)
  expect(answer.headers.get("cache-control")).toBe("no-store")
  expect(itemsOf(answer)).toEqual([
    {
      minute: expect.stringMatching(/:00\.000Z$/),
      currency: "USD",
      state: "open",
      payments: 1,
      revenue: 7.5,
      refunds: 0,
      refunded: 0,
      corrections: 0,
      correctedAt: null,
      tooLate: { payments: 0, revenue: 0, refunds: 0, refunded: 0 }
    }
  ])
  expect(answer.body["newest"]).toMatch(/Z$/)
  expect(refusal(await ada.get(`/ops/revenue/minutes?${range}`))).toEqual([403, "forbidden"])
  expect((await admin.get("/ops/revenue/minutes?from=2026-01-01T00:00:00Z&to=2026-01-03T00:00:00Z")).status).toBe(400)
  const backwards = await admin.get("/ops/revenue/minutes?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z")
  expect(backwards.status).toBe(400)
  expect(backwards.body).toMatchObject({ errors: [{ path: "to", message: expect.stringContaining("before from") }] })
  expect((await admin.get("/ops/revenue/minutes?from=yesterday&to=today")).status).toBe(400)
}, 60_000)

test("limits follow the file while the shop runs; a file that makes no sense is told once and changes nothing", async () => {
  const admin = await shop().as("ADMIN", "admin")
  const ask = () => admin.get("/ops/policies")
  const limits = (answer: Answer): Fields => {
    const found = operation(answer, "payment.soap")?.["limits"]
    return isFields(found) ? found : {}
  }
  write({ "payment.soap": { attempts: 2, attemptTimeoutMs: 300 } })
  const changed = await until(ask, (answer) => limits(answer)["attempts"] === 2)
  expect(operation(changed, "payment.soap")).toMatchObject({
    limits: { attempts: 2, attemptTimeoutMs: 300, deadlineMs: operations["payment.soap"].deadlineMs },
    origins: { attempts: "configured", attemptTimeoutMs: "configured" }
  })
  write({ "payment.soap": { attempts: 0 }, "payment.rest": { attempts: 1 } })
  const refused = () =>
    shop()
      .output.split("\n")
      .filter((line) => line.includes("are not used"))
  await until(ask, () => refused().length > 0)
  expect(refused().length).toBe(1)
  expect(refused()[0]).toContain("payment.soap")
  const kept = await ask()
  expect(limits(kept)).toMatchObject({ attempts: 2 })
  expect(operation(kept, "payment.rest")?.["limits"]).toMatchObject({ attempts: 3 })
}, 60_000)

test(
  "of a shop in several processes each tells its own, and one that is away is named",
  () =>
    Effect.gen(function* () {
      const { url } = yield* TestDatabase.fresh
      const folder = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
      const three = yield* Effect.acquireRelease(
        Effect.promise(() => ThreeProcesses.start(url, folder.path)),
        (three) => Effect.promise(() => three.stop())
      )
      yield* Effect.promise(async () => {
        const admin = new Client(three.url("gateway"), await tokenFor(folder.path, "ADMIN", "admin"))
        const whole = await admin.get("/ops/policies")
        expect(whole.status).toBe(200)
        expect(whole.body["unreachable"]).toEqual([])
        expect(operation(whole, "payment.soap")).toMatchObject({ contexts: ["inventory", "payments", "risk"] })
        expect(operation(whole, "stock.reserve")?.["contexts"]).toContain("orders")
        expect(itemsOf(whole).filter((item) => item["operation"] === "event.publish").length).toBe(2)
        // A process behind the edge tells the edge only.
        const direct = new Client(three.url("back"), admin.token)
        expect((await direct.get("/ops/policies")).status).toBe(401)
        await three.end("back", "SIGTERM")
        const rest = await admin.get("/ops/policies")
        expect(rest.status).toBe(200)
        expect(rest.body["unreachable"]).toEqual([{ contexts: ["inventory", "payments", "risk"] }])
        expect(operation(rest, "payment.soap")).toBeUndefined()
        expect(operation(rest, "stock.reserve")).toBeDefined()
      })
    }).pipe(Effect.scoped, Effect.runPromise),
  120_000
)
