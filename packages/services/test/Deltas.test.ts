// What devices tell becomes stock, on a real Postgres: as one transaction, once, whoever else is at the shelf.
import { expect, test } from "bun:test"
import { Clock, Deferred, Effect, Fiber, Layer, Schedule } from "effect"
import { SqlClient } from "effect/sql"
import { Sku } from "@merkato/domain/catalogue/Product"
import { OrderId, ProductId, ReservationId } from "@merkato/domain/kernel/Ids"
import { Authorizer } from "@merkato/infra/authorizer/Authorizer"
import * as Retention from "@merkato/infra/context/Retention"
import { EventStore, RelaySignal } from "@merkato/infra/events/EventStore"
import { stamp } from "@merkato/infra/events/Stamp"
import { Idempotency } from "@merkato/infra/idempotency/Idempotency"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { Deltas } from "../src/inventory/Deltas.ts"
import { Inventory as InventoryContext } from "../src/inventory/index.ts"
import { Inventory } from "../src/inventory/Inventory.ts"

const [apples, pears] = [ProductId.make("P-APPLES"), ProductId.make("P-PEARS")]

/** Two products, by their SKUs. */
const catalogue = CatalogueRpc.client.pipe(
  Layer.provideMerge(
    Layer.effectDiscard(
      Effect.flatMap(Switchboard, (switchboard) =>
        switchboard.connect(
          "catalogue",
          new Map([
            ["PricesOf", () => Effect.succeed([{}])],
            [
              "ProductsOfSkus",
              () =>
                Effect.succeed([
                  { sku: "APPLES", productId: apples },
                  { sku: "PEARS", productId: pears }
                ])
            ]
          ])
        )
      )
    )
  ),
  Layer.provide(Switchboard.layer)
)

const useCases = Layer.merge(Inventory.layer, Deltas.layer).pipe(
  Layer.provide(Layer.merge(EventStore.layer("inventory"), Idempotency.layer("inventory"))),
  Layer.provide(Layer.succeed(RelaySignal, { wake: Effect.void })),
  Layer.provide(Authorizer.layerRules),
  Layer.provide(catalogue)
)

const apply = Effect.fnUntraced(function* (
  ...told: ReadonlyArray<readonly [sku: string, delta: number, messageId?: string]>
) {
  const at = yield* stamp
  const deltas = told.map(([sku, delta, messageId]) => ({
    delta: { sku: Sku.make(sku), delta, reason: "SENSOR", ...(messageId === undefined ? {} : { messageId }) },
    stamp: at
  }))
  const outcomes = yield* (yield* Deltas).apply(deltas)
  return outcomes.map((outcome) => (outcome._tag === "DeltaRefused" ? outcome.code : outcome._tag))
})

const stock = Effect.gen(function* () {
  const levels = yield* (yield* Inventory).levelsOf([apples, pears])
  return levels.map(({ onHand, reserved, version }) => [onHand, reserved, version])
})

/** With connections for whoever waits for another. */
const inStore = <A, E>(test: Effect.Effect<A, E, Deltas | Inventory | SqlClient.SqlClient>) =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.fresh
    const database = Database.layer({ url, maxConnections: 8, applicationName: "test" })
    return yield* Effect.andThen(InventoryContext.migrate, Effect.provide(test, useCases)).pipe(
      Effect.provide(database)
    )
  }).pipe(Effect.scoped, Effect.withTracerEnabled(false), Effect.runPromise)

test("a batch is one transaction: levels, adjustments, events and what is remembered", () =>
  inStore(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      expect(
        yield* apply(["APPLES", 5, "a1"], ["NOBODYS", 1], ["PEARS", 2], ["APPLES", -2, "a2"], ["APPLES", 5, "a1"])
      ).toEqual(["Applied", "unknown_sku", "Applied", "Applied", "Duplicate"])
      expect(yield* stock).toEqual([
        [3, 0, 2],
        [2, 0, 1]
      ])
      const events = yield* sql<{ payload: Readonly<Record<string, unknown>> }>`
        select e.payload from inventory.events e join inventory.outbox o using (aggregate_id, version)
        order by e.aggregate_id, e.version`
      expect(
        events.map(({ payload }) => [payload["productId"], payload["delta"], payload["onHand"], payload["version"]])
      ).toEqual([
        [apples, 5, 5, 1],
        [apples, -2, 3, 2],
        [pears, 2, 2, 1]
      ])
      const adjustments = yield* sql<{ sum: number; left: number }>`
        select product_id, sum(delta)::int as sum, min(on_hand) as left from inventory.inventory_adjustment
        group by product_id order by product_id`
      expect(adjustments.map(({ sum, left }) => [sum, left])).toEqual([
        [3, 3],
        [2, 2]
      ])
    })
  ))

