// The warehouse says what events say: whole days, built anew when something late comes, all of it or nothing of it.
import { afterAll, describe, expect, test } from "bun:test"
import { Effect, Exit, Layer, Logger, Schema, type Scope } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ProductUpdated } from "@merkato/domain/catalogue/CatalogueEvents"
import { Sku } from "@merkato/domain/catalogue/Product"
import { StockAdjusted } from "@merkato/domain/inventory/InventoryEvents"
import type { NewEvent, Topic } from "@merkato/domain/kernel/Event"
import { AttemptId, EventId, Id, OrderId, ProductId, RefundId, ReservationId, UserId } from "@merkato/domain/kernel/Ids"
import type { Currency } from "@merkato/domain/kernel/Money"
import type { Region } from "@merkato/domain/kernel/Region"
import { OrderCanceled, OrderCreated, OrderFulfilled, OrderPaid } from "@merkato/domain/orders/OrderEvents"
import { RefundCompleted, RefundRequested } from "@merkato/domain/payments/PaymentEvents"
import { Archive } from "@merkato/infra/archive/Archive"
import * as DuckDb from "@merkato/infra/duckdb/DuckDb"
import { EventBus } from "@merkato/infra/events/EventBus"
import * as PostgresEventBus from "@merkato/infra/events/PostgresEventBus"
import * as Files from "@merkato/infra/objects/Files"
import { ObjectStore } from "@merkato/infra/objects/ObjectStore"
import * as Database from "@merkato/infra/postgres/Database"
import * as Migrations from "@merkato/infra/postgres/Migrations"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import * as Snapshot from "../src/analytics/warehouse/Snapshot.ts"
import * as Warehouse from "../src/analytics/warehouse/Warehouse.ts"

const root = mkdtempSync(join(tmpdir(), "merkato-warehouse-"))
afterAll(() => rmSync(root, { recursive: true, force: true }))

let made = 0

/** An event as its context's relay publishes it. */
const message = (topic: Topic, { aggregateId, eventType, payload, version }: NewEvent, at: string, region: Region) => ({
  topic,
  key: aggregateId,
  traceParent: "00-00000000000000000000000000000000-0000000000000000-00",
  envelope: {
    eventId: EventId.make(`EVENT-${++made}`),
    eventType,
    occurredAt: at,
    producer: "test-service",
    traceId: "",
    correlationId: "",
    schemaVersion: "1.0",
    partitionKey: Id.make(aggregateId),
    region,
    aggregateVersion: version,
    payload
  }
})

interface Ordered {
  readonly id: string
  readonly at: string
  readonly region?: Region
  readonly currency?: Currency
  /** How many of which price. */
  readonly items?: ReadonlyArray<readonly [qty: number, price: number]>
  readonly discount?: number
  readonly tax?: number
  readonly shipping?: number
  readonly total: number
}

const order = ({ id, at, region = "us", currency = "USD", items = [[1, 1]], ...amounts }: Ordered) =>
  message(
    "order.events",
    OrderCreated.of(id, 1, {
      orderId: OrderId.make(id),
      userId: UserId.make("ADA"),
      items: items.map(([qty, price], nth) => ({ productId: ProductId.make(`P${nth + 1}`), qty, price })),
      itemsAmount: amounts.total - (amounts.tax ?? 0) - (amounts.shipping ?? 0) + (amounts.discount ?? 0),
      discountAmount: amounts.discount ?? 0,
      taxAmount: amounts.tax ?? 0,
      shippingAmount: amounts.shipping ?? 0,
      totalAmount: amounts.total,
      currency,
      reservationId: ReservationId.make(`R-${id}`)
    }),
    at,
    region
  )

const of = (id: string) => ({ orderId: OrderId.make(id), userId: UserId.make("ADA") })

const paid = (id: string, at: string, version = 2) =>
  message(
    "order.events",
    OrderPaid.of(id, version, {
      ...of(id),
      attemptId: AttemptId.make(`A-${id}`),
      items: [],
      totalAmount: 1,
      currency: "USD"
    }),
    at,
    "us"
  )
