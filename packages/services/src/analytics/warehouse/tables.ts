/** The tables of the warehouse: what columns they have, and how their rows come from events. */
import { ProductUpdated } from "@merkato/domain/catalogue/CatalogueEvents"
import { StockAdjusted } from "@merkato/domain/inventory/InventoryEvents"
import { minorUnits } from "@merkato/domain/kernel/Money"
import { regionTimeZone } from "@merkato/domain/kernel/Region"
import {
  OrderCanceled,
  OrderCreated,
  OrderFulfilled,
  OrderHeld,
  OrderPaid,
  OrderReleased
} from "@merkato/domain/orders/OrderEvents"
import type { OrderStatus } from "@merkato/domain/orders/Order"
import { RefundCompleted } from "@merkato/domain/payments/PaymentEvents"
import { quoted } from "@merkato/infra/duckdb/DuckDb"

export type Table = keyof typeof tables

/** Columns with their types of DuckDB. Amounts are in minor units of `currency`. */
export const tables = {
  /**
   * An order a row, as its events so far tell it, and what its shopper has back. `day` is of UTC, `placed_day` of the region,
   * `refunded_at` of the last refund.
   */
  fact_orders: {
    order_id: "varchar",
    user_id: "varchar",
    region: "varchar",
    currency: "varchar",
    status: "varchar",
    version: "integer",
    day: "date",
    placed_day: "date",
    placed_at: "timestamptz",
    held_at: "timestamptz",
    paid_at: "timestamptz",
    fulfilled_at: "timestamptz",
    canceled_at: "timestamptz",
    cancel_reason: "varchar",
    refunded_at: "timestamptz",
    lines: "integer",
    units: "integer",
    items_minor: "bigint",
    discount_minor: "bigint",
    tax_minor: "bigint",
    shipping_minor: "bigint",
    total_minor: "bigint",
    refunded_minor: "bigint",
    items: "struct(product_id varchar, qty integer, price_minor bigint)[]"
  },
  /** A row for each time that somebody, or a device, said how much came or went. */
  fact_inventory_adjustments: {
    event_id: "varchar",
    product_id: "varchar",
    warehouse_id: "varchar",
    day: "date",
    adjusted_at: "timestamptz",
    delta: "integer",
    reason: "varchar",
    on_hand: "integer",
    reserved: "integer",
    stock_version: "integer"
  },
  /** A product as it was for some time; `valid_to` is null for what holds now. */
  dim_product: {
    product_id: "varchar",
    version: "integer",
    sku: "varchar",
    name: "varchar",
    category: "varchar",
    price_minor: "bigint",
    currency: "varchar",
    valid_from: "timestamptz",
    valid_to: "timestamptz",
    is_current: "boolean"
  },
  /** Every day from the first year with an event to the end of the last one. */
  dim_date: {
    day: "date",
    year: "integer",
    quarter: "integer",
    month: "integer",
    month_name: "varchar",
    day_of_month: "integer",
    iso_week: "integer",
    weekday: "integer",
    weekday_name: "varchar",
    is_weekend: "boolean"
  },
  /** What was ordered on a region's day, and what became of it so far. */
  daily_sales: {
    day: "date",
    region: "varchar",
    currency: "varchar",
    orders: "integer",
    paid: "integer",
    canceled: "integer",
    lines: "integer",
    units: "integer",
    items_minor: "bigint",
    discount_minor: "bigint",
    tax_minor: "bigint",
    shipping_minor: "bigint",
    total_minor: "bigint",
    /** Of it, what is paid. */
    paid_minor: "bigint",
    canceled_minor: "bigint",
    /** Of what is paid, what was given back since, on whichever day. */
    refunded_minor: "bigint"
  }
} as const satisfies Record<string, Readonly<Record<string, string>>>

export const tableNames = Object.keys(tables).filter((name): name is Table => name in tables)

/** What a column says in files that were written before there was such a column; null unless told. */
const before: { readonly [Name in Table]?: Readonly<Record<string, string>> } = {
  fact_orders: { refunded_minor: "0" },
  daily_sales: { refunded_minor: "0" }
}

