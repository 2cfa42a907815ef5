// Orders and payments are event-sourced: their rows are what their events make of them, and nothing else.
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { ConfigProvider, Context, DateTime, Effect, Exit, Layer, Logger, Schedule, Schema, Scope } from "effect"
import { SqlClient } from "effect/sql"
import { Sku } from "@merkato/domain/catalogue/Product"
import { IdempotencyKey, type OrderId, type ProductId } from "@merkato/domain/kernel/Ids"
import type { Currency } from "@merkato/domain/kernel/Money"
import type { Region } from "@merkato/domain/kernel/Region"
import type { Order } from "@merkato/domain/orders/Order"
import * as OrderEvents from "@merkato/domain/orders/OrderEvents"
import type { Payment } from "@merkato/domain/payments/Payment"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import * as PaymentEvents from "@merkato/domain/payments/PaymentEvents"
import { StoredEvent } from "@merkato/infra/events/EventStore"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { settled } from "../../../tests/support/Books.ts"
import { patientCircuits } from "../../../tests/support/Circuits.ts"
import { contextsOn } from "../../../tests/support/InProcess.ts"
import { temporaryFolder } from "../../../tests/support/Processes.ts"
import { as } from "./Requests.ts"

/** Whoever names a device is looked at; nothing else is risky, however fast, large or foreign. */
const rules = {
  review: 60,
  block: 101,
  velocity: { user: [], device: [{ windowSeconds: 600, steps: [{ over: 0, points: 60 }] }] },
  amount: { high: { USD: [], JPY: [], KWD: [] }, unusual: { steps: [] } },
  mismatch: { currency: { points: 0 }, device: { points: 0 }, regions: { steps: [] } },
  device: { missing: { points: 0 }, new: { points: 0 }, shared: { steps: [] } }
}

/** Gateways are given up on soon, and reservations looked at often, so that the tests need not wait. */
const impatient = ConfigProvider.fromUnknown({
  MERKATO_PAYMENT_TIMEOUT_MS: "900",
  MERKATO_RESERVATION_SWEEP_MS: "20",
  MERKATO_RISK_RULES: JSON.stringify(rules)
})

const scope = Scope.makeUnsafe()
const folder = temporaryFolder()
type Services = Layer.Success<ReturnType<typeof contextsOn>>
let shop: Context.Context<Services> | undefined

const run = <A>(effect: Effect.Effect<A, unknown, Services>): Promise<A> => {
  if (shop === undefined) throw new Error("the shop has not started")
  return effect.pipe(
    Effect.provideContext(shop),
    Effect.provide(Logger.layer([])),
    Effect.withTracerEnabled(false),
    Effect.runPromise
  )
}

const admin = as("ADMIN", "admin")

let keys = 0
const freshKey = () => IdempotencyKey.make(`key-${++keys}`)

/** Pays, and says how it went. */
const pay = Effect.fnUntraced(function* (orderId: OrderId, token: string, device: { readonly deviceId?: string } = {}) {
  const orders = yield* OrdersRpc
  return yield* orders
    .Pay({ idempotencyKey: freshKey(), orderId, paymentToken: PaymentToken.make(token), rail: "auto", ...device })
    .pipe(
      Effect.map(({ answer }) => answer.status),
      Effect.catch((error) => Effect.succeed(error._tag))
    )
})

/** Makes an order's reservation run out, and waits until the order has heard of it. */
const runOut = Effect.fnUntraced(function* (order: Order) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`
    update inventory.reservations set expires_at = created_at
    where reservation_id = ${order.reservationId} and status = 'held'`
  yield* Effect.repeat(
    sql`select from orders.orders where order_id = ${order.orderId} and (reservation_lost or status = 'CANCELED')`,
    { until: (rows) => rows.length > 0, schedule: Schedule.spaced("5 millis"), times: 500 }
  )
})

/** Waits until a payment of the order has begun at the gateway. */
const paymentBegun = Effect.fnUntraced(function* (order: Order) {
  const sql = yield* SqlClient.SqlClient
  yield* Effect.repeat(sql`select from payments.payments where order_id = ${order.orderId}`, {
    until: (rows) => rows.length > 0,
    schedule: Schedule.spaced("5 millis"),
    times: 500
  })
})

