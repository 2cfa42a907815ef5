import { Effect, Redacted } from "effect"
import { SqlClient, type Statement } from "effect/sql"
import { StockReserved } from "@merkato/domain/inventory/InventoryEvents"
import {
  OrderCanceled,
  OrderCreated,
  OrderFulfilled,
  OrderHeld,
  OrderPaid,
  OrderReleased
} from "@merkato/domain/orders/OrderEvents"
import * as Database from "@merkato/infra/postgres/Database"
import { discrepancies, forgetting, gatewayBook, long, remembered, settled } from "./Books.ts"

type Rule = readonly [what: string, violations: Statement.Statement<object>]

/** Which context publishes where. */
const publishers = [
  ["identity", "user.events"],
  ["catalogue", "catalogue.events"],
  ["cart", "cart.events"],
  ["orders", "order.events"],
  ["payments", "payment.events"],
  ["inventory", "inventory.events"],
  ["pricing", "promo.events"]
] as const

/** What is told to shoppers. */
const told = [OrderCreated, OrderHeld, OrderReleased, OrderPaid, OrderCanceled, OrderFulfilled].map(({ type }) => type)

/** Rules that hold in every committed state, in the middle of whatever is under way. */
const always = (sql: SqlClient.SqlClient): ReadonlyArray<Rule> => [
  [
    "what is paid was charged exactly once, what is canceled never, and a booking belongs to a captured payment",
    sql`
      with charged as (
        select order_id, count(*) as times, sum(amount * 100)::bigint as minor from ${gatewayBook(sql)}
        where status = 'captured' group by order_id
      ), captured as (
        select order_id, count(*) as times, sum(amount_minor)::bigint as minor from payments.payments
        where status = 'CAPTURED' group by order_id
      ), booked as (
        select order_id, count(distinct booking_id) as times, sum(amount_minor) as balance,
          (sum(amount_minor) filter (where account = 'psp_receivable'))::bigint as minor
        from payments.ledger group by order_id
      )
      select order_id, o.status, charged.times as charged, captured.times as captured, booked.times as booked, booked.balance
      from orders.orders o full join charged using (order_id) full join captured using (order_id) full join booked using (order_id)
      where coalesce(booked.balance, 0) <> 0 or booked.times is distinct from captured.times
        or (charged.times is null and captured.times is not null)
        or case
          when o.status in ('PAID', 'FULFILLED') then (charged.times, captured.times, charged.minor, captured.minor, booked.minor)
            is distinct from (1, 1, o.total_minor, o.total_minor, o.total_minor)
          when o.status = 'PENDING' then charged.times > 1
          else charged.times is not null end`
  ],
  [
    "what is paid left the shelf, what is canceled was not sold",
    sql`
      select o.order_id, o.status, r.status as reservation, r.order_id as reserved_for
      from orders.orders o left join inventory.reservations r using (reservation_id)
      where r.order_id is distinct from o.order_id or case
        when o.status in ('PAID', 'FULFILLED') then r.status <> 'committed'
        when o.status = 'CANCELED' then r.status = 'committed'
        else r.status not in ('held', 'committed') end`
  ],
  [
    "received = on hand + sold, and reserved = held",
    sql`
      with line as (
        select r.status, l.product_id, l.qty
        from inventory.reservations r, unnest(product_ids, quantities) as l (product_id, qty)
      ), moved as (
        select product_id, coalesce(sum(qty) filter (where status = 'held'), 0) as held,
          coalesce(sum(qty) filter (where status = 'committed'), 0) as sold
        from line group by product_id
      ), received as (
        select product_id, sum(delta) as units from inventory.inventory_adjustment group by product_id
      )
      select product_id, on_hand, reserved, units as received, held, sold
      from inventory.inventory_stock left join received using (product_id) left join moved using (product_id)
      where on_hand + coalesce(sold, 0) is distinct from units or reserved <> coalesce(held, 0) or reserved > on_hand`
  ],
  [
    "an order, its events and its history are one story without a gap",
    sql`
      with told as (
        select aggregate_id as order_id, count(*) as events, max(version) as version,
          string_agg(event_type, ',' order by version) as story
        from orders.events group by aggregate_id
      ), remembered as (
        select order_id, count(*) as lines, string_agg(event, ',' order by version) as story
        from orders.order_status_history group by order_id
      )
      select order_id, o.version, events, lines from orders.orders o
      full join told using (order_id) full join remembered using (order_id)
      where o.version is distinct from events or told.version is distinct from events
        or told.story is distinct from remembered.story`
  ],
  [
    "no key made two orders",
    sql`
      select correlation_id as key, array_agg(aggregate_id) as orders from orders.events
      where event_type = ${OrderCreated.type} group by correlation_id having count(*) > 1`
  ],
  [
    "an order that was placed and the answer under its key are there together",
    sql`
      with answered as (
        select key, answer -> 'value' ->> 'orderId' as order_id from orders.idempotency
        where operation = 'place' and answer ->> '_tag' = 'Done'
      )
      select key, o.order_id from orders.orders o full join answered using (order_id)
      where o.status is null or key is null
        -- A checkout may end without an answer; once its order is canceled its key may begin anew, with another one.
        and not exists (select from orders.sagas s where s.kind = 'checkout' and (s.order_id = o.order_id
          or o.status = 'CANCELED' and s.work #>> '{principal,userId}' = o.user_id and s.begun_at > o.updated_at))
        -- Answers are known for a day.
        and (o.created_at < (select max(created_at) from orders.orders) - interval '20 hours') is not true`
  ],
  ...publishers.map(
    ([schema, topic]): Rule => [
      `every event of ${schema} is on the bus or waits to be published`,
      sql`
      select e.event_id, e.event_type, e.aggregate_id from ${sql(`${schema}.events`)} e
      where not exists (select from ${sql(`${schema}.outbox`)} o where o.aggregate_id = e.aggregate_id and o.version = e.version)
        and not exists (select from bus.log l where l.topic = ${topic} and l.event_id = e.event_id)
        and ${remembered(sql, topic)}`
    ]
  )
]

