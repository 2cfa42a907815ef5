// Customers' orders in Cassandra: what Postgres promises of them, and that its being away makes nothing wrong.
import { afterAll, describe, expect, test } from "bun:test"
import { Effect, Logger, Stream } from "effect"
import { SqlClient } from "effect/sql"
import * as fc from "fast-check"
import { EventId, Id, UserId } from "@merkato/domain/kernel/Ids"
import * as OrderEvents from "@merkato/domain/orders/OrderEvents"
import * as CassandraDriver from "@merkato/infra/cassandra/CassandraDriver"
import * as CassandraRows from "@merkato/infra/cassandra/CassandraRows"
import * as Projection from "@merkato/infra/projection/Projection"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { ordersByCustomer } from "@merkato/services/orders/OrdersByCustomer"
import { customersSeeTheirOrders, idempotencyKey, product } from "../packages/services/test/OrderHistory.contract.ts"
import { settled } from "./support/Books.ts"
import { as, inShop } from "./support/InProcess.ts"
import { runToEnd } from "./support/Processes.ts"
import { realServer } from "./support/RealServer.ts"
import { restShop } from "./support/RestShop.ts"
import { until } from "./support/Until.ts"

const server = await realServer("cassandra", "customers' orders in Cassandra")
afterAll(() => server?.stop(), 30_000)
const contactPoints = server?.settings["CASSANDRA_CONTACT_POINTS"] ?? ""

const environment = (keyspace: string) => ({ CASSANDRA_CONTACT_POINTS: contactPoints, CASSANDRA_KEYSPACE: keyspace })

const connected = (keyspace: string) =>
  CassandraDriver.make({
    contactPoints: [contactPoints],
    localDataCenter: "datacenter1",
    keyspace,
    credentials: undefined
  })

const storeIn = (keyspace: string) =>
  Effect.map(connected(keyspace), (cassandra) => CassandraRows.make(ordersByCustomer, cassandra))

const keyOf = (row: Projection.Row) => String(row["order_id"])
const sorted = (rows: ReadonlyArray<Projection.Row>) =>
  rows.toSorted((left, right) => (keyOf(left) < keyOf(right) ? -1 : 1))

const live = (store: ReturnType<typeof CassandraRows.make>) =>
  Effect.map(Stream.runCollect(store.scan("live")), (pages) => sorted(pages.flat()))

/** What Postgres has of the orders: their ids and versions. */
const versions = SqlClient.SqlClient.use(
  (sql) => sql<{ order_id: string; version: number }>`select order_id, version from orders.orders_by_customer`
)

/** Until Cassandra has what Postgres has. */
const caughtUp = (store: ReturnType<typeof CassandraRows.make>) =>
  Effect.gen(function* () {
    const wanted = JSON.stringify((yield* versions).map((row) => [row.order_id, row.version]).toSorted())
    let known = ""
    for (let tries = 0; tries < 700; tries++) {
      known = JSON.stringify((yield* live(store)).map((row) => [row["order_id"], row.version]).toSorted())
      if (known === wanted) return
      yield* Effect.sleep("50 millis")
    }
    expect(known).toBe(wanted)
  })

const at = "2025-06-01T12:00:00.123Z"
const orderId = "ORDER-123"
const golden = (name: string): Promise<unknown> =>
  Bun.file(new URL(`../packages/domain/test/golden/${name}.json`, import.meta.url)).json()
/** The first three events of an order. */
const story = await Promise.all(
  [OrderEvents.OrderCreated, OrderEvents.OrderPaid, OrderEvents.OrderFulfilled].map(async ({ type }) => ({
    type,
    payload: await golden(type)
  }))
)

const event = (version: number): Projection.ProjectedEvent => ({
  eventId: EventId.make(`EVENT-${version}`),
  eventType: story[version - 1]?.type ?? "",
  occurredAt: at,
  region: "us",
  partitionKey: Id.make(orderId),
  aggregateVersion: version,
  payload: story[version - 1]?.payload
})

