import { StockAdjusted, StockCommitted, StockReleased, StockReserved } from "@merkato/domain/inventory/InventoryEvents"
import { type Invariant, none } from "./Invariant.ts"

const stockEvents = [StockAdjusted, StockReserved, StockReleased, StockCommitted]
  .map(({ type }) => `'${type}'`)
  .join(", ")

/** What was delivered is on the shelf, held for somebody, or sold; and the events tell it so. */
export const goods: ReadonlyArray<Invariant> = [
  none(
    "stock is never negative, and what is reserved is there",
    `select product_id, on_hand, reserved from inventory.inventory_stock where on_hand < 0 or reserved < 0 or reserved > on_hand`
  ),
  none(
    "received = sold + available + reserved, and reserved = held",
    `with received as (
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
     where on_hand + coalesce(sold.units, 0) <> coalesce(received.units, 0) or reserved <> coalesce(held.units, 0)`
  ),
  none(
    "an order has one reservation that says what the order says, and no other reservation holds anything",
    `select r.reservation_id, r.order_id as reserved_for, r.status as reservation, o.order_id, o.status as "order"
     from inventory.reservations r full join orders.orders o
       on o.reservation_id = r.reservation_id and o.order_id = r.order_id
     where case
       when o.order_id is null then r.status in ('held', 'committed')
       when r.reservation_id is null then true
       when o.status in ('PENDING', 'HELD') then r.status <> 'held'
       when o.status in ('PAID', 'FULFILLED') then r.status <> 'committed'
       else r.status not in ('released', 'expired')
     end`
  ),
  none(
    "a reservation is for what was ordered",
    `select o.order_id from orders.orders o join inventory.reservations r using (reservation_id)
     where cardinality(r.product_ids) > 0
       and (select jsonb_object_agg(product_id, qty) from orders.order_items i where i.order_id = o.order_id)
         <> (select jsonb_object_agg(product_id, qty) from unnest(r.product_ids, r.quantities) as l (product_id, qty))`
  ),
  none(
    "each stock event follows from the one before it, without a gap, and the last tells what the shelf holds",
    `with told as (
       select aggregate_id as product_id, version, event_type, row_number() over mine as nth,
         (payload ->> 'version')::int as payload_version, (payload ->> 'onHand')::int as on_hand,
         (payload ->> 'reserved')::int as reserved, (payload ->> 'available')::int as available,
         (payload ->> 'qty')::int as qty, (payload ->> 'delta')::int as delta,
         lag((payload ->> 'onHand')::int, 1, 0) over mine as before_on_hand,
         lag((payload ->> 'reserved')::int, 1, 0) over mine as before_reserved,
         last_value(version) over (mine rows between unbounded preceding and unbounded following) as last
       from inventory.events where event_type in (${stockEvents})
       window mine as (partition by aggregate_id order by version)
     )
     select told.* from told join inventory.inventory_stock s using (product_id)
     where told.version <> nth or payload_version <> told.version or available <> told.on_hand - told.reserved or available < 0
       or told.on_hand <> before_on_hand + case event_type
         when '${StockAdjusted.type}' then delta when '${StockCommitted.type}' then -qty else 0 end
       or told.reserved <> before_reserved + case event_type
         when '${StockReserved.type}' then qty when '${StockAdjusted.type}' then 0 else -qty end
       or (told.version = last and (told.on_hand, told.reserved, told.version) is distinct from (s.on_hand, s.reserved, s.version))`
  ),
  none(
    "every reservation has ended",
    `select reservation_id, order_id from inventory.reservations where status = 'held'`
  )
]