/** Rules about a shop at rest that was killed on the way: on the bus an event may stand twice, its effect may not. */
const atRest = (sql: SqlClient.SqlClient): ReadonlyArray<Rule> => [
  [
    "every order process has ended",
    sql`select saga_id, order_id, step, deadline from orders.sagas where step <> 'done'`
  ],
  [
    "every request has its answer",
    sql`select operation, key, lease_until from orders.idempotency where answer is null`
  ],
  [
    "what is ordered is held, what is canceled came back, and what is held for no order is only held",
    sql`
      select r.reservation_id, r.status as reservation, o.order_id, o.status
      from inventory.reservations r full join orders.orders o using (reservation_id)
      where case o.status
        when 'PENDING' then r.status <> 'held'
        when 'HELD' then r.status <> 'held'
        when 'CANCELED' then r.status not in ('released', 'expired')
        when 'PAID' then r.status <> 'committed'
        when 'FULFILLED' then r.status <> 'committed'
        else r.status not in ('held', 'released') end`
  ],
  [
    "each event that shoppers are told of made one notification",
    sql`
      select e.event_id, e.event_type, n.notification_id, n.kind
      from (select * from orders.events where event_type = any(${told}::text[])) e
      full join notifications.notifications n on n.notification_id = e.event_id
      where (n.order_id is distinct from e.aggregate_id or n.user_id is distinct from e.payload ->> 'userId'
          or e.event_type is distinct from 'ecommerce.order.' || n.kind || '.v1')
        and not (n.notification_id is null and ${long(sql, "e.occurred_at", 89)})`
  ],
  ...publishers.flatMap(
    ([schema, topic]): ReadonlyArray<Rule> => [
      [
        `every event of ${schema} is on the bus`,
        sql`
        select e.event_id, e.event_type from ${sql(`${schema}.events`)} e
        where not exists (select from bus.log l where l.topic = ${topic} and l.event_id = e.event_id)
          and ${remembered(sql, topic)}`
      ],
      [`nothing of ${schema} waits to be published`, sql`select * from ${sql(`${schema}.outbox`)}`]
    ]
  ),
  [
    "the bus has no gaps, and tells each key's events in their order",
    sql`
      with first as (
        select topic, key, (envelope ->> 'aggregateVersion')::int as version, min("offset") as "offset",
          min(partition) as of_partition, count(distinct partition) as partitions
        from bus.log where topic not like '%.dlq' group by topic, key, version
      ), told as (
        select *, lag(version, 1, case when exists (
            select from (${forgetting(sql)}) as f
            where f.topic = first.topic and f.partition = of_partition
          ) then version - 1 else 0 end) over (partition by topic, key order by "offset") as before from first
      )
      select topic, key, version, before, partitions::text from told where version <> before + 1 or partitions > 1
      union all
      select p.topic, p.partition::text, count(l.*), p.next_offset, 'gap'
      from bus.partitions p left join bus.log l using (topic, partition)
      left join (${forgetting(sql)}) as f using (topic, partition)
      group by p.topic, p.partition, p.next_offset, f.topic
      having count(l.*) <> p.next_offset - case when f.topic is null then 0 else coalesce(min(l."offset"), p.next_offset) end
        or max(l."offset") <> p.next_offset - 1`
  ]
]

