// How long a change of an order takes to its watchers, and a flash sale to its listeners, with many of them connected; and
// what they cost in memory. One process of the shop; the clients are in this one.
import { chmodSync, mkdtempSync, rmSync } from "node:fs"
import { spawn } from "node:child_process"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Layer, Redacted } from "effect"
import { UserId } from "@merkato/domain/kernel/Ids"
import { Principal, type Role } from "@merkato/domain/kernel/RequestContext"
import { KeyRing } from "@merkato/infra/auth/KeyRing"
import { Tokens } from "@merkato/infra/auth/Tokens"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { freePort } from "@merkato/infra/runtime/Ports"
import * as Options from "../scripts/Options.ts"
import * as Memory from "./Memory.ts"
import * as Program from "./Program.ts"

const usage = `bun run bench:live [--sockets 1000] [--streams 5000] [--changes 200]
Milliseconds from what happened (as its event says, before its commit) to the frame at the client. Wants an otherwise idle
machine, and more open files than there are clients (ulimit -n).
  --sockets  WebSockets that watch, each somebody else's orders
  --streams  event streams of flash sales
  --changes  orders that are placed, paid and fulfilled while they watch`

const options = Options.read(usage, {
  sockets: { type: "string", default: "1000" },
  streams: { type: "string", default: "5000" },
  changes: { type: "string", default: "200" }
})
const sockets = Options.count("sockets", options.sockets)
const streams = Options.count("streams", options.streams)
const changes = Options.count("changes", options.changes)

const root = new URL("..", import.meta.url).pathname

/** Clients that are connected at a time, so that the listener's backlog takes them. */
const connectAtATime = 50

const percentile = (figures: ReadonlyArray<number>, share: number) =>
  figures.toSorted((a, b) => a - b)[Math.ceil(figures.length * share) - 1] ?? Number.NaN
const line = (what: string, figures: ReadonlyArray<number>) =>
  `${what}: ${figures.length} times, p50 ${percentile(figures, 0.5)} ms, p99 ${percentile(figures, 0.99)} ms, most ${percentile(figures, 1)} ms`

const until = async (isTrue: () => boolean, what: string) => {
  const deadline = Date.now() + 120_000
  while (!isTrue()) {
    if (Date.now() > deadline) throw new Error(`never came: ${what}`)
    await Bun.sleep(20)
  }
}
const inParts = async (count: number, one: (nth: number) => Promise<void>) => {
  for (let nth = 0; nth < count; nth += connectAtATime) {
    await Promise.all(Array.from({ length: Math.min(connectAtATime, count - nth) }, (_, more) => one(nth + more)))
  }
}

