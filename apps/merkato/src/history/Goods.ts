/** Products with their prices and first deliveries, from the day the history begins. */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { ProductUpdated } from "@merkato/domain/catalogue/CatalogueEvents"
import { StockAdjusted } from "@merkato/domain/inventory/InventoryEvents"
import { defaultWarehouse } from "@merkato/domain/inventory/Stock"
import type { Batch, Plan } from "./Size.ts"

/** Who delivers. */
export const supplier = "history"

const kinds = "Crisp,Ripe,Fresh,Organic,Golden,Sweet,Tart,Smoked,Roasted,Salted,Young,Aged".split(",")
const things =
  "apples,pears,plums,carrots,beets,leeks,spinach,milk,butter,cheese,yogurt,bread,rolls,pasta,rice,beans,lentils,coffee,tea,juice,water,honey,jam,oil,vinegar".split(
    ","
  )
const aisles =
  "Fruit,Vegetables,Dairy,Bakery,Pantry,Drinks,Frozen,Breakfast,Spices,Snacks,Household,Baby,Pets,Fish,Meat,Deli,World,Sweets,Health,Garden".split(
    ","
  )

export const write = Effect.fn("Goods.write")(function* (plan: Plan, { first, beyond }: Batch) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`
    create temp table goods on commit drop as
    select n, 'PROD-' || history.id(at) as product_id, at, 'HISTORY-' || n as sku,
      (${kinds}::text[])[1 + n % ${kinds.length}] || ' ' || (${things}::text[])[1 + n % ${things.length}] || ' ' || n as name,
      (${aisles}::text[])[1 + n % ${aisles.length}] as category,
      99 + (history.chance(n, 10) * 3000)::bigint as price_minor, 200 + (history.chance(n, 11) * 300)::int as units,
      '00-' || md5('goods' || n) || '-' || left(md5('span' || n), 16) || '-00' as trace_parent,
      history.id(at) as correlation_id
    from generate_series(${first}::int, ${beyond - 1}::int) as n,
      lateral (select ${plan.begins}::timestamptz + n * interval '1 millisecond') as t (at)`
  yield* sql`insert into history.products (n, product_id, price_minor) select n, product_id, price_minor from goods`
  yield* sql`
    insert into catalogue.products
      (product_id, sku, name, description, category, price_minor, currency, version, created_at, updated_at)
    select product_id, sku, name, 'Number ' || n || ' of our shelves. ' || name || ', from growers we know.', category,
      price_minor, 'USD', 1, at, at
    from goods order by n`
  yield* sql`
    insert into catalogue.product_price_history (product_id, price_minor, currency, reason, valid_from, revision)
    select product_id, price_minor, 'USD', 'first price', at, 1 from goods order by n`
  yield* sql`
    insert into catalogue.categories as c (category, products)
    select category, count(*) from goods group by category order by category
    on conflict (category) do update set products = c.products + excluded.products`
  yield* sql`
    insert into inventory.inventory_stock (product_id, warehouse_id, on_hand, reserved, version)
    select product_id, ${defaultWarehouse}, units, 0, 1 from goods order by n`
  yield* sql`
    insert into inventory.inventory_adjustment
      (adjustment_id, product_id, warehouse_id, delta, reason, adjusted_by, on_hand, adjusted_at)
    select history.id(at), product_id, ${defaultWarehouse}, units, 'first stock', ${supplier}, units, at from goods order by n`
  yield* sql`
    insert into told (topic, event_type, key, version, at, trace_parent, correlation_id, payload, nth, event_id)
    select ${ProductUpdated.topic}, ${ProductUpdated.type}, product_id, 1, at, trace_parent, correlation_id,
      jsonb_build_object('productId', product_id, 'sku', sku, 'name', name, 'category', category,
        'description', 'Number ' || n || ' of our shelves. ' || name || ', from growers we know.',
        'price', history.amount(price_minor), 'currency', 'USD', 'version', 1), n, history.id(at)
    from goods
    union all
    select ${StockAdjusted.topic}, ${StockAdjusted.type}, product_id, 1, at, trace_parent, correlation_id,
      jsonb_build_object('productId', product_id, 'warehouseId', ${defaultWarehouse}::text, 'onHand', units, 'reserved', 0,
        'available', units, 'version', 1, 'delta', units, 'reason', 'first stock'), n, history.id(at)
    from goods`
})