/** The rows of these files, which may be older than some of the columns. */
export const rowsOf = (table: Table, paths: ReadonlyArray<string>): string => {
  if (paths.length === 0) return nothing(table)
  const known = before[table] ?? {}
  const columns = Object.keys(tables[table]).map((column) =>
    column in known ? `coalesce(${column}, ${known[column]}) as ${column}` : column
  )
  const files = `read_parquet([${paths.map(quoted).join(", ")}], hive_partitioning = false, union_by_name = true)`
  return `select ${columns.join(", ")} from (${nothing(table)} union all by name select * from ${files})`
}

/** A table of this shape, without rows. */
export const creating = (table: Table, name: string): string =>
  `create or replace table ${name} (${Object.entries(tables[table])
    .map(([column, type]) => `${column} ${type}`)
    .join(", ")})`

/** The same columns of nothing. */
export const nothing = (table: Table): string =>
  `select ${Object.entries(tables[table])
    .map(([column, type]) => `null::${type} as ${column}`)
    .join(", ")} where false`

/** What is sold in which region's time, and how many minor units make a unit of a currency. */
export const rates = `create or replace table currencies as select * from (values ${Object.entries(minorUnits)
  .map(([currency, digits]) => `(${quoted(currency)}, ${10 ** digits})`)
  .join(", ")}) as c (currency, per_unit);
create or replace table zones as select * from (values ${Object.entries(regionTimeZone)
  .map(([region, zone]) => `(${quoted(region)}, ${quoted(zone)})`)
  .join(", ")}) as z (region, zone)`

/** As the domain reads an amount: the nearest number of minor units. */
const minor = (amount: string) => `round((payload->>${quoted(amount)})::double * per_unit)::bigint`

const statuses: ReadonlyArray<readonly [type: string, status: OrderStatus]> = [
  [OrderCreated.type, "PENDING"],
  [OrderHeld.type, "HELD"],
  [OrderReleased.type, "PENDING"],
  [OrderPaid.type, "PAID"],
  [OrderCanceled.type, "CANCELED"],
  [OrderFulfilled.type, "FULFILLED"]
]

const when = (type: string) => `max(occurred_at) filter (event_type = ${quoted(type)})`

/** What was given back, a refund a row, out of the view `log`: few of many events, and looked at by their kind alone. */
export const refunds = `
  select distinct on (refund_id) payload->>'refundId' as refund_id, payload->>'orderId' as order_id, occurred_at as refunded_at,
    payload->>'currency' as currency, ${minor("amount")} as amount_minor
  from (
    select occurred_at, envelope::json->'payload' as payload, payload->>'currency' as currency
    from log where event_type = ${quoted(RefundCompleted.type)}
  ) join currencies using (currency)
  order by refund_id, refunded_at`

/**
 * Orders that were placed on these days, out of the view `events`, in which all of their events are, and the table `refunds`, in
 * which all of their refunds are.
 */
export const orders = (days: ReadonlyArray<string>): string => `
  with placed as (
    select key as order_id, day, occurred_at as placed_at, region, payload, payload->>'currency' as currency,
      from_json(payload->'items', '[{"productId": "VARCHAR", "qty": "INTEGER", "price": "DOUBLE"}]') as bought
    from events where event_type = ${quoted(OrderCreated.type)} and day in (${days.map((day) => `date ${quoted(day)}`).join(", ")})
  ), became as (
    select key as order_id, max(aggregate_version) as version,
      arg_max(case event_type ${statuses.map(([type, status]) => `when ${quoted(type)} then ${quoted(status)}`).join(" ")} end,
        aggregate_version) filter (event_type in (${statuses.map(([type]) => quoted(type)).join(", ")})) as status,
      ${when(OrderHeld.type)} as held_at, ${when(OrderPaid.type)} as paid_at, ${when(OrderFulfilled.type)} as fulfilled_at,
      ${when(OrderCanceled.type)} as canceled_at,
      max(payload->>'reason') filter (event_type = ${quoted(OrderCanceled.type)}) as cancel_reason
    from events where topic = 'order.events' and key in (select order_id from placed)
    group by key
  ), returned as (
    select order_id, sum(amount_minor)::bigint as refunded_minor, max(refunded_at) as refunded_at from refunds group by order_id
  )
  select order_id, payload->>'userId', region, currency, status, version, day,
    (placed_at at time zone zone)::date, placed_at, held_at, paid_at, fulfilled_at, canceled_at, cancel_reason,
    refunded_at, len(bought), list_sum(list_transform(bought, lambda item: item.qty)),
    ${minor("itemsAmount")}, ${minor("discountAmount")}, ${minor("taxAmount")}, ${minor("shippingAmount")},
    ${minor("totalAmount")}, coalesce(refunded_minor, 0),
    list_transform(bought, lambda item:
      {'product_id': item.productId, 'qty': item.qty, 'price_minor': round(item.price * per_unit)::bigint})
  from placed join became using (order_id) left join returned using (order_id) join currencies using (currency) join zones using (region)
  order by placed_at, order_id`