const fulfilled = (id: string, at: string, version = 3) =>
  message("order.events", OrderFulfilled.of(id, version, of(id)), at, "us")
const canceled = (id: string, at: string, version = 2) =>
  message(
    "order.events",
    OrderCanceled.of(id, version, {
      ...of(id),
      reservationId: ReservationId.make(`R-${id}`),
      reason: "customer_request"
    }),
    at,
    "us"
  )
/** The `nth` refund of an order's payment, and that it was asked for. */
const refunded = (id: string, nth: number, amount: number, at: string, currency: Currency = "USD") => {
  const refund = {
    attemptId: AttemptId.make(`A-${id}`),
    refundId: RefundId.make(`${id}-${nth}`),
    ...of(id),
    amount,
    currency
  }
  return [
    message(
      "payment.events",
      RefundRequested.of(refund.attemptId, 2 + 2 * nth, { ...refund, reason: "bruised" }),
      at,
      "us"
    ),
    message("payment.events", RefundCompleted.of(refund.attemptId, 3 + 2 * nth, refund), at, "us")
  ]
}
const product = (version: number, price: number, at: string) =>
  message(
    "catalogue.events",
    ProductUpdated.of("P1", version, {
      productId: ProductId.make("P1"),
      sku: Sku.make("FIG"),
      name: "Figs, 'ripe'",
      description: "",
      category: "Fruit",
      price,
      currency: "USD",
      version
    }),
    at,
    "us"
  )
const adjusted = (version: number, delta: number, onHand: number, at: string) =>
  message(
    "inventory.events",
    StockAdjusted.of("P1", version, {
      productId: ProductId.make("P1"),
      warehouseId: "MAIN",
      onHand,
      reserved: 0,
      available: onHand,
      version,
      delta,
      reason: "delivery"
    }),
    at,
    "us"
  )

type Services = Archive | EventBus | ObjectStore | Scope.Scope

/** A bus on which nothing ever happened, with an archive and a warehouse of its own. */
const run = <A>(
  body: Effect.Effect<A, unknown, Services>,
  store = Files.layer(mkdtempSync(join(root, "objects-")))
): Promise<A> =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.fresh
    const database = Database.layer({ url, maxConnections: 4, applicationName: "test" })
    yield* Effect.provide(Migrations.run(PostgresEventBus.migrations), database)
    return yield* Effect.provide(
      body,
      Archive.layer("postgres").pipe(
        Layer.provideMerge(store),
        Layer.provideMerge(PostgresEventBus.layer.pipe(Layer.provide(database)))
      )
    )
  }).pipe(Effect.scoped, Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Effect.runPromise)

/** Publishes, archives, builds and sums up. */
const hear = Effect.fnUntraced(function* (messages: ReadonlyArray<ReturnType<typeof message>>) {
  yield* EventBus.use((bus) => bus.publish(messages))
  yield* Archive.use((archive) =>
    archive.catchUp(["order.events", "inventory.events", "catalogue.events", "payment.events"])
  )
  const built = yield* Warehouse.build([])
  return { ...built, summed: yield* Warehouse.summarise(undefined) }
})

const ask = Effect.fnUntraced(function* (sql: string) {
  const duck = yield* DuckDb.open
  yield* Warehouse.open(duck)
  return yield* duck.rows(sql)
}, Effect.scoped)

