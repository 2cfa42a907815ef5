import { none, type Invariant } from "./Invariant.ts"

/** Read models are built of events alone, by consumers that die as all do: they say what tables say that they never saw. */
export const readModels: ReadonlyArray<Invariant> = [
  none(
    "a customer's list of orders says what the orders say",
    `select order_id, o.status, l.status, o.version, l.version
     from orders.orders o full join orders.orders_by_customer l using (order_id)
     where (o.user_id, o.region, o.status, o.total_minor, o.currency, o.created_at,
         (select count(*) from orders.order_items i where i.order_id = o.order_id))
       is distinct from (l.user_id, l.region, l.status, l.total_minor, l.currency, l.placed_at, l.items::bigint)`
  ),
  none(
    "revenue is what was taken, less what was given back",
    `with taken as (
       select attempt_id, '' as entry, amount_minor, currency, status = 'CAPTURED' as booked from payments.payments
       union all
       select attempt_id, refund_id, amount_minor, currency, true from payments.refunds where status = 'REFUNDED'
     )
     select attempt_id, entry, t.amount_minor, t.booked, r.amount_minor, r.booked_at
     from taken t full join payments.daily_revenue r using (attempt_id, entry)
     where (t.amount_minor, t.currency, t.booked) is distinct from (r.amount_minor, r.currency, r.booked_at is not null)
       or (entry = '') <> (r.region is not null)`
  )
]
