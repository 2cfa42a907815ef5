// What a run of the bench stands on: a Postgres of its own with default durability, a shop with goods on its shelf, the
// twin's tables beside it, and the counters that say where the time went.
import { spawn } from "node:child_process"
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { UserId } from "@merkato/domain/kernel/Ids"
import { Principal } from "@merkato/domain/kernel/RequestContext"
import { KeyRing } from "@merkato/infra/auth/KeyRing"
import { Tokens } from "@merkato/infra/auth/Tokens"
import { EmbeddedPostgres } from "@merkato/infra/postgres/EmbeddedPostgres"
import * as History from "../apps/merkato/src/history/History.ts"
import * as Cpu from "./Cpu.ts"
import * as Memory from "./Memory.ts"
import * as Shelf from "./Shelf.ts"

const root = new URL("..", import.meta.url).pathname

/** The share of requests that are traced: their spans go to a collector that throws them away. */
const sampling = 0.01

export interface Stage {
  readonly shop: { readonly port: number; readonly pid: number }
  readonly dataDir: string
  readonly productIds: ReadonlyArray<string>
  readonly admin: string
  /** Access tokens of shoppers who have signed in. */
  readonly shoppers: ReadonlyArray<string>
  /** Databases of the server: `shop`, `twin`. */
  readonly database: (name: string) => URL
  readonly sql: (name: string) => Layer.Layer<SqlClient.SqlClient>
  /** Transactions that the shop's database has committed so far. */
  readonly commits: Effect.Effect<number>
  /** Statements since this was asked last, those that took longest first. */
  readonly statements: Effect.Effect<ReadonlyArray<Statement>>
  /** CPU seconds so far. */
  readonly cpu: () => Used
  /** Events that wait for their relay. */
  readonly unpublished: Effect.Effect<number>
  /** Seconds from nothing running to a shop that is ready, on data that is there: Postgres first, then the shop. */
  readonly ready: { readonly postgres: number; readonly shop: number }
  /** MiB that are taken up now. */
  readonly memory: () => { readonly shop: number; readonly postgres: number }
}

/** Orders that a shop has behind it, with the products and customers that go with them: a fiftieth, and a fifth. */
const historyOf = (orders: number) => ({
  orders,
  products: Math.max(1_000, Math.min(100_000, Math.ceil(orders / 50))),
  customers: Math.max(1_000, Math.ceil(orders / 5)),
  days: 730,
  besideOrders: false
})

/** A statement of the shop, background work included; `begin` and `commit` are statements, too. Each call is a round trip. */
export interface Statement {
  readonly text: string
  readonly calls: number
  /** Milliseconds in the server, of all calls together; planning apart. */
  readonly ms: number
  /** How often it was planned, and how long that took. */
  readonly plans: number
  readonly planMs: number
}

export interface Used {
  readonly shop: number
  readonly postgres: number
  /** The generator: this process. */
  readonly generator: number
}

const freshPort = () => {
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() })
  const { port } = server
  void server.stop(true)
  return port ?? 0
}

const startShop = async (options: {
  readonly databaseUrl: string
  readonly dataDir: string
  readonly collector: string
  readonly profile: string | undefined
}) => {
  const port = freshPort()
  const { profile } = options
  const child = spawn(
    process.execPath,
    [
      ...(profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profile}`]),
      join(root, "apps/shop/src/main.ts"),
      "--port",
      String(port),
      "--data-dir",
      options.dataDir,
      "--no-seed"
    ],
    {
      env: {
        ...process.env,
        DATABASE_URL: options.databaseUrl,
        MERKATO_LOG_LEVEL: "Warn",
        MERKATO_TRACE_SAMPLING: String(sampling),
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: options.collector
      },
      stdio: ["ignore", "ignore", "inherit"]
    }
  )
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()))
  for (let waited = 0; waited < 1_200; waited++) {
    const ready = await fetch(`http://127.0.0.1:${port}/readyz`).then(
      (answer) => answer.ok,
      () => false
    )
    if (ready) {
      return {
        port,
        pid: child.pid ?? 0,
        stop: () => {
          child.kill("SIGTERM")
          return ended
        }
      }
    }
    await Bun.sleep(50)
  }
  child.kill("SIGKILL")
  throw new Error("The shop did not become ready")
}

const tokens = (dataDir: string, users: number) =>
  Effect.gen(function* () {
    const { issue } = yield* Tokens
    const admin = yield* issue(new Principal({ userId: UserId.make("ADMIN"), role: "admin", region: "us" }), 7_200)
    const shoppers = yield* Effect.forEach(
      Array.from({ length: users }, (_, n) => n),
      (n) => issue(new Principal({ userId: UserId.make(`SHOPPER-${n}`), role: "shopper", region: "us" }), 7_200)
    )
    return { admin, shoppers }
  }).pipe(Effect.provide(Tokens.layer.pipe(Layer.provide(KeyRing.layer(dataDir)))))

