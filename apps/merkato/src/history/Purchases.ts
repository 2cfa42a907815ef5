/**
 * Orders with all that follows from them, as if each had been placed, paid and sent: or declined and given up, or canceled.
 * A batch is one transaction, in which everything adds up.
 */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { StockAdjusted, StockCommitted, StockReleased, StockReserved } from "@merkato/domain/inventory/InventoryEvents"
import { defaultWarehouse } from "@merkato/domain/inventory/Stock"
import { dayMs } from "@merkato/domain/kernel/Day"
import * as OrderEvents from "@merkato/domain/orders/OrderEvents"
import * as PaymentEvents from "@merkato/domain/payments/PaymentEvents"
import { oldMinutes } from "@merkato/services/analytics/RevenuePerMinute"
import { endedProcesses } from "@merkato/services/orders/SagaStore"
import { oldNews } from "@merkato/services/notifications/Notifications"
import { supplier } from "./Goods.ts"
import { fromTheFirstDay } from "./People.ts"
import { type Batch, lanes, type Plan } from "./Size.ts"

/** Of a hundred orders so many are canceled by their customers, and so many after that are declined and given up. */
const canceled = 0.04
const declined = 0.03

const mostLines = 2
const refusal = "the bank refused"

/** How long answers to requests are known, and what was thought of attempts to pay. */
const answersKeptMs = dayMs
const assessmentsKeptMs = 90 * dayMs

/** How long shoppers are told of an order, and its process is known: as the contexts forget them unless told otherwise. */
const notificationsKeptMs = oldNews.days * dayMs
const processesKeptMs = endedProcesses.days * dayMs
const minutesKeptMs = oldMinutes.days * dayMs

/**
 * The built-in gateways play a company of its own, whose books are no part of a shop's past; here are those of the last half
 * year, which a refund may still be asked for.
 */
const gatewayBooksKeptMs = 180 * dayMs

/** Who buys what, when, and how it ended. Few things are bought often. */
const decide = Effect.fnUntraced(function* (plan: Plan, lane: number, { first, beyond }: Batch) {
  const sql = yield* SqlClient.SqlClient
  const spanMs = plan.ends.getTime() - plan.begins.getTime() - 10 * 60_000
  yield* sql`
    create temp table buyers on commit drop as
    select nth as n, c.user_id, at, fate, 'ORDER-' || history.id(at) as order_id, fate = 'paid' as paid,
      fate = 'paid' and at + handled < ${plan.ends} as fulfilled, at + handled as fulfilled_at
    from generate_series(${first}::bigint, ${beyond - 1}::bigint) as o (nth),
      lateral (select
        date_trunc('milliseconds', ${plan.begins}::timestamptz + interval '5 minutes'
          + (nth + history.chance(nth, 1)) / ${plan.orders}::float8 * ${spanMs}::float8 * interval '1 millisecond') as at,
        (select case when chance < ${canceled}::float8 then 'canceled' when chance < ${canceled + declined}::float8 then 'declined'
          else 'paid' end from history.chance(nth, 2) as chance) as fate,
        interval '2 hours' + history.chance(nth, 3) * interval '46 hours' as handled,
        floor(history.chance(nth, 4) * ${plan.customers}::float8 * (${fromTheFirstDay}::float8
          + ${1 - fromTheFirstDay}::float8 * nth / ${plan.orders}::float8))::int as customer
      ) as d
    join history.customers c on c.n = customer
    where nth % ${lanes} = ${lane}`
  const shelves = Math.ceil((plan.products - lane) / lanes)
  yield* sql`
    create temp table lines on commit drop as
    select b.n, line, product_id, price_minor, 1 + (history.chance(b.n, 100 + line) * 3)::int as qty
    from buyers b
    cross join lateral generate_series(1, 1 + floor(history.chance(b.n, 5) * ${Math.min(mostLines, shelves)}::float8)::int) as line
    join history.products p
      on p.n = (floor(${shelves}::float8 * history.chance(b.n, 6) ^ 2)::int + line - 1) % ${shelves} * ${lanes} + ${lane}`
  yield* sql`
    create temp table bought on commit drop as
    select *, left(encode(sha256(convert_to(order_id, 'UTF8')), 'hex'), 40) as hash,
      -- As orders are placed: the day, and a digest.
      'RES-' || lpad(to_hex(floor(extract(epoch from at) / 86400)::int), 5, '0') || '-'
        || left(encode(sha256(convert_to(order_id, 'UTF8')), 'hex'), 40) as reservation_id,
      -- Digests that follow from the order begin with its time (derivedIdOf).
      replace(substr(order_id, 7, 13), '-', '') || left(encode(sha256(convert_to(order_id, 'UTF8')), 'hex'), 28) as of_order,
      '00-' || md5(order_id) || '-' || left(md5(user_id), 16) || '-00' as placing_trace,
      '00-' || md5(user_id || order_id) || '-' || left(md5(order_id), 16) || '-00' as paying_trace,
      history.id(at) as place_request, history.id(at + interval '20 seconds') as pay_request,
      at + interval '20 seconds' as pays_at, at + interval '21 seconds' as authorised_at,
      at + interval '21500 milliseconds' as committed_at, at + interval '22 seconds' as captured_at,
      at + interval '23 seconds' as paid_at, at + interval '22 seconds' as failed_at, at + interval '2 minutes' as canceled_at
    from buyers join (
      select n, sum(qty * price_minor)::bigint as total, sum(qty)::int as units, count(*)::int as lines,
        array_agg(product_id order by line) as product_ids, array_agg(qty order by line) as quantities,
        jsonb_agg(jsonb_build_object('productId', product_id, 'qty', qty, 'price', history.amount(price_minor)) order by line)
          as items,
        jsonb_agg(jsonb_build_object('productId', product_id, 'qty', qty, 'priceMinor', price_minor) order by line) as priced
      from lines group by n
    ) as i using (n)`
  yield* sql`analyze lines`
  yield* sql`analyze bought`
})

