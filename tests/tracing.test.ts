// One trace from the click to the notification: what a person who looks for a request in Jaeger or Tempo relies on.
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  ConfigProvider,
  Context,
  Duration,
  Effect,
  Exit,
  Layer,
  Logger,
  Option,
  Redacted,
  References,
  Scope,
  Tracer
} from "effect"
import { HttpServer } from "effect/http"
import { SqlClient } from "effect/sql"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import * as Telemetry from "@merkato/infra/telemetry/Telemetry"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { contextNames } from "@merkato/services/contexts"
import * as Deployment from "@merkato/services/deployment"
import * as PaymentProviders from "@merkato/services/paymentProviders"
import { gateway } from "@merkato/services/gateway/index"
import { type Answer, Client, text, tokenFor } from "./support/Client.ts"
import { startCollector } from "./support/Collector.ts"
import { startApp, temporaryFolder } from "./support/Processes.ts"

/** A tracer that keeps what it is told. */
class Memory {
  readonly spans: Array<Tracer.NativeSpan> = []
  readonly tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      this.spans.push(span)
      return span
    }
  })

  ofTrace(traceId: string): ReadonlyArray<Tracer.NativeSpan> {
    return this.spans.filter((span) => span.traceId === traceId)
  }
}

const memory = new Memory()
const scope = Scope.makeUnsafe()
const folder = temporaryFolder()
let url = Redacted.make("")
let shop = new Client("")
let sql: SqlClient.SqlClient | undefined

/** The whole shop behind its HTTP server, in this process, so that its spans end up in the memory. */
const everything = (dataDir: string, url: Redacted.Redacted) =>
  Deployment.http(
    gateway(contextNames).pipe(
      Layer.provide(Deployment.caches(url)),
      Layer.provide(Deployment.running(contextNames, { contexts: () => url, bus: url })),
      Layer.provide(Deployment.readiness(Deployment.needsOf(contextNames, true))),
      Layer.provide(PaymentProviders.paymentGateway(url)),
      Layer.provide(Deployment.policies(dataDir)),
      Layer.provide(Deployment.security(dataDir)),
      Layer.provide(Switchboard.layer)
    ),
    { port: 0, drainTimeout: Duration.millis(100) }
  )

beforeAll(
  () =>
    Effect.gen(function* () {
      const database = yield* TestDatabase.fresh
      url = database.url
      yield* Effect.withTracerEnabled(Deployment.migrate(contextNames, url), false)
      const context = yield* Layer.build(everything(folder.path, url))
      const { address } = Context.get(context, HttpServer.HttpServer)
      shop = new Client(`http://127.0.0.1:${"port" in address ? address.port : 0}`)
      sql = Context.get(
        yield* Layer.build(Database.layer({ url, maxConnections: 1, applicationName: "test" })),
        SqlClient.SqlClient
      )
    }).pipe(
      Effect.provideService(Tracer.Tracer, memory.tracer),
      Effect.provide([
        Logger.layer([]),
        ConfigProvider.layerAdd(ConfigProvider.fromUnknown({ NODE_ENV: "production" }), { asPrimary: true })
      ]),
      Scope.provide(scope),
      Effect.runPromise
    ),
  60_000
)

afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  folder.remove()
})

const tokenOf = (userId: string, role: "shopper" | "admin") => tokenFor(folder.path, userId, role)

/** Rows of the shop's database; no span is made of it. */
const rows = (statement: string) => {
  if (sql === undefined) throw new Error("the shop has not started")
  return Effect.runPromise(Effect.withTracerEnabled(sql.unsafe<Readonly<Record<string, string>>>(statement), false))
}

const hex = (digits: number) =>
  Array.from(crypto.getRandomValues(new Uint8Array(digits / 2)), (byte) => byte.toString(16).padStart(2, "0")).join("")

const traceparent = (traceId: string, flag: "00" | "01") => `00-${traceId}-${hex(16)}-${flag}`

/** Waits until it is so. */
const until = async <A>(ask: () => A | Promise<A>, good: (answer: A) => boolean, withinMs = 10_000): Promise<A> => {
  const deadline = Date.now() + withinMs
  for (;;) {
    const answer = await ask()
    if (good(answer) || Date.now() > deadline) return answer
    await Bun.sleep(20)
  }
}

