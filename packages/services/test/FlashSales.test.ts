// Flash sales on a real database, by a clock that the tests set: when their prices hold, and that they are told of once.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test"
import { Clock, Context, DateTime, Effect, Exit, Layer, Result, Scope } from "effect"
import { SqlClient } from "effect/sql"
import { Price, ProductNotFound } from "@merkato/domain/catalogue/Product"
import { IdempotencyKey, ProductId, SaleId } from "@merkato/domain/kernel/Ids"
import type { Currency } from "@merkato/domain/kernel/Money"
import { Forbidden, IdempotencyKeyReused, InvalidValue, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { type FlashSale, FlashSaleNotFound, FlashSaleOverlaps, PriceNotLower } from "@merkato/domain/pricing/FlashSale"
import { CurrencyNotSupported } from "@merkato/domain/pricing/Quote"
import { Authorizer } from "@merkato/infra/authorizer/Authorizer"
import { EventStore, RelaySignal } from "@merkato/infra/events/EventStore"
import { Idempotency } from "@merkato/infra/idempotency/Idempotency"
import { Policies } from "@merkato/infra/policy/Policies"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { FlashSales } from "../src/pricing/FlashSales.ts"
import { Pricing as PricingContext } from "../src/pricing/index.ts"
import { Pricing } from "../src/pricing/Pricing.ts"
import { showing } from "../../../tests/support/Clocks.ts"
import { as, quietly } from "./Requests.ts"

/** What is on the shelf, and for how much. */
const shelf = new Map<string, Price>()

/** A product about which the catalogue is silent, and how often it was asked. */
const unanswered = ProductId.make("P-UNANSWERED")
let askedInVain = 0

const asked = (payload: unknown): ReadonlyArray<string> =>
  typeof payload === "object" && payload !== null && "productIds" in payload && Array.isArray(payload.productIds)
    ? payload.productIds.map(String)
    : []

const catalogue = CatalogueRpc.client.pipe(
  Layer.provideMerge(
    Layer.effectDiscard(
      Effect.flatMap(Switchboard, (switchboard) =>
        switchboard.connect(
          "catalogue",
          new Map([
            [
              "PricesOf",
              (payload: unknown) =>
                Effect.suspend(() => {
                  if (!asked(payload).includes(unanswered)) {
                    return Effect.succeed(asked(payload).flatMap((id) => shelf.get(id) ?? []))
                  }
                  askedInVain += 1
                  return Effect.never
                })
            ]
          ])
        )
      )
    )
  ),
  Layer.provide(Switchboard.layer)
)

/** Writes events like any other, and dies before the transaction commits. */
const killed = Layer.effect(
  EventStore,
  Effect.map(EventStore, (events) =>
    EventStore.of({
      ...events,
      append: (batch, at) => Effect.andThen(events.append(batch, at), Effect.die(new Error("killed")))
    })
  )
)

type Services = Pricing | FlashSales | SqlClient.SqlClient
type Process = Context.Context<Services>

/** Where the clock stands; whoever sleeps does so by the real one. */
let millis = 0
const real = Context.get(Context.empty(), Clock.Clock)
const clock: Context.Context<never> = Context.make(
  Clock.Clock,
  showing(real, () => millis)
)

const scope = Scope.makeUnsafe()

/** Two processes of the shop on one database, one that is killed at each step, and one that gives up at once. */
let processes: ReadonlyArray<Process> = []
let dying: Process | undefined
let hasty: Process | undefined

beforeAll(
  () =>
    Effect.gen(function* () {
      const { url } = yield* TestDatabase.fresh
      const database = Database.layer({ url, maxConnections: 8, applicationName: "test" })
      yield* Effect.provide(PricingContext.migrate, database)
      const events = EventStore.layer("pricing").pipe(Layer.provide(Layer.succeed(RelaySignal, { wake: Effect.void })))
      // Limits are by the real clock, and the machine may be busy.
      const within = (ms: number) =>
        Policies.layerWith({ "flash_sale.price": { deadlineMs: ms, attemptTimeoutMs: ms } })
      const pricing = (events: Layer.Layer<EventStore, never, SqlClient.SqlClient>, limits = within(60_000)) =>
        Layer.merge(Pricing.layer, FlashSales.layer).pipe(
          Layer.provide([events, Idempotency.layer("pricing"), Authorizer.layerRules, catalogue, limits]),
          Layer.provideMerge(database)
        )
      const start = (layer: ReturnType<typeof pricing>) =>
        Effect.provideContext(Layer.build(Layer.fresh(layer)), Context.merge(clock, Context.make(Scope.Scope, scope)))
      processes = [yield* start(pricing(events)), yield* start(pricing(events))]
      hasty = yield* start(pricing(events, within(20)))
      dying = yield* start(pricing(killed.pipe(Layer.provide(events))))
    }).pipe(quietly, Scope.provide(scope), Effect.runPromise),
  60_000
)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const on = <A, E>(process: Process | undefined, effect: Effect.Effect<A, E, Services>): Effect.Effect<A, E> =>
  process === undefined
    ? Effect.die("pricing has not started")
    : Effect.provideContext(effect, Context.merge(process, clock))

/** Does something in one of the processes. */
const at =
  (nth: number) =>
  <A, E>(effect: Effect.Effect<A, E, Services>) =>
    on(processes[nth % processes.length], effect)

const run = <A, E>(effect: Effect.Effect<A, E, Services>): Promise<A> =>
  Effect.runPromise(quietly(at(0)(Effect.provideContext(effect, clock))))

const atOnce = { concurrency: "unbounded" } as const
const many = (count: number) => Array.from({ length: count }, (_, nth) => nth)

let products = 0
/** A new product, for 10.00 USD. */
const product = (priceMinor = 1_000, currency: Currency = "USD") => {
  const productId = ProductId.make(`P-${++products}`)
  shelf.set(productId, new Price({ productId, priceMinor, currency }))
  return productId
}

/** Where the clock of each test begins: every test is later than what others left. */
let midday = Date.UTC(2026, 0, 1, 12)
beforeEach(() => {
  midday += 24 * 60 * 60_000
  millis = midday
})
/** Sets the clock to so many seconds after midday. */
const setTo = (seconds: number) => {
  millis = midday + seconds * 1_000
}
const after = (seconds: number) => DateTime.makeUnsafe(midday + seconds * 1_000)

interface Wanted {
  readonly productId: ProductId
  readonly priceMinor?: number
  readonly currency?: Currency
  /** In seconds after midday. */
  readonly from?: number
  readonly until?: number
  readonly key?: string
}

const schedule = ({ productId, priceMinor = 700, currency = "USD", from = 0, until = 60, key }: Wanted) =>
  Effect.flatMap(FlashSales, (sales) =>
    sales.schedule({
      productId,
      priceMinor,
      currency,
      startsAt: after(from),
      endsAt: after(until),
      ...(key === undefined ? {} : { idempotencyKey: IdempotencyKey.make(key) })
    })
  ).pipe(as("THE-admin", "admin"))

const scheduled = (wanted: Wanted) => Effect.map(schedule(wanted), ({ answer }) => answer)

const cancel = (saleId: SaleId) =>
  Effect.flatMap(FlashSales, (sales) => sales.cancel(saleId)).pipe(as("THE-admin", "admin"))

const find = (saleId: SaleId) => Effect.flatMap(FlashSales, (sales) => sales.get(saleId))

const tellDue = Effect.flatMap(FlashSales, (sales) => sales.tellDue)

/** What a unit costs in an order of now. */
const price = (productId: ProductId) =>
  Effect.flatMap(Pricing, (pricing) => pricing.quote({ items: [{ productId, qty: 2 }] })).pipe(
    Effect.map(({ lines, totalMinor }) => [lines[0]?.priceMinor, totalMinor / 2])
  )
const costs = (priceMinor: number) => [priceMinor, priceMinor]

/** What was told of a sale, in its order, and whether all of it is to be published. */
const toldOf = ({ saleId }: FlashSale) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql<{ told: string; version: number }>`
      select regexp_replace(event_type, '^ecommerce.pricing.flash_sale.(.*).v1$', '\\1')
          || coalesce(' ' || (payload ->> 'reason'), '') as told, version
      from pricing.events join pricing.outbox using (aggregate_id, version)
      where aggregate_id = ${saleId} order by version`
  ).pipe(
    Effect.map((rows) => {
      expect(rows.map(({ version }) => version)).toEqual(rows.map((_, index) => index + 1))
      return rows.map(({ told }) => told)
    })
  )

