import * as OrderEvents from "@merkato/domain/orders/OrderEvents"
import * as PaymentEvents from "@merkato/domain/payments/PaymentEvents"
import { type Invariant, none } from "./Invariant.ts"

/** Contexts that publish, and where. */
const publishers = [
  ["catalogue", "catalogue.events"],
  ["cart", "cart.events"],
  ["orders", "order.events"],
  ["payments", "payment.events"],
  ["inventory", "inventory.events"],
  ["risk", "fraud.events"],
  ["pricing", "promo.events"]
] as const

/** What shoppers are told about. */
const told = [
  OrderEvents.OrderCreated,
  OrderEvents.OrderHeld,
  OrderEvents.OrderReleased,
  OrderEvents.OrderPaid,
  OrderEvents.OrderCanceled,
  OrderEvents.OrderFulfilled
].map(({ type }) => type)

/** What takes the items of an order out of its cart. */
const takesOut = [OrderEvents.OrderPaid.type, OrderEvents.OrderHeld.type]

/** Who acts on what in a transaction of its own: an inbox row per event, no more and no fewer. */
const consumers = [
  ["orders", "orders.end-expired", "inventory", ["ecommerce.inventory.reservation.expired.v1"]],
  ["cart", "cart.empty-ordered", "orders", takesOut],
  ["inventory", "inventory.release-canceled", "orders", [OrderEvents.OrderCanceled.type]],
  ["notifications", "notifications.tell-shoppers", "orders", told]
] as const

const list = (types: ReadonlyArray<string>) => types.map((type) => `'${type}'`).join(", ")
const emptying = list(takesOut)