/** Pays an order whose reservation runs out while the gateway is silent. */
const payTooLate = Effect.fnUntraced(function* (order: Order, token: string) {
  const [paid] = yield* Effect.all([pay(order.orderId, token), Effect.andThen(paymentBegun(order), runOut(order))], {
    concurrency: 2
  })
  return paid
})

const suspicious = { deviceId: "a-device" }

type Items = ReadonlyArray<{ readonly productId: ProductId; readonly qty: number }>

/** How an order comes about. */
type Beginning = (items: Items) => Effect.Effect<Order, unknown, CartRpc | OrdersRpc | SqlClient.SqlClient>

const ordered: Beginning = Effect.fnUntraced(function* (items: Items) {
  return (yield* (yield* OrdersRpc).Place({ idempotencyKey: freshKey(), items })).answer
})

/** Buys a cart at once, which goes as said; the order it made, whatever was answered. */
const checkedOut = (outcome: string, token: string, device: { readonly deviceId?: string } = {}): Beginning =>
  Effect.fnUntraced(function* (items: Items) {
    const [carts, all, sql] = [yield* CartRpc, yield* OrdersRpc, yield* SqlClient.SqlClient]
    const { cartId } = (yield* carts.CreateCart({})).cart
    for (const item of items) yield* carts.SetItem({ cartId, ...item })
    const idempotencyKey = freshKey()
    const paymentToken = PaymentToken.make(token)
    const came = yield* all.Checkout({ idempotencyKey, cartId, paymentToken, rail: "auto", ...device }).pipe(
      Effect.map(({ answer }) => answer.status),
      Effect.catch((error) => Effect.succeed(error._tag))
    )
    expect<string>(came).toBe(outcome)
    const [made] = yield* sql<{ orderId: OrderId }>`
      select order_id as "orderId" from orders.sagas where request ->> 'key' = ${idempotencyKey}`
    return made === undefined ? yield* Effect.die("no order was made") : yield* all.Get({ orderId: made.orderId })
  })

type Story = (order: Order) => Effect.Effect<unknown, unknown, OrdersRpc | InventoryRpc | SqlClient.SqlClient>
const orders = Effect.service(OrdersRpc)

/** What can become of an order, and how it stands then: the order, and its payments. */
const stories: Readonly<
  Record<string, readonly [story: Story, status: string, payments: ReadonlyArray<string>, beginning?: Beginning]>
