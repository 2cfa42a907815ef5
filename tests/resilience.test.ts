// What a shopper, an operator and the books see when payment gateways fail: a real shop, real gateways, real failures.
import { afterAll, describe, expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { ConfigProvider, Effect, Layer, Logger, Redacted, Schedule } from "effect"
import { SqlClient } from "effect/sql"
import { AttemptId, OrderId, RefundId, UserId } from "@merkato/domain/kernel/Ids"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import type { Overrides } from "@merkato/infra/policy/Policies"
import { operations } from "@merkato/infra/policy/operations"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import type { Conduct, Mode } from "@merkato/services/psp/Conduct"
import { booksBalance } from "./support/Books.ts"
import { Buyers } from "./support/Buyers.ts"
import { neverOpens } from "./support/Circuits.ts"
import { type Client, text } from "./support/Client.ts"
import { startCollector } from "./support/Collector.ts"
import { gatewayRules } from "./support/GatewayBooks.ts"
import { as, contextsOn } from "./support/InProcess.ts"
import { sumOf, taken } from "./support/Money.ts"
import {
  type GatewayName,
  leftToDo,
  type PayingShop,
  type PayingShopOptions,
  tellGateway,
  until,
  withPayingShop
} from "./support/PayingShop.ts"
import { startApp, temporaryFolder } from "./support/Processes.ts"
import { stockUp } from "./support/Shoppers.ts"

const soapAndRest = ["soap", "rest"] as const

/** More requests than any test makes: told with `forNext`, what is left of it tells how many there were. */
const many = 1_000_000

/** A start of three processes on a busy machine, and all that a test does. */
const timeoutMs = 420_000

/** What is not tried here must not give up because the machine is busy. */
const elsewhere: Overrides = {
  "risk.assess": { deadlineMs: 60_000, attemptTimeoutMs: 60_000, breaker: null },
  "stock.reserve": { deadlineMs: 60_000, attemptTimeoutMs: 60_000, breaker: null }
}

/** The shipped policies of payments, but for how long a circuit stays open, on a machine that may be slow. */
const openFor = (openMs: number): Overrides => ({
  ...elsewhere,
  "payment.soap": { deadlineMs: 60_000, attemptTimeoutMs: 10_000, breaker: { openMs } },
  "payment.rest": { deadlineMs: 60_000, attemptTimeoutMs: 10_000, breaker: { openMs } }
})

const resilient = (what: string, options: PayingShopOptions, run: (shop: PayingShop) => Promise<void>) =>
  test(what, () => withPayingShop(options, run), timeoutMs)

let keys = 0
const newKey = () => `KEY-${++keys}`

const place = async (client: Client, productId: string) => {
  const placed = await client.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key: newKey() })
  expect([placed.status, placed.body["status"]]).toEqual([201, "PENDING"])
  return text(placed, "orderId")
}

const cartWith = async (client: Client, productId: string) => {
  const cartId = text(await client.post("/api/v1/carts"), "cartId")
  const filled = await client.request("PUT", `/api/v1/carts/${cartId}/items/${productId}`, { body: { qty: 2 } })
  expect(filled.status).toBe(200)
  return cartId
}

const pay = (client: Client, orderId: string, key = newKey(), headers: Readonly<Record<string, string>> = {}) =>
  client.post(`/api/v1/orders/${orderId}/pay`, { paymentToken: "tok_ok" }, { key, headers })

const payNew = async (client: Client, productId: string, headers: Readonly<Record<string, string>> = {}) => {
  const orderId = await place(client, productId)
  const paid = await pay(client, orderId, newKey(), headers)
  expect([paid.status, paid.body["status"]]).toEqual([200, "PAID"])
  return orderId
}

/** The gateways that hold money of an order. */
const gatewaysOf = (shop: PayingShop, orderId: string) =>
  shop.look(
    Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql<{ gateway: string }>`
        select gateway from psp.attempts where order_id = ${orderId} and status in ('captured', 'authorised')`
    )
  )

