import { expect, test } from "bun:test"
import { Effect, Layer, Logger, Schedule } from "effect"
import { ProductUpdated } from "@merkato/domain/catalogue/CatalogueEvents"
import { Price } from "@merkato/domain/catalogue/Product"
import { EventId, ProductId } from "@merkato/domain/kernel/Ids"
import { defaultRegion } from "@merkato/domain/kernel/Region"
import { Policies } from "@merkato/infra/policy/Policies"
import { EventBus } from "@merkato/infra/events/EventBus"
import * as PostgresEventBus from "@merkato/infra/events/PostgresEventBus"
import * as Database from "@merkato/infra/postgres/Database"
import * as Migrations from "@merkato/infra/postgres/Migrations"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import * as Cache from "../src/gateway/ProductCache.ts"

/** Another process has changed a product. */
const changed = (productId: string, version: number) => ({
  topic: "catalogue.events",
  key: productId,
  traceParent: "",
  envelope: {
    eventId: EventId.make(`EVENT-${version}`),
    eventType: ProductUpdated.type,
    occurredAt: "2026-01-01T00:00:00.000Z",
    producer: "catalogue-service",
    traceId: "",
    correlationId: "",
    schemaVersion: "1.0",
    partitionKey: productId,
    region: defaultRegion,
    aggregateVersion: version,
    payload: {}
  }
})

/** Making a database takes seconds when the machine is busy. */
const timeoutMs = 60_000

test(
  "a change somewhere else drops the product in its older versions, and every page",
  () =>
    Effect.gen(function* () {
      const { url } = yield* TestDatabase.fresh
      const database = Database.layer({ url, maxConnections: 4, applicationName: "test" })
      yield* Effect.provide(Migrations.run(PostgresEventBus.migrations), database)
      const bus = PostgresEventBus.layer.pipe(Layer.provide(database))
      yield* Effect.gen(function* () {
        const { publish } = yield* EventBus
        const products = yield* Cache.ProductCache
        const pages = yield* Cache.ProductPages
        const services = yield* Effect.context<never>()
        const json = (body: string) => ({ etag: '"1"', body })
        const shelf = new Price({ productId: ProductId.make("P"), priceMinor: 100, currency: "USD" })
        const product = (body: string) => ({ ...json(body), shelf })
        yield* products.put("P1", 1, product("old"))
        yield* products.put("P2", 1, product("other"))
        const before = pages.moment()
        pages.put("/api/v1/products", before, json("page"), services)
        expect(pages.peek("/api/v1/products", services)).toEqual(json("page"))

        yield* publish([changed("P1", 2)])
        const dropped = Effect.sync(() => pages.peek("/api/v1/products", services) === undefined)
        yield* Effect.repeat(dropped, {
          until: (isDropped) => isDropped,
          schedule: Schedule.max([Schedule.spaced("20 millis"), Schedule.recurs(500)])
        })
        const late = "/api/v1/products?category=Late"
        pages.put(late, before, json("read before the change and put after it"), services)
        expect(["/api/v1/products", late].map((path) => pages.peek(path, services))).toEqual([undefined, undefined])
        yield* products.put("P1", 1, product("read before the change and put after it"))
        expect([yield* products.get("P1"), yield* products.get("P2")]).toEqual([undefined, product("other")])
      }).pipe(Effect.provide(Cache.layer.pipe(Layer.provideMerge(bus), Layer.provide(Policies.layerWith()))))
    }).pipe(Effect.scoped, Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Effect.runPromise),
  timeoutMs
)
