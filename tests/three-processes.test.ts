import { describe, expect, test } from "bun:test"
import { Effect, Redacted } from "effect"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"

import { lookInto, wrongAtRest, wrongNow } from "./support/Audit.ts"
import { type Answer, Client, text, tokenFor } from "./support/Client.ts"
import { journey } from "./support/Journey.ts"
import { startApp, temporaryFolder } from "./support/Processes.ts"

import { openFor, stockUp } from "./support/Shoppers.ts"
import { type Name, ThreeProcesses } from "./support/ThreeProcesses.ts"

/** Runs a test on an empty database and a folder for the keys that processes share. */
const fresh = (test: (database: Redacted.Redacted, dataDir: string) => Promise<void>) =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.fresh
    const folder = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
    yield* Effect.promise(() => test(url, folder.path))
  }).pipe(Effect.scoped, Effect.runPromise)

const onOneProcess = () =>
  new Promise<Awaited<ReturnType<typeof journey>>>((resolve, reject) => {
    fresh(async (database, dataDir) => {
      const shop = await startApp("shop", ["--no-seed", "--data-dir", dataDir], {
        DATABASE_URL: Redacted.value(database),
        MERKATO_PAYMENT_TIMEOUT_MS: "500"
      })
      try {
        resolve(await journey(shop.url, await tokenFor(dataDir, "ADMIN", "admin")))
      } finally {
        await shop.end("SIGTERM")
      }
    }).catch(reject)
  })

/** Runs a test on the shop as three processes. */
const onThree = (test: (three: ThreeProcesses) => Promise<void>) =>
  fresh(async (database, dataDir) => {
    const three = await ThreeProcesses.start(database, dataDir)
    try {
      await test(three)
      expect(three.errors).toEqual([])
    } finally {
      await three.stop()
    }
  })

describe("the shop as gateway / orders and more / inventory and payments", () => {
  test("a purchase gets the same answers from three processes as from one", async () => {
    const one = await onOneProcess()
    await onThree(async (three) => {
      const answers = await journey(three.url("gateway"), await tokenFor(three.dataDir, "ADMIN", "admin"))
      for (const [nth, step] of one.entries()) expect(answers[nth]).toEqual(step)
      expect(answers.length).toBe(one.length)
      expect(one.filter(({ status }) => status >= 500 && status !== 503)).toEqual([])
    })
  }, 180_000)

  test(
    "each of the three is killed in the middle of a purchase: it is refused while that is away, and goes on afterwards",
    () =>
      onThree(async (three) => {
        const adminToken = await tokenFor(three.dataDir, "ADMIN", "admin")
        const admin = new Client(three.url("gateway"), adminToken)
        const products = await stockUp(admin, 50)
        const [productId = ""] = products
        const people = await openFor({
          url: three.url("gateway"),
          dataDir: three.dataDir,
          admin: adminToken,
          products,
          shoppers: 4
        })
        const ada = admin.as(await tokenFor(three.dataDir, "ADA", "shopper"))
        const buy = (key: string) => ada.post("/api/v1/orders", { items: [{ productId, qty: 2 }] }, inTime({ key }))

        for (const victim of ["back", "front", "gateway"] as const) {
          const orderId = text(await ada.persist(() => buy(`${victim}-1`)), "orderId")
          const pay = () =>
            ada.post(`/api/v1/orders/${orderId}/pay`, { paymentToken: "tok_ok" }, inTime({ key: `${victim}-2` }))
          const paying = pay().catch(() => undefined)
          await Bun.sleep(Math.random() * 30)
          await three.end(victim, "SIGKILL")
          const interrupted = await paying
          expect([undefined, 200, 503]).toContain(interrupted?.status)

          for (const other of (["back", "front", "gateway"] as const).filter((name) => name !== victim)) {
            expect((await fetch(`${three.url(other)}/readyz`, inTime({}))).status).toBe(200)
          }
          expect(await fetch(`${three.url(victim)}/readyz`).catch(() => "nobody there")).toBe("nobody there")
          await whileAway[victim]({ ada, productId, buy: () => buy(`${victim}-3`), pay })

          await three.start(victim)
          expect((await ada.persist(pay)).body).toMatchObject({ orderId, status: "PAID" })
          const placed = await ada.persist(() => buy(`${victim}-3`))
          expect(placed.body).toMatchObject({ status: "PENDING" })
          const canceled = await ada.persist(() => ada.post(`/api/v1/orders/${text(placed, "orderId")}/cancel`))
          expect(canceled.body).toMatchObject({ status: "CANCELED" })
          expect(await lookInto(three.database, wrongNow)).toEqual([])
        }

        await people.stop()
        expect(people.surprises).toEqual([])
        expect(await lookInto(three.database, wrongAtRest)).toEqual([])
        expect(await people.contradictions(three.database, "at the end")).toEqual([])
        expect(await people.replay(30)).toEqual([])
        console.log(`3 kills: ${people.summary}`)
      }),
    500_000
  )
})

/** Who waits longer has to do with a request that hangs. */
const inTime = <A extends object>(options: A) => ({ ...options, signal: AbortSignal.timeout(10_000) })

const isAway = (service: string, { status, headers, body }: Answer) =>
  expect({ status, type: headers.get("content-type"), retryAfter: headers.get("retry-after"), body }).toMatchObject({
    status: 503,
    type: "application/problem+json",
    retryAfter: expect.stringMatching(/^[1-9]\d*$/),
    body: { code: "service_unavailable", status: 503, service }
  })

interface Shopping {
  readonly ada: Client
  readonly productId: string
  readonly buy: () => Promise<Answer>
  readonly pay: () => Promise<Answer>
}

/** What still works without one of the three, and what is refused. */
const whileAway: Record<Name, (shopping: Shopping) => Promise<void>> = {
  back: async ({ ada, productId, buy, pay }) => {
    expect((await ada.get(`/api/v1/products/${productId}`, inTime({}))).status).toBe(200)
    expect((await ada.get("/api/v1/orders", inTime({}))).status).toBe(200)
    isAway("inventory", await ada.get(`/api/v1/inventory/${productId}`, inTime({})))
    isAway("inventory", await buy())
    // Paid before the kill, under way, or not to be had: never an answer that means nothing.
    const answer = await pay()
    expect([200, 409, 503]).toContain(answer.status)
    if (answer.status === 409) expect(answer.body["code"]).toBe("request_in_progress")
  },
  front: async ({ ada, productId, buy, pay }) => {
    expect((await ada.get(`/api/v1/inventory/${productId}`, inTime({}))).status).toBe(200)
    isAway("catalogue", await ada.get("/api/v1/products", inTime({})))
    isAway("notifications", await ada.get("/api/v1/notifications", inTime({})))
    isAway(
      "identity",
      await ada.post("/api/v1/sessions", { email: "ada@example.com", password: "correct horse" }, inTime({}))
    )
    isAway("cart", await ada.post("/api/v1/carts", undefined, inTime({})))
    isAway("orders", await buy())
    isAway("orders", await pay())
  },
  gateway: async ({ buy }) => {
    expect(await buy().catch(() => "nobody there")).toBe("nobody there")
  }
}
