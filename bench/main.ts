// bun run bench [--rounds 3] [--seconds 5]
// Starts its own Postgres (default durability) and its own shop, runs each workload beside its twin in turns, and prints
// medians, ranges and ratios. The twins: pgbench with a hand-written transaction on the same server, and a bare Bun.serve.
import { spawn } from "node:child_process"
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Redacted } from "effect"
import { UserId } from "@merkato/domain/kernel/Ids"
import { Principal } from "@merkato/domain/kernel/RequestContext"
import { KeyRing } from "@merkato/infra/auth/KeyRing"
import { Tokens } from "@merkato/infra/auth/Tokens"
import { EmbeddedPostgres } from "@merkato/infra/postgres/EmbeddedPostgres"
import * as Cpu from "./Cpu.ts"
import * as HttpLoad from "./HttpLoad.ts"
import { findPgbench, pgbench } from "./Twin.ts"

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "5" },
    help: { type: "boolean" }
  }
})
if (options.help === true) {
  console.log(
    "bun run bench [--rounds 3] [--seconds 5]\nMeasures the shop beside pgbench and a bare Bun.serve. Wants an otherwise idle machine."
  )
  process.exit(0)
}
const rounds = Number(options.rounds)
const seconds = Number(options.seconds)
const root = new URL("..", import.meta.url).pathname

const binary = findPgbench()
if (binary === undefined) {
  console.error("pgbench is not installed; it comes with Debian's postgresql package (apt-get install postgresql)")
  process.exit(1)
}

const median = (figures: ReadonlyArray<number>) => {
  const sorted = figures.toSorted((a, b) => a - b)
  const [low = 0, high = low] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.floor(sorted.length / 2)]]
  return (low + high) / 2
}
const range = (figures: ReadonlyArray<number>, digits = 0) =>
  `${median(figures).toFixed(digits)} (${Math.min(...figures).toFixed(digits)}–${Math.max(...figures).toFixed(digits)})`

const freshPort = () => {
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() })
  const { port } = server
  void server.stop(true)
  return port ?? 0
}

const startShop = async (databaseUrl: string, dataDir: string) => {
  const port = freshPort()
  const child = spawn(
    process.execPath,
    [join(root, "apps/shop/src/main.ts"), "--port", String(port), "--data-dir", dataDir, "--no-seed"],
    {
      env: { ...process.env, DATABASE_URL: databaseUrl, MERKATO_LOG_LEVEL: "Warn" },
      stdio: ["ignore", "ignore", "inherit"]
    }
  )
  for (let waited = 0; waited < 400; waited++) {
    if (
      await fetch(`http://127.0.0.1:${port}/readyz`).then(
        (answer) => answer.ok,
        () => false
      )
    ) {
      return { port, pid: child.pid ?? 0, stop: () => child.kill("SIGTERM") }
    }
    await Bun.sleep(50)
  }
  child.kill("SIGKILL")
  throw new Error("The shop did not become ready")
}

const tokens = (dataDir: string, users: number) =>
  Effect.gen(function* () {
    const { issue } = yield* Tokens
    const admin = yield* issue(new Principal({ userId: UserId.make("ADMIN"), role: "admin", region: "us" }), 3_600)
    const shoppers = yield* Effect.forEach(
      Array.from({ length: users }, (_, n) => n),
      (n) => issue(new Principal({ userId: UserId.make(`SHOPPER-${n}`), role: "shopper", region: "us" }), 3_600)
    )
    return { admin, shoppers }
  }).pipe(Effect.provide(Tokens.layer.pipe(Layer.provide(KeyRing.layer(dataDir)))))

const products = 1_000

/** No limits for what a checkout calls, as a limits file says it. */
const withoutLimits = Object.fromEntries(
  ["payment.soap", "payment.rest", "stock.reserve", "risk.assess"].map((operation) => [
    operation,
    { deadlineMs: null, attemptTimeoutMs: null, breaker: null, bulkhead: null, retryBudget: null }
  ])
)

