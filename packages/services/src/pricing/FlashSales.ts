import { Clock, Context, DateTime, Effect, Layer, Schema } from "effect"
import { ProductNotFound } from "@merkato/domain/catalogue/Product"
import * as Ids from "@merkato/domain/kernel/Ids"
import { toDecimal } from "@merkato/domain/kernel/Money"
import {
  type Forbidden,
  type IdempotencyKeyReused,
  InvalidValue,
  RequestInProgress,
  ServiceUnavailable
} from "@merkato/domain/kernel/Problem"
import {
  type FlashPrice,
  FlashSale,
  FlashSaleNotFound,
  FlashSaleOverlaps,
  type FlashSaleStatus,
  PriceNotLower,
  statusAt
} from "@merkato/domain/pricing/FlashSale"
import { CurrencyNotSupported } from "@merkato/domain/pricing/Quote"
import { authorize } from "@merkato/infra/authorizer/Authorizer"
import * as Provided from "@merkato/infra/context/Provided"
import { EventStore } from "@merkato/infra/events/EventStore"
import { answerOf, Idempotency, type Keyed, replay, type Replayed } from "@merkato/infra/idempotency/Idempotency"
import * as Cursor from "@merkato/infra/paging/Cursor"
import { Policies } from "@merkato/infra/policy/Policies"
import { isPolicyError } from "@merkato/infra/policy/PolicyError"
import { orUnavailable, transaction } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { ScheduleRefusal } from "@merkato/rpc/pricing/PricingRpc"
import * as FlashPriceMap from "./FlashPriceMap.ts"
import * as FlashSaleNews from "./FlashSaleNews.ts"
import * as PricingStore from "./PricingStore.ts"

type NewSale = Pick<FlashSale, "productId" | "priceMinor" | "currency" | "startsAt" | "endsAt">

interface Schedule extends NewSale {
  readonly idempotencyKey?: Ids.IdempotencyKey
}

type Refusal = typeof ScheduleRefusal.Type

const ScheduleAnswer = answerOf(FlashSale, ScheduleRefusal)
const encodeAnswer = Schema.encodeSync(Schema.toCodecJson(ScheduleAnswer))
const decodeAnswer = Schema.decodeUnknownEffect(Schema.toCodecJson(ScheduleAnswer))
const isRefusal = Schema.is(ScheduleRefusal)

const saleCursor = Cursor.make(Schema.Struct({ saleId: Ids.SaleId }))

/** Sales that are told of in one transaction. */
const most = 100

/** How soon a start or an end is told of that this process has not heard of: at most this much late, in milliseconds. */
const lookEveryMs = 1_000

/** The use cases of flash sales: when they are, and telling of their starts and ends. */
export class FlashSales extends Context.Service<
  FlashSales,
  {
    schedule(
      request: Schedule
    ): Effect.Effect<
      { readonly answer: FlashSale; readonly replayed: boolean },
      | Forbidden
      | InvalidValue
      | Refusal
      | Replayed<Refusal>
      | IdempotencyKeyReused
      | RequestInProgress
      | ServiceUnavailable
    >
    cancel(saleId: Ids.SaleId): Effect.Effect<void, Forbidden | FlashSaleNotFound | ServiceUnavailable>
    get(saleId: Ids.SaleId): Effect.Effect<FlashSale, FlashSaleNotFound | ServiceUnavailable>
    list(
      options: Cursor.Paging & { readonly productId?: Ids.ProductId; readonly status?: FlashSaleStatus }
    ): Effect.Effect<Cursor.Page<FlashSale>, InvalidValue | ServiceUnavailable>
    priceMap(
      options: Cursor.Paging & { readonly productIds?: ReadonlyArray<Ids.ProductId> }
    ): Effect.Effect<Cursor.Page<FlashPrice>, InvalidValue | ServiceUnavailable>
    /** Tells of starts and ends whose time has come, and how many milliseconds there are until the next. */
    readonly tellDue: Effect.Effect<number, ServiceUnavailable>
  }