/** What is kept for a while only, and how long before the end of the history that began. */
const since = ({ ends }: Plan, keptMs: number) => new Date(ends.getTime() - keptMs)

const order = Effect.fnUntraced(function* (plan: Plan) {
  const sql = yield* SqlClient.SqlClient
  const { OrderCanceled, OrderCreated, OrderFulfilled, OrderPaid, OrderPaymentFailed, OrderPaymentStarted } =
    OrderEvents
  yield* sql`
    insert into told (topic, event_type, key, version, at, trace_parent, correlation_id, payload, nth, event_id)
    select ${OrderCreated.topic}, type, order_id, version, t.at, trace, correlation,
      jsonb_build_object('orderId', order_id, 'userId', user_id) || payload, n, history.id(t.at)
    from bought b, lateral (values
      (${OrderCreated.type}, 1, true, at, placing_trace, place_request, jsonb_build_object('items', items,
        'itemsAmount', history.amount(total), 'discountAmount', 0, 'taxAmount', 0, 'shippingAmount', 0,
        'totalAmount', history.amount(total), 'currency', 'USD', 'reservationId', reservation_id)),
      (${OrderPaymentStarted.type}, 2, fate <> 'canceled', pays_at, paying_trace, pay_request,
        jsonb_build_object('attemptId', 'PAY-' || of_order)),
      (${OrderPaid.type}, 3, paid, paid_at, paying_trace, pay_request, jsonb_build_object('attemptId', 'PAY-' || of_order,
        'items', items, 'totalAmount', history.amount(total), 'currency', 'USD')),
      (${OrderPaymentFailed.type}, 3, fate = 'declined', failed_at, paying_trace, pay_request,
        jsonb_build_object('attemptId', 'PAY-' || of_order, 'reason', ${refusal}::text)),
      (${OrderCanceled.type}, case when fate = 'declined' then 4 else 2 end, not paid, canceled_at, placing_trace, place_request,
        jsonb_build_object('reservationId', reservation_id, 'reason', 'canceled_by_customer')),
      (${OrderFulfilled.type}, 4, fulfilled, fulfilled_at, placing_trace, place_request, '{}'::jsonb)
    ) as t (type, version, so, at, trace, correlation, payload)
    where so`
  yield* sql`
    insert into orders.orders (order_id, user_id, region, status, items_minor, discount_minor, tax_minor, shipping_minor,
      total_minor, currency, reservation_id, reservation_lost, version, created_at, updated_at)
    select order_id, user_id, 'us', case when fulfilled then 'FULFILLED' when paid then 'PAID' else 'CANCELED' end,
      total, 0, 0, 0, total, 'USD', reservation_id, false,
      case when fulfilled or fate = 'declined' then 4 when paid then 3 else 2 end,
      at, case when fulfilled then fulfilled_at when paid then paid_at else canceled_at end
    from bought order by n`
  yield* sql`
    insert into orders.order_items (order_id, line, product_id, qty, price_minor)
    select order_id, line, product_id, qty, price_minor from lines join bought using (n) order by n, line`
  yield* sql`
    insert into orders.order_status_history (order_id, version, status, event, reason, occurred_at)
    select key, version, case event_type when ${OrderPaid.type} then 'PAID' when ${OrderFulfilled.type} then 'FULFILLED'
      when ${OrderCanceled.type} then 'CANCELED' else 'PENDING' end, event_type, payload ->> 'reason', at
    from told where topic = ${OrderCreated.topic} order by nth, version`
  yield* sql`
    insert into orders.orders_by_customer (user_id, order_id, region, items, total_minor, currency, placed_at, status, updated_at, version)
    select user_id, order_id, 'us', lines, total, 'USD', date_trunc('milliseconds', at),
      case when fulfilled then 'FULFILLED' when paid then 'PAID' else 'CANCELED' end,
      date_trunc('milliseconds', case when fulfilled then fulfilled_at when paid then paid_at else canceled_at end),
      case when fulfilled or fate = 'declined' then 4 when paid then 3 else 2 end
    from bought order by n`
  yield* sql`
    insert into notifications.notifications (notification_id, user_id, kind, order_id, text, created_at)
    select event_id, payload ->> 'userId', kind, key, format(words,
      to_char((payload ->> 'totalAmount')::numeric, 'FM999999999990.00') || ' ' || (payload ->> 'currency')), at
    from told join (values
      (${OrderCreated.type}, 'order.created', 'We have your order over %s. It waits for its payment.'),
      (${OrderPaid.type}, 'order.paid', 'Thank you! Your order over %s is paid.'),
      (${OrderCanceled.type}, 'order.canceled', 'Your order was canceled.'),
      (${OrderFulfilled.type}, 'order.fulfilled', 'Your order is on its way.')
    ) as w (event_type, kind, words) using (event_type)
    where at > ${since(plan, notificationsKeptMs)}
    order by nth, version`
})