/** Something to buy, put on the shelf without a trace. */
const stocked = async (sku: string) => {
  const admin = shop.as(await tokenOf("ADMIN", "admin"))
  const quiet = { headers: { traceparent: traceparent(hex(32), "00") } }
  const product = { sku, name: "Milk", category: "Dairy", price: 1.19, currency: "USD" }
  const productId = text(await admin.post("/api/v1/products", product, quiet), "productId")
  await admin.post(`/api/v1/inventory/${productId}/adjustments`, { delta: 100, reason: "delivery" }, quiet)
  return productId
}

const order = async (userId: string, productId: string, headers: Readonly<Record<string, string>>): Promise<Answer> =>
  shop
    .as(await tokenOf(userId, "shopper"))
    .post("/api/v1/orders", { items: [{ productId, qty: 2 }] }, { key: `key-${hex(16)}`, headers })

const notificationsOf = (userId: string) =>
  rows(`select notification_id as id from notifications.notifications where user_id = '${userId}'`)

const statement = (span: Tracer.NativeSpan) => String(span.attributes.get("db.query.text") ?? "").toLowerCase()
const parentIdOf = (span: Tracer.NativeSpan) => Option.getOrUndefined(span.parent)?.spanId

/** The spans above a span, nearest first, by name. */
const above = (span: Tracer.NativeSpan): ReadonlyArray<string> => {
  const names: Array<string> = []
  for (let parent = Option.getOrUndefined(span.parent); parent !== undefined; ) {
    names.push(parent._tag === "Span" ? parent.name : parent.spanId)
    parent = parent._tag === "Span" ? Option.getOrUndefined(parent.parent) : undefined
  }
  return names
}

