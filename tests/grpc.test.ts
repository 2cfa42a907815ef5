// Stock over gRPC: a client in another language, the same errors and keys as over RPC and REST, and orders that reserve over it
// from another process.
import { describe, expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { ConfigProvider, Effect, Layer, ManagedRuntime, Option, Result } from "effect"
import { SqlClient } from "effect/sql"
import { OutOfStock, ReservationClosed } from "@merkato/domain/inventory/Stock"
import { IdempotencyKey, OrderId, ProductId, ReservationId, UserId } from "@merkato/domain/kernel/Ids"
import { codeOf, Forbidden, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { emptyTraceParent, Principal, RequestContext, type Role } from "@merkato/domain/kernel/RequestContext"
import { Tokens } from "@merkato/infra/auth/Tokens"
import * as GrpcChannel from "@merkato/infra/grpc/GrpcChannel"
import * as Protobuf from "@merkato/infra/grpc/Protobuf"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { toHeaders } from "@merkato/rpc/contract/ServiceCall"
import * as Grpc from "@merkato/rpc/grpc/InventoryGrpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import * as Deployment from "@merkato/services/deployment"
import { lookInto } from "./support/Audit.ts"
import { Client, text, tokenFor } from "./support/Client.ts"
import { foreignGrpc, foreignGrpcIsThere } from "./support/ForeignGrpc.ts"
import { heldOpen } from "./support/HeldOpen.ts"
import { freePort, temporaryFolder } from "./support/Processes.ts"
import { ThreeProcesses } from "./support/ThreeProcesses.ts"

const foreign = await foreignGrpcIsThere("the stock asked over gRPC by a client in another language")

/** Typed clients of contexts that answer in those processes. */
const clientsOf = (three: ThreeProcesses, settings: Readonly<Record<string, string>>) =>
  ManagedRuntime.make(
    Layer.merge(InventoryRpc.client, OrdersRpc.client).pipe(
      Layer.provide(
        Deployment.remote([
          { names: ["inventory"], baseUrl: three.url("back") },
          { names: ["orders"], baseUrl: three.url("front") }
        ])
      ),
      Layer.provide(Deployment.policies(three.dataDir)),
      Layer.provide(Switchboard.layer),
      Layer.provideMerge(Deployment.security(three.dataDir)),
      Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(settings)))
    )
  )

const shop = heldOpen(
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.fresh
    const folder = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
    // A process that is back is asked again at once.
    writeFileSync(join(folder.path, "policies.json"), JSON.stringify({ "stock.reserve": { breaker: { openMs: 250 } } }))
    const port = yield* Effect.promise(() => freePort())
    const address = `127.0.0.1:${port}`
    const three = yield* Effect.acquireRelease(
      Effect.promise(() =>
        ThreeProcesses.start(url, folder.path, {
          back: { MERKATO_GRPC_PORT: String(port) },
          front: { MERKATO_INVENTORY_GRPC: address }
        })
      ),
      (started) => Effect.promise(() => started.stop())
    )
    const admin = new Client(three.url("gateway"), yield* Effect.promise(() => tokenFor(folder.path, "ADMIN", "admin")))
    const runtimes = { rpc: clientsOf(three, {}), grpc: clientsOf(three, { MERKATO_INVENTORY_GRPC: address }) }
    yield* Effect.addFinalizer(() =>
      Effect.promise(() => Promise.all([runtimes.rpc.dispose(), runtimes.grpc.dispose()]))
    )
    return { three, folder: folder.path, address, admin, runtimes }
  }),
  120_000
)

let products = 0
/** A product with so many units. */
const stocked = async (units: number): Promise<ProductId> => {
  const { admin } = shop()
  const nth = ++products
  const product = { sku: `SKU-${nth}`, name: `Product ${nth}`, category: "Test", price: 1.5, currency: "USD" }
  const productId = text(await admin.post("/api/v1/products", product), "productId")
  await admin.post(`/api/v1/inventory/${productId}/adjustments`, { delta: units, reason: "delivery" })
  return ProductId.make(productId)
}

/** What is ordered. */
interface Wish {
  readonly items: ReturnType<typeof lines>
  readonly expectedTotal?: number
  readonly currency?: "EUR"
}

const levels = async (productId: string) => (await shop().admin.get(`/api/v1/inventory/${productId}`)).body

type Way = "rpc" | "grpc"
const ways: ReadonlyArray<Way> = ["rpc", "grpc"]

