import { Clock, Context, DateTime, Effect, Layer, Metric, Result, Schema } from "effect"
import type { ProductNotFound } from "@merkato/domain/catalogue/Product"
import type { NewEvent } from "@merkato/domain/kernel/Event"
import { reservationTtlMs, type OutOfStock } from "@merkato/domain/inventory/Stock"
import { dayMs } from "@merkato/domain/kernel/Day"
import * as Ids from "@merkato/domain/kernel/Ids"
import { type Currency, toDecimal } from "@merkato/domain/kernel/Money"
import {
  type Forbidden,
  type IdempotencyKeyReused,
  type InvalidValue,
  RequestInProgress,
  type ServiceUnavailable
} from "@merkato/domain/kernel/Problem"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import {
  NotCancelable,
  NotFulfillable,
  NotHeld,
  NotYourOrder,
  Order,
  ordered,
  type OrderHistoryEntry,
  OrderNotFound,
  orderWithinMs,
  PaymentInProgress,
  PriceChanged
} from "@merkato/domain/orders/Order"
import {
  created,
  evolve,
  OrderCanceled,
  OrderFulfilled,
  OrderReleased,
  OrderReservationLost
} from "@merkato/domain/orders/OrderEvents"
import { type CurrencyNotSupported, type Item, type Quote } from "@merkato/domain/pricing/Quote"
import { allowed, authorize, verdict } from "@merkato/infra/authorizer/Authorizer"
import * as Provided from "@merkato/infra/context/Provided"
import { derivedId, derivedIdOf } from "@merkato/infra/idempotency/Digest"
import { answerOf, Idempotency, type Keyed, replay, type Replayed } from "@merkato/infra/idempotency/Idempotency"
import * as Cursor from "@merkato/infra/paging/Cursor"
import { orUnavailable, transaction } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { PlaceRefusal } from "@merkato/rpc/orders/OrdersRpc"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import * as OrdersStore from "./OrdersStore.ts"

export interface Place {
  readonly idempotencyKey: Ids.IdempotencyKey
  readonly items: ReadonlyArray<Item>
  readonly currency?: Currency
  readonly expectedTotal?: number
}

type PlaceRefusal = OutOfStock | PriceChanged | CurrencyNotSupported | ProductNotFound

const PlaceAnswer = answerOf(Order, PlaceRefusal)
const encodeAnswer = Schema.encodeSync(Schema.toCodecJson(PlaceAnswer))
const decodeAnswer = Schema.decodeUnknownEffect(Schema.toCodecJson(PlaceAnswer))

const listCursor = Cursor.make(Schema.Struct({ orderId: Ids.OrderId }))

export const ordersCreated = Metric.counter("orders_created_total", {
  description: "Orders placed",
  incremental: true
})
const creationLatency = Metric.histogram("order_creation_latency_ms", {
  description: "Milliseconds from the command to the stored order",
  boundaries: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000]
})

/** Reservations of a key's earlier tries of a day that are passed over one by one; ended ones are never used again. */
const maxReservations = 5

/**
 * The id that a request's nth reservation of a day has. It begins with the day (of UTC, since 1970): what is reserved at one
 * time lies together in the indexes, where a digest alone would touch a page each.
 */
const reservationIdOf = ({ caller, operation, key, payloadHash }: Keyed, at: number, nth: number) => {
  const day = Math.floor(at / dayMs)
    .toString(16)
    .padStart(5, "0")
  return Ids.ReservationId.make(derivedId(`RES-${day}`, caller, operation, key, payloadHash, String(nth)))
}

/** The use cases of orders, but for paying (`OrderProcess`). */
export class Orders extends Context.Service<
  Orders,
  {
    place(
      request: Place
    ): Effect.Effect<
      { readonly answer: Order; readonly replayed: boolean },
      Forbidden | PlaceRefusal | Replayed<PlaceRefusal> | IdempotencyKeyReused | RequestInProgress | ServiceUnavailable
    >
    cancel(
      orderId: Ids.OrderId
    ): Effect.Effect<
      Order,
      Forbidden | OrderNotFound | NotYourOrder | NotCancelable | PaymentInProgress | ServiceUnavailable
    >
    fulfil(orderId: Ids.OrderId): Effect.Effect<Order, Forbidden | OrderNotFound | NotFulfillable | ServiceUnavailable>
    release(orderId: Ids.OrderId): Effect.Effect<Order, Forbidden | OrderNotFound | NotHeld | ServiceUnavailable>
    reject(orderId: Ids.OrderId): Effect.Effect<Order, Forbidden | OrderNotFound | NotHeld | ServiceUnavailable>
    get(orderId: Ids.OrderId): Effect.Effect<Order, Forbidden | OrderNotFound | ServiceUnavailable>
    list(options: {
      readonly limit: number
      readonly cursor?: string
    }): Effect.Effect<Cursor.Page<Order>, Forbidden | InvalidValue | ServiceUnavailable>
    history(
      orderId: Ids.OrderId
    ): Effect.Effect<ReadonlyArray<OrderHistoryEntry>, Forbidden | OrderNotFound | ServiceUnavailable>
    /** Keeps others from changing orders until the caller's transaction ends. */
    lock(orderIds: ReadonlyArray<Ids.OrderId>): Effect.Effect<void, ServiceUnavailable>
    /** The order's reservation ended by itself: the order ends, or remembers it while a payment is under way. */
    reservationExpired(expired: {
      readonly orderId: Ids.OrderId
      readonly reservationId: Ids.ReservationId
    }): Effect.Effect<void, ServiceUnavailable>
  }
