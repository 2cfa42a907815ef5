import { Effect, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { Price, Product, Sku } from "@merkato/domain/catalogue/Product"
import { ProductId } from "@merkato/domain/kernel/Ids"
import { Currency, Minor } from "@merkato/domain/kernel/Money"
import * as Combined from "@merkato/infra/postgres/Combined"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

/** A product's columns, under the names of its fields. */
export const productColumns =
  'product_id as "productId", sku, name, description, category, price_minor as "priceMinor", currency, version'
export const decodeProducts = Schema.decodeUnknownEffect(Schema.Array(Product))
const decodePrices = Schema.decodeUnknownEffect(Schema.Array(Price))
const decodeNames = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ sku: Sku, productId: ProductId })))
const PeriodRow = Schema.Struct({
  priceMinor: Minor,
  currency: Currency,
  reason: Schema.String,
  validFrom: Schema.DateTimeUtcFromDate,
  validTo: Schema.NullOr(Schema.DateTimeUtcFromDate),
  revision: Schema.Int
})
const decodePeriods = Schema.decodeUnknownEffect(Schema.Array(PeriodRow))

/** The SQL of the catalogue. */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const fields = sql.literal(productColumns)

  const insert = Tracing.fn("CatalogueStore.insert")(function* (product: Product, now: Date) {
    yield* sql`
      with added as (
        insert into catalogue.products
          (product_id, sku, name, description, category, price_minor, currency, version, created_at, updated_at)
        values (${product.productId}, ${product.sku}, ${product.name}, ${product.description}, ${product.category},
          ${product.priceMinor}::bigint, ${product.currency}, ${product.version}, ${now}, ${now})
        returning product_id, price_minor, currency, category
      ), counted as (
        insert into catalogue.categories as known (category, products) select category, 1 from added
        on conflict (category) do update set products = known.products + 1
      )
      insert into catalogue.product_price_history (product_id, price_minor, currency, reason, valid_from, revision)
      select product_id, price_minor, currency, 'first price', ${now}, 1 from added`
  })

  const find = Tracing.fn("CatalogueStore.find")(function* (productId: string) {
    const rows = yield* sql`select ${fields} from catalogue.products where product_id = ${productId}`
    return (yield* Effect.orDie(decodeProducts(rows)))[0]
  })

  const findAll = Tracing.fn("CatalogueStore.findAll")(function* (productIds: ReadonlyArray<string>) {
    const rows = yield* sql`select ${fields} from catalogue.products where product_id = any(${productIds}::text[])`
    return yield* Effect.orDie(decodeProducts(rows))
  })

  const ofSkus = Tracing.fn("CatalogueStore.ofSkus")(function* (skus: ReadonlyArray<string>) {
    const rows = yield* sql`
      select sku, product_id as "productId" from catalogue.products where sku = any(${skus}::text[])`
    return yield* Effect.orDie(decodeNames(rows))
  })

  /** Reads a product and keeps others from changing it until the transaction ends. */
  const lock = Tracing.fn("CatalogueStore.lock")(function* (productId: string) {
    const rows = yield* sql`select ${fields} from catalogue.products where product_id = ${productId} for update`
    return (yield* Effect.orDie(decodeProducts(rows)))[0]
  })

  /**
   * Writes a product that the caller has locked. A move locks both categories in the order of their names: two products
   * that change places would else wait for each other. The category left is there already, so its 0 is never inserted.
   */
  const update = Tracing.fn("CatalogueStore.update")(function* (product: Product, now: Date) {
    yield* sql`
      with moved as (
        select category from catalogue.products
        where product_id = ${product.productId} and category <> ${product.category}
      ), counted as (
        insert into catalogue.categories as known (category, products)
        select category, come from (
          select category, 0 as come from moved union all select ${product.category}, 1 from moved
        ) both_sides order by category
        on conflict (category) do update
          set products = known.products + case known.category when ${product.category} then 1 else -1 end
      )
      update catalogue.products set name = ${product.name}, description = ${product.description},
        category = ${product.category}, price_minor = ${product.priceMinor}::bigint, currency = ${product.currency},
        version = ${product.version}, updated_at = ${now}
      where product_id = ${product.productId}`
  })

  /** Ends the period of the price that holds and begins the next one; a clock set back never ends one before it began. */
  const changePrice = Tracing.fn("CatalogueStore.changePrice")(function* (product: Product, reason: string, now: Date) {
    yield* sql`
      with ended as (
        update catalogue.product_price_history set valid_to = greatest(valid_from, ${now})
        where product_id = ${product.productId} and valid_to is null
        returning valid_to, revision
      )
      insert into catalogue.product_price_history (product_id, price_minor, currency, reason, valid_from, revision)
      select ${product.productId}, ${product.priceMinor}::bigint, ${product.currency}, ${reason}, valid_to, revision + 1
      from ended`
  })

  const pricesOfAll = Tracing.fn("CatalogueStore.pricesOfAll")(function* (
    callers: ReadonlyArray<ReadonlyArray<string>>
  ) {
    const productIds = [...new Set(callers.flat())]
    const rows = yield* sql`
      select product_id as "productId", price_minor as "priceMinor", currency from catalogue.products
      where product_id = any(${productIds}::text[])`
    const prices = new Map<string, Price>(
      (yield* Effect.orDie(decodePrices(rows))).map((price) => [price.productId, price])
    )
    return callers.map((wanted) =>
      wanted.flatMap((productId) => {
        const price = prices.get(productId)
        return price === undefined ? [] : [price]
      })
    )
  })

  const offer = yield* Combined.make({
    name: "CatalogueStore.pricesOf together",
    together: pricesOfAll
  })

  /** The prices that hold now, read with those that others ask for at the same moment. */
  const pricesOf = (productIds: ReadonlyArray<string>) =>
    offer([...new Set(productIds)]).pipe(Tracing.withSpan("CatalogueStore.pricesOf"))

  /** Newest first, after a product. */
  const list = Tracing.fn("CatalogueStore.list")(function* (
    category: string | undefined,
    after: string | undefined,
    limit: number
  ) {
    const clauses = [
      ...(category === undefined ? [] : [sql`category = ${category}`]),
      ...(after === undefined ? [] : [sql`product_id < ${after}`]),
      sql`true`
    ]
    const rows = yield* sql`
      select ${fields} from catalogue.products where ${sql.and(clauses)} order by product_id desc limit ${limit}`
    return yield* Effect.orDie(decodeProducts(rows))
  })

  const categories = Tracing.fn("CatalogueStore.categories")(function* () {
    return yield* sql<{ category: string; products: number }>`
      select category, products from catalogue.categories where products > 0 order by category`
  })

  /** Newest first, before a revision. */
  const periods = Tracing.fn("CatalogueStore.periods")(function* (
    productId: string,
    before: number | undefined,
    limit: number
  ) {
    const rows = yield* sql`
      select price_minor as "priceMinor", currency, reason, valid_from as "validFrom", valid_to as "validTo", revision
      from catalogue.product_price_history
      where product_id = ${productId} ${before === undefined ? sql.literal("") : sql`and revision < ${before}`}
      order by revision desc limit ${limit}`
    return yield* Effect.orDie(decodePeriods(rows))
  })

  return { insert, find, findAll, ofSkus, lock, update, changePrice, pricesOf, list, categories, periods }
})