const traced = () => {
  const traceId = crypto.randomUUID().replaceAll("-", "")
  return { traceId, headers: { traceparent: `00-${traceId}-00000000000000a1-01` } }
}

const transitions = (shop: PayingShop, from: string, to: string) =>
  shop.metric("policy_breaker_transitions_total", { operation: "payment.soap", from, to })

describe("with the SOAP gateway down", () => {
  const collector = startCollector()
  afterAll(collector.stop)

  /** What the spans of a trace tell about the circuit. */
  const circuitEvents = async (traceId: string, atLeast: number) => {
    const events = () =>
      collector.spans
        .filter((span) => span.traceId === traceId)
        .flatMap((span) => span.events)
        .filter(({ attributes }) => attributes["policy.operation"] === "payment.soap")
    const turned = () => events().filter(({ name }) => name === "policy.breaker")
    await until(
      "the spans are exported",
      async () => turned().length,
      (count) => count >= atLeast
    )
    return {
      turned: turned().map(({ attributes }) => `${attributes["from"]} → ${attributes["to"]}`),
      failed: events().filter(({ name }) => name === "policy.attempt_failed").length
    }
  }

  resilient(
    "five failed attempts open its circuit, orders are paid through REST, and it closes when SOAP is back",
    { policies: elsewhere, env: { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_BSP_SCHEDULE_DELAY: "100" } },
    async (shop) => {
      expect(operations["payment.soap"].breaker.openMs).toBe(30_000)
      const shipped = await shop.policy("payment.soap")
      expect(shipped.limits.breaker).toMatchObject({ openMs: 30_000, failuresInARow: 5 })
      expect(shipped.origins).toEqual({})
      // As shipped, but for what a busy machine needs.
      await shop.configure(openFor(30_000))
      const configured = await shop.policy("payment.soap")
      expect(configured.limits.breaker).toMatchObject({ openMs: 30_000, failuresInARow: 5 })
      expect(configured.origins).toMatchObject({ breaker: "configured" })

      const [productId = ""] = await stockUp(shop.admin)
      const ada = await shop.as("ADA")
      await shop.tell("soap", { mode: "down", forNext: many })
      const opening = traced()
      const first = await payNew(ada, productId, opening.headers)
      const openSince = Date.now()
      expect(await gatewaysOf(shop, first)).toEqual([{ gateway: "rest" }])
      expect(many - (await shop.left("soap"))).toBe(5)
      const open = await shop.policy("payment.soap")
      expect(open.breaker.state).toBe("open")
      expect(open.breaker.retryAfterSeconds).toBeGreaterThan(0)
      expect(open.counts.attempts).toMatchObject({ failure: 5, success: 0 })
      expect(await shop.metric("policy_breaker_state", { operation: "payment.soap" })).toBe(2)
      expect(await transitions(shop, "closed", "open")).toBe(1)
      expect(await circuitEvents(opening.traceId, 1)).toEqual({ turned: ["closed → open"], failed: 5 })

      const meanwhile = await Promise.all(Array.from({ length: 4 }, () => payNew(ada, productId)))
      for (const orderId of meanwhile) expect(await gatewaysOf(shop, orderId)).toEqual([{ gateway: "rest" }])
      expect(many - (await shop.left("soap"))).toBe(5)
      const refusing = await shop.policy("payment.soap")
      expect(refusing.counts.attempts["failure"]).toBe(5)
      // The first one was refused its sixth attempt; then one for each of the four.
      expect(refusing.counts.refusals["circuit_open"]).toBeGreaterThanOrEqual(4)

      await shop.tell("soap", { mode: "ok" })
      await until(
        "the open time is over",
        () => shop.policy("payment.soap"),
        ({ breaker }) => breaker.retryAfterSeconds === 0
      )
      // It opened a little before its payment was answered.
      expect(Date.now() - openSince).toBeGreaterThan(20_000)
      const closing = traced()
      const last = await payNew(ada, productId, closing.headers)
      expect(await gatewaysOf(shop, last)).toEqual([{ gateway: "soap" }])
      expect((await shop.policy("payment.soap")).breaker).toMatchObject({ state: "closed", failuresInARow: 0 })
      expect(await shop.metric("policy_breaker_state", { operation: "payment.soap" })).toBe(0)
      expect(await transitions(shop, "open", "half_open")).toBe(1)
      expect(await transitions(shop, "half_open", "closed")).toBe(1)
      expect(await circuitEvents(closing.traceId, 2)).toEqual({
        turned: ["open → half_open", "half_open → closed"],
        failed: 0
      })
      await shop.look(booksBalance)
    }
  )

  resilient(
    "connections that are refused count as well; a try that fails leaves the circuit open, one that succeeds closes it",
    { apart: true, policies: openFor(1_500) },
    async (shop) => {
      const [productId = ""] = await stockUp(shop.admin)
      const ada = await shop.as("ADA")
      const triedAgain = () =>
        until(
          "the circuit lets somebody try",
          () => shop.policy("payment.soap"),
          ({ breaker }) => breaker.state === "closed" || breaker.retryAfterSeconds === 0
        )
      await shop.app("soap").kill()
      const first = await payNew(ada, productId)
      expect((await shop.policy("payment.soap")).counts.attempts).toMatchObject({ failure: 5, success: 0 })
      expect(await transitions(shop, "closed", "open")).toBe(1)
      await triedAgain()
      const second = await payNew(ada, productId)
      expect((await shop.policy("payment.soap")).counts.attempts).toMatchObject({ failure: 6, success: 0 })
      expect(await transitions(shop, "half_open", "open")).toBe(1)
      for (const orderId of [first, second]) {
        expect(await gatewaysOf(shop, orderId)).toEqual([{ gateway: "rest" }])
      }
      await shop.app("soap").start()
      await triedAgain()
      expect(await gatewaysOf(shop, await payNew(ada, productId))).toEqual([{ gateway: "soap" }])
      expect((await shop.policy("payment.soap")).breaker.state).toBe("closed")
      expect(await transitions(shop, "half_open", "closed")).toBe(1)
      await shop.look(booksBalance)
    }
  )
})

