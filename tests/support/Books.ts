import { expect } from "bun:test"
import { Clock, Effect } from "effect"
import { SqlClient, type SqlError, type Statement } from "effect/sql"
import { StockAdjusted, StockCommitted, StockReleased, StockReserved } from "@merkato/domain/inventory/InventoryEvents"
import * as OrderEvents from "@merkato/domain/orders/OrderEvents"
import * as PaymentEvents from "@merkato/domain/payments/PaymentEvents"
import { gatewayRules } from "./GatewayBooks.ts"

/** Who acts on which topic: what they have not read yet is still under way. */
const readers = {
  groups: [
    "inventory.release-canceled",
    "notifications.tell-shoppers",
    "cart.empty-ordered",
    "orders.end-expired",
    "orders.orders_by_customer",
    "payments.daily_revenue",
    "analytics.revenue-per-minute"
  ],
  topics: [
    "order.events",
    "order.events",
    "order.events",
    "inventory.events",
    "order.events",
    "payment.events",
    "payment.events"
  ]
}

/** What publishes, and where. */
const publishers = [
  ["orders", "order.events"],
  ["payments", "payment.events"],
  ["inventory", "inventory.events"]
] as const

/** How long work that nobody waits for may go on: more than the lease of an order process, which a killed owner leaves. */
const settlesWithinMs = 45_000

/** How much is under way, by what it is. */
const underWay = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const now = new Date(yield* Clock.currentTimeMillis)
  const rows = yield* sql<Record<string, number>>`
    select (select count(*) from orders.sagas where step <> 'done') as sagas,
      (select count(*) from orders.idempotency where answer is null and lease_until > ${now}) as claims,
      (select count(*) from inventory.reservations where status = 'held' and expires_at <= ${now}) as due,
      (select count(*) from orders.outbox) + (select count(*) from payments.outbox)
        + (select count(*) from inventory.outbox) + (select count(*) from catalogue.outbox)
        + (select count(*) from notifications.outbox) + (select count(*) from cart.outbox)
        + (select count(*) from risk.outbox) + (select count(*) from identity.outbox) as unpublished,
      (select coalesce(sum(p.next_offset - coalesce(g.next_offset, 0)), 0)
        from unnest(${readers.groups}::text[], ${readers.topics}::text[]) as r (consumer_group, topic)
        join bus.partitions p using (topic)
        left join bus.consumer_groups g using (consumer_group, topic, partition)) as unread`
  return Object.entries(rows[0] ?? {}).filter(([, count]) => Number(count) > 0)
})

/** Waits until every process has ended, every event is published and everybody has acted on it. */
export const settled = Effect.gen(function* () {
  const deadline = (yield* Clock.currentTimeMillis) + settlesWithinMs
  for (;;) {
    const left = yield* underWay
    if (left.length === 0) return
    if ((yield* Clock.currentTimeMillis) > deadline) {
      return yield* Effect.die(new Error(`The shop did not come to rest: ${JSON.stringify(Object.fromEntries(left))}`))
    }
    yield* Effect.sleep("25 millis")
  }
})

type Rule = readonly [what: string, violations: Statement.Statement<object>]

/** Topics that no longer begin with their first event, because what was older than a week went; by partition. */
export const forgetting = (sql: SqlClient.SqlClient) => sql`
  select p.topic, p.partition from bus.partitions p
  where p.next_offset > 0 and not exists (
    select from bus.log l where l.topic = p.topic and l.partition = p.partition and l."offset" = 0)`

/** That an event `e` of a topic has to be on the bus: it always has, unless the bus forgets, and it is nearly a week old. */
export const remembered = (sql: SqlClient.SqlClient, topic: string) => sql`(
  ${topic} not in (select topic from (${forgetting(sql)}) as f)
  or (e.occurred_at < (select max(published_at) from bus.log) - interval '6 days') is not true)`

/** That what happened then is so old that it may be forgotten, `days` before the newest order. */
export const long = (sql: SqlClient.SqlClient, at: string, days: number) =>
  sql`(${sql(at)} < (select max(created_at) from orders.orders) - ${days}::int * interval '1 day') is true`

