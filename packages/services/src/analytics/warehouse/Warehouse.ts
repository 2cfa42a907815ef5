/** The warehouse: facts and dimensions as Parquet files in the object store, built from the archive of events and nothing else. */
import { Effect, Schema } from "effect"
import { OrderCreated } from "@merkato/domain/orders/OrderEvents"
import { beginOf, dayMs } from "@merkato/domain/kernel/Day"
import * as Ids from "@merkato/domain/kernel/Ids"
import { Archive } from "@merkato/infra/archive/Archive"
import type { ArchiveFile } from "@merkato/infra/archive/ArchiveFile"
import * as ArchiveViews from "@merkato/infra/archive/ArchiveViews"
import * as DuckDb from "@merkato/infra/duckdb/DuckDb"
import { ObjectStore } from "@merkato/infra/objects/ObjectStore"
import * as Snapshot from "./Snapshot.ts"
import * as Tables from "./tables.ts"

const topics = {
  orders: "order.events",
  inventory: "inventory.events",
  catalogue: "catalogue.events",
  payments: "payment.events"
} as const

/** The day so many days later. */
const shifted = (day: string, days: number): string => new Date(beginOf(day) + days * dayMs).toISOString().slice(0, 10)

export interface Built {
  /** Of the snapshot that is the newest now. */
  readonly version: number
  /** Days whose orders, and whose adjustments of stock, were built anew. */
  readonly orderDays: ReadonlyArray<string>
  readonly adjustmentDays: ReadonlyArray<string>
  readonly products: boolean
  /** Orders that events tell of whose first event is not archived: they are in no row. */
  readonly unknownOrders: number
}

const decodeDays = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ day: Schema.String })))
const decodeCount = Schema.decodeUnknownEffect(Schema.NonEmptyArray(Schema.Struct({ n: Schema.Int })))

/** What DuckDB answers to us has the form we asked for. */
const daysOf = ({ rows }: DuckDb.DuckDb, sql: string) =>
  Effect.map(
    Effect.flatMap(rows(sql), (found) => Effect.orDie(decodeDays(found))),
    (found) => found.map(({ day }) => day)
  )
const countOf = ({ rows }: DuckDb.DuckDb, sql: string) =>
  Effect.map(
    Effect.flatMap(rows(sql), (found) => Effect.orDie(decodeCount(found))),
    ([{ n }]) => n
  )

/** A database on which the tables of a snapshot are views, under their names. */
const viewing = Effect.fnUntraced(function* (
  { run }: DuckDb.DuckDb,
  files: Readonly<Record<Tables.Table, ReadonlyArray<string>>>
) {
  const objects = yield* ObjectStore
  for (const table of Tables.tableNames) {
    const paths = yield* Effect.forEach(files[table], (name) => objects.localFile(name), { concurrency: 8 })
    yield* run(`create or replace view ${table} as ${Tables.rowsOf(table, paths)}`)
  }
})

const filesOf = (snapshot: Snapshot.Snapshot): Readonly<Record<Tables.Table, ReadonlyArray<string>>> => ({
  fact_orders: Object.values(snapshot.factOrders),
  fact_inventory_adjustments: Object.values(snapshot.factInventoryAdjustments),
  dim_product: snapshot.dimProduct === null ? [] : [snapshot.dimProduct],
  dim_date: snapshot.dimDate === null ? [] : [snapshot.dimDate],
  daily_sales: Object.values(snapshot.dailySales).flatMap(({ file }) => file ?? [])
})

/** Makes the tables and views of the newest snapshot those of a database; which version that is. */
export const open = Effect.fnUntraced(function* (duck: DuckDb.DuckDb) {
  const snapshot = yield* Snapshot.latest
  yield* viewing(duck, filesOf(snapshot))
  for (const [name, sql] of Object.entries(Tables.views)) yield* duck.run(`create or replace view ${name} as ${sql}`)
  return snapshot.version
})

/** Writes rows of the table `fresh` as a new file of a table. */
const write = Effect.fnUntraced(function* (
  { parquet }: DuckDb.DuckDb,
  table: Tables.Table,
  version: number,
  day?: string
) {
  const objects = yield* ObjectStore
  const content = yield* parquet(
    day === undefined ? "fresh" : `(select * from fresh where day = date ${DuckDb.quoted(day)})`
  )
  const name = Snapshot.fileName(table, day, version, yield* Ids.next)
  yield* objects.putNew(name, content)
  return name
})