/** What is told is true, is told to everybody who has to know, and has one effect there. */
export const story: ReadonlyArray<Invariant> = [
  none("every saga has ended", `select saga_id, order_id, step, owner from orders.sagas where step <> 'done'`),
  ...publishers.map(([schema]) =>
    none(`the outbox of ${schema} is empty`, `select position, aggregate_id, version from ${schema}.outbox`)
  ),
  ...publishers.map(
    ([schema, topic]): Invariant => ({
      name: `every event of ${schema} is on the bus, in order per aggregate`,
      broken: async ({ query, bus }) => {
        const published = new Map<string, number>()
        const problems: Array<string> = []
        const last = new Map<string, number>()
        for (const [name, entries] of bus.partitions) {
          if (!name.startsWith(`${topic}/`)) continue
          for (const { key, envelope } of entries) {
            const first = !published.has(envelope.eventId)
            published.set(envelope.eventId, (published.get(envelope.eventId) ?? 0) + 1)
            // A repeat may come late; the first of each must come in order.
            if (first && envelope.aggregateVersion <= (last.get(key) ?? 0)) {
              problems.push(`${key}: version ${envelope.aggregateVersion} came after ${last.get(key)}`)
            }
            if (first) last.set(key, envelope.aggregateVersion)
          }
        }
        const stored = await query(`select event_id, event_type from ${schema}.events`)
        for (const [eventId, type] of stored) {
          if (!published.has(eventId ?? "")) problems.push(`${type} ${eventId} never reached the bus`)
        }
        return problems
      }
    })
  ),
  ...consumers.map(([schema, group, from, types]) =>
    none(
      `every event reaches ${group} once`,
      `select coalesce(e.event_id, i.event_id), e.event_type, i.received_at
       from (select event_id, event_type from ${from}.events where event_type in (${list(types)})) e
       full join (select event_id, received_at from ${schema}.inbox where consumer_group = '${group}') i using (event_id)
       where e.event_id is null or i.event_id is null`
    )
  ),
  none(
    "an order's events are what its status implies",
    `with told as (
       select aggregate_id as order_id, count(*) as events, max(version) as version, string_agg(case event_type
         when '${OrderEvents.OrderCreated.type}' then 'N' when '${OrderEvents.OrderPaymentStarted.type}' then 'S'
         when '${OrderEvents.OrderPaymentFailed.type}' then 'F' when '${OrderEvents.OrderReservationLost.type}' then 'L'
         when '${OrderEvents.OrderPaid.type}' then 'P' when '${OrderEvents.OrderCanceled.type}' then 'X'
         when '${OrderEvents.OrderFulfilled.type}' then 'D' when '${OrderEvents.OrderHeld.type}' then 'H'
         when '${OrderEvents.OrderReleased.type}' then 'R' else '?' end, '' order by version) as line
       from orders.events group by aggregate_id
     )
     select order_id, o.status, o.version, o.payment_attempt_id, line
     from orders.orders o full join told using (order_id)
     where o.order_id is null or line is null or events <> o.version or told.version <> o.version
       or o.payment_attempt_id is not null
       or line !~ case o.status when 'PENDING' then '^N(SF|S?HR)*$' when 'HELD' then '^N(SF|S?HR)*S?H$'
         when 'PAID' then '^N(SF|S?HR)*SP$' when 'FULFILLED' then '^N(SF|S?HR)*SPD$'
         when 'CANCELED' then '^N(SF|S?HR)*(SLF|S?H)?X$' else '^$' end`
  ),
  none(
    "an order's history has a line for each of its events",
    `select order_id, o.version, count(h.version) from orders.orders o left join orders.order_status_history h using (order_id)
     group by order_id, o.version having count(h.version) <> o.version`
  ),
  none(
    "a payment's events are what its status implies",
    `with told as (
       select aggregate_id as attempt_id, string_agg(case event_type
         when '${PaymentEvents.PaymentInitiated.type}' then 'I' when '${PaymentEvents.PaymentRerouted.type}' then 'G' when '${PaymentEvents.PaymentAuthorised.type}' then 'A'
         when '${PaymentEvents.PaymentCaptured.type}' then 'C' when '${PaymentEvents.PaymentWasDeclined.type}' then 'D'
         when '${PaymentEvents.PaymentWasVoided.type}' then 'V'
         when '${PaymentEvents.RefundRequested.type}' then 'Q' when '${PaymentEvents.RefundCompleted.type}' then 'R'
         when '${PaymentEvents.RefundWasRefused.type}' then 'N' else '?' end, '' order by version) as line
       from payments.events group by aggregate_id
     )
     select attempt_id, status, line from payments.payments full join told using (attempt_id)
     where status is null or line is null or line !~ case status when 'INITIATED' then '^IG*$' when 'AUTHORISED' then '^IG*A$'
       when 'CAPTURED' then '^IG*AC[QRN]*$' when 'DECLINED' then '^IG*D$' else '^IG*A?V$' end`
  ),
  none(
    "what is in a cart becomes one order, unless it is what was left or came in after that was taken out",
    `with taken as (
       select o.order_id, e.payload ->> 'cartId' as cart_id, min(c.version) as version
       from orders.events e join orders.orders o on o.order_id = e.aggregate_id
       left join cart.events c on c.aggregate_id = e.payload ->> 'cartId' and c.correlation_id = e.correlation_id
       where e.event_type in (${emptying}) and e.payload ? 'cartId'
       group by 1, 2
     ), bought as (
       select distinct order_id, work ->> 'cartId' as cart_id, taken.version, (
         select jsonb_object_agg(product_id, qty) from orders.order_items i where i.order_id = o.order_id) as items
       from orders.sagas join orders.orders o using (order_id) left join taken using (order_id)
       where kind = 'checkout' and status <> 'CANCELED'
     ), filled as (
       select aggregate_id as cart_id, version, (
         select jsonb_object_agg(item ->> 'productId', item -> 'qty') from jsonb_array_elements(payload -> 'items') as item) as items
       from cart.events
     )
     select a.cart_id, a.order_id, b.order_id as also from bought a join bought b using (cart_id)
     where a.order_id < b.order_id and not exists (
       select from filled f where f.cart_id = a.cart_id
         and (f.items = b.items and f.version >= a.version or f.items = a.items and f.version >= b.version))`
  ),
  none(
    "what was ordered is taken out of its cart once",
    `with ordered as (
       select payload ->> 'cartId' as cart_id, correlation_id, count(*) as times from orders.events
       where event_type in (${emptying}) and payload ? 'cartId'
       group by 1, 2
     )
     -- Who fills a cart has another correlation id than who buys it.
     select cart_id, ordered.correlation_id, times, count(e.event_id) from ordered
     left join cart.events e on e.aggregate_id = cart_id and e.correlation_id = ordered.correlation_id
     group by cart_id, ordered.correlation_id, times having count(e.event_id) <> times`
  ),
  none(
    "shoppers are told once of each thing that happened to their orders",
    `select e.event_type, e.aggregate_id, n.kind, n.order_id
     from (select * from orders.events where event_type in (${list(told)})) e
     full join notifications.notifications n on n.notification_id = e.event_id
     where e.event_id is null or n.notification_id is null or n.order_id <> e.aggregate_id`
  )
]