const shortlyOpen = { breaker: { openMs: 1_500 } }

resilient(
  "with both gateways down the shopper is told to come back, the shop goes on, and every order is paid later",
  { policies: { ...elsewhere, "payment.soap": shortlyOpen, "payment.rest": shortlyOpen } },
  async (shop) => {
    const [productId = ""] = await stockUp(shop.admin)
    const ada = await shop.as("ADA")
    const orders = { sameKey: await place(ada, productId), newKey: await place(ada, productId) }
    const [cart, otherCart] = [await cartWith(ada, productId), await cartWith(ada, productId)]
    const checkout = (cartId: string, key: string) =>
      ada.post("/api/v1/checkout", { cartId, paymentToken: "tok_ok" }, { key, signal: inTime() })
    const payIt = (orderId: string, key: string) =>
      ada.post(`/api/v1/orders/${orderId}/pay`, { paymentToken: "tok_ok" }, { key, signal: inTime() })

    await shop.app("soap").kill()
    const refused = await Promise.all([
      payIt(orders.sameKey, "PAY-SAME"),
      payIt(orders.newKey, "PAY-OLD"),
      checkout(cart, "CHECKOUT-SAME"),
      checkout(otherCart, "CHECKOUT-OLD")
    ])
    for (const { body, headers, status } of refused) {
      expect([status, body["code"]]).toEqual([503, "payment_unavailable"])
      expect(headers.get("retry-after")).toMatch(/^[1-9][0-9]*$/)
    }
    const [, , left, otherLeft] = refused.map(({ body }) => String(body["orderId"]))
    if (left === undefined || otherLeft === undefined) throw new Error("no orders of the checkouts")

    // The shop goes on.
    expect((await ada.get("/api/v1/products")).status).toBe(200)
    expect((await ada.get(`/api/v1/products/${productId}`)).status).toBe(200)
    const during = await cartWith(ada, productId)
    expect((await ada.get(`/api/v1/carts/${during}`)).body["items"]).toEqual([{ productId, qty: 2 }])
    const placedMeanwhile = await place(ada, productId)
    const unpaid = [orders.sameKey, orders.newKey, left, otherLeft, placedMeanwhile]
    for (const orderId of unpaid) {
      expect((await ada.get(`/api/v1/orders/${orderId}`)).body).toMatchObject({ orderId, status: "PENDING" })
    }
    expect(await shop.look(taken)).toMatchObject({ paidOrders: 0, ours: {}, theirs: {}, wrong: [] })

    await shop.app("soap").start()
    const patiently = (ask: () => ReturnType<Client["post"]>) => ada.persist(ask, 90_000)
    const later = await Promise.all([
      patiently(() => payIt(orders.sameKey, "PAY-SAME")),
      patiently(() => payIt(orders.newKey, "PAY-NEW")),
      patiently(() => checkout(cart, "CHECKOUT-SAME")),
      patiently(() => payIt(otherLeft, "PAY-OTHER")),
      patiently(() => payIt(placedMeanwhile, "PAY-MEANWHILE"))
    ])
    expect(later.map(({ body, status }) => [status, body["status"], body["orderId"]])).toEqual([
      [200, "PAID", orders.sameKey],
      [200, "PAID", orders.newKey],
      [201, "PAID", left],
      [200, "PAID", otherLeft],
      [200, "PAID", placedMeanwhile]
    ])
    // The checkout whose order was paid by itself meanwhile learns of it, and makes no other.
    expect((await patiently(() => checkout(otherCart, "CHECKOUT-OLD"))).body["orderId"]).toBe(otherLeft)
    await shop.look(booksBalance)
    const money = await shop.look(taken)
    expect(money).toMatchObject({ paidOrders: 5, ours: money.theirs, wrong: [] })
  }
)

