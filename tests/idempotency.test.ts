import { describe, expect, test } from "bun:test"
import { Effect, Schedule } from "effect"
import { SqlClient } from "effect/sql"
import { booksBalance, settled } from "./support/Books.ts"
import { type Answer, type Client, text } from "./support/Client.ts"
import { cutConnection } from "./support/CutConnection.ts"
import { type ShopProcess, withShop } from "./support/ShopProcess.ts"

const many = (count: number) => Array.from({ length: count }, (_, nth) => nth)

const order = (productId: string, qty = 1) => ({ items: [{ productId, qty }] })
const place = (client: Client, key: string, body: unknown) => client.post("/api/v1/orders", body, { key })
const pay = (client: Client, key: string, orderId: string, paymentToken = "tok_ok") =>
  client.post(`/api/v1/orders/${orderId}/pay`, { paymentToken }, { key })

/** Asks again under the same key until the first request with it is through. */
const whenThrough = async (ask: () => Promise<Answer>): Promise<Answer> => {
  for (;;) {
    const answer = await ask()
    if (codeOf(answer) !== "request_in_progress") return answer
    await Bun.sleep(50)
  }
}

const codeOf = ({ body }: Answer) => body["code"]
const isReplayed = ({ headers }: Answer) => headers.get("idempotent-replayed") === "true"
const levels = async (client: Client, productId: string) => (await client.get(`/api/v1/inventory/${productId}`)).body

/** A body without what is each request's own. */
const lasting = ({ body: { traceId: _, ...body } }: Answer) => body

/** Twins of one request: the first answer once, and besides it only the same again, or that it is not there yet. */
const expectTwins = (answers: ReadonlyArray<Answer>, status: number) => {
  const first = answers.filter((answer) => answer.status === status && !isReplayed(answer))
  expect(first.length).toBe(1)
  for (const answer of answers) {
    if (answer.status === status) {
      expect(answer.body).toEqual(first[0]?.body ?? {})
    } else {
      expect([answer.status, codeOf(answer)]).toEqual([409, "request_in_progress"])
      expect(Number(answer.headers.get("retry-after"))).toBeGreaterThanOrEqual(1)
      expect(isReplayed(answer)).toBe(false)
    }
  }
}

/** Rows of a query about one order, as the database has them. */
const count = (shop: ShopProcess, table: string, orderId: string) =>
  shop.sql(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const rows = yield* sql<{ n: number }>`select count(*) as n from ${sql(table)} where order_id = ${orderId}`
      return rows[0]?.n
    })
  )

/** How often a product's stock has changed. */
const stockVersion = (shop: ShopProcess, productId: string) =>
  shop.sql(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const rows = yield* sql<{ version: number }>`
        select version from inventory.inventory_stock where product_id = ${productId}`
      return rows[0]?.version
    })
  )

/** Lets a day go by for all keys. */
const aDayPasses = (shop: ShopProcess) =>
  shop.sql(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`update orders.idempotency set created_at = created_at - interval '24 hours'`
    })
  )

