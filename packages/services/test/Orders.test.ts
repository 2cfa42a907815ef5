// Twins: one request that came twice, and both tries under way at the same time.
import { expect, test } from "bun:test"
import { Clock, Effect, Exit, Layer, type Scope } from "effect"
import { SqlError } from "effect/sql"
import * as Ids from "@merkato/domain/kernel/Ids"
import { ReservationClosed } from "@merkato/domain/inventory/Stock"
import { Quote } from "@merkato/domain/pricing/Quote"
import { Authorizer } from "@merkato/infra/authorizer/Authorizer"
import { EventStore, RelaySignal } from "@merkato/infra/events/EventStore"
import { Idempotency } from "@merkato/infra/idempotency/Idempotency"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import { Orders as OrdersContext } from "../src/orders/index.ts"
import { Orders, type Place } from "../src/orders/Orders.ts"
import { as, quietly } from "./Requests.ts"

const milk = Ids.ProductId.make("PROD-MILK")

const quote = new Quote({
  lines: [{ productId: milk, qty: 1, priceMinor: 100 }],
  itemsMinor: 100,
  discountMinor: 0,
  taxMinor: 0,
  shippingMinor: 0,
  totalMinor: 100,
  currency: "EUR"
})

const notAsked = () => Effect.die(new Error("nobody asks for this"))

interface Shop {
  readonly orders: Orders["Service"]
  readonly inventory: InventoryRpc["Service"]
  /** The next look at a key's answer fails, as with a database that cancels the statement. */
  readonly failNextLook: () => void
  /** Runs once, between the try's look for its twin's order and its own order. */
  readonly meanwhile: (work: Effect.Effect<unknown, unknown>) => void
  readonly released: ReadonlyArray<string>
  /** In their order, each as often as it was reserved. */
  readonly reserved: ReadonlyArray<string>
  /** The next try ends when it has reserved. */
  readonly dieAfterReserving: () => void
}

/** Orders with its real SQL, beside an inventory in which somebody else holds what is reserved first. */
const withOrders = <A, E>(run: (shop: Shop) => Effect.Effect<A, E, Scope.Scope>): Promise<A> =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.fresh
    const database = Database.layer({ url, maxConnections: 4, applicationName: "test" })
    const released = Array<string>()
    let work: Effect.Effect<unknown, unknown> | undefined
    let failing = false
    let dying = false
    const reserved = Array<Ids.ReservationId>()
    const inventory = InventoryRpc.of({
      // The first one meets a reservation of a twin whose order is not there yet; the twin finds it to be its own.
      Reserve: ({ reservationId, orderId }) =>
        Effect.suspend(() => {
          reserved.push(reservationId)
          if (!dying) return Effect.succeed({ orderId: work === undefined ? orderId : Ids.OrderId.make("ORDER-TWIN") })
          dying = false
          return Effect.interrupt
        }),
      Extend: ({ reservationId }) => {
        if (!reserved.includes(reservationId))
          return Effect.fail(new ReservationClosed({ reservationId, status: "unknown" }))
        const now = work ?? Effect.void
        work = undefined
        return Effect.orDie(Effect.asVoid(now))
      },
      Release: ({ reservationId }) => Effect.sync(() => void released.push(reservationId)),
      Commit: notAsked,
      Levels: notAsked,
      LevelsOf: notAsked,
      Adjust: notAsked
    })
    const answers = Layer.effect(
      Idempotency,
      Effect.map(Idempotency, (idempotency) =>
        Idempotency.of({
          ...idempotency,
          find: (request) => {
            if (!failing) return idempotency.find(request)
            failing = false
            const cause = new Error("canceling statement due to statement timeout")
            return Effect.fail(new SqlError.SqlError({ reason: new SqlError.StatementTimeoutError({ cause }) }))
          }
        })
      )
    ).pipe(Layer.provide(Idempotency.layer("orders")))
    const needs = Layer.mergeAll(
      EventStore.layer("orders").pipe(Layer.provide(Layer.succeed(RelaySignal, { wake: Effect.void }))),
      answers,
      Authorizer.layerRules,
      Layer.succeed(InventoryRpc, inventory),
      Layer.succeed(
        PricingRpc,
        PricingRpc.of({
          Quote: () => Effect.succeed(quote),
          PriceMap: notAsked,
          ScheduleFlashSale: notAsked,
          CancelFlashSale: notAsked,
          GetFlashSale: notAsked,
          ListFlashSales: notAsked
        })
      )
    )
    return yield* Effect.gen(function* () {
      yield* OrdersContext.migrate
      return yield* run({
        orders: yield* Orders,
        inventory,
        failNextLook: () => {
          failing = true
        },
        meanwhile: (next) => {
          work = next
        },
        released,
        reserved,
        dieAfterReserving: () => {
          dying = true
        }
      })
    }).pipe(Effect.provide(Orders.layer.pipe(Layer.provide(needs), Layer.provideMerge(database))))
  }).pipe(as("ADA", "shopper", "eu"), Effect.scoped, quietly, Effect.runPromise)