const program = Effect.gen(function* () {
  const { url: database } = yield* TestDatabase.fresh
  const dataDir = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const path = mkdtempSync(join(tmpdir(), "merkato-bench-"))
      chmodSync(path, 0o755)
      return path
    }),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const port = yield* Effect.promise(() => freePort())
  const url = `http://127.0.0.1:${port}`
  const shop = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(
        process.execPath,
        [join(root, "apps/shop/src/main.ts"), "--no-seed", "--data-dir", dataDir, "--port", String(port)],
        {
          env: { ...process.env, DATABASE_URL: Redacted.value(database), MERKATO_TRACE_SAMPLING: "0" },
          stdio: ["ignore", "ignore", "inherit"]
        }
      )
    ),
    (child) =>
      Effect.promise(
        () =>
          new Promise<void>((resolve) => {
            child.once("exit", () => resolve())
            child.kill("SIGTERM")
          })
      )
  )
  const memory = () => Math.round(Memory.ofTree(shop.pid ?? 0))
  yield* Effect.promise(async () => {
    const isReady = () =>
      fetch(`${url}/readyz`).then(
        ({ ok }) => ok,
        () => false
      )
    while (!(await isReady())) await Bun.sleep(100)
  })
  const tokens = yield* Effect.provide(Tokens, Layer.provide(Tokens.layer, KeyRing.layer(dataDir)))
  const token = (userId: string, role: Role = "shopper") =>
    Effect.runPromise(tokens.issue(new Principal({ userId: UserId.make(userId), role, region: "us" }), 3_600))
  yield* Effect.promise(async () => {
    const admin = await token("ADMIN", "admin")
    const post = async (path: string, by: string, body: unknown, key: string): Promise<Record<string, unknown>> => {
      const response = await fetch(`${url}${path}`, {
        method: "POST",
        headers: { authorization: `Bearer ${by}`, "content-type": "application/json", "idempotency-key": key },
        body: JSON.stringify(body)
      })
      if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
      const answer: Record<string, unknown> = JSON.parse(await response.text())
      return answer
    }
    const product = { sku: "LIVE", name: "Live", category: "Test", price: 1, currency: "USD" }
    const { productId } = await post("/api/v1/products", admin, product, "product")
    await post(`/api/v1/inventory/${String(productId)}/adjustments`, admin, { delta: 100_000, reason: "delivery" }, "s")

    console.log(`memory of the shop before: ${memory()} MiB`)
    const took = { PENDING: new Array<number>(), PAID: new Array<number>(), FULFILLED: new Array<number>() }
    const watchers = await Promise.all(Array.from({ length: sockets }, (_, nth) => token(`USER-${nth}`)))
    const connected: Array<WebSocket> = []
    await inParts(
      sockets,
      (nth) =>
        new Promise((resolve, reject) => {
          const socket = new WebSocket(`${url.replace("http", "ws")}/ws/orders`)
          socket.addEventListener("open", () => {
            socket.send(JSON.stringify({ auth: watchers[nth] }))
            socket.send(JSON.stringify({ subscribe: "mine" }))
            connected.push(socket)
            resolve()
          })
          socket.addEventListener("error", () => reject(new Error("a socket failed")))
          socket.addEventListener("message", ({ data }) => {
            const frame: { readonly status: keyof typeof took; readonly occurredAt: string } = JSON.parse(String(data))
            took[frame.status].push(Date.now() - Date.parse(frame.occurredAt))
          })
        })
    )
    await Bun.sleep(2_000)
    console.log(`memory with ${sockets} sockets: ${memory()} MiB`)
    for (let nth = 0; nth < changes; nth++) {
      const body = { items: [{ productId, qty: 1 }] }
      const shopper = watchers[nth % sockets] ?? ""
      const { orderId } = await post("/api/v1/orders", shopper, body, `order-${nth}`)
      await post(`/api/v1/orders/${String(orderId)}/pay`, shopper, { paymentToken: "tok_ok" }, `pay-${nth}`)
      await post(`/api/v1/orders/${String(orderId)}/fulfil`, admin, {}, `fulfil-${nth}`)
    }
    for (const [status, figures] of Object.entries(took)) {
      await until(() => figures.length >= changes, `the frames of all orders that are ${status}`)
      console.log(line(`${status} at the order's watcher, ${sockets} sockets`, figures))
    }
    for (const socket of connected) socket.close()

    const heard: Array<number> = []
    let startedAt = 0
    let opened = 0
    const listeners: Array<{ end: () => void }> = []
    await inParts(streams, async () => {
      const listener = await Bun.connect({
        hostname: "127.0.0.1",
        port,
        socket: {
          open: (socket) => void socket.write("GET /sse/flash-sales HTTP/1.1\r\nhost: bench\r\n\r\n"),
          data: (_, data) => {
            const text = data.toString()
            if (text.includes("retry:")) opened += 1
            if (text.includes("flash_sale.started")) heard.push(Date.now() - startedAt)
          }
        }
      })
      listeners.push(listener)
    })
    await until(() => opened >= streams, "the streams")
    console.log(`memory with ${streams} streams: ${memory()} MiB`)
    startedAt = Date.now()
    const window = { startsAt: new Date().toISOString(), endsAt: new Date(startedAt + 600_000).toISOString() }
    await post("/api/v1/flash-sales", admin, { productId, price: 0.5, currency: "USD", ...window }, "sale")
    await until(() => heard.length >= streams, "the sale at all listeners")
    console.log(line(`flash sale to its listeners, from its request, ${streams} streams`, heard))
    console.log(`memory afterwards: ${memory()} MiB`)
    for (const listener of listeners) listener.end()
  })
})

Program.run(Effect.scoped(program))