describe.skipIf(server === undefined)("customers' orders in Cassandra", () => {
  test("are the same in whatever order events come, however often, and in whatever batches", () =>
    Effect.gen(function* () {
      const store = yield* storeIn("rows")
      yield* store.begin
      yield* store.swap
      const rowsOf = (versions: ReadonlyArray<number>) => Projection.rowsOf(ordersByCustomer, versions.map(event))
      expect((yield* rowsOf([1, 2, 3])).length).toBe(1)
      let runs = 0
      yield* Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(
            fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 6 }),
            fc.integer({ min: 0, max: 6 }),
            (order, cut) =>
              Effect.gen(function* () {
                // A user of its own each time: a table costs half a second.
                const user = `USER-${++runs}`
                const his = (rows: ReadonlyArray<Projection.Row>) => rows.map((row) => ({ ...row, user_id: user }))
                for (const batch of [order.slice(0, cut), order.slice(cut)]) {
                  yield* store.write("live", his(yield* rowsOf(batch)))
                }
                const expected = his(yield* rowsOf([...new Set(order)].toSorted()))
                expect(yield* store.find("live", expected)).toEqual(expected)
              }).pipe(Effect.runPromise)
          ),
          { numRuns: 25, examples: [[[3, 1, 2], 1]] }
        )
      )
    }).pipe(Effect.scoped, Effect.runPromise))

  test("are built aside, and readers see the one or the other", () =>
    Effect.gen(function* () {
      const store = yield* storeIn("places")
      const row: Projection.Row = { user_id: "ADA", order_id: "ORDER-1", status: "PAID", updated_at: at, version: 2 }
      expect([yield* store.isBuilt, yield* store.write("live", [row]), yield* store.write("next", [row])]).toEqual([
        false,
        false,
        false
      ])
      yield* store.begin
      expect([yield* store.isBuilt, yield* store.write("next", [row])]).toEqual([false, true])
      yield* store.swap
      expect([yield* store.isBuilt, yield* store.write("next", [row])]).toEqual([true, false])
      expect((yield* live(store)).map(({ version }) => version)).toEqual([2])
      yield* store.begin
      expect((yield* live(store)).length).toBe(1)
      yield* store.abandon
      expect([yield* store.write("next", [row]), (yield* live(store)).length]).toEqual([false, 1])
    }).pipe(Effect.scoped, Effect.runPromise))

  test(
    "are what customers see, as in Postgres",
    () =>
      inShop(
        Effect.gen(function* () {
          const store = yield* storeIn("contract")
          const sql = yield* SqlClient.SqlClient
          yield* customersSeeTheirOrders(
            Effect.gen(function* () {
              yield* settled
              yield* caughtUp(store)
              // From here on they are nowhere else.
              yield* sql`delete from orders.orders_by_customer`
            })
          )
        }).pipe(Effect.scoped, Effect.provide(Logger.layer([]))),
        environment("contract")
      ),
    60_000
  )

  test(
    "are read in Postgres while Cassandra hangs, and catch up when it is back",
    () =>
      inShop(
        Effect.gen(function* () {
          const store = yield* storeIn("hangs")
          const orders = yield* OrdersRpc
          const [ada, userId] = [as("ADA", "shopper"), UserId.make("ADA")]
          const productId = yield* product("PLUM", 200)
          const place = ada(orders.Place({ idempotencyKey: idempotencyKey(), items: [{ productId, qty: 1 }] }))
          const listed = Effect.map(ada(orders.ListOfCustomer({ userId, limit: 10 })), ({ items }) => items.length)
          yield* place
          yield* settled
          yield* caughtUp(store)
          expect(yield* listed).toBe(1)
          server?.freeze()
          try {
            yield* ada(orders.Place({ idempotencyKey: idempotencyKey(), items: [{ productId, qty: 2 }] }))
            yield* settled
            expect(yield* listed).toBe(2)
          } finally {
            server?.thaw()
          }
          yield* caughtUp(store)
          expect((yield* live(store)).length).toBe(2)
        }).pipe(Effect.scoped, Effect.provide(Logger.layer([]))),
        environment("hangs")
      ),
    60_000
  )
})

