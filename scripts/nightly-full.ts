// What takes too long for every test run: a whole shop on the servers of the full profile, filled with real baskets and a past,
// every read model held against its events while people buy, one damaged on purpose, and long outages. For a nightly job.
import { spawn } from "node:child_process"
import { chmodSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import * as Database from "@merkato/infra/postgres/Database"
import * as RunningPostgres from "@merkato/infra/postgres/RunningPostgres"
import { freePort } from "@merkato/infra/runtime/Ports"
import { contextNames, contexts } from "@merkato/services/contexts"
import * as Options from "./Options.ts"
import * as Servers from "./server/Servers.ts"

const usage = `bun run nightly:full [--baskets FILE] [--limit N] [--history 45000] [--no-outages]
Fills a whole shop on the servers of the full profile and holds every read model against its events. Starts what it needs at
free ports and in folders of its own; ends with what it found, step by step, and with 1 when anything was not as it should be.
  --baskets     a file of real baskets to order; without it that step is not run
  --limit       at most so many of them
  --history     orders that the shop has behind it
  --no-outages  leaves the long outages out`

const options = Options.read(usage, {
  baskets: { type: "string" },
  limit: { type: "string" },
  history: { type: "string", default: "45000" },
  "no-outages": { type: "boolean", default: false }
})
if (options.limit !== undefined) Options.count("limit", options.limit)
Options.count("history", options.history)

const root = resolve(import.meta.dir, "..")
const where: Servers.Where = {
  cache: Servers.defaultCache(),
  folder: mkdtempSync(join(tmpdir(), "merkato-nightly-servers-"))
}
const servers = ["kafka", "redis", "apicurio", "opensearch", "cassandra", "clickhouse"].map(Servers.named)
const dataDir = mkdtempSync(join(tmpdir(), "merkato-nightly-"))
chmodSync(dataDir, 0o755)

/** Events that a replay has to have read to count as a long one. */
const manyEvents = 100_000

interface Step {
  readonly name: string
  readonly ok: boolean
  readonly tookMs: number
  readonly found: string
}
const steps: Array<Step> = []

interface Ended {
  readonly code: number | null
  readonly stdout: string
}

const run = (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>>) =>
  new Promise<Ended>((done, reject) => {
    const child = spawn(process.execPath, args, {
      cwd: root,
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "inherit"]
    })
    let stdout = ""
    child.stdout.on("data", (chunk) => {
      stdout += String(chunk)
      process.stdout.write(chunk)
    })
    child.once("error", reject)
    child.once("close", (code) => done({ code, stdout }))
  })

/** Does a step and judges it by what it printed. */
const step = async (name: string, work: () => Promise<Ended>, isGood: (ended: Ended) => boolean, tells: RegExp) => {
  console.log(`\n── ${name}`)
  const begun = performance.now()
  const ended = await work()
  const found = [...ended.stdout.matchAll(tells)].map(([line]) => line.trim()).join("; ")
  steps.push({ name, ok: isGood(ended), tookMs: performance.now() - begun, found })
  return ended
}

const succeeded = ({ code }: Ended) => code === 0
const parity = /^.*(?:events read in|rows compared).*$/gm

/** The whole shop, until `stop`. */
const startShop = async (port: number, environment: Readonly<Record<string, string>>) => {
  const args = ["--profile", "full", "--no-seed", "--data-dir", dataDir, "--port", String(port)]
  const child = spawn(process.execPath, ["apps/shop/src/main.ts", ...args], {
    cwd: root,
    env: { ...process.env, ...environment },
    stdio: ["ignore", "ignore", "inherit"]
  })
  const ended = new Promise<void>((done) => child.once("exit", () => done()))
  const isReady = () =>
    fetch(`http://127.0.0.1:${port}/readyz`).then(
      ({ ok }) => ok,
      () => false
    )
  while (!(await isReady())) {
    if (child.exitCode !== null) throw new Error("The shop did not start")
    await Bun.sleep(200)
  }
  return () => {
    child.kill("SIGTERM")
    return ended
  }
}

/** One row of somebody's is not what its events say. */
const damage = Effect.gen(function* () {
  const url = yield* RunningPostgres.url(dataDir)
  yield* SqlClient.SqlClient.use(
    (sql) => sql`
      update orders.orders_by_customer set total_minor = total_minor + 1
      where order_id = (select min(order_id) from orders.orders_by_customer)`
  ).pipe(Effect.provide(Database.layer({ url, maxConnections: 1, applicationName: "nightly" })))
})

const sales = 20