/** Holds, sells and gives back what was ordered, after a delivery where it would not have been enough. */
const move = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`
    create temp table shelves on commit drop as
    with wanted as materialized (
      select product_id, sum(qty)::int as units, min(at) as at from lines join bought using (n) group by product_id
    )
    select * from (select * from wanted order by product_id) as w cross join lateral (
      select on_hand, reserved, version from inventory.inventory_stock s
      where s.product_id = w.product_id and warehouse_id = ${defaultWarehouse} offset 0 for update
    ) as s`
  yield* sql`
    create temp table moves on commit drop as
    select *, s.version + row_number() over mine as version_after,
      s.on_hand + sum(moved) over mine as on_hand_after, s.reserved + sum(holding) over mine as reserved_after
    from (
      select product_id, ${StockAdjusted.type} as type, 3 * units + 200 as qty, 3 * units + 200 as moved, 0 as holding,
        at - interval '1 second' as at, 0::bigint as n, null as order_id, null as reservation_id,
        '00-' || md5(product_id || at) || '-' || left(md5(product_id), 16) || '-00' as trace_parent, history.id(at) as correlation_id
      from shelves where on_hand - reserved < units
      union all
      select product_id, type, qty, moved, holding, t.at, n, order_id, reservation_id, trace, correlation
      from lines join bought b using (n), lateral (values
        (${StockReserved.type}, true, 0, qty, b.at, placing_trace, place_request),
        (${StockCommitted.type}, paid, -qty, -qty, committed_at, paying_trace, pay_request),
        (${StockReleased.type}, not paid, 0, -qty, canceled_at, placing_trace, place_request)
      ) as t (type, so, moved, holding, at, trace, correlation)
      where so
    ) as m join (select product_id, version, on_hand, reserved from shelves) as s using (product_id)
    window mine as (partition by product_id order by at, n, type rows unbounded preceding)`
  yield* sql`
    insert into told (topic, event_type, key, version, at, trace_parent, correlation_id, payload, nth, event_id)
    select ${StockReserved.topic}, type, product_id, version_after, at, trace_parent, correlation_id,
      jsonb_build_object('productId', product_id, 'warehouseId', ${defaultWarehouse}::text, 'onHand', on_hand_after,
        'reserved', reserved_after, 'available', on_hand_after - reserved_after, 'version', version_after)
      || case when type = ${StockAdjusted.type} then jsonb_build_object('delta', qty, 'reason', 'delivery')
        else jsonb_build_object('qty', qty, 'orderId', order_id, 'reservationId', reservation_id) end,
      -- Of a product's events at the same time, the one with the lower version comes first.
      version_after, history.id(at)
    from moves`
  yield* sql`
    insert into inventory.inventory_adjustment
      (adjustment_id, product_id, warehouse_id, delta, reason, adjusted_by, on_hand, adjusted_at)
    select history.id(at), product_id, ${defaultWarehouse}, qty, 'delivery', ${supplier}, on_hand_after, at
    from moves where type = ${StockAdjusted.type} order by at`
  yield* sql`
    update inventory.inventory_stock s set on_hand = m.on_hand_after, reserved = m.reserved_after, version = m.version_after
    from (
      select distinct on (product_id) product_id, on_hand_after, reserved_after, version_after
      from moves order by product_id, version_after desc
    ) as m
    where s.product_id = m.product_id and s.warehouse_id = ${defaultWarehouse}`
  yield* sql`
    insert into inventory.reservations
      (reservation_id, order_id, warehouse_id, status, product_ids, quantities, expires_at, created_at, closed_at)
    select reservation_id, order_id, ${defaultWarehouse}, case when paid then 'committed' else 'released' end, product_ids,
      quantities, at + interval '15 minutes', at, case when paid then committed_at else canceled_at end
    from bought order by n`
})

