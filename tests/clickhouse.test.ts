// What days brought, in ClickHouse: to the cent what Postgres has, whatever comes twice or late, and nothing wrong while it is away.
import { afterAll, describe, expect, test } from "bun:test"
import { Effect, Logger, Stream } from "effect"
import { SqlClient } from "effect/sql"
import * as fc from "fast-check"
import { AttemptId, EventId, Id, RefundId } from "@merkato/domain/kernel/Ids"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import * as PaymentEvents from "@merkato/domain/payments/PaymentEvents"
import * as ClickHouseClient from "@merkato/infra/clickhouse/ClickHouseClient"
import * as ClickHouseRows from "@merkato/infra/clickhouse/ClickHouseRows"
import * as Projection from "@merkato/infra/projection/Projection"
import type { RowStore } from "@merkato/infra/projection/RowStore"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import { dailyRevenue } from "@merkato/services/payments/RevenueEntries"
import { daysBringRevenue } from "../packages/services/test/DailyRevenue.contract.ts"
import { admin, idempotencyKey, product } from "../packages/services/test/OrderHistory.contract.ts"
import { as } from "../packages/services/test/Requests.ts"
import { settled } from "./support/Books.ts"
import { inShop } from "./support/InProcess.ts"
import { links, through } from "./support/Links.ts"
import { freePort, runToEnd } from "./support/Processes.ts"
import { realServer } from "./support/RealServer.ts"
import { restShop } from "./support/RestShop.ts"
import { until } from "./support/Until.ts"

const what = "what days brought, in ClickHouse"
const [server, between] = await Promise.all([realServer("clickhouse", what), links(what)])
afterAll(() => Promise.all([server?.stop(), between?.stop()]), 30_000)
const url = new URL(server?.settings["CLICKHOUSE_URL"] ?? "http://127.0.0.1/")

const environment = (database: string) => ({ CLICKHOUSE_URL: new URL(database, url).href })
const link = await between?.to("clickhouse", url.host, await freePort())

const connected = (database: string) =>
  ClickHouseClient.make({ url: url.origin, username: url.username, password: url.password, database })

const storeIn = (database: string) =>
  Effect.map(connected(database), (clickhouse) => ClickHouseRows.make(dailyRevenue, clickhouse))

const all = (store: RowStore) =>
  Effect.map(Stream.runCollect(store.scan("live")), (pages) =>
    pages.flat().map((row) => [row["attempt_id"], row["entry"], row["amount_minor"], row["region"], row.version])
  )

/** What Postgres has, in the same form. */
const truth = SqlClient.SqlClient.use((sql) =>
  Effect.map(
    sql<Record<string, string | number>>`
      select attempt_id, entry, amount_minor::int as amount_minor, region, version from payments.daily_revenue`,
    (rows) => rows.map((row) => [row["attempt_id"], row["entry"], row["amount_minor"], row["region"], row["version"]])
  )
)

const texts = (rows: ReadonlyArray<unknown>) => rows.map((row) => JSON.stringify(row)).toSorted()

/** Until ClickHouse has what Postgres has. */
const caughtUp = (store: RowStore) =>
  Effect.gen(function* () {
    const wanted = texts(yield* truth)
    expect(wanted.length).toBeGreaterThan(0)
    let known: ReadonlyArray<string> = []
    for (let tries = 0; tries < 400; tries++) {
      known = texts(yield* all(store))
      if (JSON.stringify(known) === JSON.stringify(wanted)) return
      yield* Effect.sleep("50 millis")
    }
    expect(known).toEqual(wanted)
  })

const golden = (name: string): Promise<unknown> =>
  Bun.file(new URL(`../packages/domain/test/golden/${name}.json`, import.meta.url)).json()
/** A payment that is taken, and given back in part. */
const story = await Promise.all(
  [PaymentEvents.PaymentInitiated, PaymentEvents.PaymentCaptured, PaymentEvents.RefundCompleted].map(
    async ({ type }) => ({ type, payload: await golden(type) })
  )
)
/** Of five units and some cents: what was meant need not be what was taken. */
const event = (version: number, cents = 0): Projection.ProjectedEvent => ({
  eventId: EventId.make(`EVENT-${version}`),
  eventType: story[version - 1]?.type ?? "",
  occurredAt: `2025-06-0${version}T12:00:00.12${version}Z`,
  region: "eu",
  partitionKey: Id.make("ORDER-1"),
  aggregateVersion: version,
  payload: Object.assign({}, story[version - 1]?.payload, { amount: (500 + cents) / 100 })
})
const rowsOf = (versions: ReadonlyArray<number>, cents: ReadonlyArray<number> = []) =>
  Projection.rowsOf(
    dailyRevenue,
    versions.map((version) => event(version, cents[version - 1]))
  )

