/** A closed loop of clients: each asks, waits for the answer, and asks again, until the time is over. */
import { Clock, Effect, Random, Result, Schema } from "effect"
import { next } from "@merkato/domain/kernel/Ids"
import { CartJson, LevelsJson, OrderJson, ProductJson } from "@merkato/rpc/rest/Json"
import { CommandFailed } from "./Failure.ts"
import { Histogram } from "./Histogram.ts"
import { problemOf, type Request, Shop } from "./Shop.ts"

/** What clients do: look around; buy and pay; or fill a cart first, then buy and pay. */
export const mixes = ["browse", "order", "checkout"] as const
export type Mix = (typeof mixes)[number]

/** What one kind of request came to. */
export interface Operation {
  readonly latency: Histogram
  /** How often each refusal or failure came: `409 out_of_stock`, `unreachable`. */
  readonly errors: Map<string, number>
}

/** What a run has seen so far, by the name of the operation. */
export class Measured {
  readonly operations = new Map<string, Operation>()
  requests = 0

  of(name: string): Operation {
    const known = this.operations.get(name) ?? { latency: new Histogram(), errors: new Map<string, number>() }
    this.operations.set(name, known)
    return known
  }
}

type Product = typeof ProductJson.Type

/** Products made for load alone, so that the stock of the others stays what it is. */
const loadProducts = 20
const enough = 500_000
const topUp = 1_000_000

const stocked = Effect.fn("load.stocked")(function* () {
  const shop = yield* Shop
  const token = yield* shop.token("load", "admin")
  const there = yield* shop.all("/api/v1/products?category=Load", ProductJson)
  return yield* Effect.forEach(
    Array.from({ length: loadProducts }, (_, nth) => `LOAD-${nth + 1}`),
    Effect.fnUntraced(function* (sku) {
      const draft = { sku, name: `Load product ${sku}`, category: "Load", price: 1.99, currency: "USD" }
      const making: Request = { method: "POST", path: "/api/v1/products", token, body: draft }
      const product = there.find((product) => product.sku === sku) ?? (yield* shop.read(making, 201, ProductJson))
      const path = `/api/v1/inventory/${product.productId}`
      const { available } = yield* shop.read({ method: "GET", path }, 200, LevelsJson)
      if (available < enough) {
        const body = { delta: topUp, reason: "stock for load" }
        yield* shop.read({ method: "POST", path: `${path}/adjustments`, token, body }, 201, LevelsJson)
      }
      return product
    }),
    { concurrency: 4 }
  )
})

/** The products that clients look at: a page of those that are there. */
const onShelf = Effect.fn("load.onShelf")(function* () {
  const shop = yield* Shop
  const page = Schema.Struct({ items: Schema.Array(ProductJson) })
  const { items } = yield* shop.read({ method: "GET", path: "/api/v1/products?limit=100" }, 200, page)
  return items
})

const decodeOrder = Schema.decodeUnknownOption(OrderJson)
const decodeCart = Schema.decodeUnknownOption(CartJson)

/** Words that a shop's products are searched for by: the first of each name. */
const wordOf = ({ name }: Product): string => encodeURIComponent(/[\p{L}\p{N}]+/u.exec(name)?.[0] ?? name)

interface Options {
  readonly mix: Mix
  readonly clients: number
  readonly durationMs: number
  readonly measured: Measured
}