/** What gateways booked. Of a history they have the last half year; for what is older stands what payments say. */
export const gatewayBook = (sql: SqlClient.SqlClient) => sql`(
  select attempt_id, order_id, amount, status from psp.attempts
  union all
  select attempt_id, order_id, amount_minor / 100.0, lower(status) from payments.payments p
  where ${long(sql, "p.created_at", 179)} and not exists (select from psp.attempts a where a.attempt_id = p.attempt_id)
) as book`

/** Rules about goods: what was delivered is on the shelf, held for somebody, or sold; and the events tell it so. */
const goods = (sql: SqlClient.SqlClient): ReadonlyArray<Rule> => [
  [
    "received = on hand + sold, and reserved = held",
    sql`
      with received as (
        select product_id, sum(delta) as units from inventory.inventory_adjustment group by product_id
      ), sold as (
        select product_id, sum(qty) as units from orders.order_items join orders.orders using (order_id)
        where status in ('PAID', 'FULFILLED') group by product_id
      ), held as (
        select product_id, sum(qty) as units
        from inventory.reservations, unnest(product_ids, quantities) as l (product_id, qty)
        where status = 'held' group by product_id
      )
      select product_id, on_hand, reserved, received.units as received, sold.units as sold, held.units as held
      from inventory.inventory_stock
      left join received using (product_id) left join sold using (product_id) left join held using (product_id)
      where on_hand + coalesce(sold.units, 0) <> coalesce(received.units, 0) or reserved <> coalesce(held.units, 0)
        or on_hand < reserved or reserved < 0`
  ],
  [
    "an order has one reservation that says what the order says, and no other reservation holds anything",
    sql`
      select r.reservation_id, r.order_id as reserved_for, r.status as reservation, o.order_id, o.status as "order"
      from inventory.reservations r full join orders.orders o
        on o.reservation_id = r.reservation_id and o.order_id = r.order_id
      where case
        when o.order_id is null then r.status in ('held', 'committed')
        when r.reservation_id is null then true
        when o.status in ('PENDING', 'HELD') then r.status <> 'held'
        when o.status in ('PAID', 'FULFILLED') then r.status <> 'committed'
        else r.status not in ('released', 'expired')
      end`
  ],
  [
    "a reservation is for what was ordered",
    sql`
      select o.order_id from orders.orders o join inventory.reservations r using (reservation_id)
      where (select jsonb_object_agg(product_id, qty) from orders.order_items i where i.order_id = o.order_id)
        <> (select jsonb_object_agg(product_id, qty) from unnest(r.product_ids, r.quantities) as l (product_id, qty))`
  ],
  [
    "each stock event follows from the one before it, without a gap",
    sql`
      with told as (
        select aggregate_id as product_id, version, event_type,
          row_number() over mine as nth, (payload ->> 'version')::int as payload_version,
          (payload ->> 'onHand')::int as on_hand, (payload ->> 'reserved')::int as reserved,
          (payload ->> 'available')::int as available,
          (payload ->> 'qty')::int as qty, (payload ->> 'delta')::int as delta,
          lag((payload ->> 'onHand')::int, 1, 0) over mine as before_on_hand,
          lag((payload ->> 'reserved')::int, 1, 0) over mine as before_reserved,
          lag(position, 1, 0) over mine as before_position, position
        from inventory.events where event_type in ${sql.in(stockEvents)}
        window mine as (partition by aggregate_id order by version)
      )
      select * from told
      where version <> nth or payload_version <> version or available <> on_hand - reserved or available < 0
        or position <= before_position
        or on_hand <> before_on_hand + case event_type
          when ${StockAdjusted.type} then delta when ${StockCommitted.type} then -qty else 0 end
        or reserved <> before_reserved + case event_type
          when ${StockReserved.type} then qty when ${StockAdjusted.type} then 0 else -qty end`
  ],
  [
    "the last stock event tells what the shelf holds",
    sql`
      select s.product_id, s.on_hand, s.reserved, s.version, last.payload
      from inventory.inventory_stock s left join lateral (
        select version, payload from inventory.events where aggregate_id = s.product_id order by version desc limit 1
      ) as last on true
      where last.version is distinct from s.version or (last.payload ->> 'onHand')::int is distinct from s.on_hand
        or (last.payload ->> 'reserved')::int is distinct from s.reserved`
  ]
]