>()("merkato/orders/Orders") {
  static readonly layer = Layer.effect(
    Orders,
    Effect.gen(function* () {
      const store = yield* OrdersStore.make
      const idempotency = yield* Idempotency
      const pricing = yield* PricingRpc
      const inventory = yield* InventoryRpc
      const provided = yield* Provided.provided
      const orAway = orUnavailable("orders")

      const now = Effect.map(Clock.currentTimeMillis, (millis) => DateTime.makeUnsafe(millis))

      /** The answer that the key has; somebody was first, be it this caller or a twin of the request. */
      const firstAnswer = Effect.fnUntraced(function* (keyed: Keyed) {
        const found = yield* idempotency.find(keyed)
        if (found._tag !== "Answered") return yield* new RequestInProgress({ retryAfterSeconds: 1 })
        return yield* Effect.orDie(decodeAnswer(found.answer))
      })

      const replayFirst = (keyed: Keyed) => Effect.flatMap(firstAnswer(keyed), replay)

      /** Keeps a refusal as the key's answer, unless it has one already. */
      const refuse = Effect.fnUntraced(function* (keyed: Keyed, refusal: PlaceRefusal) {
        const kept = yield* idempotency.keep(keyed, encodeAnswer({ _tag: "Refused", refusal }))
        return kept ? yield* Effect.fail(refusal) : yield* replayFirst(keyed)
      })

      /** Whether a reservation is held, and so for a while longer. */
      const extended = (reservationId: Ids.ReservationId) =>
        inventory.Extend({ reservationId, holdMs: reservationTtlMs }).pipe(
          Effect.as(true),
          Effect.catchTag("ReservationClosed", () => Effect.succeed(false))
        )

      /** Today's reservations of a request; before them yesterday's, as long as a try of then may hold something. */
      const reservationIds = Effect.fnUntraced(function* (keyed: Keyed) {
        const at = yield* Clock.currentTimeMillis
        const todays = Array.from({ length: maxReservations }, (_, index) => reservationIdOf(keyed, at, index + 1))
        const yesterdays = reservationIdOf(keyed, at - dayMs, 1)
        return at % dayMs < reservationTtlMs && (yield* extended(yesterdays)) ? [yesterdays, ...todays] : todays
      })

      /**
       * Reserves under an id that follows from the request and the day, so that a repeat meets its own reservation. When that has
       * ended or is an order's already, either the key has its answer (undefined: nothing is held), or the answer was
       * forgotten and the next reservation is taken.
       */
      const reserve = Effect.fnUntraced(function* (keyed: Keyed, orderId: Ids.OrderId, quote: Quote) {
        const items = quote.lines.map(({ productId, qty }) => ({ productId, qty }))
        for (const reservationId of yield* reservationIds(keyed)) {
          const held = yield* inventory
            .Reserve({ reservationId, orderId, items, ttlMs: reservationTtlMs })
            .pipe(Effect.catchTag("ReservationClosed", () => Effect.undefined))
          if (held?.orderId === orderId) return { reservationId, orderId }
          // Another try's, be it on its way or dead; unless its order is there, it becomes this one's, and holds as long.
          if (held !== undefined && (yield* store.find(held.orderId)) === undefined) {
            if (yield* extended(reservationId)) return { reservationId, orderId: held.orderId }
          }
          if ((yield* idempotency.find(keyed))._tag === "Answered") return undefined
        }
        // The key has been tried as often as that: no earlier try can be met any more.
        const reservationId = Ids.ReservationId.make(derivedIdOf("RES", orderId))
        yield* inventory
          .Reserve({ reservationId, orderId, items, ttlMs: reservationTtlMs })
          .pipe(Effect.catchTag("ReservationClosed", Effect.die))
        return { reservationId, orderId }
      })

      /** A twin of this request was first: what was reserved goes back, unless it is the twin's as well. */
      const yieldToFirst = Effect.fnUntraced(function* (keyed: Keyed, order: Order) {
        const isTwins = yield* firstAnswer(keyed).pipe(
          Effect.map((first) => first._tag === "Done" && first.value.reservationId === order.reservationId),
          // What is not the same request has another reservation. Who cannot read the answer knows nothing, and lets it stand.
          Effect.catchTag("IdempotencyKeyReused", () => Effect.succeed(false))
        )
        if (!isTwins) {
          yield* inventory
            .Release({ reservationId: order.reservationId, orderId: order.orderId })
            .pipe(Effect.catchTag("ReservationClosed", () => Effect.void))
        }
        return yield* replayFirst(keyed)
      })

      /**
       * Keeps the goods of an order that was on its way for long, or ends it: when its reservation ended before it was there,
       * whoever heard of that knew of no order, and nobody would end it later.
       */
      const keepOrEnd = (order: Order) =>
        Effect.flatMap(extended(order.reservationId), (held) => (held ? Effect.void : reservationExpired(order)))

      const place = Tracing.fn("Orders.place")(
        function* (request: Place) {
          const begun = yield* Clock.currentTimeMillis
          yield* authorize("order.place")
          const { principal } = yield* RequestContext
          const { idempotencyKey, ...payload } = request
          const keyed = yield* idempotency.keyed("place", idempotencyKey, payload)
          const quoted = yield* Effect.result(
            pricing.Quote({
              items: request.items,
              ...(request.currency === undefined ? {} : { currency: request.currency })
            })
          )
          if (Result.isFailure(quoted)) {
            const error = quoted.failure
            return error._tag === "ServiceUnavailable" ? yield* error : yield* refuse(keyed, error)
          }
          const quote = quoted.success
          const changed = priceChange(request.expectedTotal, quote)
          if (changed !== undefined) return yield* refuse(keyed, changed)

          const reserved = yield* Effect.result(reserve(keyed, yield* Ids.nextOrderId, quote))
          if (Result.isFailure(reserved)) {
            const error = reserved.failure
            return error._tag === "OutOfStock" ? yield* refuse(keyed, error) : yield* error
          }
          if (reserved.success === undefined) return yield* replayFirst(keyed)
          const { orderId, reservationId } = reserved.success
          const at = yield* now
          const { userId, region } = principal
          const order = ordered(quote, { orderId, userId, region, reservationId, createdAt: at })
          yield* Effect.annotateCurrentSpan({ orderId })
          const answer = encodeAnswer({ _tag: "Done", value: order })
          const placed = yield* store.place(order, created(order), keyed, answer)
          if (!placed) return yield* yieldToFirst(keyed, order)
          yield* Metric.update(ordersCreated, 1)
          yield* Effect.logDebug("Order placed").pipe(Effect.annotateLogs({ orderId, userId: principal.userId }))
          const latencyMs = (yield* Clock.currentTimeMillis) - begun
          yield* Metric.update(creationLatency, latencyMs)
          if (latencyMs > orderWithinMs) yield* keepOrEnd(order)
          return { answer: order, replayed: false }
        },
        orAway,
        provided
      )

      /** Changes an order by one event, as one transaction. */
      const changing = <E, R>(
        orderId: Ids.OrderId,
        decide: (order: Order) => Effect.Effect<NewEvent | undefined, E, R>
      ) =>
        transaction(
          Effect.gen(function* () {
            const order = yield* store.lock(orderId)
            if (order === undefined) return yield* new OrderNotFound({ orderId })
            const event = yield* decide(order)
            if (event === undefined) return order
            const occurredAt = yield* now
            const after = yield* Effect.orDie(evolve(order, { ...event, occurredAt, region: order.region }))
            yield* store.save([{ order: after, event }])
            return after
          })
        )

      const cancellation = (order: Order, reason: string) =>
        OrderCanceled.of(order.orderId, order.version + 1, {
          orderId: order.orderId,
          userId: order.userId,
          reservationId: order.reservationId,
          reason
        })

      /** The event of the end brings the stock back too; this only makes sure that it is back when the caller reads it. */
      const stockBack = ({ orderId, reservationId }: Order) =>
        inventory.Release({ reservationId, orderId }).pipe(
          Effect.catchTag("ReservationClosed", () => Effect.void),
          Effect.catchTag("ServiceUnavailable", (error) => Effect.logWarning("Stock comes back a little later", error))
        )

      /** Asked outside of the transaction: who decides may be another machine, and an owner never changes. */
      const cancelable = Effect.fnUntraced(function* (orderId: Ids.OrderId) {
        const order = yield* store.find(orderId)
        if (order === undefined) return yield* new OrderNotFound({ orderId })
        switch (yield* verdict("order.cancel", { ownerId: order.userId, status: order.status })) {
          case "allowed":
            return
          case "forbidden":
            return yield* new NotYourOrder()
          case "not_now":
            return yield* new NotCancelable({ orderStatus: order.status })
        }
      })

      const cancel = Tracing.fn("Orders.cancel")(
        function* (orderId: Ids.OrderId) {
          yield* Effect.annotateCurrentSpan({ orderId })
          yield* cancelable(orderId)
          const canceled = yield* changing(
            orderId,
            Effect.fnUntraced(function* (order) {
              // It may have moved on since the policies looked at it.
              if (order.status !== "PENDING") return yield* new NotCancelable({ orderStatus: order.status })
              if (order.paymentAttemptId !== null) return yield* new PaymentInProgress({ retryAfterSeconds: 5 })
              return cancellation(order, "canceled_by_customer")
            })
          )
          yield* stockBack(canceled)
          return canceled
        },
        orAway,
        provided
      )

      const fulfil = Tracing.fn("Orders.fulfil")(
        function* (orderId: Ids.OrderId) {
          yield* authorize("order.fulfil")
          return yield* changing(orderId, (order) =>
            order.status === "PAID"
              ? Effect.succeed(OrderFulfilled.of(orderId, order.version + 1, { orderId, userId: order.userId }))
              : Effect.fail(new NotFulfillable({ orderStatus: order.status }))
          )
        },
        orAway,
        provided
      )

      /** Decides about a held order. */
      const reviewing = (orderId: Ids.OrderId, verdict: (order: Order, reviewer: Ids.UserId) => NewEvent) =>
        Effect.gen(function* () {
          yield* authorize("order.review")
          const { principal } = yield* RequestContext
          return yield* changing(orderId, (order) =>
            order.status === "HELD"
              ? Effect.succeed(verdict(order, principal.userId))
              : Effect.fail(new NotHeld({ orderStatus: order.status }))
          )
        })

      const release = (orderId: Ids.OrderId) =>
        reviewing(orderId, ({ version, userId }, releasedBy) =>
          OrderReleased.of(orderId, version + 1, { orderId, userId, releasedBy })
        ).pipe(orAway, provided, Tracing.withSpan("Orders.release"))

      const reject = (orderId: Ids.OrderId) =>
        Effect.tap(
          reviewing(orderId, (order) => cancellation(order, "rejected")),
          stockBack
        ).pipe(orAway, provided, Tracing.withSpan("Orders.reject"))

      /** The order, if the caller may see it; else it does not exist for them. */
      const visible = Effect.fnUntraced(function* (orderId: Ids.OrderId) {
        const order = yield* store.find(orderId)
        if (order === undefined || !(yield* allowed("order.read", { ownerId: order.userId }))) {
          return yield* new OrderNotFound({ orderId })
        }
        return order
      })

      const get = (orderId: Ids.OrderId) => visible(orderId).pipe(orAway, provided, Tracing.withSpan("Orders.get"))

      const history = Tracing.fn("Orders.history")(
        function* (orderId: Ids.OrderId) {
          yield* visible(orderId)
          return yield* store.historyOf(orderId)
        },
        orAway,
        provided
      )

      const list = Tracing.fn("Orders.list")(
        function* ({ limit, cursor }: { readonly limit: number; readonly cursor?: string }) {
          yield* authorize("order.list")
          const { principal } = yield* RequestContext
          const after = yield* listCursor.decode(cursor)
          const rows = yield* store.list(
            principal.role === "admin" ? undefined : principal.userId,
            after?.orderId,
            limit + 1
          )
          return Cursor.page(rows, limit, ({ orderId }) => listCursor.encode({ orderId }))
        },
        orAway,
        provided
      )

      const reservationExpired = Tracing.fn("Orders.reservationExpired")(
        function* ({
          orderId,
          reservationId
        }: {
          readonly orderId: Ids.OrderId
          readonly reservationId: Ids.ReservationId
        }) {
          yield* changing(orderId, (order) => {
            const waits = order.status === "PENDING" || order.status === "HELD"
            if (!waits || order.reservationId !== reservationId || order.reservationLost) {
              return Effect.undefined
            }
            return Effect.succeed(
              order.paymentAttemptId === null
                ? cancellation(order, "reservation_expired")
                : OrderReservationLost.of(orderId, order.version + 1, { orderId, userId: order.userId, reservationId })
            )
          }).pipe(Effect.catchTag("OrderNotFound", () => Effect.void))
        },
        orAway,
        provided
      )

      const lock = (orderIds: ReadonlyArray<Ids.OrderId>) => orAway(store.lockAll(orderIds))

      return Orders.of({ lock, place, cancel, fulfil, release, reject, get, list, history, reservationExpired })
    })
  )
}

/** The shopper saw another total. */
export const priceChange = (expectedTotal: number | undefined, quote: Quote): PriceChanged | undefined => {
  const actualTotal = toDecimal(quote.totalMinor, quote.currency)
  return expectedTotal === undefined || expectedTotal === actualTotal
    ? undefined
    : new PriceChanged({ expectedTotal, actualTotal, currency: quote.currency })
}
