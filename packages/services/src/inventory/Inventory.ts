import { Clock, Config, Context, DateTime, Effect, Layer, Metric, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { ProductNotFound } from "@merkato/domain/catalogue/Product"
import { StockAdjusted } from "@merkato/domain/inventory/InventoryEvents"
import {
  defaultWarehouse,
  OutOfStock,
  ReservationClosed,
  StockLevels,
  StockWouldBeNegative,
  StockWouldOverflow
} from "@merkato/domain/inventory/Stock"
import * as Ids from "@merkato/domain/kernel/Ids"
import {
  type Forbidden,
  type IdempotencyKeyReused,
  RequestInProgress,
  type ServiceUnavailable
} from "@merkato/domain/kernel/Problem"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import { mergeItems } from "@merkato/domain/pricing/Quote"
import { authorize } from "@merkato/infra/authorizer/Authorizer"
import { milliseconds } from "@merkato/infra/config/Milliseconds"
import * as Provided from "@merkato/infra/context/Provided"
import { EventStore } from "@merkato/infra/events/EventStore"
import { stamp } from "@merkato/infra/events/Stamp"
import { Idempotency, type Keyed } from "@merkato/infra/idempotency/Idempotency"
import { orUnavailable, transaction } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import * as InventoryStore from "./InventoryStore.ts"

const failures = Metric.counter("inventory_reservation_failures_total", {
  description: "Reservations refused for want of stock",
  incremental: true
})

interface Adjust {
  readonly idempotencyKey?: Ids.IdempotencyKey
  readonly productId: Ids.ProductId
  readonly delta: number
  readonly reason: string
}

/** The levels after a change, and whether they are those of the first time. */
interface Adjusted {
  readonly answer: StockLevels
  readonly replayed: boolean
}

const encodeLevels = Schema.encodeSync(StockLevels)
const decodeLevels = Schema.decodeUnknownEffect(StockLevels)

interface Reserve {
  readonly reservationId: Ids.ReservationId
  readonly orderId: Ids.OrderId
  readonly items: ReadonlyArray<{ readonly productId: Ids.ProductId; readonly qty: number }>
  readonly ttlMs: number
}

/** Milliseconds between two looks; read at the start, too, so that a value that cannot be used is told then. */
const sweepMs = milliseconds("MERKATO_RESERVATION_SWEEP_MS").pipe(Config.withDefault(1_000))

/** The use cases of inventory: what is there, what is promised, and to whom. */
export class Inventory extends Context.Service<
  Inventory,
  {
    levels(productId: Ids.ProductId): Effect.Effect<StockLevels, ServiceUnavailable>
    levelsOf(productIds: ReadonlyArray<Ids.ProductId>): Effect.Effect<ReadonlyArray<StockLevels>, ServiceUnavailable>
    adjust(
      adjustment: Adjust
    ): Effect.Effect<
      Adjusted,
      | Forbidden
      | ProductNotFound
      | StockWouldBeNegative
      | StockWouldOverflow
      | IdempotencyKeyReused
      | RequestInProgress
      | ServiceUnavailable
    >
    reserve(
      request: Reserve
    ): Effect.Effect<{ readonly orderId: Ids.OrderId }, Forbidden | OutOfStock | ReservationClosed | ServiceUnavailable>
    extend(request: {
      readonly reservationId: Ids.ReservationId
      readonly holdMs: number
    }): Effect.Effect<void, Forbidden | ReservationClosed | ServiceUnavailable>
    commit(reservationId: Ids.ReservationId): Effect.Effect<void, Forbidden | ReservationClosed | ServiceUnavailable>
    release(request: {
      readonly reservationId: Ids.ReservationId
      readonly orderId: Ids.OrderId
    }): Effect.Effect<void, Forbidden | ReservationClosed | ServiceUnavailable>
    /** Ends reservations whose time is over; how many. */
    readonly expireDue: Effect.Effect<number, ServiceUnavailable>
  }
>()("merkato/inventory/Inventory") {
  static readonly layer = Layer.effect(
    Inventory,
    Effect.gen(function* () {
      yield* Effect.orDie(sweepMs)
      const store = yield* InventoryStore.make
      const events = yield* EventStore
      const idempotency = yield* Idempotency
      const catalogue = yield* CatalogueRpc
      const sql = yield* SqlClient.SqlClient
      const provided = yield* Provided.provided
      const orAway = orUnavailable("inventory")
      /** Tells the relay about events that a statement of the store wrote; at once, or when the transaction around it commits. */
      const wrote = sql.afterCommit(events.committed)

      const nothing = (productId: Ids.ProductId) =>
        new StockLevels({ productId, onHand: 0, reserved: 0, available: 0, version: 0 })

      const levels = Tracing.fn("Inventory.levels")(function* (productId: Ids.ProductId) {
        return (yield* store.levels(productId)) ?? nothing(productId)
      }, orAway)

      const levelsOf = Tracing.fn("Inventory.levelsOf")(function* (productIds: ReadonlyArray<Ids.ProductId>) {
        const found = new Map((yield* store.levelsOf(productIds)).map((each) => [each.productId, each]))
        return productIds.map((productId) => found.get(productId) ?? nothing(productId))
      }, orAway)

      /** What the key was answered with; undefined when it is new. */
      const earlier = Effect.fnUntraced(function* (keyed: Keyed) {
        const found = yield* idempotency.find(keyed)
        return found._tag === "Answered"
          ? { answer: yield* Effect.orDie(decodeLevels(found.answer)), replayed: true }
          : undefined
      })

      const adjust = Tracing.fn("Inventory.adjust")(
        function* ({ idempotencyKey, ...adjustment }: Adjust) {
          yield* authorize("stock.adjust")
          const { productId, delta, reason } = adjustment
          const { principal } = yield* RequestContext
          const keyed =
            idempotencyKey === undefined
              ? undefined
              : yield* idempotency.keyed("adjust_stock", idempotencyKey, adjustment)
          const prices = yield* catalogue.PricesOf({ productIds: [productId] })
          if (prices.length === 0) return yield* new ProductNotFound({ productIds: [productId] })
          const adjusting = transaction(
            Effect.gen(function* () {
              const at = yield* DateTime.nowAsDate
              const after = yield* store.adjust(productId, defaultWarehouse, delta)
              if (after === undefined) {
                if (delta > 0) return yield* new StockWouldOverflow({ productId })
                return yield* new StockWouldBeNegative({
                  productId,
                  available: (yield* store.levels(productId))?.available ?? 0
                })
              }
              const id = yield* Ids.next
              yield* store.recordAdjustment({ id, delta, reason, by: principal.userId, at }, after, defaultWarehouse)
              const adjusted = { ...after, warehouseId: defaultWarehouse, delta, reason }
              yield* events.append([StockAdjusted.of(productId, after.version, adjusted)], at)
              if (keyed !== undefined && !(yield* idempotency.keep(keyed, encodeLevels(after))))
                return yield* new RequestInProgress({ retryAfterSeconds: 1 })
              return { answer: after, replayed: false }
            })
          )
          if (keyed === undefined) return yield* adjusting
          // What cannot be done may have been done under this key, before or beside this request.
          return yield* Effect.catch(adjusting, (failure) =>
            Effect.flatMap(earlier(keyed), (first) =>
              first === undefined ? Effect.fail(failure) : Effect.succeed(first)
            )
          )
        },
        orAway,
        provided
      )

      const reserve = Tracing.fn("Inventory.reserve")(
        function* ({ reservationId, orderId, items, ttlMs }: Reserve) {
          yield* authorize("stock.reserve")
          const now = yield* stamp
          const expiresAt = new Date(now.occurredAt.getTime() + ttlMs)
          // The statement wants each product once: two lines of one would each be measured against the whole stock.
          const lines = mergeItems(items)
          const attempt = yield* store.reserve({ reservationId, orderId, items: lines, expiresAt }, now)
          if (attempt.made) {
            yield* wrote
            return { orderId }
          }
          const earlier = yield* store.known(reservationId)
          if (earlier?.status === "held") return { orderId: earlier.orderId }
          if (earlier !== undefined) return yield* new ReservationClosed({ reservationId, status: earlier.status })
          yield* Metric.update(failures, 1)
          return yield* new OutOfStock({ products: attempt.shortages })
        },
        orAway,
        provided
      )

      const closed = Effect.fnUntraced(function* (reservationId: Ids.ReservationId) {
        const status = (yield* store.known(reservationId))?.status ?? "unknown"
        return yield* new ReservationClosed({ reservationId, status: status === "held" ? "expired" : status })
      })

      const extend = Tracing.fn("Inventory.extend")(
        function* ({ reservationId, holdMs }: { readonly reservationId: Ids.ReservationId; readonly holdMs: number }) {
          yield* authorize("stock.reserve")
          const now = yield* Clock.currentTimeMillis
          if (!(yield* store.extend(reservationId, new Date(now + holdMs), new Date(now)))) {
            return yield* closed(reservationId)
          }
        },
        orAway,
        provided
      )

      /**
       * Commits a reservation, or ends it when its time is over: a refusal is final. Else a commit that is under way, or
       * whose clock is behind, might find it held after another one was told that the goods are gone.
       */
      const commit = Tracing.fn("Inventory.commit")(
        function* (reservationId: Ids.ReservationId) {
          yield* authorize("stock.reserve")
          const now = yield* stamp
          const closing = yield* store.close(reservationId, "committed", now)
          if (typeof closing?.ending === "string") yield* wrote
          const status = closing?.ending ?? closing?.before ?? "unknown"
          if (status !== "committed") return yield* new ReservationClosed({ reservationId, status })
        },
        orAway,
        provided
      )

      const release = Tracing.fn("Inventory.release")(
        function* ({
          reservationId,
          orderId
        }: {
          readonly reservationId: Ids.ReservationId
          readonly orderId: Ids.OrderId
        }) {
          yield* authorize("stock.reserve")
          const now = yield* stamp
          for (;;) {
            const closing = yield* store.close(reservationId, "released", now)
            if (closing?.ending === "released") return yield* wrote
            if (closing !== undefined) {
              return closing.before === "committed" ? yield* closed(reservationId) : undefined
            }
            if (yield* store.bury(reservationId, orderId, defaultWarehouse, now.occurredAt)) return
            // It came between the two.
          }
        },
        orAway,
        provided
      )

      const expireDue = Effect.gen(function* () {
        const now = yield* stamp
        const due = yield* store.due(now.occurredAt, 200)
        const closings = yield* Effect.forEach(due, (reservationId) => store.close(reservationId, "expired", now), {
          concurrency: "unbounded"
        })
        const count = closings.filter((closing) => closing?.ending === "expired").length
        if (count > 0) yield* wrote
        return count
      }).pipe(orAway, Effect.withTracerEnabled(false))

      return Inventory.of({ levels, levelsOf, adjust, reserve, extend, commit, release, expireDue })
    })
  )
}

/** Looks for reservations whose time is over: every second unless told otherwise, and again at once while there are many. */
export const expiry = Effect.gen(function* () {
  const inventory = yield* Inventory
  const pause = yield* Effect.orDie(sweepMs)
  return yield* Effect.forever(
    inventory.expireDue.pipe(
      Effect.flatMap((count) => (count > 0 ? Effect.void : Effect.sleep(pause))),
      Effect.catch((error) =>
        Effect.andThen(Effect.logWarning("Expiry of reservations pauses", error), Effect.sleep("1 second"))
      )
    )
  )
})