describe("a sampled request", () => {
  test("is one trace, from HTTP over use case, SQL, publishing and consuming to the notification", async () => {
    const productId = await stocked("TRACED")
    const traceId = hex(32)
    const given = traceparent(traceId, "01")
    const answer = await order("ADA", productId, { traceparent: given, "correlation-id": "my-correlation" })
    expect(answer.status).toBe(201)
    expect(answer.headers.get("traceparent")).toMatch(new RegExp(`^00-${traceId}-[0-9a-f]{16}-01$`))
    await until(
      () => notificationsOf("ADA"),
      ({ length }) => length === 1
    )
    const published = (span: Tracer.NativeSpan) => span.name === "publish order.events"
    const consumed = (span: Tracer.NativeSpan) => span.name === "consume order.events"
    // By those who tell the shopper, by the read model of a customer's orders, and by those who tell partners.
    await until(
      () => memory.ofTrace(traceId).filter((span) => consumed(span) && span.status._tag === "Ended"),
      ({ length }) => length === 3
    )
    // Stock that was reserved is an event, too, of another relay.
    await until(
      () => memory.ofTrace(traceId).map(({ name }) => name),
      (names) => names.includes("publish inventory.events")
    )
    const spans = memory.ofTrace(traceId)
    const byId = new Map(spans.map((span) => [span.spanId, span]))

    // The request: the caller's span is its parent, and every other span is below it.
    const [server, ...others] = spans.filter(({ kind }) => kind === "server")
    expect(others).toEqual([])
    if (server === undefined) throw new Error("no span of the request")
    expect(server.name).toBe("POST")
    expect(parentIdOf(server)).toBe(given.slice(36, 52))
    expect(answer.headers.get("traceparent")).toContain(server.spanId)
    expect(server.attributes.get("http.response.status_code")).toBe(201)
    const top = (span: Tracer.NativeSpan): Tracer.NativeSpan => {
      const parent = byId.get(parentIdOf(span) ?? "")
      return parent === undefined ? span : top(parent)
    }
    expect(spans.filter((span) => top(span) !== server).map(({ name }) => name)).toEqual([])

    // The use cases, across contexts, within the request.
    const named = (name: string) => spans.filter((span) => span.name === name)
    for (const name of ["Orders.place", "Pricing.quote", "Inventory.reserve"]) {
      expect(
        named(name)
          .map(above)
          .map((names) => names.includes(server.name))
      ).toEqual([true])
    }
    expect(named("Pricing.quote").map(above).flat()).toContain("Orders.place")
    expect(named("Inventory.reserve").map(above).flat()).toContain("Orders.place")

    // The SQL statements, each within the use case that ran it.
    const sqlSpans = spans.filter((span) => span.attributes.has("db.query.text"))
    for (const [text, useCase] of [
      ["insert into orders.orders", "Orders.place"],
      ["insert into inventory.reservations", "Inventory.reserve"],
      ["catalogue.products", "Pricing.quote"],
      ["insert into notifications.notifications", "Notifications.tell"]
    ] as const) {
      const ofIt = sqlSpans.filter((span) => statement(span).includes(text))
      expect(ofIt.length).toBeGreaterThan(0)
      for (const span of ofIt) {
        expect(span.kind).toBe("client")
        expect(span.attributes.get("db.system.name")).toBe("postgresql")
        expect(above(span)).toContain(useCase)
      }
    }

    // The event: published once, consumed below the span that decided it, with the notification below that.
    const [created] = await rows(
      `select event_id as id, trace_parent as "traceParent", correlation_id as "correlationId" from orders.events
       where aggregate_id = '${text(answer, "orderId")}'`
    )
    expect(created?.["correlationId"]).toBe("my-correlation")
    expect(created?.["traceParent"]).toMatch(new RegExp(`^00-${traceId}-[0-9a-f]{16}-01$`))
    const decider = byId.get(created?.["traceParent"]?.slice(36, 52) ?? "")
    if (decider === undefined) throw new Error("the event names a span that nobody made")
    expect([decider.name, ...above(decider)]).toContain("Orders.place")
    expect([spans.filter(published).length, spans.filter(consumed).length]).toEqual([1, 3])
    for (const span of spans.filter((span) => published(span) || consumed(span))) {
      expect(parentIdOf(span)).toBe(decider.spanId)
      expect(span.kind).toBe(published(span) ? "producer" : "consumer")
      expect(span.attributes.get("messaging.destination.name")).toBe("order.events")
      expect(span.attributes.get("messaging.message.id")).toBe(created?.["id"])
      expect(span.attributes.get("eventType")).toBe("ecommerce.order.order.created.v1")
    }
    expect(named("Notifications.tell").map(above).flat()).toContain("consume order.events")
    const written = sqlSpans.filter((span) => statement(span).includes(`insert into "orders"."orders_by_customer"`))
    expect(written.map((span) => above(span).includes("consume order.events"))).toEqual([true])
    expect(spans.filter(({ status }) => status._tag !== "Ended").map(({ name }) => name)).toEqual([])
  })

  test("to the graph is one trace, and each context is asked once for all that lies beside each other", async () => {
    const ids = [await stocked("GRAPH-1"), await stocked("GRAPH-2"), await stocked("GRAPH-3")]
    const quiet = { traceparent: traceparent(hex(32), "00") }
    const ada = shop.as(await tokenOf("GRAPH-ADA", "shopper"))
    const items = ids.map((productId) => ({ productId, qty: 1 }))
    await ada.post("/api/v1/orders", { items }, { key: hex(8), headers: quiet })
    await ada.post("/api/v1/orders", { items: items.slice(1) }, { key: hex(8), headers: quiet })

    const traceId = hex(32)
    const stock = "inventory { available }"
    const query = `query Lists {
      products(filter: { limit: 50 }) { id ${stock} }
      orders { items { items { product { name ${stock} } } } }
      ${ids.map((id, nth) => `p${nth}: product(id: "${id}") { sku ${stock} }`).join(" ")}
      ${ids.map((id, nth) => `s${nth}: productInventory(id: "${id}") { reserved }`).join(" ")}
    }`
    const answer = await ada.post("/graphql", { query }, { headers: { traceparent: traceparent(traceId, "01") } })
    expect(answer.body).toMatchObject({
      data: {
        orders: { items: [{ items: [{}, {}] }, { items: [{}, {}, {}] }] },
        p2: { sku: "GRAPH-3", inventory: { available: 98 } },
        s0: { reserved: 1 }
      }
    })
    const spans = memory.ofTrace(traceId)
    const [server] = spans.filter(({ kind }) => kind === "server")
    const [asked] = spans.filter(({ name }) => name === "GraphQL.query")
    expect(asked?.attributes.get("graphql.operation.name")).toBe("Lists")
    expect(asked === undefined ? [] : above(asked)).toContain(server?.name ?? "no span of the request")
    const statements = spans.filter((span) => span.attributes.has("db.query.text"))
    expect(statements.map((span) => above(span).includes("GraphQL.query"))).toEqual(statements.map(() => true))
    // The list, the products by id, the orders, and stock twice: of what is at the top, and of what came with lists and orders.
    const tables = statements.map((span) => /(?:from|join) (\w+\.\w+)/.exec(statement(span))?.[1] ?? "")
    expect(tables.filter((table) => table.startsWith("catalogue.")).length).toBeLessThanOrEqual(2)
    expect(tables.filter((table) => table.startsWith("inventory.")).length).toBeLessThanOrEqual(3)
    expect(tables.filter((table) => table.startsWith("orders.")).length).toBeLessThanOrEqual(2)
    expect(tables.length).toBeGreaterThanOrEqual(4)

    // Products are kept for a while, stock is not. Soon, that is: the event of its making may still drop a product.
    const readAgain = async () => {
      const again = hex(32)
      const one = `{ product(id: "${ids[0]}") { sku ${stock} } }`
      await ada.post("/graphql", { query: one }, { headers: { traceparent: traceparent(again, "01") } })
      const read = memory.ofTrace(again).filter((span) => span.attributes.has("db.query.text"))
      return read.map((span) => /from (\w+)\./.exec(statement(span))?.[1])
    }
    expect(await until(readAgain, (contexts) => !contexts.includes("catalogue"))).toEqual(["inventory"])
  })

  test("in production is not told what the graph is made of", async () => {
    const ask = (query: string) => shop.post("/graphql", { query })
    const schema = await ask("{ __schema { types { name } } }")
    expect([schema.status, schema.body]).toEqual([
      200,
      {
        errors: expect.arrayContaining([
          expect.objectContaining({ extensions: expect.objectContaining({ code: "validation_failed" }) })
        ])
      }
    ])
    const { body } = await ask(`{ product(id: "P") { nam } }`)
    expect(body).toMatchObject({ errors: [{ message: 'Cannot query field "nam" on type "Product".' }] })
  })

  test("pays in one trace as well, the gateway and the order process in it", async () => {
    const productId = await stocked("PAID")
    const placed = await order("GRACE", productId, { traceparent: traceparent(hex(32), "00") })
    const traceId = hex(32)
    const paid = await shop
      .as(await tokenOf("GRACE", "shopper"))
      .post(
        `/api/v1/orders/${text(placed, "orderId")}/pay`,
        { paymentToken: "tok_ok" },
        { key: hex(8), headers: { traceparent: traceparent(traceId, "01") } }
      )
    expect(paid.status).toBe(200)
    await until(
      () => notificationsOf("GRACE"),
      ({ length }) => length === 2
    )
    const names = new Set(
      (
        await until(
          () => memory.ofTrace(traceId),
          (spans) => spans.some(({ name }) => name === "Notifications.tell")
        )
      ).map(({ name }) => name)
    )
    for (const name of [
      "POST",
      "OrderProcess.pay",
      "OrderProcess.hold",
      "Inventory.extend",
      "OrderProcess.authorise",
      "Payments.authorise",
      "PaymentGateway.authorise",
      "OrderProcess.confirm",
      "Inventory.commit",
      "OrderProcess.capture",
      "Payments.capture",
      "publish order.events",
      "publish payment.events",
      "consume order.events",
      "Notifications.tell"
    ]) {
      expect(names).toContain(name)
    }
  })

  test("that fails has its trace in the problem", async () => {
    const traceId = hex(32)
    const refused = await order("ADA", "NO-SUCH-PRODUCT", { traceparent: traceparent(traceId, "01") })
    expect(refused.status).toBe(422)
    expect(refused.body).toMatchObject({ code: "product_not_found", traceId })
    expect(memory.ofTrace(traceId).map(({ name }) => name)).toContain("Orders.place")
  })

  test("for what is in the cache has its span, too", async () => {
    const path = `/api/v1/products/${await stocked("KEPT")}`
    expect((await shop.get(path)).status).toBe(200)
    for (const _ of [1, 2]) {
      const traceId = hex(32)
      const answer = await shop.get(path, { headers: { traceparent: traceparent(traceId, "01") } })
      expect([answer.status, answer.headers.get("traceparent")?.slice(3, 35)]).toEqual([200, traceId])
      expect(memory.ofTrace(traceId).map(({ name }) => name)).toContain("GET")
      const silent = hex(32)
      const unseen = await shop.get(path, { headers: { traceparent: traceparent(silent, "00") } })
      expect([unseen.status, unseen.headers.get("traceparent")?.slice(3, 35)]).toEqual([200, silent])
      expect(memory.ofTrace(silent)).toEqual([])
    }
  })

  test("for a page in the cache asks nobody behind it, and says that it is from there", async () => {
    const path = "/api/v1/products?category=Kept%20pages"
    const asked = async () => {
      const traceId = hex(32)
      const answer = await shop.get(path, { headers: { traceparent: traceparent(traceId, "01") } })
      return { body: answer.body, spans: memory.ofTrace(traceId) }
    }
    const first = await asked()
    expect(first.spans.map(({ name }) => name)).toContain("Catalogue.list")
    const second = await asked()
    expect(second.body).toEqual(first.body)
    expect(second.spans.map(({ name }) => name)).not.toContain("Catalogue.list")
    expect(second.spans.filter(({ attributes }) => attributes.get("merkato.cache.hit") === true)).toHaveLength(1)
  })

  test("is sampled by itself when its caller has not decided", async () => {
    const answer = await shop.get("/api/v1/products")
    const traceId = answer.headers.get("traceparent")?.slice(3, 35) ?? ""
    expect(answer.headers.get("traceparent")).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/)
    expect(memory.ofTrace(traceId).map(({ name }) => name)).toContain("GET")
  })
})