/** Fills the table `fresh` with rows of this shape. */
const fill = Effect.fnUntraced(function* ({ run }: DuckDb.DuckDb, table: Tables.Table, select: string) {
  yield* run(Tables.creating(table, "fresh"))
  yield* run(`insert into fresh ${select}`)
})

/** Writes the days of `fresh`, in the place of what there was; days without rows have no file. */
const writeDays = Effect.fnUntraced(function* (
  duck: DuckDb.DuckDb,
  table: Tables.Table,
  version: number,
  before: Readonly<Record<string, string>>,
  days: ReadonlyArray<string>
) {
  const filled = new Set(yield* daysOf(duck, "select distinct day from fresh"))
  const files = { ...before }
  for (const day of days) {
    if (filled.has(day)) files[day] = yield* write(duck, table, version, day)
    else delete files[day]
  }
  return files
})

/** Makes the table `refunds` of what these files of payments tell. */
const readRefunds = Effect.fnUntraced(function* (duck: DuckDb.DuckDb, payments: ReadonlyArray<ArchiveFile>) {
  yield* ArchiveViews.create(duck, payments)
  yield* duck.run(`create or replace table refunds as ${Tables.refunds}`)
})

/** The days of the orders that new events tell of, or new refunds are of, and how many orders nobody knows. */
const changedOrderDays = Effect.fnUntraced(function* (
  duck: DuckDb.DuckDb,
  snapshot: Snapshot.Snapshot,
  orders: ReadonlyArray<ArchiveFile>,
  payments: ReadonlyArray<ArchiveFile>
) {
  if (orders.length === 0 && payments.length === 0) return { days: [], unknown: 0 }
  yield* readRefunds(duck, payments)
  yield* ArchiveViews.create(duck, orders)
  yield* viewing(duck, filesOf(snapshot))
  const created = `select key, day from events where event_type = ${DuckDb.quoted(OrderCreated.type)}`
  yield* duck.run(`create or replace table changed as
    select told.key, coalesce(created.day, known.day) as day
    from (select key from events union select order_id from refunds) as told
    left join (${created}) as created using (key)
    left join fact_orders as known on known.order_id = told.key`)
  return {
    days: yield* daysOf(duck, "select distinct day from changed where day is not null order by day"),
    unknown: yield* countOf(duck, "select count(*) as n from changed where day is null")
  }
})

const buildOrders = Effect.fnUntraced(function* (
  duck: DuckDb.DuckDb,
  version: number,
  before: Readonly<Record<string, string>>,
  orders: ReadonlyArray<ArchiveFile>,
  payments: ReadonlyArray<ArchiveFile>,
  days: ReadonlyArray<string>
) {
  const [first] = days
  if (first === undefined) return before
  // The clocks of two machines may differ around midnight: an order's next event may be of the day before it.
  const since = (files: ReadonlyArray<ArchiveFile>) => files.filter(({ day }) => day >= shifted(first, -1))
  yield* readRefunds(duck, since(payments))
  yield* ArchiveViews.create(duck, since(orders))
  yield* fill(duck, "fact_orders", Tables.orders(days))
  return yield* writeDays(duck, "fact_orders", version, before, days)
})

const buildAdjustments = Effect.fnUntraced(function* (
  duck: DuckDb.DuckDb,
  version: number,
  before: Readonly<Record<string, string>>,
  files: ReadonlyArray<ArchiveFile>,
  days: ReadonlyArray<string>
) {
  if (days.length === 0) return before
  const wanted = new Set(days)
  yield* ArchiveViews.create(
    duck,
    files.filter(({ day }) => wanted.has(day))
  )
  yield* fill(duck, "fact_inventory_adjustments", Tables.adjustments(days))
  return yield* writeDays(duck, "fact_inventory_adjustments", version, before, days)
})

/** The days from the first to the last one that facts are of. */
const buildDates = Effect.fnUntraced(function* (
  duck: DuckDb.DuckDb,
  version: number,
  days: ReadonlyArray<string>,
  daysBefore: ReadonlyArray<string>,
  before: string | null
) {
  const [first, last] = [days[0], days.at(-1)]
  if (first === undefined || last === undefined) return null
  const same = daysBefore[0]?.slice(0, 4) === first.slice(0, 4) && daysBefore.at(-1)?.slice(0, 4) === last.slice(0, 4)
  if (same && before !== null) return before
  yield* fill(duck, "dim_date", Tables.dates(first, last))
  return yield* write(duck, "dim_date", version)
})

const daysOfFacts = ({ factOrders, factInventoryAdjustments }: Snapshot.Snapshot) =>
  [...new Set([...Object.keys(factOrders), ...Object.keys(factInventoryAdjustments)])].toSorted()