const pay = Effect.fnUntraced(function* (plan: Plan, testGateway: boolean) {
  const sql = yield* SqlClient.SqlClient
  const { PaymentAuthorised, PaymentCaptured, PaymentInitiated, PaymentWasDeclined } = PaymentEvents
  yield* sql`
    create temp table attempts on commit drop as
    select *, 'PAY-' || of_order as attempt_id, history.amount(total) as amount from bought where fate <> 'canceled'`
  yield* sql`
    insert into told (topic, event_type, key, version, at, trace_parent, correlation_id, payload, nth, event_id)
    select ${PaymentInitiated.topic}, type, attempt_id, version, t.at, paying_trace, pay_request, jsonb_build_object(
      'attemptId', attempt_id, 'orderId', order_id, 'userId', user_id, 'amount', amount, 'currency', 'USD') || more, n,
      history.id(t.at)
    from attempts, lateral (values
      (${PaymentInitiated.type}, 1, true, pays_at, '{"gateway": "soap"}'::jsonb),
      (${PaymentAuthorised.type}, 2, paid, authorised_at, '{}'),
      (${PaymentCaptured.type}, 3, paid, captured_at, '{}'),
      (${PaymentWasDeclined.type}, 2, not paid, authorised_at, jsonb_build_object('reason', ${refusal}::text))
    ) as t (type, version, so, at, more)
    where so`
  yield* sql`
    insert into payments.payments (attempt_id, order_id, user_id, amount_minor, currency, status, reason, version, created_at,
      updated_at, gateway, ask_again_at)
    select attempt_id, order_id, user_id, total, 'USD', case when paid then 'CAPTURED' else 'DECLINED' end,
      case when not paid then ${refusal}::text end, case when paid then 3 else 2 end, pays_at,
      case when paid then captured_at else authorised_at end, 'soap', pays_at + interval '30 seconds'
    from attempts order by n`
  yield* sql`
    insert into payments.daily_revenue (attempt_id, entry, region, amount_minor, currency, booked_at, version)
    select attempt_id, '', 'us', total, 'USD', case when paid then date_trunc('milliseconds', captured_at) end,
      case when paid then 3 else 1 end
    from attempts order by n`
  yield* sql`
    insert into analytics.revenue_minutes as m (minute, currency, payments, revenue_minor, refunds, refunds_minor, corrections,
      late_payments, late_revenue_minor, late_refunds, late_refunds_minor)
    select date_trunc('minute', captured_at), 'USD', count(*), sum(total), 0, 0, 0, 0, 0, 0, 0
    from attempts where paid and captured_at > ${since(plan, minutesKeptMs)} group by 1 order by 1
    on conflict (minute, currency) do update set payments = m.payments + excluded.payments,
      revenue_minor = m.revenue_minor + excluded.revenue_minor`
  yield* sql`
    insert into payments.ledger (booking_id, line, attempt_id, order_id, account, amount_minor, currency, booked_at)
    select 'capture-' || attempt_id, line, attempt_id, order_id, account, total * sign, 'USD', captured_at
    from attempts, (values (1, 'psp_receivable', 1), (2, 'sales', -1)) as l (line, account, sign)
    where paid order by n, line`
  if (testGateway) {
    const booked = since(plan, gatewayBooksKeptMs)
    yield* sql`
      insert into psp.attempts (attempt_id, order_id, amount, currency, status, reason, created_at, updated_at, gateway)
      select attempt_id, order_id, amount, 'USD', case when paid then 'captured' else 'declined' end,
        case when not paid then ${refusal}::text end, pays_at, case when paid then captured_at else pays_at end, 'soap'
      from attempts where pays_at > ${booked} order by n`
    yield* sql`
      insert into psp.ledger (gateway, booking_id, line, attempt_id, account, amount, currency, booked_at)
      select 'soap', step || '-' || attempt_id, line, attempt_id, account, amount * sign, 'USD',
        case step when 'capture' then captured_at else pays_at end
      from attempts, (values ('authorise', 1, 'shopper', -1), ('authorise', 2, 'held', 1), ('capture', 1, 'held', -1),
        ('capture', 2, 'merchant', 1)) as l (step, line, account, sign)
      where paid and pays_at > ${booked} order by n, step, line`
  }
  yield* sql`
    insert into orders.sagas (saga_id, order_id, step, attempt, attempt_id, owner, epoch, deadline, outcome, request, updated_at,
      kind, work, begun_at)
    select 'SAGA-' || hash, order_id, 'done', 1, attempt_id, 'history', 1, paid_at,
      case when paid then 'paid' else 'payment_declined' end,
      jsonb_build_object('key', 'history-pay-' || n, 'caller', user_id, 'operation', 'pay',
        'payloadHash', encode(sha256(convert_to(attempt_id, 'UTF8')), 'hex')),
      paid_at, 'pay', jsonb_build_object('rail', 'auto', 'principal', jsonb_build_object('role', 'shopper', 'region', 'us',
        'userId', user_id), 'traceParent', paying_trace, 'paymentToken', null, 'correlationId', pay_request,
        'reservationId', reservation_id), pays_at
    from attempts where at > ${since(plan, processesKeptMs)} order by n`
  yield* sql`
    insert into risk.assessments (assessment_id, order_id, user_id, amount_minor, currency, region, units, lines, score,
      decision, reasons, decided_at)
    select 'RISK-' || of_order, order_id, user_id, total, 'USD', 'us', units, lines, 5, 'allow',
      '[{"rule": "device.missing", "detail": "No device id", "points": 5}]', pays_at
    from attempts where pays_at > ${since(plan, assessmentsKeptMs)} order by n`
})