describe.skipIf(server === undefined)("a replay of customers' orders in Cassandra", () => {
  const shop = restShop(environment("replay"))

  const replay = (...args: ReadonlyArray<string>) =>
    runToEnd("merkato", ["replay", "orders_by_customer_cassandra", ...args], shop().settings)
  const inCassandra = <A>(
    body: (
      table: string,
      run: typeof import("@merkato/infra/cassandra/Cassandra").Cassandra.Service["run"]
    ) => Effect.Effect<A, unknown>
  ) =>
    Effect.gen(function* () {
      const cassandra = yield* connected("replay")
      const table = yield* CassandraRows.liveTable(cassandra, "orders_by_customer")
      return yield* body(table ?? "", cassandra.run)
    }).pipe(Effect.scoped, Effect.runPromise)

  test("finds damaged rows and mends them; of the stock there, too", async () => {
    const productId = await shop().product({}, 10)
    const ada = await shop().as("ADA")
    const ids: Array<string> = []
    for (const key of ["1", "2", "3"]) {
      const placed = await ada.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key })
      expect(placed.status).toBe(201)
      ids.push(String(placed.body["orderId"]))
    }
    const [wrong, gone] = ids
    await until(
      () => inCassandra((table, run) => run({ cql: `select order_id from ${table}`, values: [] })).catch(() => []),
      (rows) => rows.length === 3
    )
    await inCassandra((table, run) =>
      Effect.gen(function* () {
        const key = "where user_id = 'ADA' and order_id = ?"
        yield* run({ cql: `update ${table} set total_minor = 1 ${key}`, values: [wrong ?? ""] })
        yield* run({ cql: `delete from ${table} ${key}`, values: [gone ?? ""] })
      })
    )
    const mended = await replay()
    expect(mended.code).toBe(1)
    expect(mended.stdout).toContain("rebuilt in Cassandra: 3 rows compared, 0 differences\n")
    expect(mended.stdout).toContain("live in Cassandra: 3 rows compared, 2 differences:\n")
    expect(mended.stdout).toMatch(new RegExp(`order_id=${wrong}: total_minor is 1, Postgres says \\d+$`, "m"))
    expect(mended.stdout).toContain(`order_id=${gone}: missing, Postgres has it\n`)
    const again = await replay()
    expect([again.code, again.stdout.includes("live in Cassandra: 3 rows compared, 0 differences\n")]).toEqual([
      0,
      true
    ])

    const stock = (body: (table: string) => string) =>
      Effect.gen(function* () {
        const cassandra = yield* connected("replay")
        const table = yield* CassandraRows.liveTable(cassandra, "inventory_snapshot")
        return yield* cassandra.run({ cql: body(table ?? ""), values: [] })
      }).pipe(Effect.scoped, Effect.runPromise)
    await until(
      () => stock((table) => `select reserved from ${table}`).catch(() => []),
      (rows) => rows[0]?.["reserved"] === 3
    )
    await stock(
      (table) => `update ${table} set on_hand = 11 where product_id = '${productId}' and warehouse_id = 'MAIN'`
    )
    const { code, stdout } = await runToEnd("merkato", ["replay", "inventory_snapshot_cassandra"], shop().settings)
    expect(code).toBe(1)
    expect(stdout).toContain("rebuilt in Cassandra: 1 row compared, 0 differences\n")
    expect(stdout).toContain(`product_id=${productId} warehouse_id=MAIN: on_hand is 11, Postgres says 10\n`)
  }, 120_000)

  test("has nothing to mend when Cassandra was dead: what waited is told, and written when it is back", async () => {
    const productId = await shop().product({}, 10)
    const eve = await shop().as("EVE")
    const place = async (key: string) => {
      const placed = await eve.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key })
      expect(placed.status).toBe(201)
    }
    const ofEve = () =>
      inCassandra((table, run) =>
        run({ cql: `select order_id from ${table} where user_id = ?`, values: ["EVE"] })
      ).catch(() => [])
    await place("before")
    await until(ofEve, (rows) => rows.length === 1)
    server?.kill()
    await place("meanwhile")
    const lag = () => shop().lagOf("orders.orders_by_customer_cassandra")
    await until(lag, (events) => events > 0)
    await server?.start()
    await until(ofEve, (rows) => rows.length === 2)
    await until(lag, (events) => events === 0)
    const whole = await replay("--check")
    expect([whole.code, whole.stdout]).toEqual([
      0,
      expect.stringMatching(/^live in Cassandra: [\d,]+ rows compared, 0 differences$/m)
    ])
  }, 240_000)
})