/** Longer than the gateways' deadlines together; who waits this long was not answered within them. */
const inTime = () =>
  AbortSignal.timeout(operations["payment.soap"].deadlineMs + operations["payment.rest"].deadlineMs + 7_000)

const soon = { kind: "exponential", firstMs: 5, factor: 2, maxMs: 40, jitter: true }

const patient = (attemptTimeoutMs: number): Overrides => {
  const limits = { attemptTimeoutMs, backoff: soon, breaker: neverOpens, retryBudget: null }
  return { ...elsewhere, "payment.soap": limits, "payment.rest": limits }
}

/** Nobody is held for buying a lot. */
const carefree = { MERKATO_RISK_RULES: JSON.stringify({ review: 101, block: 101 }) }

/** All is settled, and the books agree: so many orders paid, each once, to the cent. */
const agreeOn = async (shop: PayingShop, payments: number) => {
  await shop.look(booksBalance)
  const money = await shop.look(taken)
  expect(money).toMatchObject({ paidOrders: payments, ours: money.theirs, wrong: [] })
  expect(sumOf(money.ours)).toBe(money.paidMinor)
  return money
}

resilient(
  "across 1,000 payments at gateways that charge and drop the connection nobody is charged twice and none is lost",
  { policies: patient(3_000), env: carefree },
  async (shop) => {
    const products = await stockUp(shop.admin, 100_000)
    const buyers = await Buyers.arrive(shop, products, 24, 4)
    const lossy = { mode: "lost", forNext: many, rate: 0 } as const

    // Every authorisation holds the money and drops the connection.
    await shop.tell("soap", { ...lossy, rates: { authorise: 1, capture: 0.4, find: 0.3, void: 0.3 } })
    await buyers.buy(600)
    expect(many - (await shop.left("soap"))).toBeGreaterThanOrEqual(600)
    expect((await agreeOn(shop, 600)).ours).toEqual({ soap: expect.any(Number) })

    // The same at the other gateway, after this one has refused.
    await shop.tell("soap", { mode: "down", operations: ["authorise"] })
    await shop.tell("rest", { ...lossy, rates: { authorise: 1, capture: 0.4, find: 0.3, void: 0.3 } })
    await buyers.buy(400)
    expect(many - (await shop.left("rest"))).toBeGreaterThanOrEqual(400)
    expect(Object.keys((await agreeOn(shop, 1_000)).ours).toSorted()).toEqual(["rest", "soap"])

    // Both at once, with circuits that open soon, and for a moment only.
    const breaker = { ...operations["payment.soap"].breaker, failuresInARow: 3, openMs: 200 }
    const limits = { attemptTimeoutMs: 3_000, backoff: soon, breaker }
    await shop.configure({ ...elsewhere, "payment.soap": limits, "payment.rest": limits })
    for (const gateway of soapAndRest) {
      await shop.tell(gateway, { ...lossy, rates: { authorise: 0.7, capture: 0.3, find: 0.3, void: 0.3 } })
    }
    await buyers.buy(100)
    expect(await transitions(shop, "closed", "open")).toBeGreaterThan(0)
    await agreeOn(shop, 1_100)
  }
)