/** Runs the clients. Fails only before the load begins; later failures are counted. */
export const run = Effect.fn("load.run")(function* ({ mix, clients, durationMs, measured }: Options) {
  const shop = yield* Shop
  const clock = yield* Clock.Clock
  const random = yield* Random.Random
  const products = mix === "browse" ? yield* onShelf() : yield* stocked()
  const [first] = products
  if (first === undefined) {
    return yield* new CommandFailed({ reason: "The shop has no products to look at: bun run merkato seed fills it." })
  }
  const runId = yield* next
  const any = (): Product => products[Math.floor(random.nextDoubleUnsafe() * products.length)] ?? first

  const ask = Effect.fnUntraced(function* (name: string, request: Request) {
    const begun = clock.monotonicTimeNanosUnsafe()
    const result = yield* Effect.result(shop.ask(request))
    const { latency, errors } = measured.of(name)
    latency.record(Number(clock.monotonicTimeNanosUnsafe() - begun) / 1e6)
    measured.requests += 1
    const problem = Result.isSuccess(result) ? problemOf(result.success) : undefined
    if (Result.isSuccess(result) && problem === undefined) return result.success.body
    const code = Result.isSuccess(result) ? `${result.success.status} ${problem?.code}` : "unreachable"
    errors.set(code, (errors.get(code) ?? 0) + 1)
    // Nobody there: a loop that does not wait would only heat the room.
    if (Result.isFailure(result)) yield* Effect.sleep("100 millis")
    return undefined
  })

  const browse = Effect.fnUntraced(function* () {
    const dice = random.nextDoubleUnsafe()
    const product = any()
    if (dice < 0.3) return yield* ask("list products", { method: "GET", path: "/api/v1/products?limit=20" })
    if (dice < 0.7) return yield* ask("read product", { method: "GET", path: `/api/v1/products/${product.productId}` })
    if (dice < 0.85) return yield* ask("read stock", { method: "GET", path: `/api/v1/inventory/${product.productId}` })
    return yield* ask("search", { method: "GET", path: `/api/v1/products?q=${wordOf(product)}` })
  })

  const placeAndPay = Effect.fnUntraced(function* (token: string, key: string, productIds: ReadonlyArray<string>) {
    const items = productIds.map((productId) => ({ productId, qty: 1 }))
    const path = "/api/v1/orders"
    const order = decodeOrder(yield* ask("place order", { method: "POST", path, token, key, body: { items } }))
    if (order._tag === "None") return
    const body = { paymentToken: "tok_ok" }
    yield* ask("pay order", { method: "POST", path: `${path}/${order.value.orderId}/pay`, token, key, body })
  })

  const some = () => [
    ...new Set(Array.from({ length: 1 + Math.floor(random.nextDoubleUnsafe() * 3) }, () => any().productId))
  ]

  const checkout = Effect.fnUntraced(function* (token: string, key: string) {
    const cart = decodeCart(yield* ask("create cart", { method: "POST", path: "/api/v1/carts", token }))
    if (cart._tag === "None") return
    const productIds = some()
    const path = `/api/v1/carts/${cart.value.cartId}`
    for (const productId of productIds) {
      yield* ask("put into cart", { method: "PUT", path: `${path}/items/${productId}`, token, body: { qty: 1 } })
    }
    yield* ask("read cart", { method: "GET", path, token })
    yield* placeAndPay(token, key, productIds)
  })

  const end = clock.currentTimeMillisUnsafe() + durationMs
  const client = Effect.fnUntraced(function* (nth: number) {
    const token = yield* shop.token(`USER-LOAD-${nth + 1}`, "shopper")
    for (let turn = 1; clock.currentTimeMillisUnsafe() < end; turn++) {
      const key = `load-${runId}-${nth}-${turn}`
      if (mix === "browse") yield* browse()
      else if (mix === "order") yield* placeAndPay(token, key, some())
      else yield* checkout(token, key)
    }
  })
  const nths = Array.from({ length: clients }, (_, nth) => nth)
  return { running: Effect.forEach(nths, client, { concurrency: "unbounded", discard: true }) }
})

const ms = (value: number): string =>
  value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0)

/** What was measured, as a table for people; latencies in milliseconds. */
export const table = ({ operations }: Measured, elapsedMs: number): string => {
  const all: Operation = { latency: new Histogram(), errors: new Map() }
  for (const { latency, errors } of operations.values()) {
    all.latency.add(latency)
    for (const [code, count] of errors) all.errors.set(code, (all.errors.get(code) ?? 0) + count)
  }
  const cells = ([name, { latency, errors }]: readonly [string, Operation]) => [
    name,
    latency.count.toLocaleString("en"),
    ((latency.count * 1_000) / Math.max(1, elapsedMs)).toFixed(0),
    ...[0.5, 0.9, 0.95, 0.99].map((share) => ms(latency.quantile(share))),
    ms(latency.max),
    [...errors.values()].reduce((sum, count) => sum + count, 0).toLocaleString("en")
  ]
  const rows = [
    ["operation", "requests", "rps", "p50 ms", "p90", "p95", "p99", "max", "errors"],
    ...Array.from(operations, cells),
    ...(operations.size > 1 ? [cells(["all", all])] : [])
  ]
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? []
  const lines = rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join("  ")
  )
  const errors = Array.from(operations, ([name, { errors }]) =>
    Array.from(errors, ([code, count]) => `  ${name}: ${code}: ${count.toLocaleString("en")}`)
  ).flat()
  return [...lines, ...(errors.length === 0 ? [] : ["errors", ...errors])].join("\n")
}
