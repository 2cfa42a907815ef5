import { Effect, Schema } from "effect"
import { SqlClient, type Statement } from "effect/sql"
import type { NewEvent } from "@merkato/domain/kernel/Event"
import * as Ids from "@merkato/domain/kernel/Ids"
import { Currency, Minor } from "@merkato/domain/kernel/Money"
import { Region } from "@merkato/domain/kernel/Region"
import { Order, OrderHistoryEntry, OrderStatus } from "@merkato/domain/orders/Order"
import { OrderCreated } from "@merkato/domain/orders/OrderEvents"
import { Line } from "@merkato/domain/pricing/Quote"
import { EventStore, type StampedEvent } from "@merkato/infra/events/EventStore"
import { stamp } from "@merkato/infra/events/Stamp"
import { Idempotency, type Keyed } from "@merkato/infra/idempotency/Idempotency"
import * as Combined from "@merkato/infra/postgres/Combined"
import { retryLostRace } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

const Row = Schema.Struct({
  orderId: Ids.OrderId,
  userId: Ids.UserId,
  region: Region,
  status: OrderStatus,
  items: Schema.Array(Line),
  itemsMinor: Minor,
  discountMinor: Minor,
  taxMinor: Minor,
  shippingMinor: Minor,
  totalMinor: Minor,
  currency: Currency,
  reservationId: Ids.ReservationId,
  paymentAttemptId: Schema.NullOr(Ids.AttemptId),
  reservationLost: Schema.Boolean,
  reviewed: Schema.Boolean,
  version: Schema.Int,
  createdAt: Schema.DateTimeUtcFromDate,
  updatedAt: Schema.DateTimeUtcFromDate
})
const decodeRows = Schema.decodeUnknownEffect(Schema.Array(Row))

const HistoryRow = Schema.Struct({
  version: Schema.Int,
  status: OrderStatus,
  event: Schema.String,
  reason: Schema.NullOr(Schema.String),
  occurredAt: Schema.DateTimeUtcFromDate
})
const decodeHistory = Schema.decodeUnknownEffect(Schema.Array(HistoryRow))

const Reason = Schema.Struct({ reason: Schema.String })
export const reasonOf = (event: NewEvent): string | null =>
  Schema.is(Reason)(event.payload) ? event.payload.reason : null

/** A new order, its first event, and the answer to be kept under the request's key. */
export interface Placing {
  readonly order: Order
  readonly created: StampedEvent
  readonly request: Keyed
  readonly answer: unknown
}