describe.skipIf(server === undefined || between === undefined)("what days brought, in ClickHouse", () => {
  test("is the same in whatever order events come, however often, and in whatever batches, merged or not", () =>
    Effect.gen(function* () {
      const clickhouse = yield* connected("rows")
      const store = ClickHouseRows.make(dailyRevenue, clickhouse)
      yield* store.begin
      yield* store.swap
      expect((yield* rowsOf([1, 2, 3])).length).toBe(2)
      let runs = 0
      yield* Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(
            fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 6 }),
            fc.integer({ min: 0, max: 6 }),
            fc.boolean(),
            fc.tuple(fc.nat(99), fc.nat(99), fc.nat(99)),
            (order, cut, merged, cents) =>
              Effect.gen(function* () {
                const attempt = `IT'S \\ ${++runs}`
                const its = (rows: ReadonlyArray<Projection.Row>) =>
                  rows.map((row): Projection.Row => ({ ...row, attempt_id: attempt }))
                for (const batch of [order.slice(0, cut), order.slice(cut)]) {
                  yield* store.write("live", its(yield* rowsOf(batch, cents)))
                }
                if (merged) yield* clickhouse.command("optimize table daily_revenue final")
                const expected = its(yield* rowsOf([...new Set(order)].toSorted(), cents))
                const found = yield* store.find("live", expected)
                expect(
                  found.toSorted((left, right) => (String(left["entry"]) < String(right["entry"]) ? -1 : 1))
                ).toEqual(expected.toSorted((left, right) => (String(left["entry"]) < String(right["entry"]) ? -1 : 1)))
              }).pipe(Effect.runPromise)
          ),
          // Told together first, and the second one again by itself: where the region is not known.
          {
            numRuns: 20,
            examples: [
              [[1, 2, 2], 2, true, [0, 0, 0]],
              [[2, 1], 1, false, [1, 2, 0]],
              [[2, 1], 1, false, [2, 1, 0]]
            ]
          }
        )
      )
    }).pipe(Effect.scoped, Effect.runPromise))

  test("is built aside, and readers see the one or the other", () =>
    Effect.gen(function* () {
      const store = yield* storeIn("places")
      const [row] = yield* rowsOf([1])
      if (row === undefined) throw new Error("there is no row")
      const write = (place: "live" | "next") => store.write(place, [row])
      expect([yield* store.isBuilt, yield* write("live"), yield* write("next")]).toEqual([false, false, false])
      yield* store.begin
      expect([yield* store.isBuilt, yield* write("next")]).toEqual([false, true])
      yield* store.swap
      expect([yield* store.isBuilt, yield* write("next"), (yield* all(store)).length]).toEqual([true, false, 1])
      yield* store.begin
      expect((yield* all(store)).length).toBe(1)
      yield* store.swap
      expect([yield* store.isBuilt, yield* write("next"), (yield* all(store)).length]).toEqual([true, false, 0])
      yield* write("live")
      yield* store.begin
      yield* store.abandon
      expect([yield* write("next"), (yield* all(store)).length]).toEqual([false, 1])
    }).pipe(Effect.scoped, Effect.runPromise))

  test("is not written to what is on its way out", () =>
    Effect.gen(function* () {
      const clickhouse = yield* connected("leaving")
      const [row] = yield* rowsOf([1])
      if (row === undefined) throw new Error("there is no row")
      const written: Array<boolean> = []
      // A consumer that met the build writes again while it is swapped: before each step, and after the last one.
      const store: RowStore = ClickHouseRows.make(dailyRevenue, {
        ...clickhouse,
        command: (sql) =>
          Effect.gen(function* () {
            if (/^(exchange|drop)/.test(sql)) {
              written.push(yield* Effect.orDie(ClickHouseRows.make(dailyRevenue, clickhouse).write("next", [row])))
            }
            yield* clickhouse.command(sql)
          })
      })
      for (const _ of [1, 2]) {
        yield* store.begin
        written.length = 0
        yield* store.swap
      }
      expect(written).toEqual([false, false])
    }).pipe(Effect.scoped, Effect.runPromise))

  test("reads more rows than it reads at once, each of them once", () =>
    Effect.gen(function* () {
      const store = yield* storeIn("many")
      const [row] = yield* rowsOf([1])
      if (row === undefined) throw new Error("there is no row")
      yield* store.begin
      const rows = Array.from({ length: 2_500 }, (_, nth) => ({ ...row, attempt_id: `A-${nth}`, amount_minor: nth }))
      yield* store.write("next", rows)
      yield* store.swap
      expect(new Set((yield* all(store)).map(([id]) => id)).size).toBe(2_500)
      expect((yield* all(store)).length).toBe(2_500)
      expect((yield* store.find("live", rows.slice(0, 250))).length).toBe(250)
    }).pipe(Effect.scoped, Effect.runPromise))

  test(
    "is what Postgres adds up",
    () =>
      inShop(
        Effect.gen(function* () {
          const clickhouse = yield* connected("contract")
          const store = ClickHouseRows.make(dailyRevenue, clickhouse)
          const sql = yield* SqlClient.SqlClient
          yield* daysBringRevenue(Effect.andThen(settled, caughtUp(store)), (moment) =>
            Effect.gen(function* () {
              yield* clickhouse.command(
                `alter table daily_revenue update booked_at = parseDateTime64BestEffort('${moment}', 3, 'UTC')
                where booked_at is not null settings mutations_sync = 1`
              )
              // From here on they are nowhere else.
              yield* sql`delete from payments.daily_revenue`
            })
          )
        }).pipe(Effect.scoped, Effect.provide(Logger.layer([]))),
        environment("contract")
      ),
    60_000
  )

  test(
    "is read in Postgres while ClickHouse or the link to it hangs, and when they are gone, and catches up when they are back",
    () =>
      inShop(
        Effect.gen(function* () {
          const store = yield* storeIn("hangs")
          const [orders, payments, sql] = [yield* OrdersRpc, yield* PaymentsRpc, yield* SqlClient.SqlClient]
          const ada = as("ADA", "shopper", "eu")
          const productId = yield* product("PLUM", 200)
          const buy = ada(
            Effect.gen(function* () {
              const { answer } = yield* orders.Place({
                idempotencyKey: idempotencyKey(),
                items: [{ productId, qty: 1 }]
              })
              const paymentToken = PaymentToken.make("tok_ok")
              yield* orders.Pay({
                idempotencyKey: idempotencyKey(),
                orderId: answer.orderId,
                paymentToken,
                rail: "auto"
              })
              return answer.orderId
            })
          )
          const day = (shift: number) => new Date(Date.now() + shift * 86_400_000).toISOString().slice(0, 10)
          const counted = Effect.map(admin(payments.DailyRevenue({ first: day(-1), last: day(1) })), (days) => [
            days.reduce((sum, { orders }) => sum + orders, 0),
            days.reduce((sum, { refundsMinor }) => sum + refundsMinor, 0)
          ])
          const orderId = yield* buy
          yield* settled
          yield* caughtUp(store)
          expect(yield* counted).toEqual([1, 0])
          let bought = 1
          yield* Effect.promise(async () => link?.slow(50))
          yield* buy
          yield* settled
          yield* caughtUp(store)
          expect(yield* counted).toEqual([++bought, 0])
          yield* Effect.promise(async () => link?.mend())
          for (const worsen of [() => link?.silence("downstream"), () => link?.silence(), () => link?.cut()]) {
            yield* Effect.promise(async () => worsen())
            yield* buy
            yield* settled
            expect(yield* counted).toEqual([++bought, 0])
            yield* Effect.promise(async () => link?.mend())
            yield* caughtUp(store)
          }
          server?.freeze()
          try {
            yield* buy
            yield* settled
            expect(yield* counted).toEqual([++bought, 0])
          } finally {
            server?.thaw()
          }
          yield* caughtUp(store)
          server?.kill()
          const [attempt] = yield* sql<{ attemptId: string }>`
            select attempt_id as "attemptId" from payments.payments where order_id = ${orderId}`
          yield* admin(
            payments.Refund({
              attemptId: AttemptId.make(attempt?.attemptId ?? ""),
              refundId: RefundId.make("REFUND-1"),
              amountMinor: 25,
              reason: "bruised"
            })
          )
          yield* settled
          expect(yield* counted).toEqual([bought, 25])
          yield* Effect.promise(async () => server?.start())
          yield* caughtUp(store)
          expect((yield* all(store)).length).toBe(bought + 1)
        }).pipe(Effect.scoped, Effect.provide(Logger.layer([]))),
        { CLICKHOUSE_URL: link === undefined ? "" : through(environment("hangs").CLICKHOUSE_URL, link) }
      ),
    90_000
  )
})