describe("the warehouse", () => {
  test("has an order a row, as its events tell it, amounts to the minor unit of their currency", () =>
    run(
      Effect.gen(function* () {
        const at = "2026-01-31T10:00:00.123Z"
        yield* hear([
          order({
            id: "O1",
            at,
            items: [
              [3, 0.07],
              [1, 19.99]
            ],
            tax: 1.1,
            shipping: 4.9,
            discount: 0.2,
            total: 26
          }),
          order({ id: "O2", at, currency: "JPY", region: "apac", items: [[2, 450]], total: 900 }),
          order({ id: "O3", at, currency: "KWD", region: "in", items: [[1, 0.005]], total: 0.005 }),
          order({ id: "O4", at, total: 9_999_999_999_999.99 }),
          paid("O1", "2026-01-31T10:05:00.000Z"),
          fulfilled("O1", "2026-02-01T09:00:00.000Z"),
          canceled("O2", "2026-01-31T11:00:00.000Z")
        ])
        expect(yield* ask("select * from fact_orders where order_id = 'O1'")).toEqual([
          {
            order_id: "O1",
            user_id: "ADA",
            region: "us",
            currency: "USD",
            status: "FULFILLED",
            version: 3,
            day: "2026-01-31",
            placed_day: "2026-01-31",
            placed_at: at,
            held_at: null,
            paid_at: "2026-01-31T10:05:00.000Z",
            fulfilled_at: "2026-02-01T09:00:00.000Z",
            canceled_at: null,
            cancel_reason: null,
            refunded_at: null,
            lines: 2,
            units: 4,
            items_minor: 2_020,
            discount_minor: 20,
            tax_minor: 110,
            shipping_minor: 490,
            total_minor: 2_600,
            refunded_minor: 0,
            items: [
              { product_id: "P1", qty: 3, price_minor: 7 },
              { product_id: "P2", qty: 1, price_minor: 1_999 }
            ]
          }
        ])
        expect(
          yield* ask("select order_id, currency, status, total_minor, cancel_reason from fact_orders order by all")
        ).toMatchObject([
          { order_id: "O1" },
          { currency: "JPY", status: "CANCELED", total_minor: 900, cancel_reason: "customer_request" },
          { currency: "KWD", status: "PENDING", total_minor: 5, cancel_reason: null },
          { total_minor: 999_999_999_999_999 }
        ])
      })
    ))

  test("sums up days by the regions' own midnights", () =>
    run(
      Effect.gen(function* () {
        const newYear = "2026-01-01T03:00:00.000Z"
        const { summed } = yield* hear([
          order({ id: "O1", at: newYear, region: "us", total: 1.5, items: [[2, 0.75]] }),
          order({ id: "O2", at: newYear, region: "us", total: 2.25 }),
          order({ id: "O3", at: newYear, region: "eu", currency: "EUR", total: 10 }),
          paid("O1", newYear),
          canceled("O2", newYear)
        ])
        expect(summed).toEqual(["2025-12-31", "2026-01-01"])
        const day = (text: string) => ask(`select * from daily_sales where day = date '${text}' order by all`)
        expect(yield* day("2025-12-31")).toEqual([
          {
            day: "2025-12-31",
            region: "us",
            currency: "USD",
            orders: 2,
            paid: 1,
            canceled: 1,
            lines: 2,
            units: 3,
            items_minor: 375,
            discount_minor: 0,
            tax_minor: 0,
            shipping_minor: 0,
            total_minor: 375,
            paid_minor: 150,
            canceled_minor: 225,
            refunded_minor: 0
          }
        ])
        expect(yield* day("2026-01-01")).toMatchObject([{ region: "eu", orders: 1, paid: 0, total_minor: 1_000 }])
        expect(yield* ask("select count(*) as n from daily_sales")).toEqual([{ n: 2 }])
      })
    ))

  test("builds a day again when something late comes, and no other; its sales as well", () =>
    run(
      Effect.gen(function* () {
        const days = ["2026-01-10", "2026-01-20", "2026-01-30"]
        const first = yield* hear(
          days.map((day, nth) => order({ id: `O${nth}`, at: `${day}T12:00:00.000Z`, total: nth + 1 }))
        )
        expect([first.orderDays, first.summed]).toEqual([days, days])
        expect(yield* hear([])).toEqual({
          version: 2,
          orderDays: [],
          adjustmentDays: [],
          products: false,
          unknownOrders: 0,
          summed: []
        })
        // An order is paid on a later day than that on which it was placed; and one of a day gone by is heard of only now.
        const late = yield* hear([
          paid("O0", "2026-01-30T13:00:00.000Z"),
          order({ id: "LATE", at: "2026-01-20T23:00:00.000Z", total: 7 }),
          paid("STRANGER", "2026-01-20T23:00:00.000Z")
        ])
        expect(late).toMatchObject({ orderDays: days.slice(0, 2), summed: days.slice(0, 2), unknownOrders: 1 })
        expect(yield* ask("select day, orders, paid, total_minor from daily_sales order by day")).toEqual([
          { day: "2026-01-10", orders: 1, paid: 1, total_minor: 100 },
          { day: "2026-01-20", orders: 2, paid: 0, total_minor: 900 },
          { day: "2026-01-30", orders: 1, paid: 0, total_minor: 300 }
        ])
        // Asked for, a day is built again though nothing has changed, and is the same.
        const before = yield* ask("select * from fact_orders order by order_id")
        expect(yield* Warehouse.build(["2026-01-20"])).toMatchObject({ orderDays: ["2026-01-20"] })
        expect(yield* ask("select * from fact_orders order by order_id")).toEqual(before)
        expect(yield* Warehouse.summarise("2026-01-20")).toEqual(["2026-01-20"])
        expect(yield* Warehouse.summarise("2026-01-20")).toEqual([])
      })
    ))

  test("an event that was published twice, or in another order, changes nothing", () =>
    run(
      Effect.gen(function* () {
        const placed = order({ id: "O1", at: "2026-01-31T23:59:59.990Z", total: 3 })
        // By the clock of the machine that took the money the order was not placed yet, and it was yesterday.
        const payment = paid("O1", "2026-01-30T23:59:59.999Z")
        const stock = adjusted(1, 5, 5, "2026-01-31T08:00:00.000Z")
        yield* hear([placed, payment, stock])
        const all = "select order_id, status, version, paid_at, total_minor from fact_orders"
        const once = yield* ask(all)
        expect(once).toEqual([
          { order_id: "O1", status: "PAID", version: 2, paid_at: "2026-01-30T23:59:59.999Z", total_minor: 300 }
        ])
        yield* hear([placed, payment, stock])
        expect(yield* ask(all)).toEqual(once)
        expect(yield* ask("select count(*) as n, sum(delta) as sum from fact_inventory_adjustments")).toEqual([
          { n: 1, sum: 5 }
        ])
      })
    ))

  test("knows what an order's shopper has back, however late, on the order's day, and once", () =>
    run(
      Effect.gen(function* () {
        const all = "select order_id, refunded_minor, refunded_at from fact_orders order by order_id"
        const days = "select day, currency, paid_minor, refunded_minor from daily_sales order by day, currency"
        yield* hear([
          order({ id: "O1", at: "2026-01-10T12:00:00.000Z", total: 10 }),
          order({ id: "O2", at: "2026-01-10T12:00:00.000Z", total: 900, currency: "JPY", region: "apac" }),
          order({ id: "O3", at: "2026-01-20T12:00:00.000Z", total: 3 }),
          paid("O1", "2026-01-10T12:00:01.000Z"),
          paid("O2", "2026-01-10T12:00:01.000Z"),
          ...refunded("O1", 1, 0.07, "2026-01-10T13:00:00.000Z"),
          // Only asked for, as yet.
          ...refunded("O3", 1, 3, "2026-01-20T13:00:00.000Z").slice(0, 1)
        ])
        expect(yield* ask(all)).toEqual([
          { order_id: "O1", refunded_minor: 7, refunded_at: "2026-01-10T13:00:00.000Z" },
          { order_id: "O2", refunded_minor: 0, refunded_at: null },
          { order_id: "O3", refunded_minor: 0, refunded_at: null }
        ])
        const late = [
          ...refunded("O1", 2, 1.1, "2026-02-20T10:00:00.000Z"),
          ...refunded("O2", 1, 450, "2026-03-01T10:00:00.000Z", "JPY")
        ]
        // A relay that died may publish again what it has published.
        expect(yield* hear([...late, ...late])).toMatchObject({
          orderDays: ["2026-01-10"],
          summed: ["2026-01-10"],
          unknownOrders: 0
        })
        const told = [
          { order_id: "O1", refunded_minor: 117, refunded_at: "2026-02-20T10:00:00.000Z" },
          { order_id: "O2", refunded_minor: 450, refunded_at: "2026-03-01T10:00:00.000Z" },
          { order_id: "O3", refunded_minor: 0, refunded_at: null }
        ]
        expect(yield* ask(all)).toEqual(told)
        const sold = [
          { day: "2026-01-10", currency: "JPY", paid_minor: 900, refunded_minor: 450 },
          { day: "2026-01-10", currency: "USD", paid_minor: 1_000, refunded_minor: 117 },
          { day: "2026-01-20", currency: "USD", paid_minor: 0, refunded_minor: 0 }
        ]
        expect(yield* ask(days)).toEqual(sold)
        yield* hear(late)
        expect(yield* ask(all)).toEqual(told)
        expect(yield* ask(days)).toEqual(sold)
      })
    ))

  test("knows of a refund that it heard of before the order", () =>
    run(
      Effect.gen(function* () {
        expect(yield* hear(refunded("O1", 1, 2.5, "2026-01-11T10:00:00.000Z"))).toMatchObject({ unknownOrders: 1 })
        yield* hear([order({ id: "O1", at: "2026-01-10T12:00:00.000Z", total: 10 })])
        expect(yield* ask("select order_id, refunded_minor from fact_orders")).toEqual([
          { order_id: "O1", refunded_minor: 250 }
        ])
      })
    ))

  test("reads what was built before it knew of refunds, and takes in those that the archive had then", () =>
    run(
      Effect.gen(function* () {
        const sums = "select day, total_minor, refunded_minor from daily_sales order by day"
        const all = "select order_id, refunded_minor, refunded_at, lines from fact_orders order by order_id"
        yield* hear([
          order({ id: "O1", at: "2026-01-10T12:00:00.000Z", total: 10 }),
          order({ id: "O2", at: "2026-01-20T12:00:00.000Z", total: 20 }),
          ...refunded("O1", 1, 2.5, "2026-02-01T10:00:00.000Z")
        ])
        const snapshot = yield* Snapshot.latest
        const duck = yield* DuckDb.open
        const objects = yield* ObjectStore
        /** The same file without the columns. */
        const older = Effect.fnUntraced(function* (name: string, columns: string) {
          const path = yield* objects.localFile(name)
          const rows = `(select * exclude (${columns}) from read_parquet(${DuckDb.quoted(path)}, hive_partitioning = false))`
          const was = name.replace(/[^/]+$/, "0000000001-before.parquet")
          yield* objects.putNew(was, yield* duck.parquet(rows))
          return was
        })
        const factOrders: Record<string, string> = {}
        for (const [day, name] of Object.entries(snapshot.factOrders)) {
          factOrders[day] = yield* older(name, "refunded_minor, refunded_at")
        }
        const dailySales: Record<string, { file: string | null; of: ReadonlyArray<string> }> = {}
        for (const [day, { file }] of Object.entries(snapshot.dailySales)) {
          const of = [-1, 0, 1].flatMap((days) => {
            const near = new Date(Date.parse(`${day}T00:00:00Z`) + days * 24 * 60 * 60_000).toISOString().slice(0, 10)
            return factOrders[near] ?? []
          })
          dailySales[day] = { of, file: file === null ? null : yield* older(file, "refunded_minor") }
        }
        const read = Object.fromEntries(
          Object.entries(snapshot.read).filter(([partition]) => !partition.includes("payment.events"))
        )
        yield* Snapshot.publish({ ...snapshot, version: snapshot.version + 1, read, factOrders, dailySales })
        expect(yield* ask(all)).toEqual([
          { order_id: "O1", refunded_minor: 0, refunded_at: null, lines: 1 },
          { order_id: "O2", refunded_minor: 0, refunded_at: null, lines: 1 }
        ])
        expect(yield* ask(sums)).toEqual([
          { day: "2026-01-10", total_minor: 1_000, refunded_minor: 0 },
          { day: "2026-01-20", total_minor: 2_000, refunded_minor: 0 }
        ])
        expect(yield* hear([])).toMatchObject({ orderDays: ["2026-01-10"], summed: ["2026-01-10"] })
        expect(yield* ask(all)).toEqual([
          { order_id: "O1", refunded_minor: 250, refunded_at: "2026-02-01T10:00:00.000Z", lines: 1 },
          { order_id: "O2", refunded_minor: 0, refunded_at: null, lines: 1 }
        ])
        expect(yield* ask(sums)).toEqual([
          { day: "2026-01-10", total_minor: 1_000, refunded_minor: 250 },
          { day: "2026-01-20", total_minor: 2_000, refunded_minor: 0 }
        ])
      })
    ))

  test("knows what products were when, and what stock came and went", () =>
    run(
      Effect.gen(function* () {
        yield* hear([
          product(1, 1.5, "2026-01-01T00:00:00.000Z"),
          adjusted(1, 10, 10, "2026-01-01T08:00:00.000Z"),
          order({ id: "O1", at: "2026-01-15T00:00:00.000Z", items: [[2, 1.5]], total: 3 }),
          paid("O1", "2026-01-15T00:01:00.000Z")
        ])
        yield* hear([
          product(2, 1.75, "2026-02-01T00:00:00.000Z"),
          adjusted(2, -3, 7, "2026-02-02T08:00:00.000Z"),
          order({ id: "O2", at: "2026-02-15T00:00:00.000Z", items: [[1, 1.75]], total: 1.75 }),
          paid("O2", "2026-02-15T00:01:00.000Z")
        ])
        expect(
          yield* ask(
            "select version, name, price_minor, valid_from, valid_to, is_current from dim_product order by version"
          )
        ).toEqual([
          {
            version: 1,
            name: "Figs, 'ripe'",
            price_minor: 150,
            valid_from: "2026-01-01T00:00:00.000Z",
            valid_to: "2026-02-01T00:00:00.000Z",
            is_current: false
          },
          {
            version: 2,
            name: "Figs, 'ripe'",
            price_minor: 175,
            valid_from: "2026-02-01T00:00:00.000Z",
            valid_to: null,
            is_current: true
          }
        ])
        expect(
          yield* ask(
            "select day, product_id, warehouse_id, delta, on_hand, reason from fact_inventory_adjustments order by day"
          )
        ).toEqual([
          { day: "2026-01-01", product_id: "P1", warehouse_id: "MAIN", delta: 10, on_hand: 10, reason: "delivery" },
          { day: "2026-02-02", product_id: "P1", warehouse_id: "MAIN", delta: -3, on_hand: 7, reason: "delivery" }
        ])
        expect(yield* ask("from sales_by_category order by all")).toEqual([
          { year: 2026, month: 1, category: "Fruit", currency: "USD", units: 2, amount_minor: 300 },
          { year: 2026, month: 2, category: "Fruit", currency: "USD", units: 1, amount_minor: 175 }
        ])
        expect(
          yield* ask(`select count(*) as days, min(day) as first, max(day) as last, count(*) filter (is_weekend) as weekends
            from dim_date`)
        ).toEqual([{ days: 365, first: "2026-01-01", last: "2026-12-31", weekends: 104 }])
        expect(yield* ask("select * from dim_date where day = date '2026-02-01'")).toEqual([
          {
            day: "2026-02-01",
            year: 2026,
            quarter: 1,
            month: 2,
            month_name: "February",
            day_of_month: 1,
            iso_week: 5,
            weekday: 7,
            weekday_name: "Sunday",
            is_weekend: true
          }
        ])
      })
    ))

  test("is empty, and can be asked, before the first build", () =>
    run(
      Effect.gen(function* () {
        expect(yield* ask("select count(*) as n from order_lines")).toEqual([{ n: 0 }])
        expect(yield* Warehouse.summarise("2026-01-01")).toEqual([])
        expect(yield* Warehouse.build([])).toMatchObject({ version: 0 })
      })
    ))
})