> = {
  "is placed": [() => Effect.void, "PENDING", []],
  "is paid": [({ orderId }) => expecting("PAID", pay(orderId, "tok_ok")), "PAID", ["CAPTURED"]],
  "is declined": [({ orderId }) => expecting("PaymentDeclined", pay(orderId, "tok_declined")), "PENDING", ["DECLINED"]],
  "is declined, then paid": [
    ({ orderId }) =>
      Effect.andThen(
        expecting("PaymentDeclined", pay(orderId, "tok_declined")),
        expecting("PAID", pay(orderId, "tok_ok"))
      ),
    "PAID",
    ["CAPTURED", "DECLINED"]
  ],
  "is canceled": [({ orderId }) => Effect.flatMap(orders, (all) => all.Cancel({ orderId })), "CANCELED", []],
  "is declined, then canceled": [
    ({ orderId }) =>
      Effect.andThen(
        expecting("PaymentDeclined", pay(orderId, "tok_declined")),
        Effect.flatMap(orders, (all) => all.Cancel({ orderId }))
      ),
    "CANCELED",
    ["DECLINED"]
  ],
  "is fulfilled": [
    ({ orderId }) =>
      Effect.andThen(
        expecting("PAID", pay(orderId, "tok_ok")),
        admin(Effect.flatMap(orders, (all) => all.Fulfil({ orderId })))
      ),
    "FULFILLED",
    ["CAPTURED"]
  ],
  "is paid, the gateway's answer lost": [
    ({ orderId }) => expecting("PAID", pay(orderId, "tok_lost")),
    "PAID",
    ["CAPTURED"]
  ],
  "is not paid, since the gateway is silent": [
    ({ orderId }) => expecting("PaymentUnavailable", pay(orderId, "tok_timeout")),
    "PENDING",
    ["VOIDED"]
  ],
  "is not paid, since the gateway is down; then it is": [
    ({ orderId }) =>
      Effect.andThen(
        expecting("PaymentUnavailable", pay(orderId, "tok_all_down")),
        expecting("PAID", pay(orderId, "tok_ok"))
      ),
    "PAID",
    ["CAPTURED", "VOIDED"]
  ],
  "runs out": [runOut, "CANCELED", []],
  "runs out while the gateway is silent": [
    (order) => expecting("NotPayable", payTooLate(order, "tok_timeout")),
    "CANCELED",
    ["VOIDED"]
  ],
  "runs out while the gateway has the money and says nothing": [
    (order) => expecting("NotPayable", payTooLate(order, "tok_lost")),
    "CANCELED",
    ["VOIDED"]
  ],
  "is held as it is paid": [({ orderId }) => expecting("HELD", pay(orderId, "tok_ok", suspicious)), "HELD", []],
  "is declined, then held, then released": [
    ({ orderId }) =>
      expecting("PaymentDeclined", pay(orderId, "tok_declined")).pipe(
        Effect.andThen(expecting("HELD", pay(orderId, "tok_ok", suspicious))),
        Effect.andThen(admin(Effect.flatMap(orders, (all) => all.Release({ orderId }))))
      ),
    "PENDING",
    ["DECLINED"]
  ],
  "is held, released, declined and paid": [
    ({ orderId }) =>
      expecting("HELD", pay(orderId, "tok_ok", suspicious)).pipe(
        Effect.andThen(admin(Effect.flatMap(orders, (all) => all.Release({ orderId })))),
        Effect.andThen(expecting("PaymentDeclined", pay(orderId, "tok_declined", suspicious))),
        Effect.andThen(expecting("PAID", pay(orderId, "tok_ok", suspicious)))
      ),
    "PAID",
    ["CAPTURED", "DECLINED"]
  ],
  "is held and rejected": [
    ({ orderId }) =>
      Effect.andThen(
        expecting("HELD", pay(orderId, "tok_ok", suspicious)),
        admin(Effect.flatMap(orders, (all) => all.Reject({ orderId })))
      ),
    "CANCELED",
    []
  ],
  "is held and runs out": [
    (order) => Effect.andThen(expecting("HELD", pay(order.orderId, "tok_ok", suspicious)), runOut(order)),
    "CANCELED",
    []
  ],
  "is checked out": [() => Effect.void, "PAID", ["CAPTURED"], checkedOut("PAID", "tok_ok")],
  "is checked out and declined": [
    () => Effect.void,
    "CANCELED",
    ["DECLINED"],
    checkedOut("PaymentDeclined", "tok_declined")
  ],
  "is checked out while the gateways are down, then paid": [
    ({ orderId }) => expecting("PAID", pay(orderId, "tok_ok")),
    "PAID",
    ["CAPTURED", "VOIDED"],
    checkedOut("PaymentUnavailable", "tok_all_down")
  ],
  "is checked out and held": [() => Effect.void, "HELD", [], checkedOut("HELD", "tok_ok", suspicious)],
  "is checked out, held, released, paid and fulfilled": [
    ({ orderId }) =>
      admin(Effect.flatMap(orders, (all) => all.Release({ orderId }))).pipe(
        Effect.andThen(expecting("PAID", pay(orderId, "tok_ok", suspicious))),
        Effect.andThen(admin(Effect.flatMap(orders, (all) => all.Fulfil({ orderId }))))
      ),
    "FULFILLED",
    ["CAPTURED"],
    checkedOut("HELD", "tok_ok", suspicious)
  ],
  "is checked out, held and rejected": [
    ({ orderId }) => admin(Effect.flatMap(orders, (all) => all.Reject({ orderId }))),
    "CANCELED",
    [],
    checkedOut("HELD", "tok_ok", suspicious)
  ]
}

const expecting = <E, R>(outcome: string, paying: Effect.Effect<string, E, R>) =>
  Effect.map(paying, (came) => expect(came).toBe(outcome))

const shelf: ReadonlyArray<readonly [sku: string, priceMinor: number, currency: Currency]> = [
  ["MILK", 119, "USD"],
  ["OIL", 1_000_000_000, "USD"],
  ["SALT", 1, "USD"],
  ["RICE", 120, "JPY"],
  ["TEA", 7, "JPY"],
  ["DATES", 1_005, "KWD"],
  ["HONEY", 999_999_999, "KWD"]
]

const placed = new Map<string, Order>()