const request: Place = { idempotencyKey: Ids.IdempotencyKey.make("key"), items: [{ productId: milk, qty: 1 }] }

test("who comes second to its twin, and cannot read the answer, gives back nothing: it may be the twin's", () =>
  withOrders(({ orders, meanwhile, failNextLook, released }) =>
    Effect.gen(function* () {
      meanwhile(Effect.andThen(orders.place(request), Effect.sync(failNextLook)))
      const second = yield* Effect.flip(orders.place(request))
      expect(second._tag).toBe("ServiceUnavailable")
      expect(released).toEqual([])
      expect(yield* orders.place(request)).toMatchObject({ replayed: true, answer: { status: "PENDING" } })
    })
  ))

test("who comes second to its twin answers as the twin did, and leaves what both hold", () =>
  withOrders(({ orders, meanwhile, released }) =>
    Effect.gen(function* () {
      let first: unknown
      meanwhile(
        Effect.map(orders.place(request), ({ answer }) => {
          first = answer
        })
      )
      const { answer, replayed } = yield* orders.place(request)
      expect({ answer, replayed }).toEqual({ answer: first as typeof answer, replayed: true })
      expect(released).toEqual([])
    })
  ))

/** Runs something while it is that time. */
const at =
  (time: string) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.flatMap(Clock.Clock, (clock) =>
      Effect.provideService(effect, Clock.Clock, {
        ...clock,
        currentTimeMillis: Effect.succeed(Date.parse(time)),
        currentTimeMillisUnsafe: () => Date.parse(time)
      })
    )

test("who tries again after midnight has what the try before midnight reserved", () =>
  withOrders(({ orders, reserved, dieAfterReserving }) =>
    Effect.gen(function* () {
      dieAfterReserving()
      expect(Exit.hasInterrupts(yield* Effect.exit(at("2026-03-01T23:59:50Z")(orders.place(request))))).toBe(true)
      const { answer } = yield* at("2026-03-02T00:09:00Z")(orders.place(request))
      expect(reserved).toEqual([answer.reservationId, answer.reservationId])
    })
  ))

test("what is reserved on a day has ids that lie together, behind those of the day before", () =>
  withOrders(({ orders, reserved }) =>
    Effect.gen(function* () {
      const days = ["2026-03-01", "2026-03-01", "2026-03-02", "2026-03-02", "2026-03-03"]
      for (const [index, day] of days.entries()) {
        yield* at(`${day}T00:20:00Z`)(
          orders.place({ ...request, idempotencyKey: Ids.IdempotencyKey.make(`key-${index}`) })
        )
      }
      const prefixes = reserved.map((id) => id.slice(0, 9))
      expect(prefixes).toEqual(["RES-05021", "RES-05021", "RES-05022", "RES-05022", "RES-05023"])
    })
  ))