const twinOf = (name: string) => {
  if (name.startsWith("GET")) return "bare Bun.serve, the same bytes"
  return name.startsWith("checkout") ? "see above" : "pgbench -M prepared, 8 clients, one commit"
}

const fillShelf = async (port: number, admin: string) => {
  const ids: Array<string> = []
  const post = async (path: string, body: unknown): Promise<Record<string, unknown>> => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
      method: "POST",
      headers: { authorization: `Bearer ${admin}`, "content-type": "application/json" },
      body: JSON.stringify(body)
    })
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`)
    return Object.fromEntries(Object.entries(Object(await answer.json())))
  }
  const one = async (n: number) => {
    const product = await post("/api/v1/products", {
      sku: `BENCH-${n}`,
      name: `Product ${n}`,
      description: "x".repeat(200),
      category: "Bench",
      price: 10 + (n % 90),
      currency: "USD"
    })
    const id = String(product["productId"])
    await post(`/api/v1/inventory/${id}/adjustments`, { delta: 1_000_000, reason: "bench" })
    ids.push(id)
  }
  for (let n = 0; n < products; n += 20) await Promise.all(Array.from({ length: 20 }, (_, k) => one(n + k)))
  return ids
}

interface Row {
  readonly name: string
  readonly ours: Array<number>
  readonly twin: Array<number>
  readonly p50: Array<number>
  readonly p95: Array<number>
  readonly p99: Array<number>
  /** CPU milliseconds per request: shop, Postgres, generator. */
  readonly cpu: Array<readonly [number, number, number]>
  /** Transactions that Postgres committed per request, background work included. */
  readonly commits: Array<number>
  readonly errors: Map<number, number>
}
const row = (name: string): Row => ({
  name,
  ours: [],
  twin: [],
  p50: [],
  p95: [],
  p99: [],
  cpu: [],
  commits: [],
  errors: new Map()
})

const bench = Effect.gen(function* () {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const path = mkdtempSync(join(tmpdir(), "merkato-bench-"))
      chmodSync(path, 0o755) // the embedded Postgres runs as another user when this is root
      return path
    }),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const postgres = yield* EmbeddedPostgres.start({ dataDir: join(folder, "postgres-data") })
  const url = new URL(Redacted.value(postgres.url))
  const postmaster = Number(readFileSync(join(folder, "postgres-data/postgres/postmaster.pid"), "utf8").split("\n")[0])
  const database = (name: string) => {
    const copy = new URL(url)
    copy.pathname = `/${name}`
    return copy
  }
  const sql = (name: string) => PgClient.layer({ url: Redacted.make(database(name).href), maxConnections: 1 })
  yield* Effect.gen(function* () {
    const client = yield* PgClient.PgClient
    yield* client.unsafe("create database shop")
    yield* client.unsafe("create database twin")
  }).pipe(Effect.provide(sql("postgres")))
  yield* Effect.gen(function* () {
    const client = yield* PgClient.PgClient
    const schema = readFileSync(join(root, "bench/sql/twin.sql"), "utf8").replaceAll(/^--.*$/gm, "")
    for (const statement of schema.split(/;\s*$/m)) if (statement.trim() !== "") yield* client.unsafe(statement)
  }).pipe(Effect.provide(sql("twin")))

  const dataDir = join(folder, "shop-data")
  const shop = yield* Effect.acquireRelease(
    Effect.promise(() => startShop(database("shop").href, dataDir)),
    ({ stop }) => Effect.sync(stop)
  )
  const { admin, shoppers } = yield* tokens(dataDir, 64)
  console.log(`filling the shelf with ${products} products`)
  const ids = yield* Effect.promise(() => fillShelf(shop.port, admin))

  /** Commits so far; a backend tells its share a second after its last one. */
  const commits = Effect.andThen(
    Effect.sleep("1200 millis"),
    Effect.gen(function* () {
      const client = yield* PgClient.PgClient
      const [told] = yield* client<{ count: string }>`
        select xact_commit::text as count from pg_stat_database where datname = 'shop'`
      return Number(told?.count)
    }).pipe(Effect.provide(sql("postgres")))
  )

  const load = (into: Row, clients: number, next: HttpLoad.Load["next"]) =>
    Effect.gen(function* () {
      const committed = yield* commits
      const requests = yield* measured(into, clients, next)
      into.commits.push(((yield* commits) - committed) / Math.max(1, requests))
    })

  const measured = (into: Row, clients: number, next: HttpLoad.Load["next"]) =>
    Effect.promise(async () => {
      const before = [Cpu.ofTree(shop.pid), Cpu.ofTree(postmaster), process.cpuUsage()] as const
      const result = await HttpLoad.run({ host: "127.0.0.1", port: shop.port, clients, seconds, next })
      const own = process.cpuUsage(before[2])
      const per = (cpuSeconds: number) => (cpuSeconds * 1_000) / Math.max(1, result.requests)
      into.ours.push(result.perSecond)
      into.p50.push(result.p50)
      into.p95.push(result.p95)
      into.p99.push(result.p99)
      into.cpu.push([
        per(Cpu.ofTree(shop.pid) - before[0]),
        per(Cpu.ofTree(postmaster) - before[1]),
        per((own.user + own.system) / 1_000_000)
      ])
      for (const [status, count] of result.byStatus) {
        if (status >= 400) into.errors.set(status, (into.errors.get(status) ?? 0) + count)
      }
      return result.requests
    })

  let run = 0
  const placeOrder = (clients: number, into: Row) =>
    Effect.suspend(() => {
      run += 1
      const tag = run
      return load(into, clients, (client, nth) => ({
        method: "POST",
        path: "/api/v1/orders",
        headers: `authorization: Bearer ${shoppers[client] ?? admin}\r\nidempotency-key: b${tag}-${client}-${nth}\r\n`,
        body: `{"items":[{"productId":"${ids[Math.floor(Math.random() * 500)]}","qty":1},{"productId":"${ids[500 + Math.floor(Math.random() * 500)]}","qty":1}]}`
      }))
    })

  /** Carts with two lines for a run of checkouts, put into the database by hand: what is measured begins with the checkout. */
  const fillCarts = (tag: number, clients: number) =>
    Effect.gen(function* () {
      const client = yield* PgClient.PgClient
      const perClient = seconds * 200
      yield* client`
        with carts as (
          insert into cart.carts (cart_id, owner_id, guest, currency, version, created_at, updated_at)
          select 'CART-' || ${tag}::int || '-' || client || '-' || nth, 'SHOPPER-' || client, false, 'USD', 1, now(), now()
          from generate_series(0, ${clients - 1}::int) client, generate_series(0, ${perClient}::int) nth
          returning cart_id
        )
        insert into cart.cart_items (cart_id, product_id, qty, line)
        select cart_id, (${ids}::text[])[line * 500 + 1 + abs(hashtext(cart_id || line)) % 500], 1, line + 1
        from carts, generate_series(0, 1) line`
    }).pipe(Effect.provide(sql("shop")))

  const checkout = (clients: number, into: Row) =>
    Effect.gen(function* () {
      run += 1
      const tag = run
      yield* fillCarts(tag, clients)
      yield* load(into, clients, (client, nth) => ({
        method: "POST",
        path: "/api/v1/checkout",
        headers: `authorization: Bearer ${shoppers[client] ?? admin}\r\nidempotency-key: c${tag}-${client}-${nth}\r\n`,
        body: `{"cartId":"CART-${tag}-${client}-${nth}","paymentToken":"tok_ok"}`
      }))
    })

  /** The limits file is read every three seconds. */
  const policies = (on: boolean) =>
    Effect.andThen(
      Effect.sync(() => writeFileSync(join(dataDir, "policies.json"), JSON.stringify(on ? {} : withoutLimits))),
      Effect.sleep("4 seconds")
    )

  const checkout8 = row("checkout, 2 lines, 8 clients (twin: POST /orders with the same)")
  const unguarded8 = row("checkout without policies, 8 clients (twin: the same with them)")
  const place8 = row("place order, 2 lines, 8 clients")
  const place16 = row("place order, 2 lines, 16 clients")
  const place64 = row("place order, 2 lines, 64 clients")
  const read = row("GET product, 16 clients")
  const script = join(root, "bench/sql/place-order.sql")

  const sample = yield* Effect.promise(() =>
    fetch(`http://127.0.0.1:${shop.port}/api/v1/products/${ids[0]}`).then((answer) => answer.text())
  )
  const bare = yield* Effect.acquireRelease(
    Effect.promise(async () => {
      const child = Bun.spawn([process.execPath, join(root, "bench/bare-server.ts"), sample], { stdout: "pipe" })
      const { value } = await child.stdout.getReader().read()
      return {
        port: Number(
          Buffer.from(value ?? [])
            .toString()
            .trim()
        ),
        child
      }
    }),
    ({ child }) => Effect.sync(() => child.kill())
  )

  yield* placeOrder(8, row("warm-up"))
  for (let round = 1; round <= rounds; round++) {
    console.log(`round ${round} of ${rounds}`)
    for (const [clients, into] of [
      [8, place8],
      [16, place16],
      [64, place64]
    ] as const) {
      into.twin.push(yield* Effect.promise(() => pgbench(binary, database("twin"), script, 8, seconds)))
      yield* placeOrder(clients, into)
    }
    // The process and what guards it, as a share of the bare order path.
    yield* checkout(8, checkout8)
    checkout8.twin.push(place8.ours.at(-1) ?? Number.NaN)
    yield* policies(false)
    yield* checkout(8, unguarded8)
    unguarded8.twin.push(checkout8.ours.at(-1) ?? Number.NaN)
    yield* policies(true)
    const get = (_: number, nth: number): HttpLoad.Sent => ({
      method: "GET",
      path: `/api/v1/products/${ids[nth % ids.length]}`
    })
    const twin = yield* Effect.promise(() =>
      HttpLoad.run({ host: "127.0.0.1", port: bare.port, clients: 16, seconds, next: get })
    )
    read.twin.push(twin.perSecond)
    yield* load(read, 16, get)
  }

  console.log(`\nmedian (lowest–highest) of ${rounds} rounds of ${seconds} s; CPU in ms per request`)
  for (const { name, ours, twin, p50, p95, p99, cpu, commits, errors } of [
    place8,
    place16,
    place64,
    checkout8,
    unguarded8,
    read
  ]) {
    const ratio = ours.map((figure, index) => figure / (twin[index] ?? Number.NaN))
    const part = (index: 0 | 1 | 2) => median(cpu.map((figures) => figures[index])).toFixed(3)
    console.log(`\n${name}`)
    console.log(
      `  shop        ${range(ours)} /s   p50 ${range(p50, 2)} ms   p95 ${range(p95, 2)} ms   p99 ${range(p99, 2)} ms`
    )
    console.log(`  twin        ${range(twin)} /s   ${twinOf(name)}`)
    console.log(`  ratio       ${range(ratio, 2)}`)
    console.log(`  CPU         shop ${part(0)}   Postgres ${part(1)}   generator ${part(2)}`)
    console.log(`  commits     ${range(commits, 2)} per request`)
    if (errors.size > 0)
      console.log(`  errors      ${[...errors].map(([status, count]) => `${status}: ${count}`).join(", ")}`)
  }
}).pipe(Effect.scoped, Effect.withTracerEnabled(false))

await Effect.runPromise(bench)