/** Orders of every story, in every currency, some of many lines, by people from several regions. */
const beginStories = Effect.gen(function* () {
  const catalogue = yield* CatalogueRpc
  const inventory = yield* InventoryRpc
  const products = yield* Effect.forEach(shelf, ([sku, priceMinor, currency]) =>
    admin(
      catalogue.AddProduct({ sku: Sku.make(sku), name: sku, description: "", category: "Food", priceMinor, currency })
    )
  )
  yield* Effect.forEach(products, ({ productId }) =>
    admin(inventory.Adjust({ productId, delta: 100_000, reason: "delivery" }))
  )
  const baskets: ReadonlyArray<Items> = (["USD", "JPY", "KWD"] as const).map((currency) =>
    products.flatMap(({ productId, currency: own }, index) =>
      own === currency ? [{ productId, qty: 1 + index * 13 }] : []
    )
  )
  const regions: ReadonlyArray<Region> = ["us", "eu", "apac", "in", "br"]
  const plots = Object.entries(stories).flatMap(([name, [story, , , begin = ordered]], nth) =>
    baskets.map((items, index) => ({
      name: `${name}/${index}`,
      begin,
      story,
      items,
      region: regions[(nth + index) % 5] ?? "us"
    }))
  )
  yield* Effect.forEach(
    plots,
    ({ name, begin, story, items, region }, nth) =>
      Effect.gen(function* () {
        const order = yield* begin(items)
        placed.set(name, order)
        yield* story(order)
      }).pipe(as(`USER-${nth % 4}`, "shopper", region)),
    { concurrency: 16, discard: true }
  )
  yield* settled
})

beforeAll(async () => {
  await Effect.gen(function* () {
    const { url } = yield* TestDatabase.fresh
    patientCircuits(folder.path)
    shop = yield* Layer.build(contextsOn(url, folder.path))
  }).pipe(
    Effect.provideService(ConfigProvider.ConfigProvider, impatient),
    Effect.provide(Logger.layer([])),
    Effect.withTracerEnabled(false),
    Scope.provide(scope),
    Effect.runPromise
  )
  await run(beginStories)
}, 60_000)

afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  folder.remove()
})

/** Values as they are compared: times as RFC 3339, the rest as it is. */
type Plain = Readonly<Record<string, unknown>>
const plain = (value: Order | Payment): Plain => ({
  ...value,
  createdAt: DateTime.formatIso(value.createdAt),
  updatedAt: DateTime.formatIso(value.updatedAt)
})

const decodeEvents = Schema.decodeUnknownEffect(Schema.Array(StoredEvent))

const eventsOf = Effect.fnUntraced(function* (schema: "orders" | "payments") {
  const sql = yield* SqlClient.SqlClient
  const events = yield* Effect.flatMap(
    sql`
      select position, event_id as "eventId", event_type as "eventType", aggregate_id as "aggregateId", version,
        occurred_at as "occurredAt", region, trace_parent as "traceParent", correlation_id as "correlationId", payload
      from ${sql(`${schema}.events`)} order by aggregate_id, version`,
    decodeEvents
  )
  return Map.groupBy(events, ({ aggregateId }) => aggregateId)
})

/** The orders as their rows have them. */
const orderRows = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const items = yield* sql<{ orderId: string; productId: string; qty: number; priceMinor: number }>`
    select order_id as "orderId", product_id as "productId", qty, price_minor as "priceMinor"
    from orders.order_items order by order_id, line`
  const itemsOf = Map.groupBy(items, ({ orderId }) => orderId)
  const rows = yield* sql<Plain & { orderId: string; createdAt: Date; updatedAt: Date }>`
    select order_id as "orderId", user_id as "userId", region, status, items_minor as "itemsMinor",
      discount_minor as "discountMinor", tax_minor as "taxMinor", shipping_minor as "shippingMinor",
      total_minor as "totalMinor", currency, reservation_id as "reservationId", payment_attempt_id as "paymentAttemptId",
      reservation_lost as "reservationLost", reviewed, version, created_at as "createdAt", updated_at as "updatedAt"
    from orders.orders`
  return new Map(
    rows.map((row): readonly [string, Plain] => [
      row.orderId,
      {
        ...row,
        createdAt: row.createdAt.toISOString(),
        updatedAt: row.updatedAt.toISOString(),
        items: (itemsOf.get(row.orderId) ?? []).map(({ productId, qty, priceMinor }) => ({
          productId,
          qty,
          priceMinor
        }))
      }
    ])
  )
})