describe("the price of a sale", () => {
  test("holds from its start until before its end, by the clock alone, in every process", () =>
    run(
      Effect.gen(function* () {
        const productId = product()
        const sale = yield* scheduled({ productId, from: 10, until: 20 })
        const prices: Array<ReadonlyArray<unknown>> = []
        for (const seconds of [0, 9.999, 10, 19.999, 20, 30]) {
          setTo(seconds)
          for (const nth of [0, 1]) prices.push([seconds, (yield* at(nth)(price(productId)))[0]])
        }
        expect(prices).toEqual([
          [0, 1_000],
          [0, 1_000],
          [9.999, 1_000],
          [9.999, 1_000],
          [10, 700],
          [10, 700],
          [19.999, 700],
          [19.999, 700],
          [20, 1_000],
          [20, 1_000],
          [30, 1_000],
          [30, 1_000]
        ])
        // Nobody has told of it yet: the price does not wait for that.
        expect(yield* toldOf(sale)).toEqual(["scheduled"])
      })
    ))

  test("is each unit's and makes the total, and other lines keep theirs", () =>
    run(
      Effect.gen(function* () {
        const [cheap, usual] = [product(), product(250)]
        yield* scheduled({ productId: cheap })
        const { quote } = yield* Pricing
        const { lines, itemsMinor, totalMinor } = yield* quote({
          items: [
            { productId: cheap, qty: 3 },
            { productId: usual, qty: 2 }
          ]
        })
        expect(lines.map(({ priceMinor }) => priceMinor)).toEqual([700, 250])
        expect([itemsMinor, totalMinor]).toEqual([2_600, 2_600])
      })
    ))

  test("is what many who ask at once are told, each for what they asked", () =>
    run(
      Effect.gen(function* () {
        const [cheap, usual] = [product(), product()]
        yield* scheduled({ productId: cheap })
        const prices = yield* Effect.forEach(many(200), (nth) => at(nth)(price(nth % 3 === 0 ? cheap : usual)), atOnce)
        expect(prices).toEqual(many(200).map((nth) => costs(nth % 3 === 0 ? 700 : 1_000)))
      })
    ))

  test("is never more than that of the shelf, nor in another currency, whatever became of the shelf", () =>
    run(
      Effect.gen(function* () {
        const productId = product()
        yield* scheduled({ productId })
        shelf.set(productId, new Price({ productId, priceMinor: 650, currency: "USD" }))
        expect(yield* price(productId)).toEqual(costs(650))
        shelf.set(productId, new Price({ productId, priceMinor: 90_000, currency: "JPY" }))
        expect(yield* price(productId)).toEqual(costs(90_000))
        shelf.set(productId, new Price({ productId, priceMinor: 1_100, currency: "USD" }))
        expect(yield* price(productId)).toEqual(costs(700))
      })
    ))

  test("holds no more in any process once the sale is canceled", () =>
    run(
      Effect.gen(function* () {
        const productId = product()
        const { saleId } = yield* scheduled({ productId })
        expect(yield* at(1)(price(productId))).toEqual(costs(700))
        yield* at(0)(cancel(saleId))
        expect([yield* at(0)(price(productId)), yield* at(1)(price(productId))]).toEqual([costs(1_000), costs(1_000)])
      })
    ))
})