/** The SQL of orders. */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const events = yield* EventStore
  const idempotency = yield* Idempotency

  const fields = sql.literal(
    `o.order_id as "orderId", o.user_id as "userId", o.region, o.status, o.items_minor as "itemsMinor",
     o.discount_minor as "discountMinor", o.tax_minor as "taxMinor", o.shipping_minor as "shippingMinor",
     o.total_minor as "totalMinor", o.currency, o.reservation_id as "reservationId",
     o.payment_attempt_id as "paymentAttemptId", o.reservation_lost as "reservationLost", o.reviewed, o.version,
     o.created_at as "createdAt", o.updated_at as "updatedAt",
     (select jsonb_agg(jsonb_build_object('productId', product_id, 'qty', qty, 'priceMinor', price_minor) order by line)
      from orders.order_items i where i.order_id = o.order_id) as items`
  )
  const toOrders = (rows: ReadonlyArray<unknown>) =>
    Effect.map(Effect.orDie(decodeRows(rows)), (orders) => orders.map((order) => new Order(order)))

  /**
   * Writes new orders, their first events and the answers under their keys as one statement; for each, whether it was
   * written: not when its key has an answer already. No two may have the same key.
   */
  const placeAll = Tracing.fn("OrdersStore.placeAll")(function* (
    placings: ReadonlyArray<Placing>,
    lockTimeoutMs: number
  ) {
    const each = <A>(of: (placing: Placing) => A) => placings.map(of)
    const lines = placings.flatMap(({ order }) =>
      order.items.map((item, index) => ({ ...item, orderId: order.orderId, line: index + 1 }))
    )
    const rows = yield* sql<{ orderId: string }>`
      with ${yield* idempotency.keeping(placings, lockTimeoutMs)}, placed as (
        insert into orders.orders (order_id, user_id, region, status, items_minor, discount_minor, tax_minor,
          shipping_minor, total_minor, currency, reservation_id, reservation_lost, version, created_at, updated_at)
        select order_id, user_id, region, status, items_minor, discount_minor, tax_minor, shipping_minor, total_minor,
          currency, reservation_id, false, 1, at, at
        from kept join unnest(
          ${each(({ request }) => request.caller)}::text[],
          ${each(({ request }) => request.operation)}::text[],
          ${each(({ request }) => request.key)}::text[],
          ${each(({ order }) => order.orderId)}::text[],
          ${each(({ order }) => order.userId)}::text[],
          ${each(({ order }) => order.region)}::text[],
          ${each(({ order }) => order.status)}::text[],
          ${each(({ order }) => String(order.itemsMinor))}::text[]::bigint[],
          ${each(({ order }) => String(order.discountMinor))}::text[]::bigint[],
          ${each(({ order }) => String(order.taxMinor))}::text[]::bigint[],
          ${each(({ order }) => String(order.shippingMinor))}::text[]::bigint[],
          ${each(({ order }) => String(order.totalMinor))}::text[]::bigint[],
          ${each(({ order }) => order.currency)}::text[],
          ${each(({ order }) => order.reservationId)}::text[],
          ${each(({ created }) => created.stamp.occurredAt.toISOString())}::text[]::timestamptz[]
        ) as o (caller, operation, key, order_id, user_id, region, status, items_minor, discount_minor, tax_minor,
          shipping_minor, total_minor, currency, reservation_id, at) using (caller, operation, key)
        order by order_id
        returning order_id, status, created_at
      ), item_rows as (
        insert into orders.order_items (order_id, line, product_id, qty, price_minor)
        select order_id, line, product_id, qty, price_minor from placed join unnest(
          ${lines.map(({ orderId }) => orderId)}::text[],
          ${lines.map(({ line }) => line)}::int[],
          ${lines.map(({ productId }) => productId)}::text[],
          ${lines.map(({ qty }) => qty)}::int[],
          ${lines.map(({ priceMinor }) => String(priceMinor))}::text[]::bigint[]
        ) as i (order_id, line, product_id, qty, price_minor) using (order_id)
      ), history_rows as (
        insert into orders.order_status_history (order_id, version, status, event, occurred_at)
        select order_id, 1, status, ${OrderCreated.type}, created_at from placed
      ), ${events.appendingEach(
        each(({ created }) => created),
        sql`(select order_id as id from placed) as placed`
      )}
      select order_id as "orderId" from placed`
    const placed = new Set(rows.map(({ orderId }) => orderId))
    if (placed.size > 0) yield* events.committed
    return each(({ order }) => placed.has(order.orderId))
  })

  const offer = yield* Combined.make({
    name: "OrdersStore.place together",
    together: (placings: ReadonlyArray<Placing>, lockTimeoutMs) =>
      placeAll(placings, lockTimeoutMs).pipe(retryLostRace),
    keyOf: ({ request: { caller, operation, key } }) => JSON.stringify([caller, operation, key])
  })

  /** Writes a new order with those of the same moment; false when its key has an answer already. */
  const place = Tracing.fn("OrdersStore.place")(function* (
    order: Order,
    event: NewEvent,
    request: Keyed,
    answer: unknown
  ) {
    const occurredAt = new Date(order.createdAt.epochMilliseconds)
    const created = { event, eventId: yield* Ids.next, stamp: { ...(yield* stamp), occurredAt } }
    return yield* offer({ order, created, request, answer })
  })

  const select = (where: Statement.Fragment, rest: Statement.Fragment) =>
    Effect.flatMap(sql`select ${fields} from orders.orders o where ${where} ${rest}`, toOrders)

  const find = Tracing.fn("OrdersStore.find")(function* (orderId: string) {
    return (yield* select(sql`o.order_id = ${orderId}`, sql.literal("")))[0]
  })

  /** Reads an order and keeps others from changing it until the transaction ends. */
  const lock = Tracing.fn("OrdersStore.lock")(function* (orderId: string) {
    return (yield* select(sql`o.order_id = ${orderId}`, sql`for update of o`))[0]
  })

  /** Keeps others from changing orders until the transaction ends; locked in the order of their ids, as moves of processes are. */
  const lockAll = Tracing.fn("OrdersStore.lockAll")(function* (orderIds: ReadonlyArray<string>) {
    yield* sql`
      select from (select distinct order_id from unnest(${orderIds}::text[]) as w (order_id) order by order_id) wanted
      cross join lateral (select from orders.orders where order_id = wanted.order_id offset 0 for update) o`
  })

  /** A user's orders, newest first; everybody's when no user is named. */
  const list = Tracing.fn("OrdersStore.list")(function* (
    userId: string | undefined,
    after: string | undefined,
    limit: number
  ) {
    const clauses = [
      ...(userId === undefined ? [] : [sql`o.user_id = ${userId}`]),
      ...(after === undefined ? [] : [sql`o.order_id < ${after}`]),
      sql`true`
    ]
    return yield* select(sql.and(clauses), sql`order by o.order_id desc limit ${limit}`)
  })

  /** Writes what events have made of a locked order, with its history and the events themselves. */
  const save = Tracing.fn("OrdersStore.save")(function* (
    steps: ReadonlyArray<{ readonly order: Order; readonly event: NewEvent }>
  ) {
    const last = steps.at(-1)
    if (last === undefined) return
    const { order } = last
    const at = new Date(order.updatedAt.epochMilliseconds)
    yield* sql`
      with changed as (
        update orders.orders set status = ${order.status}, payment_attempt_id = ${order.paymentAttemptId},
          reservation_lost = ${order.reservationLost}, reviewed = ${order.reviewed}, version = ${order.version}, updated_at = ${at}
        where order_id = ${order.orderId}
      ), history_rows as (
        insert into orders.order_status_history (order_id, version, status, event, reason, occurred_at)
        select ${order.orderId}, version, status, event, nullif(reason, ''), ${at} from unnest(
          ${steps.map((step) => step.order.version)}::int[],
          ${steps.map((step) => step.order.status)}::text[],
          ${steps.map((step) => step.event.eventType)}::text[],
          ${steps.map((step) => reasonOf(step.event) ?? "")}::text[]
        ) as h (version, status, event, reason)
      ), ${yield* events.appending(
        steps.map((step) => step.event),
        at
      )}
      select 1`
    yield* sql.afterCommit(events.committed)
  })

  const historyOf = Tracing.fn("OrdersStore.historyOf")(function* (orderId: string) {
    const rows = yield* sql`
      select version, status, event, reason, occurred_at as "occurredAt" from orders.order_status_history
      where order_id = ${orderId} order by version`
    return (yield* Effect.orDie(decodeHistory(rows))).map((entry) => new OrderHistoryEntry(entry))
  })

  return { place, find, lock, lockAll, list, save, historyOf }
})