/** The payments as their rows have them. */
const paymentRows = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<Plain & { attemptId: string; createdAt: Date; updatedAt: Date }>`
    select attempt_id as "attemptId", order_id as "orderId", user_id as "userId", amount_minor as "amountMinor", currency,
      status, reason, gateway, refunding_minor as "refundingMinor", refunded_minor as "refundedMinor", version,
      created_at as "createdAt", updated_at as "updatedAt"
    from payments.payments`
  return new Map(
    rows.map((row): readonly [string, Plain] => [
      row.attemptId,
      { ...row, createdAt: row.createdAt.toISOString(), updatedAt: row.updatedAt.toISOString() }
    ])
  )
})

/** What the events make, beside what the rows say: the two are to be the same. */
const rebuilt = Effect.gen(function* () {
  const rebuild = <E>(
    histories: ReadonlyMap<string, ReadonlyArray<typeof StoredEvent.Type>>,
    fold: (history: ReadonlyArray<typeof StoredEvent.Type>) => Effect.Effect<Order | Payment | undefined, E>
  ) =>
    Effect.map(
      Effect.forEach(histories, ([id, history]) =>
        Effect.map(fold(history), (value) => [id, value === undefined ? {} : plain(value)] as const)
      ),
      (entries) => new Map<string, Plain>(entries)
    )
  return {
    orders: { fromEvents: yield* rebuild(yield* eventsOf("orders"), OrderEvents.rebuild), asRows: yield* orderRows },
    payments: {
      fromEvents: yield* rebuild(yield* eventsOf("payments"), PaymentEvents.rebuild),
      asRows: yield* paymentRows
    }
  }
})

/** Ids whose row is not what its events make of it. */
const damaged = Effect.map(rebuilt, ({ orders, payments }) =>
  [orders, payments].flatMap(({ fromEvents, asRows }) =>
    [...new Set([...fromEvents.keys(), ...asRows.keys()])].filter(
      (id) => !Bun.deepEquals(fromEvents.get(id), asRows.get(id), true)
    )
  )
)

describe("an order", () => {
  for (const [name, [, status, payments]] of Object.entries(stories)) {
    test(`that ${name} comes to where it should`, () =>
      run(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          for (const index of [0, 1, 2]) {
            const orderId = placed.get(`${name}/${index}`)?.orderId ?? ""
            const rows = yield* sql<{ status: string; payments: ReadonlyArray<string> }>`
              select status, coalesce(
                (select jsonb_agg(p.status order by p.status) from payments.payments p where p.order_id = o.order_id), '[]'
              ) as payments from orders.orders o where order_id = ${orderId}`
            expect(rows).toEqual([{ status, payments }])
          }
        })
      ))
  }
})