describe("twins of a request", () => {
  test(
    "20 placements with one key at once are one order, answered alike",
    () =>
      withShop(async (shop) => {
        const productId = await shop.onShelf(100)
        for (const round of many(5)) {
          const ada = await shop.as(`ADA-${round}`)
          const answers = await Promise.all(many(20).map(() => place(ada, "one", order(productId, 2))))
          expectTwins(answers, 201)
          expect((await ada.get("/api/v1/orders")).body["items"]).toHaveLength(1)
          const again = await place(ada, "one", order(productId, 2))
          expect([again.status, isReplayed(again)]).toEqual([201, true])
          // Stocked once, and reserved once for each of them.
          expect(await stockVersion(shop, productId)).toBe(1 + round + 1)
        }
        await shop.sql(booksBalance)
      }),
    180_000
  )

  test(
    "20 payments with one key at once are one charge, answered alike",
    () =>
      withShop(async (shop) => {
        const productId = await shop.onShelf(100)
        for (const round of many(5)) {
          const ada = await shop.as(`ADA-${round}`)
          const orderId = text(await place(ada, "order", order(productId)), "orderId")
          const answers = await Promise.all(many(20).map(() => pay(ada, "payment", orderId)))
          expectTwins(answers, 200)
          const again = await pay(ada, "payment", orderId)
          expect([again.status, again.body["status"], isReplayed(again)]).toEqual([200, "PAID", true])
          expect(await count(shop, "psp.attempts", orderId)).toBe(1)
          expect(await count(shop, "payments.payments", orderId)).toBe(1)
          expect(await count(shop, "payments.ledger", orderId)).toBe(2)
        }
        await shop.sql(booksBalance)
      }),
    180_000
  )

  test(
    "one key with two payloads at once: one of the two is done, the other refused, and nothing of it stays reserved",
    () =>
      withShop(async (shop) => {
        const productId = await shop.onShelf(1_000)
        for (const round of many(10)) {
          const ada = await shop.as(`ADA-${round}`)
          const before = await levels(ada, productId)
          const [twos, threes] = await Promise.all(
            [2, 3].map((qty) => Promise.all(many(10).map(() => place(ada, "one", order(productId, qty)))))
          )
          const won = twos?.some(({ status }) => status === 201) ? 2 : 3
          const [winners = [], losers = []] = won === 2 ? [twos, threes] : [threes, twos]
          expectTwins(winners, 201)
          for (const loser of losers) {
            expect([loser.status, codeOf(loser), isReplayed(loser)]).toEqual([422, "idempotency_key_reused", false])
          }
          expect(await levels(ada, productId)).toMatchObject({ reserved: Number(before["reserved"]) + won })
        }
        await shop.sql(booksBalance)
      }),
    180_000
  )

  test(
    "one key with two payments at once: one of the two is made, the other refused",
    () =>
      withShop(async (shop) => {
        const productId = await shop.onShelf(100)
        for (const round of many(10)) {
          const ada = await shop.as(`ADA-${round}`)
          const orders = await Promise.all(
            ["this", "that"].map(async (key) => text(await place(ada, key, order(productId)), "orderId"))
          )
          const [these, those] = await Promise.all(
            orders.map((orderId) => Promise.all(many(5).map(() => pay(ada, "payment", orderId))))
          )
          const [winners = [], losers = []] = these?.some(({ status }) => status === 200)
            ? [these, those]
            : [those, these]
          expectTwins(winners, 200)
          for (const loser of losers) {
            expect([loser.status, codeOf(loser), isReplayed(loser)]).toEqual([422, "idempotency_key_reused", false])
          }
        }
        await shop.sql(booksBalance)
      }),
    180_000
  )
})

describe("a change of stock", () => {
  const adjust = (admin: Client, productId: string, delta: number, key?: string) =>
    admin.post(
      `/api/v1/inventory/${productId}/adjustments`,
      { delta, reason: "delivery" },
      key === undefined ? {} : { key }
    )

  test(
    "with a key is made once, and answered alike, be they twins or later; without one as often as it is asked for",
    () =>
      withShop(async (shop) => {
        const productId = await shop.onShelf(12)
        const admin = await shop.as("ADMIN", "admin")
        // Who comes second finds nothing left to take, and is answered all the same.
        const twins = await Promise.all(many(12).map(() => adjust(admin, productId, -12, "all")))
        expectTwins(twins, 201)
        expect(twins.filter((answer) => answer.status === 201).length).toBe(12)
        const again = await adjust(admin, productId, -12, "all")
        expect([again.status, isReplayed(again), again.body]).toEqual([201, true, twins[0]?.body ?? {}])
        expect(await stockVersion(shop, productId)).toBe(2)
        const other = await adjust(admin, productId, -11, "all")
        expect([other.status, codeOf(other)]).toEqual([422, "idempotency_key_reused"])
        // A refusal changed nothing, and is not kept.
        const refused = await adjust(admin, productId, -3, "later")
        expect([refused.status, codeOf(refused)]).toEqual([409, "stock_would_be_negative"])
        for (const _ of many(2)) expect((await adjust(admin, productId, 5)).status).toBe(201)
        expect((await adjust(admin, productId, -3, "later")).status).toBe(201)
        expect(await levels(admin, productId)).toMatchObject({ onHand: 7, reserved: 0 })
        const bad = await adjust(admin, productId, 1, "k".repeat(256))
        expect([bad.status, codeOf(bad)]).toEqual([400, "invalid_value"])
        await shop.sql(booksBalance)
      }),
    180_000
  )
})