describe("a request that is not sampled", () => {
  test("makes no spans, nor do its events; the trace id is still in the response, the events and the problems", async () => {
    const productId = await stocked("QUIET")
    await until(
      () => notificationsOf("ADA"),
      ({ length }) => length === 1
    )
    await Bun.sleep(100)
    const before = memory.spans.length
    const traceId = hex(32)
    const headers = { traceparent: traceparent(traceId, "00") }
    const answer = await order("HEDY", productId, headers)
    expect(answer.status).toBe(201)
    expect(answer.headers.get("traceparent")).toMatch(new RegExp(`^00-${traceId}-[0-9a-f]{16}-00$`))
    const refused = await order("HEDY", "NO-SUCH-PRODUCT", headers)
    expect(refused.body).toMatchObject({ status: 422, code: "product_not_found", traceId })
    expect(refused.headers.get("traceparent")).toMatch(new RegExp(`^00-${traceId}-[0-9a-f]{16}-00$`))
    await until(
      () => notificationsOf("HEDY"),
      ({ length }) => length === 1
    )
    expect(memory.spans.slice(before).map((span) => [span.name, statement(span)])).toEqual([])
    for (const context of ["orders", "inventory"]) {
      const events = await rows(
        `select trace_parent as t from ${context}.events where trace_parent like '%${traceId}%'`
      )
      expect(events.map(({ t }) => t)).toEqual([expect.stringMatching(new RegExp(`^00-${traceId}-[0-9a-f]{16}-00$`))])
    }
  })

  test("has a trace id of its own when it brings none that makes sense", async () => {
    for (const given of [undefined, "00-00000000000000000000000000000000-0000000000000000-00", "nonsense-00"]) {
      const answer = await shop.get("/no/such/path", given === undefined ? {} : { headers: { traceparent: given } })
      const own = answer.headers.get("traceparent") ?? ""
      expect(own).toMatch(/^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[01]$/)
      expect(answer.body).toMatchObject({ status: 404, traceId: own.slice(3, 35) })
    }
  })

  test("leaves no trace of the shop's own work either: at rest it makes no spans", async () => {
    const before = memory.spans.length
    await Bun.sleep(600)
    expect(memory.spans.slice(before).map((span) => [span.name, statement(span)])).toEqual([])
  })

  test("does not make the probes of health speak", async () => {
    const before = memory.spans.length
    const traceId = hex(32)
    for (const path of ["/healthz", "/readyz", "/metrics"]) {
      await fetch(`${shop.url}${path}`, { headers: { traceparent: traceparent(traceId, "01") } })
    }
    expect(memory.ofTrace(traceId).map(({ name }) => name)).toEqual([])
    expect(memory.spans.length).toBe(before)
  })
})