describe("rebuilt from its events", () => {
  test("every order and every payment is its row, with all its values", () =>
    run(
      Effect.gen(function* () {
        const { orders, payments } = yield* rebuilt
        expect(orders.fromEvents.size).toBe(Object.keys(stories).length * 3)
        expect(payments.fromEvents.size).toBe(
          Object.values(stories).reduce((sum, [, , all]) => sum + all.length * 3, 0)
        )
        expect(Object.fromEntries(orders.fromEvents)).toEqual(Object.fromEntries(orders.asRows))
        expect(Object.fromEntries(payments.fromEvents)).toEqual(Object.fromEntries(payments.asRows))
        expect(yield* damaged).toEqual([])
      })
    ))

  test("a row began with its first event, changed last with its last, and counts them", () =>
    run(
      Effect.gen(function* () {
        const rows = { orders: yield* orderRows, payments: yield* paymentRows }
        for (const schema of ["orders", "payments"] as const) {
          for (const [id, events] of yield* eventsOf(schema)) {
            const [first, last] = [events[0], events.at(-1)]
            if (first === undefined || last === undefined) throw new Error("a history without events")
            expect(rows[schema].get(id)).toMatchObject({
              createdAt: DateTime.formatIso(first.occurredAt),
              updatedAt: DateTime.formatIso(last.occurredAt),
              version: events.length
            })
            // Money takes its time: what happened later says so.
            if (["PAID", "FULFILLED", "CAPTURED"].includes(String(rows[schema].get(id)?.["status"]))) {
              expect(last.occurredAt.epochMilliseconds).toBeGreaterThan(first.occurredAt.epochMilliseconds)
            }
          }
        }
      })
    ))

  test("an order is what its shopper was answered", () =>
    run(
      Effect.gen(function* () {
        const { orders } = yield* rebuilt
        for (const index of [0, 1, 2]) {
          const answer = placed.get(`is placed/${index}`)
          expect(answer === undefined ? undefined : plain(answer)).toEqual(orders.fromEvents.get(answer?.orderId ?? ""))
        }
      })
    ))

  const damages: ReadonlyArray<readonly [what: string, table: "orders" | "payments", statement: string]> = [
    ["another status", "orders", "update orders.orders set status = 'FULFILLED' where order_id = $1"],
    [
      "another total",
      "orders",
      "update orders.orders set total_minor = total_minor + 1, items_minor = items_minor + 1 where order_id = $1"
    ],
    [
      "an amount moved from one column to another",
      "orders",
      "update orders.orders set tax_minor = 1, items_minor = items_minor - 1 where order_id = $1"
    ],
    ["another owner", "orders", "update orders.orders set user_id = 'MALLORY' where order_id = $1"],
    [
      "another region",
      "orders",
      "update orders.orders set region = case region when 'us' then 'eu' else 'us' end where order_id = $1"
    ],
    ["another currency", "orders", "update orders.orders set currency = 'BRL' where order_id = $1"],
    ["a review that nobody made", "orders", "update orders.orders set reviewed = not reviewed where order_id = $1"],
    ["another version", "orders", "update orders.orders set version = version + 1 where order_id = $1"],
    [
      "a change a millisecond later",
      "orders",
      "update orders.orders set updated_at = updated_at + interval '1 millisecond' where order_id = $1"
    ],
    [
      "a payment that is not under way",
      "orders",
      "update orders.orders set payment_attempt_id = 'PAY-1' where order_id = $1"
    ],
    ["a line with one more", "orders", "update orders.order_items set qty = qty + 1 where order_id = $1 and line = 1"],
    [
      "a line with another price",
      "orders",
      "update orders.order_items set price_minor = price_minor + 1 where order_id = $1 and line = 1"
    ],
    ["a line less", "orders", "delete from orders.order_items where order_id = $1 and line = 1"],
    [
      "its first line last",
      "orders",
      "update orders.order_items set line = line + 10 where order_id = $1 and line = 1"
    ],
    ["another status", "payments", "update payments.payments set status = 'AUTHORISED' where attempt_id = $1"],
    [
      "another amount",
      "payments",
      "update payments.payments set amount_minor = amount_minor - 1 where attempt_id = $1"
    ],
    ["another gateway", "payments", "update payments.payments set gateway = 'nowhere' where attempt_id = $1"],
    [
      "an amount given back",
      "payments",
      "update payments.payments set refunded_minor = 1 where attempt_id = $1 and amount_minor > 0"
    ],
    ["another reason", "payments", "update payments.payments set reason = 'no reason' where attempt_id = $1"],
    ["another version", "payments", "update payments.payments set version = version - 1 where attempt_id = $1"],
    [
      "a beginning a millisecond earlier",
      "payments",
      "update payments.payments set created_at = created_at - interval '1 millisecond' where attempt_id = $1"
    ],
    ["no row at all", "payments", "delete from payments.payments where attempt_id = $1"],
    ["an event less", "payments", "delete from payments.events where aggregate_id = $1"]
  ]
  for (const [what, table, statement] of damages) {
    test(`a row of ${table} with ${what} is found, and only that`, () =>
      run(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const { orders, payments } = yield* rebuilt
          const paid = [...(table === "orders" ? orders : payments).asRows].filter(
            ([, row]) => row["status"] === (table === "orders" ? "PAID" : "CAPTURED")
          )
          const id = paid[0]?.[0] ?? ""
          // Looked for within a transaction that comes to nothing.
          const found = yield* Effect.andThen(sql.unsafe(statement, [id]), damaged).pipe(
            Effect.flatMap((ids) => Effect.fail({ _tag: "Found", ids } as const)),
            sql.withTransaction,
            Effect.catchTag("Found", ({ ids }) => Effect.succeed(ids))
          )
          expect(found).toEqual([id])
          expect(yield* damaged).toEqual([])
        })
      ))
  }
})
