import { Effect, Schema } from "effect"
import { SqlClient, type Statement } from "effect/sql"
import type { NewEvent } from "@merkato/domain/kernel/Event"
import * as Ids from "@merkato/domain/kernel/Ids"
import { Currency, Minor } from "@merkato/domain/kernel/Money"
import { Region } from "@merkato/domain/kernel/Region"
import { Order, OrderHistoryEntry, OrderStatus } from "@merkato/domain/orders/Order"
import { Line } from "@merkato/domain/pricing/Quote"
import { EventStore } from "@merkato/infra/events/EventStore"
import { Idempotency, type Keyed } from "@merkato/infra/idempotency/Idempotency"

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
const reasonOf = (event: NewEvent): string | null => (Schema.is(Reason)(event.payload) ? event.payload.reason : null)

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
   * Writes a new order, its first event and the answer under its key as one statement; false when the key has an answer
   * already, and then nothing was written.
   */
  const place = Effect.fn("OrdersStore.place")(function* (
    order: Order,
    event: NewEvent,
    request: Keyed,
    answer: unknown
  ) {
    const at = new Date(order.createdAt.epochMilliseconds)
    const placing = sql`exists (select from kept)`
    const rows = yield* sql`
      with ${yield* idempotency.keeping(request, answer)}, placed as (
        insert into orders.orders (order_id, user_id, region, status, items_minor, discount_minor, tax_minor,
          shipping_minor, total_minor, currency, reservation_id, reservation_lost, version, created_at, updated_at)
        select ${order.orderId}, ${order.userId}, ${order.region}, ${order.status}, ${order.itemsMinor}::bigint,
          ${order.discountMinor}::bigint, ${order.taxMinor}::bigint, ${order.shippingMinor}::bigint,
          ${order.totalMinor}::bigint, ${order.currency}, ${order.reservationId}, false, 1, ${at}, ${at}
        from kept
        returning order_id
      ), item_rows as (
        insert into orders.order_items (order_id, line, product_id, qty, price_minor)
        select placed.order_id, line, product_id, qty, price_minor from placed, unnest(
          ${order.items.map((item) => item.productId)}::text[],
          ${order.items.map((item) => item.qty)}::int[],
          ${order.items.map((item) => String(item.priceMinor))}::text[]::bigint[]
        ) with ordinality as i (product_id, qty, price_minor, line)
      ), history_rows as (
        insert into orders.order_status_history (order_id, version, status, event, occurred_at)
        select order_id, 1, ${order.status}, ${event.eventType}, ${at} from placed
      ), ${yield* events.appending([event], at, placing)}
      select order_id from placed`
    if (rows.length > 0) yield* events.committed
    return rows.length > 0
  })

  /** Writes the row of a new order as it is after its first events, which `save` stores; both in one transaction. */
  const insert = Effect.fn("OrdersStore.insert")(function* (order: Order) {
    const at = new Date(order.createdAt.epochMilliseconds)
    yield* sql`
      with placed as (
        insert into orders.orders (order_id, user_id, region, status, items_minor, discount_minor, tax_minor,
          shipping_minor, total_minor, currency, reservation_id, reservation_lost, version, created_at, updated_at)
        values (${order.orderId}, ${order.userId}, ${order.region}, ${order.status}, ${order.itemsMinor}::bigint,
          ${order.discountMinor}::bigint, ${order.taxMinor}::bigint, ${order.shippingMinor}::bigint,
          ${order.totalMinor}::bigint, ${order.currency}, ${order.reservationId}, false, 0, ${at}, ${at})
        returning order_id
      )
      insert into orders.order_items (order_id, line, product_id, qty, price_minor)
      select placed.order_id, line, product_id, qty, price_minor from placed, unnest(
        ${order.items.map((item) => item.productId)}::text[],
        ${order.items.map((item) => item.qty)}::int[],
        ${order.items.map((item) => String(item.priceMinor))}::text[]::bigint[]
      ) with ordinality as i (product_id, qty, price_minor, line)`
  })

  const select = (where: Statement.Fragment, rest: Statement.Fragment) =>
    Effect.flatMap(sql`select ${fields} from orders.orders o where ${where} ${rest}`, toOrders)

  const find = Effect.fn("OrdersStore.find")(function* (orderId: string) {
    return (yield* select(sql`o.order_id = ${orderId}`, sql.literal("")))[0]
  })

  /** Reads an order and keeps others from changing it until the transaction ends. */
  const lock = Effect.fn("OrdersStore.lock")(function* (orderId: string) {
    return (yield* select(sql`o.order_id = ${orderId}`, sql`for update of o`))[0]
  })

  /** A user's orders, newest first; everybody's when no user is named. */
  const list = Effect.fn("OrdersStore.list")(function* (
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
  const save = Effect.fn("OrdersStore.save")(function* (
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

  const historyOf = Effect.fn("OrdersStore.historyOf")(function* (orderId: string) {
    const rows = yield* sql`
      select version, status, event, reason, occurred_at as "occurredAt" from orders.order_status_history
      where order_id = ${orderId} order by version`
    return (yield* Effect.orDie(decodeHistory(rows))).map((entry) => new OrderHistoryEntry(entry))
  })

  return { place, insert, find, lock, list, save, historyOf }
})