/** What `Books` says of a shop that was never killed: its bus has each event once, and nobody's reservation is without an order. */
const onlyUnlessKilled = /^not so: (every event of \w+ is on the bus, once|an order has one reservation)/

const brokenBy = Effect.fnUntraced(function* (rules: ReadonlyArray<Rule>) {
  const found: Array<string> = []
  for (const [what, violations] of rules) {
    const rows = yield* violations
    if (rows.length > 0) found.push(`not so: ${what} (${rows.length}): ${JSON.stringify(rows.slice(0, 3))}`)
  }
  return found
})

/** One consistent look at everything, whatever goes on meanwhile. */
const inOneLook = <A, E, R>(look: Effect.Effect<A, E, R>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql.withTransaction(Effect.andThen(sql`set transaction isolation level repeatable read, read only`, look))
  )

/** What is wrong with a shop in the middle of its work. */
export const wrongNow = inOneLook(Effect.flatMap(SqlClient.SqlClient, (sql) => brokenBy(always(sql))))

/** Waits until the shop is at rest; what is wrong with it then. */
export const wrongAtRest = Effect.gen(function* () {
  yield* settled
  const sql = yield* SqlClient.SqlClient
  return yield* inOneLook(
    Effect.gen(function* () {
      const books = (yield* discrepancies).filter((found) => !onlyUnlessKilled.test(found))
      return [...books, ...(yield* brokenBy([...always(sql), ...atRest(sql)]))]
    })
  )
})

/** An order as it stands in the database, in the words of the REST surface. */
export interface StoredOrder {
  readonly key: string
  readonly order: Readonly<Record<string, unknown>> & {
    readonly orderId: string
    readonly userId: string
    readonly status: string
  }
}

/** Every order, with the Correlation-Id of the request that placed it. */
export const storedOrders = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<StoredOrder>`
    select e.correlation_id as key, jsonb_build_object('orderId', o.order_id, 'userId', o.user_id, 'region', o.region,
      'status', o.status, 'currency', o.currency, 'items', (
        select jsonb_agg(jsonb_build_object('productId', product_id, 'qty', qty, 'price', price_minor / 100.0) order by line)
        from orders.order_items i where i.order_id = o.order_id),
      'itemsAmount', o.items_minor / 100.0, 'discountAmount', o.discount_minor / 100.0, 'taxAmount', o.tax_minor / 100.0,
      'shippingAmount', o.shipping_minor / 100.0, 'totalAmount', o.total_minor / 100.0,
      'createdAt', to_char(o.created_at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
      'updatedAt', to_char(o.updated_at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')) as "order"
    from orders.orders o left join orders.events e on e.aggregate_id = o.order_id and e.event_type = ${OrderCreated.type}`
)

/** The Correlation-Ids of the requests whose goods are held though there is no order. */
export const heldForNobody = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<{ reservationId: string; key: string }>`
    select distinct r.reservation_id as "reservationId", e.correlation_id as key
    from inventory.reservations r join inventory.events e
      on e.event_type = ${StockReserved.type} and e.payload ->> 'reservationId' = r.reservation_id
    where r.status = 'held' and not exists (select from orders.orders o where o.reservation_id = r.reservation_id)`
)

/** Looks into a database. */
export const lookInto = <A, E>(url: Redacted.Redacted, look: Effect.Effect<A, E, SqlClient.SqlClient>): Promise<A> =>
  look.pipe(
    Effect.provide(Database.layer({ url, maxConnections: 1, applicationName: "test", statementTimeoutMs: 60_000 })),
    Effect.withTracerEnabled(false),
    Effect.runPromise
  )