describe("a key that was used", () => {
  test(
    "gives its first answer again however often it is asked, whatever became of the order, and moves no stock",
    () =>
      withShop(async (shop) => {
        const productId = await shop.onShelf(10)
        const ada = await shop.as("ADA")
        const paid = await place(ada, "to-be-paid", order(productId))
        await pay(ada, "payment", text(paid, "orderId"))
        const canceled = await place(ada, "to-be-canceled", order(productId))
        await ada.post(`/api/v1/orders/${text(canceled, "orderId")}/cancel`)
        const pending = await place(ada, "to-be-left", order(productId))
        await shop.sql(settled)
        const version = await stockVersion(shop, productId)
        for (const _ of many(8)) {
          for (const [key, first] of [
            ["to-be-paid", paid],
            ["to-be-canceled", canceled],
            ["to-be-left", pending]
          ] as const) {
            const again = await place(ada, key, order(productId))
            expect([again.status, isReplayed(again), again.body]).toEqual([201, true, first.body])
          }
        }
        expect(await stockVersion(shop, productId)).toBe(version)
        // With another payload it is refused, as often.
        for (const _ of many(8)) {
          const other = await place(ada, "to-be-paid", order(productId, 2))
          expect([other.status, codeOf(other), isReplayed(other)]).toEqual([422, "idempotency_key_reused", false])
        }
        await shop.sql(booksBalance)
      }),
    180_000
  )

  test(
    "gives its first refusal again, even when the reason is gone",
    () =>
      withShop(async (shop) => {
        const productId = await shop.onShelf(3)
        const [ada, bob, admin] = [await shop.as("ADA"), await shop.as("BOB"), await shop.as("ADMIN", "admin")]
        const open = text(await place(ada, "open", order(productId)), "orderId")
        const gone = text(await place(ada, "gone", order(productId)), "orderId")
        await ada.post(`/api/v1/orders/${gone}/cancel`)
        const refusals: ReadonlyArray<
          readonly [status: ReadonlyArray<number>, code: string, ask: () => Promise<Answer>]
        > = [
          [[402], "payment_declined", () => pay(ada, "declined", open, "tok_declined")],
          [[403], "not_your_order", () => pay(bob, "not-mine", open)],
          [[404], "order_not_found", () => pay(ada, "nowhere", "ORDER-nowhere")],
          [[409], "not_payable", () => pay(ada, "canceled", gone)],
          [[409], "out_of_stock", () => place(ada, "too-many", order(productId, 9))],
          [[409], "price_changed", () => place(ada, "price", { ...order(productId), expectedTotal: 0.5 })],
          [[422], "currency_not_supported", () => place(ada, "yen", { ...order(productId), currency: "JPY" })],
          [[404, 422], "product_not_found", () => place(ada, "unknown", order("PROD-unknown"))]
        ]
        const firsts = await Promise.all(
          refusals.map(async ([statuses, code, ask]) => {
            const first = await ask()
            expect(statuses).toContain(first.status)
            expect([codeOf(first), isReplayed(first)]).toEqual([code, false])
            return { first, ask }
          })
        )
        // There is more now, and at another price.
        await admin.post(`/api/v1/inventory/${productId}/adjustments`, { delta: 100, reason: "delivery" })
        await admin.request("PUT", `/api/v1/products/${productId}/price`, {
          body: { price: 0.5, currency: "USD", reason: "sale" }
        })
        await pay(ada, "at-last", open)
        for (const { first, ask } of firsts) {
          for (const again of await Promise.all(many(3).map(() => ask()))) {
            expect([again.status, isReplayed(again), lasting(again)]).toEqual([first.status, true, lasting(first)])
          }
        }
        await shop.sql(booksBalance)
      }),
    180_000
  )

  test(
    "is free again after what was merely unlucky: nobody signed in, or no gateway to be reached",
    () =>
      withShop(async (shop) => {
        const productId = await shop.onShelf(10)
        const ada = await shop.as("ADA")
        const nobody = await place(ada.as(undefined), "one", order(productId))
        expect(nobody.status).toBe(401)
        const first = text(await place(ada, "one", order(productId)), "orderId")
        const second = text(await place(ada, "two", order(productId)), "orderId")
        for (const _ of many(2)) {
          const away = await pay(ada, "payment", first, "tok_all_down")
          expect([away.status, codeOf(away), isReplayed(away)]).toEqual([503, "payment_unavailable", false])
          expect(Number(away.headers.get("retry-after"))).toBeGreaterThanOrEqual(1)
        }
        // The key has no answer, so it may also be used for another order.
        const other = await pay(ada, "payment", second)
        expect([other.status, other.body["orderId"], other.body["status"]]).toEqual([200, second, "PAID"])
        const paid = await pay(ada, "another-payment", first)
        expect([paid.status, paid.body["orderId"], paid.body["status"]]).toEqual([200, first, "PAID"])
        await shop.sql(booksBalance)
      }),
    180_000
  )

  test(
    "belongs to its user and to what it was used for",
    () =>
      withShop(async (shop) => {
        const productId = await shop.onShelf(10)
        const [ada, bob] = [await shop.as("ADA"), await shop.as("BOB")]
        const [hers, his] = await Promise.all([
          place(ada, "one", order(productId)),
          place(bob, "one", order(productId, 2))
        ])
        expect([hers, his].map((answer) => [answer?.status, isReplayed(answer)])).toEqual([
          [201, false],
          [201, false]
        ])
        expect(text(hers, "orderId")).not.toBe(text(his, "orderId"))
        const paid = await Promise.all([pay(ada, "one", text(hers, "orderId")), pay(bob, "one", text(his, "orderId"))])
        expect(paid.map((answer) => [answer.status, answer.body["userId"], isReplayed(answer)])).toEqual([
          [200, "ADA", false],
          [200, "BOB", false]
        ])
        await shop.sql(booksBalance)
      }),
    180_000
  )

  test(
    "is new again after 24 hours: a new order with a reservation of its own, whatever became of the old one",
    () =>
      withShop(async (shop) => {
        const productId = await shop.onShelf(100)
        const ada = await shop.as("ADA")
        const orders = new Set<string>()
        const endings: ReadonlyArray<(orderId: string) => Promise<unknown>> = [
          (orderId) => ada.post(`/api/v1/orders/${orderId}/cancel`),
          (orderId) => pay(ada, `payment-of-${orderId}`, orderId),
          () => Promise.resolve()
        ]
        for (const day of many(9)) {
          const answers = await Promise.all(many(3).map(() => place(ada, "every-day", order(productId))))
          expectTwins(answers, 201)
          const placed = await whenThrough(() => place(ada, "every-day", order(productId)))
          expect([placed.status, isReplayed(placed), placed.body["status"]]).toEqual([201, true, "PENDING"])
          const orderId = text(placed, "orderId")
          expect(orders.has(orderId)).toBe(false)
          orders.add(orderId)
          await endings[day % 3]?.(orderId)
          const replayed = await place(ada, "every-day", order(productId))
          expect([replayed.status, isReplayed(replayed), replayed.body]).toEqual([201, true, placed.body])
          await aDayPasses(shop)
        }
        expect(await levels(ada, productId)).toEqual({ productId, onHand: 97, reserved: 3, available: 94 })
        // It may mean something else by then.
        const other = await place(ada, "every-day", order(productId, 5))
        expect([other.status, isReplayed(other)]).toEqual([201, false])
        // And pay for another order than before.
        const [one, two] = [...orders].filter((_, day) => day % 3 === 2)
        for (const orderId of [one ?? "", two ?? ""]) {
          const paid = await pay(ada, "pay-day", orderId)
          expect([paid.status, paid.body["orderId"], paid.body["status"], isReplayed(paid)]).toEqual([
            200,
            orderId,
            "PAID",
            false
          ])
          await aDayPasses(shop)
        }
        await shop.sql(booksBalance)
      }),
    180_000
  )
})