test(
  "one that names itself counts once, however many bring it at the same time, and with reservations beside it",
  () =>
    inStore(
      Effect.gen(function* () {
        yield* apply(["APPLES", 100, "first"], ["PEARS", 100, "first"])
        const inventory = yield* Inventory
        const messages = Array.from(
          { length: 30 },
          (_, nth) => [nth % 2 === 0 ? "APPLES" : "PEARS", -2, `m${nth}`] as const
        )
        const bringers = Array.from({ length: 6 }, (_, nth) =>
          Effect.forEach(
            [0, 10, 20],
            (from) => {
              const batch = messages.slice(from, from + 10)
              return apply(...(nth % 2 === 0 ? batch : batch.toReversed()))
            },
            { concurrency: 3 }
          )
        )
        const reservations = Array.from({ length: 20 }, (_, nth) =>
          inventory.reserve({
            reservationId: ReservationId.make(`R${nth}`),
            orderId: OrderId.make(`O${nth}`),
            items: [
              { productId: pears, qty: 1 },
              { productId: apples, qty: 1 }
            ],
            ttlMs: 60_000
          })
        )
        yield* Effect.all([...bringers, ...reservations], { concurrency: "unbounded" })
        expect((yield* stock).map(([onHand, reserved]) => [onHand, reserved])).toEqual([
          [70, 20],
          [70, 20]
        ])
        // Of 50 that are free, not one more.
        expect(yield* apply(["APPLES", -50, "most"], ["APPLES", -1, "more"])).toEqual([
          "Applied",
          "stock_would_be_negative"
        ])
      })
    ),
  60_000
)

test("a shelf that somebody else is changing is waited for, and judged as they leave it", () =>
  inStore(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* apply(["APPLES", 5, "first"])
      const [begun, mayEnd] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      const other = yield* sql`
        update inventory.inventory_stock set on_hand = on_hand - 4, version = version + 1 where product_id = ${apples}`.pipe(
        Effect.andThen(Deferred.succeed(begun, undefined)),
        Effect.andThen(Deferred.await(mayEnd)),
        sql.withTransaction,
        Effect.forkScoped
      )
      yield* Deferred.await(begun)
      const applying = yield* Effect.forkScoped(apply(["APPLES", -2, "second"], ["APPLES", -1, "third"]))
      const waits = sql`select from pg_locks where not granted`
      yield* Effect.repeat(waits, {
        until: (rows) => rows.length > 0,
        schedule: Schedule.spaced("20 millis"),
        times: 500
      })
      yield* Deferred.succeed(mayEnd, undefined)
      expect(yield* Fiber.join(applying)).toEqual(["stock_would_be_negative", "Applied"])
      yield* Fiber.join(other)
      expect((yield* stock)[0]).toEqual([0, 0, 3])
    }).pipe(Effect.scoped)
  ))

test("messages are remembered for a month", () =>
  inStore(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* apply(["APPLES", 1, "old"], ["APPLES", 1, "young"])
      const days = (count: number) => Effect.map(Clock.currentTimeMillis, (now) => new Date(now - count * 86_400_000))
      yield* sql`update inventory.device_messages set received_at = ${yield* days(31)} where message_id = 'old'`
      yield* sql`update inventory.device_messages set received_at = ${yield* days(29)} where message_id = 'young'`
      yield* Retention.turn("inventory", InventoryContext.passing)
      expect(yield* apply(["APPLES", 1, "old"], ["APPLES", 1, "young"])).toEqual(["Applied", "Duplicate"])
    })
  ))