const stockEvents = [StockAdjusted.type, StockReserved.type, StockReleased.type, StockCommitted.type]

/** Rules about money: taken once for what was sold, for nothing else; our books and the gateway's say the same. */
const money = (sql: SqlClient.SqlClient): ReadonlyArray<Rule> => [
  [
    "every booking sums to zero",
    sql`select booking_id, sum(amount_minor) from payments.ledger group by booking_id, currency having sum(amount_minor) <> 0`
  ],
  [
    "a sold order was charged once, another one never: at the gateway, in payments and in the ledger",
    sql`
      with charged as (
        select order_id, count(*) as times, sum(amount * 100) as minor from ${gatewayBook(sql)} where status = 'captured' group by order_id
      ), captured as (
        select order_id, count(*) as times, sum(amount_minor) as minor from payments.payments where status = 'CAPTURED' group by order_id
      ), booked as (
        select order_id, count(distinct booking_id) as times, sum(amount_minor) as minor from payments.ledger
        where account = 'psp_receivable' group by order_id
      )
      select order_id, o.status, charged.times as charged, captured.times as captured, booked.times as booked
      from orders.orders o full join charged using (order_id) full join captured using (order_id) full join booked using (order_id)
      where case when o.status in ('PAID', 'FULFILLED') then
          (charged.times, captured.times, booked.times, charged.minor, captured.minor, booked.minor)
            is distinct from (1, 1, 1, o.total_minor, o.total_minor, o.total_minor)
        else charged.times is not null or captured.times is not null or booked.times is not null end`
  ],
  [
    "the gateway's book says of each attempt what payments say",
    sql`
      with told as (
        -- Called off at the one gateway and charged at the other, it is charged.
        select distinct on (attempt_id) attempt_id, status from ${gatewayBook(sql)}
        order by attempt_id, array_position(array['captured', 'authorised', 'declined', 'voided'], status)
      )
      select attempt_id, a.status as gateway, p.status as payments
      from told a full join payments.payments p using (attempt_id)
      where upper(a.status) is distinct from p.status
        -- Begun, and no gateway was to be reached: it never heard of it.
        and not (a.attempt_id is null and p.status in ('INITIATED', 'VOIDED'))`
  ],
  [
    "no attempt holds or takes money at two gateways",
    sql`
      select attempt_id, string_agg(gateway || ' ' || status, ', ') as at from psp.attempts
      where status in ('authorised', 'captured') group by attempt_id having count(*) > 1`
  ],
  ...gatewayRules(sql),
  ["no money is held for nobody", sql`select attempt_id, status from psp.attempts where status = 'authorised'`]
]