/** Runs something while nobody can write into a table, and lets them on when it is through. */
const whileLocked = (shop: ShopProcess, table: string, work: () => Promise<void>) =>
  shop.sql(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql.withTransaction(Effect.andThen(sql`lock table ${sql(table)} in share mode`, Effect.promise(work)))
    })
  )

/** Waits until so many statements of the shop wait for a lock. */
const untilWaiting = (shop: ShopProcess, statements: number) =>
  shop.sql(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql<{ waiting: number }>`
        select count(*) as waiting from pg_stat_activity
        where datname = current_database() and application_name = 'merkato' and wait_event_type = 'Lock'`.pipe(
        Effect.repeat({
          until: ([row]) => Number(row?.waiting) >= statements,
          schedule: Schedule.spaced("10 millis"),
          times: 1_000
        })
      )
    })
  )

/**
 * Waits until so many orders are being written: their stock is held, and a statement waits for its lock. Orders share
 * statements; those that are in none yet stand behind one.
 */
const untilWriting = async (shop: ShopProcess, orders: number) => {
  await shop.sql(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql<{ held: number }>`select count(*) as held from inventory.reservations where status = 'held'`.pipe(
        Effect.repeat({
          until: ([row]) => Number(row?.held) >= orders,
          schedule: Schedule.spaced("10 millis"),
          times: 1_000
        })
      )
    })
  )
  await untilWaiting(shop, 1)
}