/** Adjustments of stock on these days, out of the view `events`. */
export const adjustments = (days: ReadonlyArray<string>): string => `
  select event_id, payload->>'productId', payload->>'warehouseId', day, occurred_at, (payload->>'delta')::integer,
    payload->>'reason', (payload->>'onHand')::integer, (payload->>'reserved')::integer, (payload->>'version')::integer
  from events
  where event_type = ${quoted(StockAdjusted.type)} and day in (${days.map((day) => `date ${quoted(day)}`).join(", ")})
  order by occurred_at, event_id`

/** All versions of all products, out of the view `events`. */
export const products = `
  with told as (
    select payload->>'productId' as product_id, (payload->>'version')::integer as version, payload, occurred_at,
      payload->>'currency' as currency
    from events where event_type = ${quoted(ProductUpdated.type)}
  )
  select product_id, version, payload->>'sku', payload->>'name', payload->>'category', ${minor("price")}, currency,
    occurred_at, lead(occurred_at) over versions, lead(occurred_at) over versions is null
  from told join currencies using (currency)
  window versions as (partition by product_id order by version)
  order by product_id, version`

/** The days of the years from the one of a day to the one of another. */
export const dates = (first: string, last: string): string => `
  select day::date, year(day), quarter(day), month(day), monthname(day), dayofmonth(day), week(day), isodow(day), dayname(day),
    isodow(day) >= 6
  from (
    select unnest(generate_series(
      make_date(year(date ${quoted(first)}), 1, 1), make_date(year(date ${quoted(last)}), 12, 31), interval 1 day
    )) as day
  )
  order by day`

/** Sales of a region's day, out of the view `fact_orders`. */
export const sales = (day: string): string => `
  select placed_day, region, currency, count(*), count(*) filter (status in ('PAID', 'FULFILLED')),
    count(*) filter (status = 'CANCELED'), sum(lines), sum(units), sum(items_minor), sum(discount_minor), sum(tax_minor),
    sum(shipping_minor), sum(total_minor), coalesce(sum(total_minor) filter (status in ('PAID', 'FULFILLED')), 0),
    coalesce(sum(total_minor) filter (status = 'CANCELED'), 0), sum(refunded_minor)
  from fact_orders where placed_day = date ${quoted(day)}
  group by placed_day, region, currency order by region, currency`

/** What is asked often, over the tables. */
export const views: Readonly<Record<string, string>> = {
  /** A line of an order a row, with the product as it was when it was ordered. */
  order_lines: `
    select o.order_id, o.placed_day, o.placed_at, o.region, o.currency, o.status, i.product_id, p.sku, p.name, p.category,
      i.qty, i.price_minor, i.qty * i.price_minor as amount_minor
    from (select *, unnest(items) as i from fact_orders) as o
    left join dim_product as p on p.product_id = i.product_id and p.valid_from <= o.placed_at
      and (p.valid_to is null or p.valid_to > o.placed_at)`,
  /** What of each category was paid, by month. */
  sales_by_category: `
    select d.year, d.month, l.category, l.currency, sum(l.qty) as units, sum(l.amount_minor) as amount_minor
    from order_lines as l join dim_date as d on d.day = l.placed_day
    where l.status in ('PAID', 'FULFILLED') group by all`
}