/** What comes of an effect with the clients of a way, asked by somebody. */
const ask = <A, E>(
  way: Way,
  effect: Effect.Effect<A, E, InventoryRpc | OrdersRpc>,
  userId = "ADA",
  role: Role = "shopper"
) =>
  shop().runtimes[way].runPromise(
    Effect.result(effect).pipe(
      Effect.provideService(RequestContext, {
        principal: new Principal({ userId: UserId.make(userId), role, region: "us" }),
        correlationId: "from-the-test",
        traceParent: emptyTraceParent
      })
    )
  )

const lines = (productId: ProductId, qty: number) => [{ productId, qty }]

const reserve = (id: string, productId: ProductId, qty: number, orderId = "ORDER-1") =>
  InventoryRpc.use((inventory) =>
    inventory.Reserve({
      reservationId: ReservationId.make(id),
      orderId: OrderId.make(orderId),
      items: lines(productId, qty),
      ttlMs: 600_000
    })
  )

const release = (id: string) =>
  InventoryRpc.use((inventory) =>
    inventory.Release({ reservationId: ReservationId.make(id), orderId: OrderId.make("ORDER-1") })
  )

interface RawOptions {
  readonly timeoutMs?: number
  readonly role?: Role
  /** In place of that of a service. */
  readonly token?: string
  /** The call says to be that of a service all the same. */
  readonly asService?: boolean
}

/** A call as others make it, without our typed client. */
const raw = (name: string, message: Protobuf.Fields, options: RawOptions = {}) =>
  shop().runtimes.grpc.runPromise(
    Effect.gen(function* () {
      const method = Protobuf.read(Grpc.inventoryProto)
        .methods(Grpc.service)
        .find((each) => each.name === name)
      if (method === undefined) return yield* Effect.die(`no ${name}`)
      const channel = yield* GrpcChannel.make(shop().address)
      const token = options.token ?? (yield* (yield* Tokens).issueForServices)
      const principal = new Principal({ userId: UserId.make("ADA"), role: options.role ?? "shopper", region: "us" })
      const metadata =
        options.token === undefined || options.asService === true
          ? toHeaders({ principal, correlationId: "raw", traceParent: emptyTraceParent }, token)
          : { authorization: `Bearer ${token}` }
      return yield* Effect.result(channel.call(method, message, { metadata, timeoutMs: options.timeoutMs ?? 30_000 }))
    }).pipe(Effect.scoped)
  )

const rawReserve = (id: string, productId: string, qty: number) => ({
  reservation_id: id,
  order_id: "ORDER-1",
  items: [{ product_id: productId, qty }],
  ttl_seconds: 600
})

/** What a refusal says to those who do not have our types. */
const statusOf = (result: Awaited<ReturnType<typeof raw>>) => {
  const { code, info } = Result.getOrThrow(Result.flip(result))
  const { reason, domain } = Option.getOrThrow(info)
  return { code, reason, domain }
}

const failureOf = <A, E>(result: Result.Result<A, E>): E | undefined =>
  Result.isFailure(result) ? result.failure : undefined

const committed = (id: string) =>
  InventoryRpc.use((inventory) => inventory.Commit({ reservationId: ReservationId.make(id) }))

/** What everybody may be told of a reservation that cannot be. */
interface Fault {
  readonly id: string
  /** How it comes about. */
  readonly before: (productId: ProductId) => ReadonlyArray<Effect.Effect<unknown, unknown, InventoryRpc>>
  readonly role: Role
  readonly qty: number
  readonly error: (productId: ProductId) => OutOfStock | ReservationClosed | Forbidden
  readonly code: string
}

const closed = (id: string, status: string, before: Fault["before"]): Fault => ({
  id,
  before,
  role: "shopper",
  qty: 1,
  error: () => new ReservationClosed({ reservationId: ReservationId.make(id), status }),
  code: "FAILED_PRECONDITION"
})

