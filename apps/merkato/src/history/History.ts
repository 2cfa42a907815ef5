/**
 * Fills a shop with the past: what its contexts would have written had all of it happened. Statements over whole batches,
 * on the server; each batch is a transaction that also says how far it is, so that a run that ended early goes on there.
 */
import { Clock, Effect, Layer, type Redacted } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { dayMs } from "@merkato/domain/kernel/Day"
import { Passwords } from "@merkato/infra/auth/Passwords"
import * as Database from "@merkato/infra/postgres/Database"
import { CommandFailed } from "../Failure.ts"
import * as Progress from "../Progress.ts"
import * as Goods from "./Goods.ts"
import * as People from "./People.ts"
import * as Purchases from "./Purchases.ts"
import { type Batch, lanes, type Plan, type Size } from "./Size.ts"
import * as Told from "./Told.ts"

export interface Options extends Size {
  readonly days: number
  /** Also beside orders that somebody placed. */
  readonly besideOrders: boolean
}

/** What was written, by whom it was begun or ended. */
export interface Loaded extends Size {
  readonly elapsedMs: number
  /** Of the whole database, in bytes, before and after. */
  readonly bytesBefore: number
  readonly bytes: number
  /** False when all of it was there already. */
  readonly written: boolean
}

/** All customers sign in with it. */
export const password = "history has one password"

/** Rows of a stage that one transaction covers at most; a small history is written in some steps as well. */
const largestBatch = { products: 5_000, customers: 20_000, orders: 10_000 } as const
const smallestBatch = 500
type Stage = keyof typeof largestBatch
const batchOf = (plan: Plan, stage: Stage) =>
  Math.max(smallestBatch, Math.min(largestBatch[stage], Math.ceil(plan[stage] / 20)))

const failed = (reason: string) => Effect.fail(new CommandFailed({ reason }))

const checked = Effect.fnUntraced(function* (besideOrders: boolean) {
  const sql = yield* SqlClient.SqlClient
  const [found] = yield* sql<{ shop: boolean; begun: boolean; testGateway: boolean; version: number }>`
    select to_regclass('orders.orders') is not null and to_regclass('bus.log') is not null
        and to_regclass('identity.users') is not null and to_regclass('inventory.events') is not null as shop,
      to_regclass('history.plan') is not null as begun, to_regclass('psp.ledger') is not null as "testGateway",
      current_setting('server_version_num')::int as version`
  if (found?.shop !== true) return yield* failed("There is no whole shop in this database: start one on it first.")
  if (found.version < 180_000) return yield* failed("A history wants Postgres 18, which can make ids of the past.")
  if (!found.begun && !besideOrders) {
    const [orders] = yield* sql<{ any: boolean }>`select exists (select from orders.orders) as any`
    if (orders?.any === true) {
      return yield* failed(
        "This shop has orders that somebody placed: say --beside-orders if you really mean this shop."
      )
    }
  }
  return { testGateway: found.testGateway }
})

/** What happened in the last hour is not over yet: reservations, leases. */
const notOverMs = 60 * 60_000

/** The plan of the history that this database has or gets; a second one beside it is refused. */
const planned = Effect.fnUntraced(function* (options: Options) {
  const sql = yield* SqlClient.SqlClient
  const now = yield* Clock.currentTimeMillis
  const ends = new Date(now - notOverMs)
  yield* sql.withTransaction(
    Effect.gen(function* () {
      yield* sql`select pg_advisory_xact_lock(hashtext('merkato.history'))`
      yield* sql`create schema if not exists history`
      yield* sql`
        create table if not exists history.plan (
          products int not null, customers int not null, orders int not null, begins timestamptz not null,
          ends timestamptz not null, finished boolean not null default false)`
      yield* sql`create table if not exists history.lanes (stage text, lane int, next int not null, primary key (stage, lane))`
      yield* sql`create table if not exists history.products (n int primary key, product_id text not null, price_minor bigint not null)`
      yield* sql`create table if not exists history.customers (n int primary key, user_id text not null)`
      yield* Told.functions
      const begun = yield* sql`
        insert into history.plan (products, customers, orders, begins, ends)
        select ${options.products}, ${options.customers}, ${options.orders},
          ${new Date(ends.getTime() - options.days * dayMs)}, ${ends}
        where not exists (select from history.plan) returning 1`
      if (begun.length > 0) {
        const stages = [
          ["products", 0],
          ["customers", 0],
          ...Array.from({ length: lanes }, (_, lane) => ["orders", lane])
        ]
        yield* sql`
          insert into history.lanes (stage, lane, next) select stage, lane, 0
          from unnest(${stages.map(([stage]) => stage)}::text[], ${stages.map(([, lane]) => lane)}::int[]) as s (stage, lane)`
        yield* Told.begin({ ...options, begins: ends, ends })
      }
    })
  )
  const [plan] = yield* sql<Plan & { finished: boolean }>`select * from history.plan`
  if (plan === undefined) return yield* Effect.die(new Error("There is no plan"))
  if ((["products", "customers", "orders"] as const).some((what) => plan[what] !== options[what])) {
    return yield* failed(
      `This shop has a history of ${plan.products} products, ${plan.customers} customers and ${plan.orders} orders already` +
        `${plan.finished ? "" : ", which is not finished: go on with the same numbers"}.`
    )
  }
  return plan
})