/** Sales that are on for an hour, so that the map of their prices has something to compare. */
const startSales = async (url: string, token: string): Promise<Ended> => {
  const ask = async (path: string, body?: unknown) => {
    const answer = await fetch(`${url}/api/v1/${path}`, {
      method: body === undefined ? "GET" : "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`)
    return answer.json()
  }
  const window = { startsAt: new Date().toISOString(), endsAt: new Date(Date.now() + 3_600_000).toISOString() }
  const products: { readonly items: ReadonlyArray<{ readonly productId: string; readonly currency: string }> } = Object(
    await ask(`products?limit=${sales}`)
  )
  for (const { productId, currency } of products.items) {
    await ask("flash-sales", { productId, currency, price: 0.01, ...window })
  }
  return { code: products.items.length === sales ? 0 : 1, stdout: `${products.items.length} sales` }
}

const nightly = async (settings: Readonly<Record<string, string>>) => {
  const port = await freePort()
  const environment = { ...settings, MERKATO_TRACE_SAMPLING: "0", MERKATO_LOG_LEVEL: "Error" }
  const stop = await startShop(port, environment)
  try {
    const shop = ["--data-dir", dataDir, "--url", `http://127.0.0.1:${port}`]
    const merkato = (...args: ReadonlyArray<string>) => run(["apps/merkato/src/main.ts", ...args], environment)
    const replay = (name: string, ...args: ReadonlyArray<string>) =>
      merkato("replay", name, ...args, "--data-dir", dataDir)

    if (options.baskets === undefined) console.log("NOT RUN (data): real baskets: --baskets says where they are")
    else {
      const file = resolve(options.baskets)
      const limit = options.limit === undefined ? [] : ["--limit", options.limit]
      await step(
        "import baskets",
        () => merkato("import", "baskets", file, ...limit, ...shop),
        succeeded,
        /^.*baskets in.*$/gm
      )
      if (options.limit === undefined) {
        const count = () => run(["scripts/count-baskets.ts", file, ...shop], environment)
        await step("the same sums as in the file", count, succeeded, /^(?:units|stock): .*$|^\d+ differences$/gm)
      }
    }

    if (options.baskets !== undefined) {
      const admin = await merkato("token", "--user", "NIGHTLY", "--role", "admin", "--data-dir", dataDir)
      await step(
        "flash sales",
        () => startSales(`http://127.0.0.1:${port}`, admin.stdout.trim()),
        succeeded,
        /^.*sales$/gm
      )
    }

    const names = contextNames.flatMap((context) =>
      [...contexts[context].projections, ...contexts[context].copies].map(({ name }) => name)
    )
    for (const name of names) await step(`replay ${name}`, () => replay(name), succeeded, parity)

    const size = ["--orders", options.history, "--customers", "5000", "--products", "500", "--days", "60"]
    const fill = () => merkato("load", "--history", ...size, "--beside-orders", "--data-dir", dataDir)
    await step("a past", fill, succeeded, /^.* orders in .*? orders\/s/gm)
    const buying = merkato("load", "--mix", "order", "--clients", "2", "--duration", "60s", ...shop)
    const isLong = (ended: Ended) =>
      succeeded(ended) &&
      Number(/^orders_by_customer: ([\d,]+) events read/m.exec(ended.stdout)?.[1]?.replaceAll(",", "")) >= manyEvents
    await step("replay orders_by_customer while people buy", () => replay("orders_by_customer"), isLong, parity)
    const bought = (ended: Ended) => succeeded(ended) && /^pay order +[1-9]/m.test(ended.stdout)
    await step("people bought meanwhile", () => buying, bought, /^(?:place|pay) order +[\d,]+/gm)

    await Effect.runPromise(damage)
    const finds = ({ code, stdout }: Ended) => code === 1 && stdout.includes(" rows compared, 1 difference:\n")
    await step("a damaged row is found and mended", () => replay("orders_by_customer"), finds, parity)
    await step("and is whole again", () => replay("orders_by_customer", "--check"), succeeded, parity)
  } finally {
    await stop()
  }
}

try {
  const settings = await Servers.up(servers, where, { freePorts: true, owner: process.pid })
  try {
    await nightly(settings)
  } finally {
    await Servers.down(servers, where, { wipe: true })
  }
  if (!options["no-outages"]) {
    // CI: a server that cannot be had is a failure, and not left out.
    const asked = { MERKATO_OUTAGES: "long", CI: "true" }
    const outages = () => run(["test", "--timeout", "1200000", "tests/kafka.test.ts", "tests/links.test.ts"], asked)
    const tells = /^\d+ (?:consumers killed|purchases).*$/gm
    const wereLong = (ended: Ended) => succeeded(ended) && [...ended.stdout.matchAll(tells)].length === 3
    await step("long outages", outages, wereLong, tells)
  }
} finally {
  for (const folder of [dataDir, where.folder]) rmSync(folder, { recursive: true, force: true })
}

console.log("")
for (const { name, ok, tookMs, found } of steps) {
  console.log(`${ok ? "ok    " : "FAILED"}  ${`${(tookMs / 1_000).toFixed(0)} s`.padStart(7)}  ${name}: ${found}`)
}
process.exit(steps.every(({ ok }) => ok) ? 0 : 1)