/** The answers that are still known: of the last day. */
const answer = Effect.fnUntraced(function* (plan: Plan) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`
    insert into orders.idempotency (caller, operation, key, payload_hash, answer, created_at)
    select user_id, operation, 'history-' || operation || '-' || n,
      encode(sha256(convert_to(case operation when 'pay' then 'PAY-' || of_order else order_id end, 'UTF8')), 'hex'),
      case when operation = 'pay' and not paid
        then jsonb_build_object('_tag', 'Refused', 'refusal', jsonb_build_object('_tag', 'PaymentDeclined', 'reason', ${refusal}::text))
        else jsonb_build_object('_tag', 'Done', 'value', jsonb_build_object('orderId', order_id, 'userId', user_id,
          'region', 'us', 'status', case operation when 'pay' then 'PAID' else 'PENDING' end, 'items', priced,
          'currency', 'USD', 'itemsMinor', total, 'discountMinor', 0, 'taxMinor', 0, 'shippingMinor', 0,
          'totalMinor', total, 'reservationId', reservation_id, 'reservationLost', false, 'reviewed', false,
          'paymentAttemptId', null, 'version', case operation when 'pay' then 3 else 1 end,
          'createdAt', to_char(at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
          'updatedAt', to_char(case operation when 'pay' then paid_at else at end, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))) end,
      case operation when 'pay' then pays_at else at end
    from bought, unnest(array['place', 'pay']) as operation
    where at > ${since(plan, answersKeptMs)} and (operation = 'place' or fate <> 'canceled')`
})

/** Writes the orders of a lane within a batch. `testGateway`: the built-in gateways keep their book in this database. */
export const write = Effect.fn("Purchases.write")(function* (
  plan: Plan,
  lane: number,
  batch: Batch,
  testGateway: boolean
) {
  yield* decide(plan, lane, batch)
  yield* order(plan)
  yield* move
  yield* pay(plan, testGateway)
  yield* answer(plan)
})