>()("merkato/pricing/FlashSales") {
  static readonly layer = Layer.effect(
    FlashSales,
    Effect.gen(function* () {
      const store = yield* PricingStore.make
      const events = yield* EventStore
      const idempotency = yield* Idempotency
      const catalogue = yield* CatalogueRpc
      const running = yield* FlashPriceMap.reading
      const { guard } = yield* Policies
      const provided = yield* Provided.provided
      const orAway = orUnavailable("pricing")

      /** A price that comes late is worth little: it is refused at once, and nothing is tried again. */
      const failingFast = <A, E, R>(change: Effect.Effect<A, E | ServiceUnavailable, R>) =>
        change.pipe(
          guard<E | ServiceUnavailable>("flash_sale.price", {
            transient: (error) => error instanceof ServiceUnavailable
          }),
          Effect.catch((error) =>
            Effect.fail(
              isPolicyError(error)
                ? new ServiceUnavailable({ service: "pricing", retryAfterSeconds: error.retryAfterSeconds })
                : error
            )
          )
        )

      /** What the key was answered with; undefined when it is new. */
      const replayed = Effect.fnUntraced(function* (keyed: Keyed) {
        const found = yield* idempotency.find(keyed)
        if (found._tag === "Nothing") return undefined
        if (found._tag === "Running") return yield* new RequestInProgress({ retryAfterSeconds: 1 })
        return yield* replay(yield* Effect.orDie(decodeAnswer(found.answer)))
      })

      const fits = Effect.fnUntraced(function* ({ productId, priceMinor, currency }: NewSale) {
        const [shelf] = yield* catalogue.PricesOf({ productIds: [productId] })
        if (shelf === undefined) return yield* new ProductNotFound({ productIds: [productId] })
        if (shelf.currency !== currency) return yield* new CurrencyNotSupported({ currency })
        if (priceMinor >= shelf.priceMinor) {
          return yield* new PriceNotLower({ price: toDecimal(shelf.priceMinor, currency), currency })
        }
      })

      /** Writes the sale, its events and the answer of its key; false when the key has an answer already. */
      const write = (sale: FlashSale, keyed: Keyed | undefined) =>
        Effect.gen(function* () {
          yield* store.lockProduct(sale.productId)
          if (keyed !== undefined && !(yield* idempotency.keep(keyed, encodeAnswer({ _tag: "Done", value: sale })))) {
            return false
          }
          const other = yield* store.overlapping(sale)
          if (other !== undefined) return yield* new FlashSaleOverlaps({ saleId: other.saleId })
          const news = FlashSaleNews.ofNew(sale)
          yield* store.insert(sale, news.length > 1)
          yield* events.append(news, DateTime.toDateUtc(sale.createdAt))
          return true
        })

      const schedule = Tracing.fn("FlashSales.schedule")(
        function* ({ idempotencyKey, ...draft }: Schedule) {
          yield* authorize("flash_sale.write")
          const at = yield* DateTime.nowAsDate
          const keyed =
            idempotencyKey === undefined
              ? undefined
              : yield* idempotency.keyed("flash_sale", idempotencyKey, {
                  ...draft,
                  startsAt: DateTime.formatIso(draft.startsAt),
                  endsAt: DateTime.formatIso(draft.endsAt)
                })
          const before = keyed === undefined ? undefined : yield* replayed(keyed)
          if (before !== undefined) return before
          if (!DateTime.isLessThan(draft.startsAt, draft.endsAt)) {
            return yield* new InvalidValue({ path: "endsAt", reason: "a sale ends after it starts" })
          }
          if (DateTime.toEpochMillis(draft.endsAt) <= at.getTime()) {
            return yield* new InvalidValue({ path: "endsAt", reason: "the sale would be over already" })
          }
          const createdAt = DateTime.makeUnsafe(at)
          const status = statusAt({ ...draft, canceledAt: null }, createdAt)
          const sale = new FlashSale({
            ...draft,
            saleId: yield* Ids.nextSaleId,
            status,
            canceledAt: null,
            createdAt,
            version: status === "RUNNING" ? 2 : 1
          })
          const written = yield* Effect.andThen(fits(draft), transaction(write(sale, keyed))).pipe(
            Effect.catchIf(isRefusal, (refusal) =>
              keyed === undefined
                ? Effect.fail(refusal)
                : Effect.flatMap(idempotency.keep(keyed, encodeAnswer({ _tag: "Refused", refusal })), (kept) =>
                    kept ? Effect.fail(refusal) : Effect.succeed(false)
                  )
            )
          )
          if (written) return { answer: sale, replayed: false }
          const first = keyed === undefined ? undefined : yield* replayed(keyed)
          return first ?? (yield* new RequestInProgress({ retryAfterSeconds: 1 }))
        },
        orAway,
        failingFast,
        provided
      )

      /** Tells of what has come of locked sales, and remembers that it was told. */
      const tellOf = Effect.fnUntraced(function* (due: ReadonlyArray<PricingStore.Told>, at: Date) {
        const time = DateTime.makeUnsafe(at)
        const told = due.map((sale) => {
          const news = FlashSaleNews.ofDue(sale, time)
          return {
            news,
            sale: { ...sale, endTold: FlashSaleNews.isOver(sale, time), version: sale.version + news.length }
          }
        })
        yield* store.tell(
          told.map(({ sale }) => sale),
          at
        )
        yield* events.append(
          told.flatMap(({ news }) => news),
          at
        )
      })

      const cancel = Tracing.fn("FlashSales.cancel")(
        function* (saleId: Ids.SaleId) {
          yield* authorize("flash_sale.write")
          yield* transaction(
            Effect.gen(function* () {
              const sale = yield* store.lock(saleId)
              if (sale === undefined) return yield* new FlashSaleNotFound({ saleId })
              const at = yield* DateTime.nowAsDate
              const canceledAt = DateTime.makeUnsafe(at)
              if (sale.endTold) return
              // It stays over; but told now, so that its price ends for those too whose clocks are behind this one.
              if (FlashSaleNews.isOver(sale, canceledAt)) return yield* tellOf([sale], at)
              const news = FlashSaleNews.ofCanceled(sale, canceledAt)
              yield* store.cancel(saleId, sale.version + news.length, at)
              yield* events.append(news, at)
            })
          )
        },
        orAway,
        failingFast,
        provided
      )

      const get = Tracing.fn("FlashSales.get")(function* (saleId: Ids.SaleId) {
        const sale = yield* store.find(saleId)
        return sale === undefined
          ? yield* new FlashSaleNotFound({ saleId })
          : PricingStore.saleAt(sale, yield* DateTime.nowAsDate)
      }, orAway)

      const list = Tracing.fn("FlashSales.list")(function* ({
        limit,
        cursor,
        productId,
        status
      }: Cursor.Paging & { readonly productId?: Ids.ProductId; readonly status?: FlashSaleStatus }) {
        const before = (yield* saleCursor.decode(cursor))?.saleId
        const at = yield* DateTime.nowAsDate
        const rows = yield* store.list({ productId, status, before, now: at, limit: limit + 1 })
        const page = Cursor.page(rows, limit, ({ saleId }) => saleCursor.encode({ saleId }))
        return { ...page, items: page.items.map((row) => PricingStore.saleAt(row, at)) }
      }, orAway)

      const priceMap = Tracing.fn("FlashSales.priceMap")(function* ({
        limit,
        cursor,
        productIds
      }: Cursor.Paging & { readonly productIds?: ReadonlyArray<Ids.ProductId> }) {
        const after = (yield* saleCursor.decode(cursor))?.saleId
        const known = productIds === undefined ? undefined : yield* running(productIds)
        const rows =
          known?.filter(({ saleId }) => after === undefined || saleId > after).slice(0, limit + 1) ??
          (yield* store.windows({ productIds, after, now: yield* DateTime.nowAsDate, limit: limit + 1 }))
        return Cursor.page(rows, limit, ({ saleId }) => saleCursor.encode({ saleId }))
      }, orAway)

      /** Locked, told and remembered as one: who is killed on the way has told of nothing, and the next one does. */
      const tell = transaction(
        Effect.gen(function* () {
          const at = yield* DateTime.nowAsDate
          const due = yield* store.lockDue(at, most)
          if (due.length > 0) yield* tellOf(due, at)
        })
      )

      const untilNext = Effect.gen(function* () {
        const next = yield* store.nextDue()
        return next === undefined ? Infinity : next.getTime() - (yield* Clock.currentTimeMillis)
      })

      const tellDue = Effect.gen(function* () {
        const until = yield* untilNext
        if (until > 0) return until
        yield* tell
        return yield* untilNext
      }).pipe(orAway, provided, Effect.withTracerEnabled(false))

      return FlashSales.of({ schedule, cancel, get, list, priceMap, tellDue })
    })
  )
}

/**
 * Tells of starts and ends at their time. It looks once a second for what other processes have scheduled; prices do not
 * depend on it, since a quote looks at the clock.
 */
export const telling = Effect.gen(function* () {
  const sales = yield* FlashSales
  return yield* Effect.forever(
    sales.tellDue.pipe(
      // Never at once: what another process is at work on is due until it has committed.
      Effect.flatMap((untilMs) => Effect.sleep(Math.min(Math.max(untilMs, 10), lookEveryMs))),
      Effect.catch((error) =>
        Effect.andThen(Effect.logWarning("Telling of flash sales pauses", error), Effect.sleep(lookEveryMs))
      )
    )
  )
})