const faultsOfReserving: ReadonlyArray<Fault> = [
  {
    id: "RES-SHORT",
    before: () => [],
    role: "shopper",
    qty: 12,
    error: (productId) => new OutOfStock({ products: [{ productId, requested: 12, available: 9 }] }),
    code: "FAILED_PRECONDITION"
  },
  closed("RES-BURIED", "released", () => [release("RES-BURIED")]),
  closed("RES-RELEASED", "released", (product) => [reserve("RES-RELEASED", product, 1), release("RES-RELEASED")]),
  closed("RES-SOLD", "committed", (product) => [reserve("RES-SOLD", product, 1), committed("RES-SOLD")]),
  {
    id: "RES-GUEST",
    before: () => [],
    role: "guest",
    qty: 1,
    error: () => new Forbidden({ action: "stock.reserve" }),
    code: "PERMISSION_DENIED"
  }
]

describe("one table of faults", () => {
  test("reserving by RPC and by gRPC: the same faults give the same typed errors", async () => {
    const productId = await stocked(10)
    for (const { before } of faultsOfReserving) {
      for (const step of before(productId)) await ask("rpc", step)
    }
    for (const { id, role, qty, error, code } of faultsOfReserving) {
      const [overRpc, overGrpc, told] = await Promise.all([
        ask("rpc", reserve(id, productId, qty), "ADA", role),
        ask("grpc", reserve(id, productId, qty), "ADA", role),
        raw("ReserveStock", rawReserve(id, productId, qty), { role })
      ])
      expect([id, failureOf(overRpc)]).toEqual([id, error(productId)])
      expect([id, failureOf(overGrpc)]).toEqual([id, error(productId)])
      expect({ id, ...statusOf(told) }).toEqual({
        id,
        code,
        reason: codeOf(error(productId)._tag),
        domain: "inventory.merkato"
      })
    }
    // One was sold.
    expect(await levels(productId)).toMatchObject({ onHand: 9, reserved: 0 })
  }, 60_000)

  test("placing by REST and by RPC: the same faults give the same typed errors, and one key means the same on both ways", async () => {
    const { admin, folder } = shop()
    const productId = await stocked(5)
    const ada = admin.as(await tokenFor(folder, "ADA", "shopper"))
    const place = (key: string, wish: Wish, role: Role = "shopper") =>
      ask(
        "rpc",
        OrdersRpc.use((orders) => orders.Place({ idempotencyKey: IdempotencyKey.make(key), ...wish })),
        "ADA",
        role
      )
    const order = (key: string, wish: Wish) => ada.post("/api/v1/orders", wish, { key })

    const faults: ReadonlyArray<readonly [tag: string, status: number, wish: Wish]> = [
      ["OutOfStock", 409, { items: lines(productId, 6) }],
      ["PriceChanged", 409, { items: lines(productId, 1), expectedTotal: 0.01 }],
      ["ProductNotFound", 422, { items: lines(ProductId.make("NEVER-SEEN"), 1) }],
      ["CurrencyNotSupported", 422, { items: lines(productId, 1), currency: "EUR" }]
    ]
    for (const [tag, status, wish] of faults) {
      const overRest = await order(`first-${tag}`, wish)
      expect({ tag, status: overRest.status, code: overRest.body["code"] }).toEqual({ tag, status, code: codeOf(tag) })
      const fresh = failureOf(await place(`second-${tag}`, wish))
      expect(fresh?._tag).toBe(tag as never)
      // Its fields are those of the problem.
      const { _tag, ...fields } = JSON.parse(JSON.stringify(fresh))
      expect(overRest.body).toMatchObject(fields)
      // The key has its answer, whichever way it comes again.
      const refusal = failureOf(await place(`first-${tag}`, wish))
      expect(refusal).toEqual({ _tag: "Replayed", refusal: fresh } as never)
      const replayed = await order(`second-${tag}`, wish)
      expect([replayed.status, replayed.headers.get("idempotent-replayed")]).toEqual([status, "true"])
    }

    const wish: Wish = { items: lines(productId, 2) }
    const placed = await order("one-key", wish)
    expect(placed.status).toBe(201)
    const again = Result.getOrThrow(await place("one-key", wish))
    expect([String(again.answer.orderId), again.replayed]).toEqual([text(placed, "orderId"), true])
    const other: Wish = { items: lines(productId, 1) }
    expect(failureOf(await place("one-key", other))?._tag).toBe("IdempotencyKeyReused")
    expect(await order("one-key", other)).toMatchObject({ status: 422, body: { code: "idempotency_key_reused" } })
    expect(failureOf(await place("guest", wish, "guest"))?._tag).toBe("Forbidden")
    const guest = text(await admin.as(undefined).post("/api/v1/carts"), "guestToken")
    const refused = await admin.as(guest).post("/api/v1/orders", wish, { key: "guest" })
    expect(refused).toMatchObject({ status: 403, body: { code: "forbidden" } })
    expect(await levels(productId)).toMatchObject({ onHand: 5, reserved: 2 })
  }, 60_000)
})