/** What each does to those who ask, so often; the rates leave some requests alone, so that all comes to an end. */
const moods: ReadonlyArray<readonly [mode: Mode, delayMs?: number]> = [
  ["slow", 450],
  ["silent"],
  ["mute"],
  ["garbage"],
  ["misshapen"],
  ["truncated"],
  ["foreign"],
  ["twice"]
]

resilient(
  "gateways that are slow, silent, mute, or answer garbage, a half, somebody else or twice take the money once as well",
  { policies: patient(300), env: carefree },
  async (shop) => {
    const buyers = await Buyers.arrive(shop, await stockUp(shop.admin, 100_000), 20, 5)
    let payments = 0
    for (const [mode, delayMs] of moods) {
      for (const gateway of soapAndRest) {
        await shop.tell(gateway, {
          mode,
          forNext: many,
          rate: 0.25,
          rates: { authorise: 0.8 },
          ...(delayMs === undefined ? {} : { delayMs })
        })
      }
      await buyers.buy(20)
      expect([mode, many - (await shop.left("soap"))]).not.toEqual([mode, 0])
      payments += 20
    }
    for (const gateway of soapAndRest) await shop.tell(gateway, { mode: "ok" })
    await agreeOn(shop, payments)
  }
)

test(
  "partial refunds at gateways that lose their answers are made once each, and the books agree on what is left",
  () =>
    Effect.gen(function* () {
      const { url } = yield* TestDatabase.fresh
      const folder = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
      const app = yield* Effect.acquireRelease(
        Effect.promise(() => startApp("payment-gateways", ["--database-url", Redacted.value(url)])),
        (app) => Effect.promise(() => app.end("SIGKILL"))
      )
      writeFileSync(join(folder.path, "policies.json"), JSON.stringify(patient(3_000)))
      const tell = (gateway: GatewayName, conduct: Conduct) =>
        Effect.promise(() => tellGateway(app.url, gateway, conduct))
      const env = { MERKATO_PAYMENT_GATEWAY_URL: app.url }
      const shop = yield* Layer.build(
        contextsOn(url, folder.path).pipe(Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env }))))
      )
      yield* Effect.gen(function* () {
        const payments = yield* PaymentsRpc
        const ada = as("ADA", "shopper")
        const captured: Array<{ readonly attemptId: AttemptId; readonly amountMinor: number }> = []
        for (const gateway of soapAndRest) {
          if (gateway === "rest") yield* tell("soap", { mode: "down", operations: ["authorise"] })
          for (let nth = 1; nth <= 12; nth++) {
            const attempt = {
              attemptId: AttemptId.make(`PAY-${gateway}-${nth}`),
              orderId: OrderId.make(`ORDER-${gateway}-${nth}`),
              userId: UserId.make("ADA"),
              amountMinor: 1_000 + nth,
              currency: "USD"
            } as const
            yield* ada(payments.Authorise({ ...attempt, paymentToken: PaymentToken.make("tok_ok"), rail: "auto" }))
            yield* ada(payments.Capture({ attemptId: attempt.attemptId }))
            captured.push(attempt)
          }
        }
        for (const gateway of soapAndRest) {
          yield* tell(gateway, { mode: "lost", forNext: many, rate: 0, rates: { refund: 0.6 } })
        }
        /** Two parts of odd cents, and of every other payment all that is left. */
        const partsOf = (amountMinor: number) => [333, 334, ...(amountMinor % 2 === 0 ? [amountMinor - 667] : [])]
        const wanted = captured.flatMap(({ attemptId, amountMinor }) =>
          partsOf(amountMinor).map((part, nth) => ({
            attemptId,
            refundId: RefundId.make(`REFUND-${attemptId}-${nth}`),
            amountMinor: part,
            reason: "returned"
          }))
        )
        const untilRefunded = (request: (typeof wanted)[number]) =>
          ada(payments.Refund(request)).pipe(
            Effect.flatMap(({ status }) => (status === "REFUNDED" ? Effect.void : Effect.fail("promised" as const))),
            Effect.retry({ times: 200, schedule: Schedule.spaced("50 millis"), while: (error) => error === "promised" })
          )
        // Some are asked for twice at once, as by a client that did not wait for the answer.
        const asked = wanted.flatMap((request, nth) => (nth % 3 === 0 ? [request, request] : [request]))
        yield* Effect.forEach(asked, untilRefunded, { concurrency: 12, discard: true })
        const [first] = captured
        if (first === undefined) throw new Error("nothing was captured")
        const tooMuch = {
          attemptId: first.attemptId,
          refundId: RefundId.make("TOO-MUCH"),
          amountMinor: 335,
          reason: "?"
        }
        expect(yield* Effect.flip(ada(payments.Refund(tooMuch)))).toMatchObject({
          _tag: "RefundExceedsPayment",
          refundableMinor: 334
        })

        const sql = yield* SqlClient.SqlClient
        const sumMinor = (parts: ReadonlyArray<number>) => parts.reduce((sum, part) => sum + part, 0)
        const left = captured.map(({ attemptId, amountMinor }) => ({
          attemptId,
          gateway: attemptId.split("-")[1],
          left: amountMinor - sumMinor(partsOf(amountMinor)),
          refunds: partsOf(amountMinor).length
        }))
        const byId = (a: { readonly attemptId: string }, b: { readonly attemptId: string }) =>
          a.attemptId < b.attemptId ? -1 : 1
        const ours = yield* sql<(typeof left)[number]>`
          select attempt_id as "attemptId", gateway, sum(l.amount_minor)::int as left,
            count(distinct booking_id)::int - 1 as refunds
          from payments.ledger l join payments.payments using (attempt_id)
          where account = 'psp_receivable' group by 1, 2`
        const theirs = yield* sql<(typeof left)[number]>`
          select l.attempt_id as "attemptId", l.gateway, (sum(l.amount) * 100)::int as left,
            (select count(*)::int from psp.refunds r where r.gateway = l.gateway and r.attempt_id = l.attempt_id) as refunds
          from psp.ledger l where account = 'merchant' group by 1, 2`
        expect(ours.toSorted(byId)).toEqual(left.toSorted(byId))
        expect(theirs.toSorted(byId)).toEqual(left.toSorted(byId))
        for (const [what, violations] of gatewayRules(sql)) expect([what, yield* violations]).toEqual([what, []])
        const lost = yield* Effect.promise(() => Promise.all(soapAndRest.map((gateway) => leftToDo(app.url, gateway))))
        for (const left of lost) expect(many - left).toBeGreaterThan(0)
      }).pipe(Effect.provideContext(shop))
    }).pipe(Effect.scoped, Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Effect.runPromise),
  timeoutMs
)