/** Ends the connections whose statements wait for a lock, as the database does when their process is gone. */
const breakOffWaiting = (shop: ShopProcess) =>
  shop.sql(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`
        select pg_terminate_backend(pid, 5000) from pg_stat_activity
        where datname = current_database() and application_name = 'merkato' and wait_event_type = 'Lock'`
    })
  )

/** Ends one connection of the shop's contexts in the middle of its work, if one is at work; how many. */
const breakOff = (shop: ShopProcess) =>
  shop.sql(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const rows = yield* sql`
        select pg_terminate_backend(pid) from (
          select pid from pg_stat_activity
          where datname = current_database() and application_name = 'merkato' and state <> 'idle'
          order by random() limit 1) as busy`
      return rows.length
    })
  )

/** Waits until somebody's orders have come so far; fails the test when they never do. */
const untilOrders = async (client: Client, far: (statuses: ReadonlyArray<unknown>) => boolean) => {
  const deadline = Date.now() + 20_000
  for (;;) {
    const { items } = (await client.get("/api/v1/orders?limit=100")).body
    const statuses = Array.isArray(items) ? items.map((item: { readonly status: unknown }) => item.status) : []
    if (far(statuses)) return
    if (Date.now() > deadline) throw new Error(`the orders stay as they are: ${JSON.stringify(statuses)}`)
    await Bun.sleep(20)
  }
}

/** Milliseconds one request takes, as a rule, while three others are under way. */
const usual = async (ask: (nth: number) => Promise<unknown>) => {
  const taken: Array<number> = []
  for (let next = 0; next < 12; next += 4) {
    const begun = performance.now()
    await Promise.all(many(4).map((offset) => ask(next + offset)))
    taken.push(performance.now() - begun)
  }
  return taken.toSorted((a, b) => a - b)[1] ?? 0
}

/** From 0 to 40 ms at least, and in any case from before a request is read until after it is answered. */
const moment = (nth: number, of: number, usualMs: number) => (Math.max(40, usualMs * 2) * nth) / of

const cuts = 100

interface Cut {
  readonly path: string
  readonly key: string
  readonly body: unknown
  /** The same request, with the connection left alone. */
  readonly repeat: () => Promise<Answer>
}

/** Cuts requests at moments spread over their whole duration, and repeats each; checks that every repeat is the last word. */
const cutAndRepeat = async (
  shop: ShopProcess,
  client: Client,
  usualMs: number,
  requests: ReadonlyArray<Cut>,
  check: (answer: Answer, nth: number) => void
) => {
  const seen = { answered: 0, found: 0, made: 0 }
  const one = async ({ path, key, body, repeat }: Cut, nth: number) => {
    const { answered } = await cutConnection({
      url: shop.url(),
      token: client.token ?? "",
      path,
      key,
      body,
      // Some never send all of their request.
      sent: nth % 10 === 0 ? "half" : "all",
      cut: Bun.sleep(moment(nth, requests.length, usualMs))
    })
    const answer = await client.persist(repeat)
    check(answer, nth)
    if (answered) expect(isReplayed(answer)).toBe(true)
    seen[answered ? "answered" : isReplayed(answer) ? "found" : "made"] += 1
  }
  const waiting = requests.entries()
  await Promise.all(
    many(4).map(async () => {
      for (const [nth, request] of waiting) await one(request, nth)
    })
  )
  // Else they were not spread over the whole of it.
  expect(seen.answered).toBeGreaterThan(0)
  expect(seen.found).toBeGreaterThan(0)
  expect(seen.made).toBeGreaterThanOrEqual(requests.length / 10)
}