describe("a reservation over gRPC", () => {
  test("is the one that came over RPC, when it has its id", async () => {
    const productId = await stocked(10)
    for (const [first, second] of [ways, ways.toReversed()]) {
      if (first === undefined || second === undefined) throw new Error("two ways")
      const id = `RES-${first}-first`
      const [one, other] = [
        await ask(first, reserve(id, productId, 3, "ORDER-FIRST")),
        await ask(second, reserve(id, productId, 3, "ORDER-SECOND"))
      ]
      expect(Result.getOrThrow(one)).toEqual({ orderId: OrderId.make("ORDER-FIRST") })
      expect(Result.getOrThrow(other)).toEqual({ orderId: OrderId.make("ORDER-FIRST") })
    }
    expect(await levels(productId)).toMatchObject({ onHand: 10, reserved: 6 })
  }, 60_000)

  test("is for services and administrators: shoppers have their orders", async () => {
    const { folder } = shop()
    const productId = await stocked(10)
    const asked = rawReserve("RES-TOKENS", productId, 1)
    const by = async (token: string) => statusOf(await raw("ReserveStock", asked, { token }))
    const shopper = await tokenFor(folder, "ADA", "shopper")
    expect(await by(shopper)).toMatchObject({ code: "PERMISSION_DENIED", reason: "forbidden" })
    expect(statusOf(await raw("ReleaseStock", { reservation_id: "RES-TOKENS" }, { token: shopper }))).toMatchObject({
      code: "PERMISSION_DENIED"
    })
    expect(await by("nonsense")).toMatchObject({ code: "UNAUTHENTICATED", reason: "unauthenticated" })
    expect(await levels(productId)).toMatchObject({ reserved: 0 })
    const admin = await raw("ReserveStock", asked, { token: await tokenFor(folder, "ADMIN", "admin") })
    expect(Result.getOrThrow(admin)).toEqual({ order_id: "ORDER-1" })
    // Who says to be a service has to show it.
    const pretended = await raw("ReserveStock", asked, { token: shopper, asService: true })
    expect(statusOf(pretended)).toMatchObject({ code: "UNAUTHENTICATED" })
  }, 60_000)

  test("that is not answered by its deadline is not acknowledged, and is there at most once", async () => {
    const { three } = shop()
    const productId = await stocked(10)
    const asked = rawReserve("RES-LATE", productId, 4)
    const late = await lookInto(
      three.database,
      SqlClient.SqlClient.use((sql) =>
        sql.withTransaction(
          Effect.andThen(
            sql`select 1 from inventory.inventory_stock where product_id = ${productId} for update`,
            Effect.promise(() => raw("ReserveStock", asked, { timeoutMs: 400 }))
          )
        )
      )
    )
    expect(failureOf(late)?.code).toBe("DEADLINE_EXCEEDED")
    expect(Result.getOrThrow(await raw("ReserveStock", asked))).toEqual({ order_id: "ORDER-1" })
    expect(await levels(productId)).toMatchObject({ onHand: 10, reserved: 4 })
  }, 60_000)

  test.skipIf(!foreign)(
    "is made by a client in another language, from the contract alone",
    async () => {
      const { address, folder } = shop()
      const productId = await stocked(10)
      const told = foreignGrpc(folder, [address, await tokenFor(folder, "ADMIN", "admin"), productId])
      const ids = { correlation: "from-python", trace: "0af7651916cd43dd8448eb211c80319c" }
      const encoded = Protobuf.read(Grpc.inventoryProto).message("merkato.inventory.v1.ReserveRequest")
      const message = { reservation_id: "RES-PYTHON", order_id: "ORDER-PYTHON", ttl_seconds: 60 }
      const items = [{ product_id: productId, qty: 2 }]
      const services = ["merkato.inventory.v1.Inventory", "grpc.health.v1.Health"]
      const reflected = {
        services: [...services, "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"],
        same: true,
        unknown: 5
      }
      const serving = { answer: { status: "SERVING" } }
      const refused = (code: string, reason: string) => ({ code, details: expect.stringContaining(reason) })
      expect(told).toEqual({
        bytes: encoded.encode({ ...message, items }).toString("hex"),
        health: [expect.objectContaining(serving), expect.objectContaining(serving), "NOT_FOUND"],
        stranger: refused("UNAUTHENTICATED", "unauthenticated"),
        reserved: { answer: { order_id: "ORDER-PYTHON" }, ...ids },
        again: { answer: { order_id: "ORDER-PYTHON" }, ...ids },
        held: { answer: { product_id: productId, on_hand: 10, reserved: 2, available: 8, version: "2" }, ...ids },
        short: refused("FAILED_PRECONDITION", "out_of_stock"),
        nonsense: refused("INVALID_ARGUMENT", "items[0].qty"),
        released: { answer: {}, ...ids },
        late: refused("FAILED_PRECONDITION", "reservation_closed"),
        nothing: { answer: { product_id: "NEVER-SEEN" }, ...ids },
        unimplemented: refused("UNIMPLEMENTED", ""),
        reflection: [reflected, reflected]
      })
    },
    120_000
  )
})