describe.skipIf(server === undefined)("a replay of what days brought, in ClickHouse", () => {
  const shop = restShop(environment("replay"))

  test("finds damaged rows and mends them", async () => {
    const productId = await shop().product({}, 10)
    const ada = await shop().as("ADA")
    for (const key of ["1", "2", "3"]) {
      const placed = await ada.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key })
      const body = { paymentToken: "tok_ok" }
      const paid = await ada.post(`/api/v1/orders/${String(placed.body["orderId"])}/pay`, body, { key: `pay-${key}` })
      expect([placed.status, paid.status]).toEqual([201, 200])
    }
    const replay = (...flags: ReadonlyArray<string>) =>
      runToEnd("merkato", ["replay", "daily_revenue_clickhouse", ...flags], shop().settings)
    const inClickHouse = <A>(
      body: (clickhouse: Effect.Success<ReturnType<typeof connected>>) => Effect.Effect<A, unknown>
    ) => connected("replay").pipe(Effect.flatMap(body), Effect.scoped, Effect.runPromise)
    const captured = await until(
      () =>
        inClickHouse(({ select }) =>
          select(
            "select attempt_id from daily_revenue where booked_at is not null group by attempt_id order by attempt_id"
          )
        ).catch(() => []),
      (rows) => rows.length === 3
    )
    const [wrong, gone] = captured.map((row) => String(row["attempt_id"]))
    await inClickHouse(({ command }) =>
      Effect.gen(function* () {
        yield* command(
          `alter table daily_revenue update amount_minor = 1 where attempt_id = '${wrong}' settings mutations_sync = 1`
        )
        yield* command(`alter table daily_revenue delete where attempt_id = '${gone}' settings mutations_sync = 1`)
      })
    )
    const checked = await replay("--check")
    expect([checked.code, checked.stdout.includes("live in ClickHouse: 3 rows compared, 2 differences:\n")]).toEqual([
      1,
      true
    ])
    const mended = await replay()
    expect(mended.code).toBe(1)
    expect(mended.stdout).toContain("rebuilt in ClickHouse: 3 rows compared, 0 differences\n")
    expect(mended.stdout).toContain("live in ClickHouse: 3 rows compared, 2 differences:\n")
    expect(mended.stdout).toMatch(new RegExp(`attempt_id=${wrong} entry=: amount_minor is 1, Postgres says \\d+$`, "m"))
    expect(mended.stdout).toContain(`attempt_id=${gone} entry=: missing, Postgres has it\n`)
    const again = await replay()
    expect([again.code, again.stdout.includes("live in ClickHouse: 3 rows compared, 0 differences\n")]).toEqual([
      0,
      true
    ])
  }, 120_000)

  test("says what is wrong with a ClickHouse that cannot be used, and not its password", async () => {
    const at = (address: string) =>
      runToEnd("merkato", ["replay", "daily_revenue_clickhouse"], { ...shop().settings, CLICKHOUSE_URL: address })
    const refused = await at(new URL("/replay", `http://default:not-this-one@${url.host}`).href)
    expect(refused.code).toBe(1)
    expect(refused.stderr).toContain(`CLICKHOUSE_URL cannot be used: ${url.host}: `)
    expect(refused.stderr).toContain("Authentication failed")
    expect(refused.stderr).not.toContain("not-this-one")
    const nobody = await at("http://127.0.0.1:1/replay")
    expect([nobody.code, nobody.stderr.includes("CLICKHOUSE_URL cannot be used: 127.0.0.1:1: ")]).toEqual([1, true])
    const malformed = await at("merkato:secret@nowhere")
    expect(malformed.stderr).toContain(
      "CLICKHOUSE_URL cannot be used: expected http://user:password@host:port/database"
    )
    expect(malformed.stderr).not.toContain("secret")
  }, 60_000)
})