describe("a build", () => {
  class Death extends Schema.TaggedError<Death>()("Death", {}) {}

  /** The store, as long as so many writes of the warehouse are made; then its process dies. */
  const dying = (after: number) =>
    Effect.map(ObjectStore, (store) => {
      let left = after
      return ObjectStore.of({
        ...store,
        putNew: (name, content) => (left-- > 0 ? store.putNew(name, content) : Effect.die(new Death()))
      })
    })

  test("that dies changes nothing for who reads, at whichever write; the next one does it all", () =>
    run(
      Effect.gen(function* () {
        yield* hear([order({ id: "O1", at: "2026-01-30T12:00:00.000Z", total: 1 })])
        yield* EventBus.use((bus) =>
          bus.publish([
            paid("O1", "2026-01-31T12:00:00.000Z"),
            order({ id: "O2", at: "2026-01-31T12:00:00.000Z", total: 2 }),
            adjusted(1, 1, 1, "2026-01-31T12:00:00.000Z"),
            product(1, 1, "2026-01-31T12:00:00.000Z")
          ])
        )
        yield* Archive.use((archive) => archive.catchUp(["order.events", "inventory.events", "catalogue.events"]))
        const all = `select order_id, status, (select count(*) from fact_inventory_adjustments) as adjustments,
          (select count(*) from dim_product) as products from fact_orders order by order_id`
        let deaths = 0
        for (let after = 0; ; after++) {
          const exit = yield* Warehouse.build([]).pipe(
            Effect.provideServiceEffect(ObjectStore, dying(after)),
            Effect.exit
          )
          if (Exit.isSuccess(exit)) break
          deaths += 1
          expect(yield* ask(all)).toEqual([{ order_id: "O1", status: "PENDING", adjustments: 0, products: 0 }])
        }
        // Two days of orders, one of adjustments, the products, and the snapshot.
        expect(deaths).toBe(5)
        expect(yield* ask(all)).toEqual([
          { order_id: "O1", status: "PAID", adjustments: 1, products: 1 },
          { order_id: "O2", status: "PENDING", adjustments: 1, products: 1 }
        ])
      })
    ))

  test("of two at the same time one is published, and the other says so", () =>
    run(
      Effect.gen(function* () {
        yield* EventBus.use((bus) => bus.publish([order({ id: "O1", at: "2026-01-30T12:00:00.000Z", total: 1 })]))
        yield* Archive.use((archive) => archive.catchUp(["order.events"]))
        const exits = yield* Effect.all(
          [Warehouse.build([]), Warehouse.build([])].map((build) => Effect.result(build)),
          { concurrency: "unbounded" }
        )
        const told = exits.map((exit) => (exit._tag === "Success" ? "built" : exit.failure._tag)).toSorted()
        expect(told).toEqual(["BuiltElsewhere", "built"])
        expect(yield* ask("select order_id from fact_orders")).toEqual([{ order_id: "O1" }])
      })
    ))

  test("leaves no more than a few that were before it, and nothing of those that died", () =>
    run(
      Effect.gen(function* () {
        yield* hear([order({ id: "O1", at: "2026-01-30T12:00:00.000Z", total: 1 })])
        yield* Warehouse.build(["2026-01-30"]).pipe(Effect.provideServiceEffect(ObjectStore, dying(1)), Effect.exit)
        const objects = yield* ObjectStore
        const names = Effect.map(objects.list("warehouse/"), (all) => all.map(({ name }) => name))
        const orders = Effect.map(names, (all) => all.filter((name) => name.includes("/fact_orders/")).length)
        expect(yield* orders).toBe(2)
        for (let nth = 0; nth < 12; nth++) yield* Warehouse.build(["2026-01-30"])
        expect((yield* names).filter((name) => name.includes("/snapshots/"))).toHaveLength(5)
        expect(yield* orders).toBe(5)
        expect(yield* ask("select order_id, total_minor from fact_orders")).toEqual([
          { order_id: "O1", total_minor: 100 }
        ])
        // What nobody has built anew is there still, however old.
        expect(
          (yield* names).filter((name) => name.includes("/daily_sales/") || name.includes("/dim_date/"))
        ).toHaveLength(2)
      })
    ))
})