test("a shop without it loads nothing of it", () => {
  const loaded = (module: string) => {
    const program = `await import("./${module}"); console.log(Object.keys(require.cache).join("\\n"))`
    const { stdout } = Bun.spawnSync([process.execPath, "-e", program], {
      cwd: new URL("..", import.meta.url).pathname
    })
    return stdout
      .toString()
      .split("\n")
      .filter((path) => /node_modules\/(?:@grpc\/grpc-js|protobufjs)\//.test(path))
  }
  expect(loaded("apps/shop/src/Everything.ts")).toEqual([])
  expect(loaded("packages/infra/src/grpc/GrpcServer.ts").length).toBeGreaterThan(10)
}, 60_000)

/** Calls that this process has answered well. */
const answeredOverGrpc = async (url: string) => {
  const metrics = await (await fetch(`${url}/metrics`)).text()
  return Number(/^grpc_calls_total\{[^}]*code="OK"[^}]*\} (\d+)$/m.exec(metrics)?.[1] ?? 0)
}

test("orders reserve over gRPC in another process; it is killed and comes back, and nothing is reserved twice", async () => {
  const { admin, folder, three } = shop()
  const productId = await stocked(1_000)
  const ada = admin.as(await tokenFor(folder, "ADA", "shopper"))
  const place = (key: string) =>
    ada.post("/api/v1/orders", { items: lines(productId, 2) }, { key, signal: AbortSignal.timeout(20_000) })
  const before = await answeredOverGrpc(three.url("back"))
  expect((await place("before")).status).toBe(201)
  expect(await answeredOverGrpc(three.url("back"))).toBe(before + 1)

  const keys = Array.from({ length: 16 }, (_, nth) => `around-${nth}`)
  const placing = keys.map((key) => ada.persist(() => place(key)))
  await three.end("back", "SIGKILL")
  const away = new ServiceUnavailable({ service: "inventory", retryAfterSeconds: 1 })
  for (const way of ways) {
    const refused = failureOf(await ask(way, reserve(`RES-AWAY-${way}`, productId, 1)))
    expect([way, refused]).toEqual([way, away])
  }
  expect(await place("away")).toMatchObject({
    status: 503,
    body: { code: "service_unavailable", service: "inventory" }
  })
  await three.start("back")
  const answers = await Promise.all(placing)
  expect(answers.map(({ status }) => status)).toEqual(keys.map(() => 201))
  expect(new Set(answers.map((answer) => text(answer, "orderId"))).size).toBe(keys.length)

  // What nobody was told of has no order, and is there at most once all the same.
  const rows = await lookInto(
    three.database,
    SqlClient.SqlClient.use(
      (sql) => sql<{
        readonly orders: bigint
        readonly held: bigint
        readonly units: bigint
        readonly reserved: bigint
      }>`
        select (select count(*) from orders.orders o join orders.order_items i using (order_id) where product_id = ${productId}) as orders,
          count(distinct reservation_id) as held, sum(qty) as units,
          (select reserved from inventory.inventory_stock where product_id = ${productId}) as reserved
        from inventory.reservations cross join lateral unnest(product_ids, quantities) as line (product_id, qty)
        where line.product_id = ${productId} and status = 'held'`
    )
  )
  const [counted] = rows.map((row) => Object.values(row).map(Number))
  expect(counted).toEqual([17, 17, 34, 34])
  expect(three.errors).toEqual([])
}, 120_000)
