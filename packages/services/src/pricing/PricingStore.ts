import { Clock, DateTime, Effect, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { Price, PriceMinor } from "@merkato/domain/catalogue/Product"
import { ProductId, SaleId } from "@merkato/domain/kernel/Ids"
import { Currency } from "@merkato/domain/kernel/Money"
import { FlashPrice, FlashSale, type FlashSaleStatus, statusAt } from "@merkato/domain/pricing/FlashSale"
import * as Combined from "@merkato/infra/postgres/Combined"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

const WindowRow = Schema.Struct({
  saleId: SaleId,
  productId: ProductId,
  priceMinor: PriceMinor,
  currency: Currency,
  startsAt: Schema.DateTimeUtcFromDate,
  endsAt: Schema.DateTimeUtcFromDate
})
const decodeWindows = Schema.decodeUnknownEffect(Schema.Array(WindowRow))

const SaleRow = Schema.Struct({
  ...WindowRow.fields,
  canceledAt: Schema.NullOr(Schema.DateTimeUtcFromDate),
  createdAt: Schema.DateTimeUtcFromDate,
  startTold: Schema.Boolean,
  endTold: Schema.Boolean,
  version: Schema.Int
})
const decodeSales = Schema.decodeUnknownEffect(Schema.Array(SaleRow))
const decodePrices = Schema.decodeUnknownEffect(Schema.Array(Price))

/** A sale, and how far its events have got. */
export type Told = typeof SaleRow.Type

const millis = (at: DateTime.DateTime) => new Date(DateTime.toEpochMillis(at))

/** A row as others see it, where it stands by the clock. */
export const saleAt = ({ startTold: _, endTold: __, ...row }: Told, now: Date): FlashSale =>
  new FlashSale({ ...row, status: statusAt(row, DateTime.makeUnsafe(now)) })

/** The SQL of pricing. */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const window = sql.literal(
    `sale_id as "saleId", product_id as "productId", price_minor as "priceMinor", currency, starts_at as "startsAt",
     ends_at as "endsAt"`
  )
  const fields = sql`${window}, canceled_at as "canceledAt", created_at as "createdAt",
    start_told_at is not null as "startTold", end_told_at is not null as "endTold", version`

  const salesOfAll = Tracing.fn("PricingStore.salesOfAll")(function* (callers: ReadonlyArray<ReadonlyArray<string>>) {
    const now = new Date(yield* Clock.currentTimeMillis)
    const rows = yield* sql`
      select product_id as "productId", price_minor as "priceMinor", currency from pricing.flash_prices
      where product_id = any(${[...new Set(callers.flat())]}::text[]) and starts_at <= ${now} and ends_at > ${now}`
    const sales = new Map<string, Price>(
      (yield* Effect.orDie(decodePrices(rows))).map((price) => [price.productId, price])
    )
    return callers.map(() => sales)
  })

  /** The prices of the sales that run now, read with those that others ask for at the same moment: maybe more than these. */
  const salesOf = yield* Combined.make({ name: "PricingStore.salesOf together", together: salesOfAll })

  /** Keeps others from scheduling sales of a product until the transaction ends. */
  const lockProduct = Tracing.fn("PricingStore.lockProduct")(function* (productId: string) {
    yield* sql`select pg_advisory_xact_lock(hashtext(${`merkato.flash_sale.${productId}`}))`
  })

  /** A sale of the product that holds in a part of the window. */
  const overlapping = Tracing.fn("PricingStore.overlapping")(function* (sale: FlashSale) {
    const rows = yield* sql`
      select ${window} from pricing.flash_prices
      where product_id = ${sale.productId} and starts_at < ${millis(sale.endsAt)} and ends_at > ${millis(sale.startsAt)}
      order by starts_at limit 1`
    return (yield* Effect.orDie(decodeWindows(rows)))[0]
  })

  const insert = Tracing.fn("PricingStore.insert")(function* (sale: FlashSale, startTold: boolean) {
    const createdAt = millis(sale.createdAt)
    yield* sql`
      with added as (
        insert into pricing.flash_sales
          (sale_id, product_id, price_minor, currency, starts_at, ends_at, start_told_at, version, created_at)
        values (${sale.saleId}, ${sale.productId}, ${sale.priceMinor}::bigint, ${sale.currency}, ${millis(sale.startsAt)},
          ${millis(sale.endsAt)}, ${startTold ? createdAt : null}, ${sale.version}, ${createdAt})
        returning product_id, starts_at, ends_at, sale_id, price_minor, currency
      )
      insert into pricing.flash_prices (product_id, starts_at, ends_at, sale_id, price_minor, currency)
      select product_id, starts_at, ends_at, sale_id, price_minor, currency from added`
  })

  const find = Tracing.fn("PricingStore.find")(function* (saleId: string) {
    const rows = yield* sql`select ${fields} from pricing.flash_sales where sale_id = ${saleId}`
    return (yield* Effect.orDie(decodeSales(rows)))[0]
  })

  /** Reads a sale and keeps others from changing it until the transaction ends. */
  const lock = Tracing.fn("PricingStore.lock")(function* (saleId: string) {
    const rows = yield* sql`select ${fields} from pricing.flash_sales where sale_id = ${saleId} for update`
    return (yield* Effect.orDie(decodeSales(rows)))[0]
  })

  /** Calls off a sale that the caller has locked: its price holds no more, and all is told. */
  const cancel = Tracing.fn("PricingStore.cancel")(function* (saleId: string, version: number, now: Date) {
    yield* sql`
      with gone as (delete from pricing.flash_prices where sale_id = ${saleId})
      update pricing.flash_sales set canceled_at = ${now}, end_told_at = ${now}, version = ${version},
        start_told_at = coalesce(start_told_at, ${now})
      where sale_id = ${saleId}`
  })

  /** When something is to be told next; undefined when there is nothing. */
  const nextDue = Tracing.fn("PricingStore.nextDue")(function* () {
    const [row] = yield* sql<{ at: Date | null }>`
      select min(case when start_told_at is null then starts_at else ends_at end) as at
      from pricing.flash_sales where end_told_at is null`
    return row?.at ?? undefined
  })

  /** Sales whose start or end is to be told, locked; those that another process is at work on are passed over. */
  const lockDue = Tracing.fn("PricingStore.lockDue")(function* (now: Date, limit: number) {
    const rows = yield* sql`
      select ${fields} from pricing.flash_sales
      where end_told_at is null and (case when start_told_at is null then starts_at else ends_at end) <= ${now}
      order by starts_at limit ${limit} for update skip locked`
    return yield* Effect.orDie(decodeSales(rows))
  })

  /** Remembers what was told of locked sales; those that are over leave the price map. */
  const tell = Tracing.fn("PricingStore.tell")(function* (sales: ReadonlyArray<Told>, now: Date) {
    yield* sql`
      with told as (
        update pricing.flash_sales s set version = t.version, start_told_at = coalesce(s.start_told_at, ${now}),
          end_told_at = case when t.ended then ${now}::timestamptz end
        from unnest(
          ${sales.map(({ saleId }) => saleId)}::text[],
          ${sales.map(({ version }) => version)}::int[],
          ${sales.map(({ endTold }) => endTold)}::boolean[]
        ) as t (sale_id, version, ended)
        where s.sale_id = t.sale_id
        returning s.sale_id, t.ended
      )
      delete from pricing.flash_prices p using told where told.ended and p.sale_id = told.sale_id`
  })

  /** Newest first, before a sale. */
  const list = Tracing.fn("PricingStore.list")(function* (options: {
    readonly productId: string | undefined
    readonly status: FlashSaleStatus | undefined
    readonly before: string | undefined
    readonly now: Date
    readonly limit: number
  }) {
    const { productId, status, before, now, limit } = options
    const clauses = [
      sql`true`,
      ...(productId === undefined ? [] : [sql`product_id = ${productId}`]),
      ...(before === undefined ? [] : [sql`sale_id < ${before}`]),
      ...(status === undefined
        ? []
        : [status === "CANCELED" ? sql`canceled_at is not null` : sql`canceled_at is null`]),
      ...(status === "SCHEDULED" ? [sql`starts_at > ${now}`] : []),
      ...(status === "RUNNING" ? [sql`starts_at <= ${now} and ends_at > ${now}`] : []),
      ...(status === "ENDED" ? [sql`ends_at <= ${now}`] : [])
    ]
    const rows = yield* sql`
      select ${fields} from pricing.flash_sales where ${sql.and(clauses)} order by sale_id desc limit ${limit}`
    return yield* Effect.orDie(decodeSales(rows))
  })

  /** Windows that are not over, after a sale; of given products those alone that hold now. */
  const windows = Tracing.fn("PricingStore.windows")(function* (options: {
    readonly productIds: ReadonlyArray<string> | undefined
    readonly after: string | undefined
    readonly now: Date
    readonly limit: number
  }) {
    const { productIds, after, now, limit } = options
    const rows = yield* sql`
      select ${window} from pricing.flash_prices
      where ends_at > ${now}
        ${productIds === undefined ? sql.literal("") : sql`and product_id = any(${productIds}::text[]) and starts_at <= ${now}`}
        ${after === undefined ? sql.literal("") : sql`and sale_id > ${after}`}
      order by sale_id limit ${limit}`
    return (yield* Effect.orDie(decodeWindows(rows))).map((row) => new FlashPrice(row))
  })

  return { salesOf, lockProduct, overlapping, insert, find, lock, cancel, nextDue, lockDue, tell, list, windows }
})