/** Sets everything up; what it started ends with the scope. `profile` is a folder for a CPU profile of the shop. */
export const make = Effect.fnUntraced(function* (options: {
  readonly shoppers: number
  readonly profile: string | undefined
  /** Orders that the shop has behind it. */
  readonly history: number
  /** Whether planning is measured too, for which Postgres takes a little time itself. */
  readonly planning: boolean
  /** A folder that stays; otherwise all of it is thrown away. */
  readonly keptIn: string | undefined
}) {
  const { keptIn } = options
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => {
      if (keptIn !== undefined) mkdirSync(keptIn, { recursive: true })
      const path = keptIn ?? mkdtempSync(join(tmpdir(), "merkato-bench-"))
      chmodSync(path, 0o755) // the embedded Postgres runs as another user when this is root
      return path
    }),
    (path) => Effect.sync(() => (keptIn === undefined ? rmSync(path, { recursive: true, force: true }) : undefined))
  )
  const startPostgres = EmbeddedPostgres.start({
    dataDir: join(folder, "postgres-data"),
    settings: {
      shared_preload_libraries: "pg_stat_statements",
      "pg_stat_statements.track_planning": options.planning ? "on" : "off"
    }
  })
  const collector = yield* Effect.acquireRelease(
    Effect.sync(() => Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("{}") })),
    (server) => Effect.promise(() => server.stop(true))
  )
  const dataDir = join(folder, "shop-data")
  const openShop = (url: URL, profile?: string) =>
    Effect.acquireRelease(
      Effect.promise(() =>
        startShop({
          databaseUrl: url.href,
          dataDir,
          collector: `http://127.0.0.1:${collector.port}/v1/traces`,
          profile
        })
      ),
      ({ stop }) => Effect.promise(stop)
    )
  const databaseOf = (server: Redacted.Redacted) => (name: string) => {
    const copy = new URL(Redacted.value(server))
    copy.pathname = `/${name}`
    return copy
  }
  const sqlOf = (url: URL) => Layer.orDie(PgClient.layer({ url: Redacted.make(url.href), maxConnections: 1 }))

  // Once for the schemas and the history; what is measured begins with everything stopped.
  yield* Effect.gen(function* () {
    const at = databaseOf((yield* startPostgres).url)
    yield* Effect.gen(function* () {
      const client = yield* SqlClient.SqlClient
      yield* client.unsafe("create extension if not exists pg_stat_statements")
      // The twin is new each time.
      yield* client.unsafe("drop database if exists twin")
      yield* client.unsafe("create database twin")
      const shop = yield* client`select from pg_database where datname = 'shop'`
      if (shop.length === 0) yield* client.unsafe("create database shop")
    }).pipe(Effect.provide(sqlOf(at("postgres"))))
    yield* Effect.gen(function* () {
      const client = yield* SqlClient.SqlClient
      const schema = readFileSync(join(root, "bench/sql/twin.sql"), "utf8").replaceAll(/^--.*$/gm, "")
      for (const statement of schema.split(/;\s*$/m)) if (statement.trim() !== "") yield* client.unsafe(statement)
    }).pipe(Effect.provide(sqlOf(at("twin"))))

    yield* Effect.scoped(openShop(at("shop")))
    if (options.history > 0) {
      const loaded = yield* History.load(Redacted.make(at("shop").href), historyOf(options.history))
      console.log(
        `a history of ${loaded.orders} orders ${loaded.written ? `in ${(loaded.elapsedMs / 1_000).toFixed(0)} s` : "was there"}, ${Math.round(loaded.bytes / 1_048_576)} MiB`
      )
    }
  }).pipe(Effect.scoped)

  const begun = performance.now()
  const postgres = yield* startPostgres
  const listening = performance.now()
  const database = databaseOf(postgres.url)
  const sql = (name: string) => sqlOf(database(name))
  const shop = yield* openShop(database("shop"), options.profile)
  const ready = { postgres: (listening - begun) / 1_000, shop: (performance.now() - listening) / 1_000 }
  const postmaster = Number(readFileSync(join(folder, "postgres-data/postgres/postmaster.pid"), "utf8").split("\n")[0])
  const { admin, shoppers } = yield* tokens(dataDir, options.shoppers)
  const productIds = yield* Effect.promise(() => Shelf.fill(shop.port, admin))

  /** A backend tells its share a second after its last transaction. */
  const commits = Effect.andThen(
    Effect.sleep("1200 millis"),
    Effect.gen(function* () {
      const client = yield* SqlClient.SqlClient
      const [told] = yield* client<{ commits: string }>`
        select xact_commit::text as commits from pg_stat_database where datname = 'shop'`
      return Number(told?.commits)
    }).pipe(Effect.provide(sql("postgres")))
  )

  const statements = Effect.gen(function* () {
    const client = yield* SqlClient.SqlClient
    const rows = yield* client<Statement>`
      select query as text, sum(calls)::float8 as calls, sum(total_exec_time)::float8 as ms,
        sum(plans)::float8 as plans, sum(total_plan_time)::float8 as "planMs"
      from pg_stat_statements join pg_database on oid = dbid where datname = 'shop' group by query
      order by sum(total_exec_time + total_plan_time) desc`
    yield* client`select pg_stat_statements_reset()`
    return rows
  }).pipe(Effect.provide(sql("postgres")))

  const unpublished = Effect.gen(function* () {
    const client = yield* SqlClient.SqlClient
    const [told] = yield* client<{ waiting: string }>`
      select ((select count(*) from orders.outbox) + (select count(*) from inventory.outbox))::text as waiting`
    return Number(told?.waiting)
  }).pipe(Effect.provide(sql("shop")))

  const cpu = (): Used => {
    const own = process.cpuUsage()
    return {
      shop: Cpu.ofTree(shop.pid),
      postgres: Cpu.ofTree(postmaster),
      generator: (own.user + own.system) / 1_000_000
    }
  }

  return {
    shop,
    dataDir,
    productIds,
    admin,
    shoppers,
    database,
    sql,
    commits: Effect.orDie(commits),
    statements: Effect.orDie(statements),
    cpu,
    unpublished: Effect.orDie(unpublished),
    ready,
    memory: () => ({ shop: Memory.ofTree(shop.pid), postgres: Memory.ofTree(postmaster) })
  } satisfies Stage
})