describe("a sale is refused", () => {
  const refusal = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.flip(effect)

  test("when it makes no sense, is no bargain, or is not the admin's", () =>
    run(
      Effect.gen(function* () {
        const productId = product()
        const tooLate = new InvalidValue({ path: "endsAt", reason: "a sale ends after it starts" })
        expect(yield* refusal(schedule({ productId, from: 10, until: 10 }))).toEqual(tooLate)
        expect(yield* refusal(schedule({ productId, from: 10, until: 5 }))).toEqual(tooLate)
        expect(yield* refusal(schedule({ productId, from: -10, until: 0 }))).toEqual(
          new InvalidValue({ path: "endsAt", reason: "the sale would be over already" })
        )
        const notLower = new PriceNotLower({ price: 10, currency: "USD" })
        expect(yield* refusal(schedule({ productId, priceMinor: 1_000 }))).toEqual(notLower)
        expect(yield* refusal(schedule({ productId, priceMinor: 1_001 }))).toEqual(notLower)
        expect((yield* scheduled({ productId, priceMinor: 999 })).status).toBe("RUNNING")
        expect(yield* refusal(schedule({ productId, currency: "EUR", from: 100, until: 110 }))).toEqual(
          new CurrencyNotSupported({ currency: "EUR" })
        )
        const nothing = ProductId.make("P-NONE")
        expect(yield* refusal(schedule({ productId: nothing }))).toEqual(new ProductNotFound({ productIds: [nothing] }))
        const shopping = Effect.flatMap(FlashSales, (sales) =>
          sales.schedule({ productId, priceMinor: 1, currency: "USD", startsAt: after(500), endsAt: after(510) })
        ).pipe(as("THE-shopper", "shopper"))
        expect(yield* refusal(shopping)).toEqual(new Forbidden({ action: "flash_sale.write" }))
      })
    ))

  test("when another one of the product holds in a part of its window, but not next to it", () =>
    run(
      Effect.gen(function* () {
        const productId = product()
        const { saleId } = yield* scheduled({ productId, from: 100, until: 200 })
        const overlaps = new FlashSaleOverlaps({ saleId })
        for (const [from, until] of [
          [100, 200],
          [50, 101],
          [199, 300],
          [120, 130],
          [50, 300]
        ] as const) {
          expect(yield* refusal(schedule({ productId, from, until }))).toEqual(overlaps)
        }
        yield* schedule({ productId: product(), from: 100, until: 200 })
        yield* schedule({ productId, from: 50, until: 100 })
        yield* schedule({ productId, from: 200, until: 250 })
        yield* cancel(saleId)
        yield* schedule({ productId, from: 100, until: 200 })
      })
    ))

  test("at once, and tried once, when it cannot be made in time", () =>
    run(
      Effect.gen(function* () {
        expect(yield* refusal(on(hasty, schedule({ productId: unanswered })))).toEqual(
          new ServiceUnavailable({ service: "pricing", retryAfterSeconds: 1 })
        )
        expect(askedInVain).toBe(1)
      })
    ))

  test("of all that want the same window at once, but for one", () =>
    run(
      Effect.gen(function* () {
        const productId = product()
        const tries = yield* Effect.forEach(
          many(12),
          (nth) => Effect.result(at(nth)(scheduled({ productId, from: nth, until: 100 + nth }))),
          atOnce
        )
        const made = tries.filter(Result.isSuccess)
        expect(made.length).toBe(1)
        for (const lost of tries.filter(Result.isFailure)) {
          expect(lost.failure).toEqual(
            new FlashSaleOverlaps({ saleId: made[0]?.success.saleId ?? SaleId.make("none") })
          )
        }
      })
    ))
})