/**
 * Takes in what the archive has and the warehouse has not: the days that it tells of are built anew, whole, whenever its events
 * come; and these `days` besides. Readers see all of it or nothing; a build that dies is as if it had never begun.
 */
export const build = Effect.fn("Warehouse.build")(function* (alsoDays: ReadonlyArray<string>) {
  const archive = yield* Archive
  const before = yield* Snapshot.latest
  const all = yield* archive.files(Object.values(topics))
  const fresh = Snapshot.unread(before, all)
  const of = (topic: string, files: ReadonlyArray<ArchiveFile>) => files.filter((file) => file.topic === topic)
  const unchanged: Built = {
    version: before.version,
    orderDays: [],
    adjustmentDays: [],
    products: false,
    unknownOrders: 0
  }
  if (fresh.length === 0 && alsoDays.length === 0) return unchanged
  const version = before.version + 1
  const duck = yield* DuckDb.open
  yield* duck.run(Tables.rates)
  const changed = yield* changedOrderDays(duck, before, of(topics.orders, fresh), of(topics.payments, fresh))
  const orderDays = [...new Set([...changed.days, ...alsoDays])].toSorted()
  const adjustmentDays = [...new Set([...of(topics.inventory, fresh).map(({ day }) => day), ...alsoDays])].toSorted()
  const products = of(topics.catalogue, fresh).length > 0
  const facts = {
    ...before,
    version,
    read: Snapshot.readWith(before, fresh),
    factOrders: yield* buildOrders(
      duck,
      version,
      before.factOrders,
      of(topics.orders, all),
      of(topics.payments, all),
      orderDays
    ),
    factInventoryAdjustments: yield* buildAdjustments(
      duck,
      version,
      before.factInventoryAdjustments,
      of(topics.inventory, all),
      adjustmentDays
    )
  }
  if (products) {
    yield* ArchiveViews.create(duck, of(topics.catalogue, all))
    yield* fill(duck, "dim_product", Tables.products)
  }
  yield* Snapshot.publish({
    ...facts,
    dimProduct: products ? yield* write(duck, "dim_product", version) : before.dimProduct,
    dimDate: yield* buildDates(duck, version, daysOfFacts(facts), daysOfFacts(before), before.dimDate)
  })
  return { version, orderDays, adjustmentDays, products, unknownOrders: changed.unknown } satisfies Built
}, Effect.scoped)

/** What a day's sales are made of: some region's day begins a day before or ends a day after that of UTC. */
const sourcesOf = ({ factOrders }: Snapshot.Snapshot, day: string): ReadonlyArray<string> =>
  [-1, 0, 1].flatMap((days) => factOrders[shifted(day, days)] ?? [])

const sameFiles = (left: ReadonlyArray<string>, right: ReadonlyArray<string>): boolean =>
  left.length === right.length && left.every((name, nth) => name === right[nth])

/** Days whose sales are not those of the facts any more, or not yet. */
const outOfDate = (snapshot: Snapshot.Snapshot): ReadonlyArray<string> => {
  const days = Object.keys(snapshot.factOrders).flatMap((day) => [shifted(day, -1), day, shifted(day, 1)])
  return [...new Set([...days, ...Object.keys(snapshot.dailySales)])]
    .filter((day) => !sameFiles(sourcesOf(snapshot, day), snapshot.dailySales[day]?.of ?? []))
    .toSorted()
}

/**
 * Sums up the sales of a day of the regions, or of every day whose facts have changed since its sum. Which days were summed up:
 * none when nothing had changed, so it may run as often as one likes.
 */
export const summarise = Effect.fn("Warehouse.summarise")(function* (day: string | undefined) {
  const before = yield* Snapshot.latest
  const days = outOfDate(before).filter((each) => day === undefined || each === day)
  if (days.length === 0) return []
  const version = before.version + 1
  const duck = yield* DuckDb.open
  const dailySales = { ...before.dailySales }
  const changed: Array<string> = []
  for (const each of days) {
    const of = sourcesOf(before, each)
    yield* viewing(duck, { ...filesOf(Snapshot.empty), fact_orders: of })
    yield* fill(duck, "daily_sales", Tables.sales(each))
    const sold = yield* countOf(duck, "select count(*) as n from fresh")
    const file = sold === 0 ? null : yield* write(duck, "daily_sales", version, each)
    if (file !== null || (before.dailySales[each]?.file ?? null) !== null) changed.push(each)
    dailySales[each] = { of, file }
  }
  yield* Snapshot.publish({ ...before, version, dailySales })
  return changed
}, Effect.scoped)