/** Rules about what is told: an order's events are what its state implies, and reach everybody once. */
const story = (sql: SqlClient.SqlClient): ReadonlyArray<Rule> => [
  [
    "an order's events are what its status implies",
    sql`
      with told as (
        select aggregate_id as order_id, count(*) as events, max(version) as version, string_agg(case event_type
          when ${OrderEvents.OrderCreated.type} then 'N' when ${OrderEvents.OrderPaymentStarted.type} then 'S'
          when ${OrderEvents.OrderPaymentFailed.type} then 'F' when ${OrderEvents.OrderReservationLost.type} then 'L'
          when ${OrderEvents.OrderPaid.type} then 'P' when ${OrderEvents.OrderCanceled.type} then 'X'
          when ${OrderEvents.OrderFulfilled.type} then 'D' when ${OrderEvents.OrderHeld.type} then 'H'
          when ${OrderEvents.OrderReleased.type} then 'R' else '?' end, '' order by version) as line
        from orders.events group by aggregate_id
      )
      select order_id, o.status, o.version, o.payment_attempt_id, line
      from orders.orders o full join told using (order_id)
      where o.order_id is null or line is null or events <> o.version or told.version <> o.version
        or o.payment_attempt_id is not null
        -- Held once at most: as a checkout places it, or as it is about to be paid.
        or line !~ replace(case o.status when 'PENDING' then '^PENDING$' when 'PAID' then '^PENDINGSP$'
          when 'FULFILLED' then '^PENDINGSPD$' when 'HELD' then '^N(H|(SF)*SH)$'
          when 'CANCELED' then '^(PENDING(SLF)?|N(H|(SF)*SH))X$' else '^$' end, 'PENDING', 'N(HR|(SF)*SHR)?(SF)*')`
  ],
  [
    "an order's history has a line for each of its events",
    sql`
      select order_id, o.version, count(h.version) from orders.orders o left join orders.order_status_history h using (order_id)
      group by order_id, o.version having count(h.version) <> o.version`
  ],
  [
    "a payment's events are what its status implies",
    sql`
      with told as (
        select aggregate_id as attempt_id, string_agg(case event_type
          when ${PaymentEvents.PaymentInitiated.type} then 'I' when ${PaymentEvents.PaymentRerouted.type} then 'R' when ${PaymentEvents.PaymentAuthorised.type} then 'A'
          when ${PaymentEvents.PaymentCaptured.type} then 'C' when ${PaymentEvents.PaymentWasDeclined.type} then 'D'
          when ${PaymentEvents.PaymentWasVoided.type} then 'V' else '?' end, '' order by version) as line
        from payments.events group by aggregate_id
      )
      select attempt_id, status, line from payments.payments full join told using (attempt_id)
      where status is null or line is null or line !~ case status when 'INITIATED' then '^IR*$' when 'AUTHORISED' then '^IR*A$'
        when 'CAPTURED' then '^IR*AC' when 'DECLINED' then '^IR*D$' else '^IR*A?V$' end`
  ],
  ...publishers.map(
    ([schema, topic]): Rule => [
      // A relay that dies between publishing and deleting publishes again; its consumers see to it that it does not matter.
      `every event of ${schema} is on the bus`,
      sql`
      select event_id, event_type from ${sql(`${schema}.events`)} e
      where not exists (select from bus.log l where l.topic = ${topic} and l.event_id = e.event_id)
        and ${remembered(sql, topic)}`
    ]
  ),
  ["nothing went to the dead letters", sql`select topic, envelope, failure from bus.log where topic like '%.dlq'`],
  [
    "shoppers are told once of each order placed, paid, held, released and canceled",
    sql`
      with due as (
        select order_id, user_id, created_at, 'order.created' as kind from orders.orders
        union all select order_id, user_id, created_at, 'order.paid' from orders.orders where status in ('PAID', 'FULFILLED')
        union all select order_id, user_id, created_at, 'order.canceled' from orders.orders where status = 'CANCELED'
        union all select order_id, user_id, created_at, 'order.fulfilled' from orders.orders where status = 'FULFILLED'
        union all select aggregate_id, payload ->> 'userId', occurred_at, 'order.held' from orders.events
          where event_type = ${OrderEvents.OrderHeld.type}
        union all select order_id, user_id, created_at, 'order.released' from orders.orders where reviewed
      ), told as (
        select order_id, user_id, kind, count(*) as times from notifications.notifications group by 1, 2, 3
      )
      select order_id, kind, coalesce(times, 0) as times from due full join told using (order_id, user_id, kind)
      where (times is distinct from 1 or due.kind is null) and not (times is null and ${long(sql, "due.created_at", 88)})`
  ],
  [
    "a process that ended keeps no payment token, and one that came to an order left it there",
    sql`
      select saga_id, kind, outcome from orders.sagas s left join orders.orders o using (order_id)
      where step = 'done' and (work ->> 'paymentToken' is not null or outcome is null
        or (o.order_id is null and outcome in ('paid', 'held', 'unavailable', 'payment_declined')))`
  ],
  [
    "an order that was answered for exists, and a request that ended has its answer",
    sql`
      select operation, key, answer from orders.idempotency i where answer is null or answer ->> '_tag' = 'Done'
        and not exists (select from orders.orders where order_id = i.answer -> 'value' ->> 'orderId')`
  ]
]