test("a shop that is told a collector sends it the spans of its requests", async () => {
  const collector = startCollector()
  const { spans: exported } = collector
  const data = temporaryFolder()
  const database = await Effect.runPromise(Scope.provide(TestDatabase.fresh, scope))
  const running = await startApp("shop", ["--data-dir", data.path, "--no-seed"], {
    DATABASE_URL: Redacted.value(database.url),
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_BSP_SCHEDULE_DELAY: "100"
  })
  try {
    const admin = new Client(running.url, await tokenFor(data.path, "ADMIN", "admin"))
    const product = { sku: "MILK", name: "Milk", category: "Dairy", price: 1.19, currency: "USD" }
    const productId = text(await admin.post("/api/v1/products", product), "productId")
    await admin.post(`/api/v1/inventory/${productId}/adjustments`, { delta: 5, reason: "delivery" })
    const traceId = hex(32)
    const ada = new Client(running.url, await tokenFor(data.path, "ADA", "shopper"))
    const placed = await ada.post(
      "/api/v1/orders",
      { items: [{ productId, qty: 1 }] },
      { key: "one", headers: { traceparent: traceparent(traceId, "01") } }
    )
    expect(placed.status).toBe(201)
    const quiet = hex(32)
    await ada.get("/api/v1/orders", { headers: { traceparent: traceparent(quiet, "00") } })
    const expected = [
      "POST",
      "Orders.place",
      "Inventory.reserve",
      "publish order.events",
      "consume order.events",
      "Notifications.tell"
    ]
    const ofTrace = () => exported.filter((span) => span.traceId === traceId)
    const has = (names: ReadonlyArray<string>) => expected.every((name) => names.includes(name))
    const names = await until(() => ofTrace().map(({ name }) => name), has, 8_000)
    expect(names).toEqual(expect.arrayContaining(expected))
    expect(new Set(exported.map(({ service }) => service))).toEqual(new Set(["merkato-shop"]))
    // A span may be sent before the one above it has ended.
    const roots = () => {
      const ids = new Set(ofTrace().map(({ spanId }) => spanId))
      return ofTrace()
        .filter(({ parentId }) => !ids.has(parentId))
        .map(({ name }) => name)
    }
    expect(await until(roots, ({ length }) => length === 1, 8_000)).toEqual(["POST"])
    expect(exported.filter((span) => span.traceId === quiet)).toEqual([])
  } finally {
    await running.end("SIGTERM")
    await collector.stop()
    data.remove()
  }
})

test("spans are made when somebody is named who takes them, and only then", async () => {
  const collector = Bun.serve({ port: 0, fetch: () => new Response(null, { status: 200 }) })
  const url = collector.url.href.replace(/\/$/, "")
  const isOn = (env: Readonly<Record<string, string>>) =>
    Effect.service(References.TracerEnabled).pipe(
      Effect.provide(Telemetry.layer("merkato-test")),
      Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromUnknown(env)),
      Effect.runPromise
    )
  expect(await isOn({})).toBe(false)
  expect(await isOn({ OTEL_EXPORTER_OTLP_ENDPOINT: url })).toBe(true)
  expect(await isOn({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${url}/v1/traces` })).toBe(true)
  expect(await isOn({ OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: `${url}/v1/metrics` })).toBe(false)
  await collector.stop(true)
})