describe("a connection that is cut", () => {
  test(
    "at any moment of a placement leaves one order for its key, or none, and the repeat finds or makes it",
    () =>
      withShop(async (shop) => {
        const productId = await shop.onShelf(1_000)
        const ada = await shop.as("ADA")
        const usualMs = await usual((nth) => place(ada, `usual-${nth}`, order(productId)))
        const requests = many(cuts).map((nth) => ({
          path: "/api/v1/orders",
          key: `cut-${nth}`,
          body: order(productId),
          repeat: () => place(ada, `cut-${nth}`, order(productId))
        }))
        const orders = new Set<string>()
        await cutAndRepeat(shop, ada, usualMs, requests, (answer) => {
          expect([answer.status, answer.body["status"]]).toEqual([201, "PENDING"])
          orders.add(text(answer, "orderId"))
        })
        expect(orders.size).toBe(cuts)
        expect(await levels(ada, productId)).toMatchObject({ onHand: 1_000, reserved: cuts + 12 })
        await shop.sql(booksBalance)
      }),
    180_000
  )

  test(
    "at any moment of a payment leaves one charge for its order, or none, and the repeat finds or makes it",
    () =>
      withShop(async (shop) => {
        const productId = await shop.onShelf(1_000)
        const ada = await shop.as("ADA")
        const unpaid = async (key: string) => text(await place(ada, key, order(productId)), "orderId")
        const early = await Promise.all(many(12).map((nth) => unpaid(`usual-${nth}`)))
        const usualMs = await usual((nth) => pay(ada, `pay-${nth}`, early[nth] ?? ""))
        const orders = await Promise.all(many(cuts).map((nth) => unpaid(`cut-${nth}`)))
        const requests = orders.map((orderId, nth) => ({
          path: `/api/v1/orders/${orderId}/pay`,
          key: `pay-cut-${nth}`,
          body: { paymentToken: "tok_ok" },
          repeat: () => pay(ada, `pay-cut-${nth}`, orderId)
        }))
        await cutAndRepeat(shop, ada, usualMs, requests, (answer, nth) => {
          expect([answer.status, answer.body["orderId"], answer.body["status"]]).toEqual([200, orders[nth], "PAID"])
        })
        for (const orderId of orders) expect(await count(shop, "psp.attempts", orderId)).toBe(1)
        expect(await levels(ada, productId)).toMatchObject({ onHand: 1_000 - cuts - 12, reserved: 0 })
        await shop.sql(booksBalance)
      }),
    180_000
  )

  test(
    "while the shop is writing does not stop it: what was begun is finished, and the repeat is told so",
    () =>
      withShop(async (shop) => {
        const productId = await shop.onShelf(100)
        const ada = await shop.as("ADA")
        const cutWhileWriting = (
          until: typeof untilWaiting,
          requests: ReadonlyArray<readonly [path: string, key: string, body: unknown]>
        ) =>
          whileLocked(shop, "orders.orders", async () => {
            const cut = until(shop, requests.length)
            const seen = await Promise.all(
              requests.map(([path, key, body]) =>
                cutConnection({ url: shop.url(), path, token: ada.token ?? "", key, body, sent: "all", cut })
              )
            )
            expect(seen.filter(({ answered }) => answered)).toEqual([])
            // Long enough for the shop to notice that nobody waits any more.
            await Bun.sleep(200)
          })
        await cutWhileWriting(
          untilWriting,
          many(8).map((nth) => ["/api/v1/orders", `cut-${nth}`, order(productId)])
        )
        await untilOrders(ada, (statuses) => statuses.length >= 8)
        const orders: Array<string> = []
        for (const nth of many(8)) {
          const found = await place(ada, `cut-${nth}`, order(productId))
          expect([found.status, isReplayed(found)]).toEqual([201, true])
          orders.push(text(found, "orderId"))
        }
        await cutWhileWriting(
          untilWaiting,
          orders.map((orderId) => [`/api/v1/orders/${orderId}/pay`, `pay-${orderId}`, { paymentToken: "tok_ok" }])
        )
        await untilOrders(ada, (statuses) => statuses.filter((status) => status === "PAID").length >= 8)
        for (const orderId of orders) {
          const found = await pay(ada, `pay-${orderId}`, orderId)
          expect([found.status, found.body["status"], isReplayed(found)]).toEqual([200, "PAID", true])
        }
        await shop.sql(booksBalance)
      }),
    180_000
  )

  test(
    "between the shop and its database leaves one order for the key as well, whatever was being written",
    () =>
      withShop(async (shop) => {
        const productId = await shop.onShelf(1_000)
        const shoppers = await Promise.all(many(8).map((nth) => shop.as(`SHOPPER-${nth}`)))
        let broken = 0
        let over = false
        const breaking = (async () => {
          while (!over) {
            broken += await breakOff(shop)
            await Bun.sleep(25)
          }
        })()
        const orders = new Set<string>()
        let placed = 0
        await Promise.all(
          shoppers.map(async (shopper) => {
            // A quick shop has done these before enough was cut, and goes on.
            for (let nth = 1; nth <= 12 || (broken <= 10 && nth <= 100); nth++) {
              const answer = await shopper.persist(() => place(shopper, `order-${nth}`, order(productId)))
              expect([answer.status, answer.body["status"]]).toEqual([201, "PENDING"])
              orders.add(text(answer, "orderId"))
              placed++
            }
          })
        )
        over = true
        await breaking
        expect(broken).toBeGreaterThan(10)
        expect(orders.size).toBe(placed)
        expect(await levels(await shop.as("NOBODY"), productId)).toMatchObject({ onHand: 1_000, reserved: placed })
        await shop.sql(booksBalance)
      }),
    180_000
  )
})