/** Rules about read models, which are built of events alone: they say what the tables say that they never saw. */
const views = (sql: SqlClient.SqlClient): ReadonlyArray<Rule> => [
  [
    "a customer's list of orders says what the orders say",
    sql`
      select order_id, o.status, l.status as "inList", o.version, l.version as "versionInList"
      from orders.orders o full join orders.orders_by_customer l using (order_id)
      where (o.user_id, o.region, o.status, o.total_minor, o.currency, date_trunc('milliseconds', o.created_at),
          (select count(*) from orders.order_items i where i.order_id = o.order_id))
        is distinct from (l.user_id, l.region, l.status, l.total_minor, l.currency, l.placed_at, l.items::bigint)`
  ],
  [
    "revenue is what was taken, less what was given back",
    sql`
      with taken as (
        select attempt_id, '' as entry, amount_minor, currency, status = 'CAPTURED' as booked from payments.payments
        union all
        select attempt_id, refund_id, amount_minor, currency, true from payments.refunds where status = 'REFUNDED'
      )
      select attempt_id, entry, t.amount_minor, t.booked, r.amount_minor as "revenue", r.booked_at
      from taken t full join payments.daily_revenue r using (attempt_id, entry)
      where (t.amount_minor, t.currency, t.booked) is distinct from (r.amount_minor, r.currency, r.booked_at is not null)
        or (entry = '') <> (r.region is not null)`
  ],
  [
    "minutes brought what was taken and given back in them, each once",
    // Of six days: what is older, the inbox has forgotten.
    sql`
      with since as (
        select date_trunc('minute', max(received_at)) - interval '6 days' as at from analytics.inbox
      ), moved as (
        select e.occurred_at, p.currency, p.amount_minor as revenue, 0 as refund
        from payments.events e join analytics.inbox i on i.event_id = e.event_id
        join payments.payments p on p.attempt_id = e.aggregate_id
        where e.event_type = ${PaymentEvents.PaymentCaptured.type}
        union all
        select e.occurred_at, r.currency, 0, r.amount_minor
        from payments.events e join analytics.inbox i on i.event_id = e.event_id
        join payments.refunds r on r.refund_id = e.payload ->> 'refundId'
        where e.event_type = ${PaymentEvents.RefundCompleted.type}
      ), told as (
        select date_trunc('minute', occurred_at) as minute, currency, count(*) as movements, sum(revenue) as revenue,
          sum(refund) as refund
        from moved where occurred_at >= (select at from since) group by 1, 2
      ), kept as (
        select * from analytics.revenue_minutes where minute >= (select at from since)
      )
      select minute, currency, told.movements, told.revenue, told.refund, m.revenue_minor, m.refunds_minor
      from told full join kept m using (minute, currency)
      where (told.movements, told.revenue, told.refund) is distinct from
        ((m.payments + m.refunds + m.late_payments + m.late_refunds)::bigint,
          (m.revenue_minor + m.late_revenue_minor)::numeric, (m.refunds_minor + m.late_refunds_minor)::numeric)`
  ]
]

/** What is wrong with the shop's books at rest, in words. */
export const discrepancies: Effect.Effect<ReadonlyArray<string>, SqlError.SqlError, SqlClient.SqlClient> = Effect.gen(
  function* () {
    const sql = yield* SqlClient.SqlClient
    const found: Array<string> = []
    for (const [what, violations] of [...goods(sql), ...money(sql), ...story(sql), ...views(sql)]) {
      const rows = yield* violations
      if (rows.length > 0) found.push(`not so: ${what} (${rows.length}): ${JSON.stringify(rows.slice(0, 3))}`)
    }
    return found
  }
)

/** Waits until the shop is at rest and audits its goods, its money and what it told. */
export const booksBalance = Effect.gen(function* () {
  yield* settled
  expect(yield* discrepancies).toEqual([])
})