describe("an Idempotency-Key", () => {
  test("is answered once, however often and wherever it comes, and means one payload", () =>
    run(
      Effect.gen(function* () {
        const productId = product()
        const wanted = { productId, key: `key-${productId}` }
        const answers = yield* Effect.forEach(many(8), (nth) => at(nth)(schedule(wanted)), atOnce)
        expect(new Set(answers.map(({ answer }) => answer.saleId)).size).toBe(1)
        expect(answers.filter(({ replayed }) => !replayed).length).toBe(1)
        expect(yield* Effect.flip(schedule({ ...wanted, priceMinor: 600 }))).toEqual(
          new IdempotencyKeyReused({ key: wanted.key })
        )
      })
    ))

  test("keeps a refusal, also when it could be granted later", () =>
    run(
      Effect.gen(function* () {
        const productId = product()
        const { saleId } = yield* scheduled({ productId })
        const wanted = { productId, key: `key-${productId}` }
        const refusal = new FlashSaleOverlaps({ saleId })
        expect(yield* Effect.flip(schedule(wanted))).toEqual(refusal)
        yield* cancel(saleId)
        expect(yield* Effect.flip(schedule(wanted))).toEqual({ _tag: "Replayed", refusal })
        expect((yield* schedule({ ...wanted, key: `other-${productId}` })).replayed).toBe(false)
      })
    ))
})

