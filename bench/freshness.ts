// How long a change takes to those who read it off a read model: of stock to `inventory_snapshot` in Redis, of a product to
// the search index in OpenSearch; while orders come in. The whole shop on the servers of the full profile, in one process.
import { chmodSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { RedisClient } from "bun"
import { Effect } from "effect"
import * as Options from "../scripts/Options.ts"
import * as Servers from "../scripts/server/Servers.ts"
import * as HttpLoad from "./HttpLoad.ts"
import * as Program from "./Program.ts"
import * as Stage from "./Stage.ts"

const usage = `bun run bench:freshness [--rate 500] [--clients 32] [--seconds 30]
Milliseconds from the answer to a change until a read model has it, while orders are placed. Wants an otherwise idle machine.
  --rate     orders of two lines that begin each second; where the machine does not take as many, the load is what it takes
  --clients  who places them
  --seconds  for how long`

const options = Options.read(usage, {
  rate: { type: "string", default: "500" },
  clients: { type: "string", default: "32" },
  seconds: { type: "string", default: "30" }
})
const rate = Options.count("rate", options.rate)
const clients = Options.count("clients", options.clients)
const seconds = Options.count("seconds", options.seconds)

/** Milliseconds between two changes of a kind, and between two looks whether one has come. */
const pace = { changesMs: 100, stockMs: 2, searchMs: 20 } as const

/** Milliseconds that a change is waited for. */
const patienceMs = 60_000

const names = ["kafka", "redis", "apicurio", "opensearch", "cassandra"]

const temporaryFolder = Effect.acquireRelease(
  Effect.sync(() => {
    const path = mkdtempSync(join(tmpdir(), "merkato-bench-"))
    chmodSync(path, 0o755)
    return path
  }),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** All servers of the full profile, at free ports; what the shop is told of them. */
const servers = Effect.gen(function* () {
  const where: Servers.Where = { cache: Servers.defaultCache(), folder: yield* temporaryFolder }
  const wanted = names.map(Servers.named)
  return yield* Effect.acquireRelease(
    Effect.promise(() => Servers.up(wanted, where, { freePorts: true, owner: process.pid })),
    () => Effect.promise(() => Servers.down(wanted, where, { wipe: true }))
  )
})

/** How long it takes until it is so; undefined when it never is. */
const timeUntil = async (isSo: () => Promise<boolean>, everyMs: number): Promise<number | undefined> => {
  const begun = performance.now()
  while (performance.now() - begun < patienceMs) {
    if (await isSo()) return performance.now() - begun
    await Bun.sleep(everyMs)
  }
  return undefined
}

interface Fresh {
  readonly took: Array<number>
  lost: number
}

/** Makes a change now and then as long as the load lasts; `change` comes back when it is answered, and says how to see it. */
const watch = async (
  isOver: () => boolean,
  change: (nth: number) => Promise<() => Promise<boolean>>,
  everyMs: number
) => {
  const fresh: Fresh = { took: [], lost: 0 }
  for (let nth = 0; !isOver(); nth++) {
    const took = await timeUntil(await change(nth), everyMs)
    if (took === undefined) fresh.lost += 1
    else fresh.took.push(took)
    await Bun.sleep(pace.changesMs)
  }
  return fresh
}

const line = (what: string, { took, lost }: Fresh, wantedMs: number) => {
  const sorted = took.toSorted((a, b) => a - b)
  const at = (share: number) => (sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN).toFixed(0)
  return `${what}: ${took.length} changes, p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, most ${at(1)} ms (wanted: p99 below ${wantedMs} ms)${lost === 0 ? "" : `; ${lost} NEVER CAME`}`
}

const bench = Effect.gen(function* () {
  const settings = yield* servers
  // The stage's shop inherits them.
  Object.assign(process.env, settings)
  const stage = yield* Stage.make({
    shoppers: clients,
    profile: undefined,
    history: 0,
    planning: false,
    keptIn: undefined
  })
  const shop = `http://127.0.0.1:${stage.shop.port}`
  const ask = async (method: string, path: string, body: unknown): Promise<Record<string, unknown>> => {
    const answer = await fetch(`${shop}${path}`, {
      method,
      headers: { authorization: `Bearer ${stage.admin}`, "content-type": "application/json" },
      body: JSON.stringify(body)
    })
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`)
    return Object.fromEntries(Object.entries(Object(await answer.json())))
  }
  const product = { sku: "FRESH", name: "Fresh", category: "Test", price: 1, currency: "USD" }
  const made = yield* Effect.promise(() => ask("POST", "/api/v1/products", product))
  const productId = String(made["productId"])
  const redis = yield* Effect.acquireRelease(
    Effect.sync(() => new RedisClient(settings["REDIS_URL"] ?? "")),
    (redis) => Effect.sync(() => redis.close())
  )

  /** Units on hand, as the snapshot tells them. */
  const stock = async (nth: number) => {
    const wanted = nth + 1
    await ask("POST", `/api/v1/inventory/${productId}/adjustments`, { delta: 1, reason: "bench" })
    return async () => {
      const fields: Record<string, unknown> = Object(await redis.hgetall(`inventory:${productId}`))
      return Object.entries(fields).some(([name, value]) => name.endsWith(".on_hand") && Number(value) === wanted)
    }
  }
  /** The name of a product, as the index finds it. */
  const search = async (nth: number) => {
    const word = `fresh${nth}x`
    await ask("PATCH", `/api/v1/products/${productId}`, { name: `Very ${word}` })
    return async () => {
      const answer = await fetch(`${settings["OPENSEARCH_URL"]}/merkato_product_search_index/_search?q=name:${word}`)
      const found: { readonly hits?: { readonly hits: ReadonlyArray<unknown> } } = Object(await answer.json())
      return (found.hits?.hits.length ?? 0) === 1
    }
  }

  const pick = (from: number) => {
    const half = stage.productIds.length / 2
    return `{"productId":"${stage.productIds[from + Math.floor(Math.random() * half)]}","qty":1}`
  }
  const load = (forSeconds: number, run: string) =>
    HttpLoad.run({
      host: "127.0.0.1",
      port: stage.shop.port,
      clients,
      seconds: forSeconds,
      perSecond: rate,
      next: (client, nth) => ({
        method: "POST",
        path: "/api/v1/orders",
        headers: `authorization: Bearer ${stage.shoppers[client]}\r\nidempotency-key: fresh-${run}-${client}-${nth}\r\n`,
        body: `{"items":[${pick(0)},${pick(stage.productIds.length / 2)}]}`
      })
    })

  yield* Effect.promise(async () => {
    await load(Math.min(5, seconds), "warm")
    // Behind what stocking the shelf and the warm-up left to do.
    const caughtUp = await timeUntil(await search(1_000_000), pace.searchMs)
    if (caughtUp === undefined) throw new Error("The search index does not catch up")
    let over = false
    const [orders, snapshot, index] = await Promise.all([
      load(seconds, "run").finally(() => (over = true)),
      watch(() => over, stock, pace.stockMs),
      watch(() => over, search, pace.searchMs)
    ])
    const statuses = [...orders.byStatus].map(([status, count]) => `${count} × ${status}`).join(", ")
    console.log(
      `orders: ${orders.perSecond.toFixed(0)}/s of ${rate}/s (${statuses}), p50 ${orders.p50.toFixed(0)} ms, p99 ${orders.p99.toFixed(0)} ms`
    )
    console.log(line("stock to inventory_snapshot in Redis", snapshot, 500))
    console.log(line("product to the search index in OpenSearch", index, 5_000))
  })
}).pipe(Effect.scoped)

Program.run(bench)