describe("a shop that is started anew", () => {
  test(
    "places an order that it died over once, with the stock it had reserved for it",
    () =>
      withShop(async (shop) => {
        const productId = await shop.onShelf(10)
        const before = await shop.as("ADA")
        await whileLocked(shop, "orders.orders", async () => {
          const lost = place(before, "one", order(productId, 3)).catch(() => undefined)
          await untilWaiting(shop, 1)
          await shop.running().end("SIGKILL")
          expect(await lost).toBeUndefined()
          await breakOffWaiting(shop)
        })
        await shop.restart("SIGKILL")
        const ada = await shop.as("ADA")
        expect(await levels(ada, productId)).toEqual({ productId, onHand: 10, reserved: 3, available: 7 })
        const placed = await ada.persist(() => place(ada, "one", order(productId, 3)))
        expect([placed.status, placed.body["status"], isReplayed(placed)]).toEqual([201, "PENDING", false])
        expect(await levels(ada, productId)).toEqual({ productId, onHand: 10, reserved: 3, available: 7 })
        expect((await ada.get("/api/v1/orders")).body["items"]).toHaveLength(1)
        await shop.sql(booksBalance)
      }),
    180_000
  )

  test(
    "remembers every answer, and finishes a payment that it was killed over, with one charge",
    () =>
      withShop(
        async (shop) => {
          const productId = await shop.onShelf(10)
          const before = await shop.as("ADA")
          const placed = await place(before, "one", order(productId))
          const short = await place(before, "many", order(productId, 50))
          const refused = await pay(before, "declined", text(placed, "orderId"), "tok_declined")
          const second = text(await place(before, "two", order(productId)), "orderId")
          const paid = await pay(before, "payment-of-two", second)
          const third = text(await place(before, "three", order(productId)), "orderId")
          // The charge is made, and the shop dies before it knows.
          const lost = pay(before, "payment-of-three", third, "tok_lost").catch(() => undefined)
          while ((await count(shop, "psp.attempts", third)) === 0) await Bun.sleep(5)
          await shop.restart("SIGKILL")
          expect(await lost).toBeUndefined()

          for (const signal of [undefined, "SIGTERM"] as const) {
            if (signal !== undefined) await shop.restart(signal)
            const ada = await shop.as("ADA")
            const again = [
              [placed, await place(ada, "one", order(productId))],
              [short, await place(ada, "many", order(productId, 50))],
              [refused, await pay(ada, "declined", text(placed, "orderId"), "tok_declined")],
              [paid, await pay(ada, "payment-of-two", second)]
            ] as const
            for (const [first, answer] of again) {
              expect([answer.status, isReplayed(answer), lasting(answer)]).toEqual([first.status, true, lasting(first)])
            }
            const finished = await ada.persist(() => pay(ada, "payment-of-three", third, "tok_lost"))
            expect([finished.status, finished.body["orderId"], finished.body["status"]]).toEqual([200, third, "PAID"])
            expect(await count(shop, "psp.attempts", third)).toBe(1)
          }
          await shop.sql(booksBalance)
        },
        { MERKATO_PAYMENT_TIMEOUT_MS: "5000" }
      ),
    90_000
  )
})