/** Runs what is left of a stage's lane, batch by batch. */
const run = Effect.fnUntraced(function* <E, R>(
  plan: Plan,
  stage: Stage,
  lane: number,
  done: (count: number) => void,
  write: (batch: Batch) => Effect.Effect<void, E, R>
) {
  const sql = yield* SqlClient.SqlClient
  const [place] = yield* sql<{ next: number }>`select next from history.lanes where stage = ${stage} and lane = ${lane}`
  const size = batchOf(plan, stage)
  const share = stage === "orders" ? lanes : 1
  let first = place?.next ?? 0
  done(first / share)
  while (first < plan[stage]) {
    const beyond = Math.min(plan[stage], first + size * share)
    yield* sql.withTransaction(
      Effect.gen(function* () {
        // A crash may lose the last batches, each of them whole: the next run sees how far this one came.
        yield* sql`set local synchronous_commit = off`
        yield* sql`set local work_mem = '64MB'`
        // What a batch works with stays in memory.
        yield* sql`set local temp_buffers = '96MB'`
        // Foreign keys are not looked up for each row, where the server lets us: all of them are of this batch or before it.
        yield* sql`
          select set_config('session_replication_role', 'replica', true) where current_setting('is_superuser') = 'on'`
        const mine = yield* sql`
          update history.lanes set next = ${beyond} where stage = ${stage} and lane = ${lane} and next = ${first} returning 1`
        if (mine.length === 0) return yield* failed("Somebody else is loading a history into this shop at the moment.")
        yield* Told.table
        yield* write({ first, beyond })
        yield* Told.store(plan)
      })
    )
    done((beyond - first) / share)
    first = beyond
  }
})

const bytes = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const [size] = yield* sql<{ bytes: number }>`select pg_database_size(current_database()) as bytes`
  return size?.bytes ?? 0
})

/** Shows how far work is that says what it has done. */
const shown = <A, E, R>(
  label: string,
  total: number,
  work: (done: (count: number) => void) => Effect.Effect<A, E, R>
) =>
  Effect.suspend(() => {
    let done = 0
    return Effect.andThen(
      Progress.show(() => ({ label, unit: label, done, total })),
      work((count) => {
        done += count
      })
    )
  }).pipe(Effect.scoped)

/**
 * Tables that were filled are vacuumed and analyzed, so that nobody's first query has to: each once, the big ones first. One
 * with partitions has statistics of its own, and nothing to vacuum.
 */
const tidy = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const tables = yield* sql<{ name: string; partitioned: boolean; bytes: number }>`
    select format('%I.%I', nspname, relname) as name, relkind = 'p' as partitioned, pg_table_size(c.oid) as bytes
    from pg_class c join pg_namespace n on n.oid = relnamespace
    where relkind in ('r', 'p') and nspname <> 'information_schema' and nspname not like 'pg\\_%'
    order by pg_table_size(c.oid) desc`
  yield* shown("MB tidied", Math.ceil(tables.reduce((sum, { bytes }) => sum + bytes, 0) / 1_000_000), (done) =>
    Effect.forEach(
      tables,
      ({ name, partitioned, bytes }) =>
        Effect.tap(sql.unsafe(partitioned ? `analyze only ${name}` : `vacuum (analyze) ${name}`), () =>
          Effect.sync(() => done(bytes / 1_000_000))
        ),
      { concurrency: lanes, discard: true }
    )
  )
})

/** Writes the history, or what is left of it, with a progress bar for each stage. */
const write = Effect.fn("History.write")(function* (options: Options) {
  const sql = yield* SqlClient.SqlClient
  const clock = yield* Clock.Clock
  const { testGateway } = yield* checked(options.besideOrders)
  const begun = clock.currentTimeMillisUnsafe()
  const bytesBefore = yield* bytes
  const { finished, ...plan } = yield* planned(options)
  if (finished) return { ...options, elapsedMs: 0, bytesBefore, bytes: bytesBefore, written: false } satisfies Loaded
  const hash = yield* (yield* Passwords).hash(password)

  const stage = <E, R>(name: Stage, work: (done: (count: number) => void) => Effect.Effect<unknown, E, R>) =>
    shown(name, plan[name], work)
  yield* stage("products", (done) => run(plan, "products", 0, done, (batch) => Goods.write(plan, batch)))
  yield* sql`analyze history.products`
  yield* stage("customers", (done) => run(plan, "customers", 0, done, (batch) => People.write(plan, batch, hash)))
  yield* sql`analyze history.customers`
  yield* stage("orders", (done) =>
    Effect.forEach(
      Array.from({ length: lanes }, (_, lane) => lane),
      (lane) => run(plan, "orders", lane, done, (batch) => Purchases.write(plan, lane, batch, testGateway)),
      { concurrency: lanes, discard: true }
    )
  )
  yield* tidy
  yield* sql`update history.plan set finished = true`
  const elapsedMs = clock.currentTimeMillisUnsafe() - begun
  return { ...options, elapsedMs, bytesBefore, bytes: yield* bytes, written: true } satisfies Loaded
})

const sentence = (error: SqlError.SqlError) => {
  const { cause } = error.reason
  return new CommandFailed({
    reason: `The history cannot be written: ${cause instanceof Error ? cause.message : error.message}.`
  })
}

/** Writes a history into the shop of a database. */
export const load = (url: Redacted.Redacted, options: Options): Effect.Effect<Loaded, CommandFailed> =>
  write(options).pipe(
    Effect.provide(
      Layer.merge(
        Database.layer({ url, maxConnections: lanes, applicationName: "merkato-history", statementTimeoutMs: 0 }),
        Passwords.layer
      )
    ),
    Effect.withTracerEnabled(false),
    Effect.catchTag("SqlError", (error) => Effect.fail(sentence(error)))
  )