describe("starts and ends", () => {
  test("are told at their time and once, by whoever of many is first", () =>
    run(
      Effect.gen(function* () {
        const sales = yield* Effect.forEach(many(5), () => scheduled({ productId: product(), from: 10, until: 20 }))
        const together = Effect.forEach(many(8), (nth) => at(nth)(tellDue), { ...atOnce, discard: true })
        const told = Effect.forEach(sales, toldOf)
        const all = (...events: ReadonlyArray<string>) => sales.map(() => [...events])
        setTo(9)
        expect(yield* tellDue).toBe(1_000)
        expect(yield* told).toEqual(all("scheduled"))
        setTo(10)
        yield* together
        expect(yield* tellDue).toBe(10_000)
        expect(yield* told).toEqual(all("scheduled", "started"))
        setTo(20)
        yield* together
        expect(yield* tellDue).toBe(Infinity)
        expect(yield* told).toEqual(all("scheduled", "started", "ended over"))
        expect((yield* find(sales[0]?.saleId ?? SaleId.make("none"))).status).toBe("ENDED")
        const sql = yield* SqlClient.SqlClient
        expect(
          yield* sql`select from pricing.flash_prices where sale_id = any(${sales.map((s) => s.saleId)}::text[])`
        ).toEqual([])
      })
    ))

  test("are told late rather than never, in their order", () =>
    run(
      Effect.gen(function* () {
        const sale = yield* scheduled({ productId: product(), from: 10, until: 20 })
        setTo(3_600)
        yield* tellDue
        yield* tellDue
        expect(yield* toldOf(sale)).toEqual(["scheduled", "started", "ended over"])
      })
    ))

  test("are told by the next one when who told of them was killed before it was done", () =>
    run(
      Effect.gen(function* () {
        const sale = yield* scheduled({ productId: product(), from: 10, until: 20 })
        for (const [seconds, told] of [
          [10, ["scheduled", "started"]],
          [20, ["scheduled", "started", "ended over"]]
        ] as const) {
          setTo(seconds)
          const before = yield* toldOf(sale)
          expect(Exit.hasDies(yield* Effect.exit(on(dying, tellDue)))).toBe(true)
          expect(yield* toldOf(sale)).toEqual(before)
          yield* tellDue
          expect(yield* toldOf(sale)).toEqual([...told])
        }
      })
    ))

  test("of a sale that begins at once are told with it", () =>
    run(
      Effect.gen(function* () {
        const sale = yield* scheduled({ productId: product(), from: -5, until: 20 })
        expect([sale.status, yield* toldOf(sale)]).toEqual(["RUNNING", ["scheduled", "started"]])
        yield* tellDue
        expect(yield* toldOf(sale)).toEqual(["scheduled", "started"])
      })
    ))

  test("a sale that is canceled ends if it had begun, and never begins if it had not", () =>
    run(
      Effect.gen(function* () {
        const running = yield* scheduled({ productId: product(), until: 20 })
        const later = yield* scheduled({ productId: product(), from: 10, until: 20 })
        // Its time has come, and nobody has told of it yet.
        const untold = yield* scheduled({ productId: product(), from: 5, until: 20 })
        setTo(6)
        for (const { saleId } of [running, later, untold]) {
          yield* Effect.forEach(many(4), (nth) => at(nth)(cancel(saleId)), atOnce)
          expect((yield* find(saleId)).status).toBe("CANCELED")
        }
        setTo(30)
        yield* tellDue
        expect(yield* Effect.forEach([running, later, untold], toldOf)).toEqual([
          ["scheduled", "started", "ended canceled"],
          ["scheduled", "canceled"],
          ["scheduled", "started", "ended canceled"]
        ])
      })
    ))

  test("a sale is over for everybody once somebody canceled it for whom it was over already", () =>
    run(
      Effect.gen(function* () {
        const productId = product()
        const sale = yield* scheduled({ productId, until: 20 })
        setTo(20)
        yield* cancel(sale.saleId)
        // By the clock of another process.
        setTo(15)
        expect(yield* at(1)(price(productId))).toEqual(costs(1_000))
        setTo(30)
        yield* tellDue
        expect((yield* find(sale.saleId)).status).toBe("ENDED")
        expect(yield* toldOf(sale)).toEqual(["scheduled", "started", "ended over"])
      })
    ))

  test("a sale that is over stays as it is when somebody cancels it, and an unknown one is not found", () =>
    run(
      Effect.gen(function* () {
        const sale = yield* scheduled({ productId: product(), until: 20 })
        setTo(20)
        yield* cancel(sale.saleId)
        yield* tellDue
        yield* cancel(sale.saleId)
        expect((yield* find(sale.saleId)).status).toBe("ENDED")
        expect(yield* toldOf(sale)).toEqual(["scheduled", "started", "ended over"])
        const unknown = SaleId.make("SALE-NONE")
        expect(yield* Effect.flip(cancel(unknown))).toEqual(new FlashSaleNotFound({ saleId: unknown }))
        expect(
          yield* Effect.flip(
            Effect.flatMap(FlashSales, (sales) => sales.cancel(unknown)).pipe(as("THE-shopper", "shopper"))
          )
        ).toEqual(new Forbidden({ action: "flash_sale.write" }))
      })
    ))
})

describe("lists", () => {
  test("are newest first, page by page, by product and by where sales stand at the moment", () =>
    run(
      Effect.gen(function* () {
        const { list, priceMap } = yield* FlashSales
        const productId = product()
        const made: Array<FlashSale> = []
        for (const nth of many(5)) {
          made.push(yield* scheduled({ productId, from: 10 * nth, until: 10 * nth + 10 }))
          millis += 1
        }
        yield* cancel(made[4]?.saleId ?? SaleId.make("none"))
        setTo(15)
        const ids = (page: { readonly items: ReadonlyArray<{ readonly saleId: SaleId }> }) =>
          page.items.map(({ saleId }) => made.findIndex((sale) => sale.saleId === saleId))
        const first = yield* list({ productId, limit: 3 })
        expect(ids(first)).toEqual([4, 3, 2])
        const second = yield* list({ productId, limit: 3, cursor: first.nextCursor ?? "" })
        expect([ids(second), second.nextCursor]).toEqual([[1, 0], null])
        expect([...first.items, ...second.items].map(({ status }) => status)).toEqual([
          "CANCELED",
          "SCHEDULED",
          "SCHEDULED",
          "RUNNING",
          "ENDED"
        ])
        for (const [status, nths] of [
          ["CANCELED", [4]],
          ["SCHEDULED", [3, 2]],
          ["RUNNING", [1]],
          ["ENDED", [0]]
        ] as const) {
          expect(ids(yield* list({ productId, status, limit: 10 }))).toEqual([...nths])
        }
        expect(ids(yield* priceMap({ productIds: [productId], limit: 10 }))).toEqual([1])
        const ofProduct = (yield* priceMap({ limit: 100 })).items.filter((window) => window.productId === productId)
        expect(ids({ items: ofProduct })).toEqual([1, 2, 3])
      })
    ))
})
