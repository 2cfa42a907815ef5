// What each minute brings: by the time at which money moved, however late we hear of it, and each movement once.
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { Context, DateTime, Effect, Exit, Layer, Logger, Redacted, Schedule, Scope } from "effect"
import { ConfigProvider } from "effect"
import { SqlClient } from "effect/sql"
import * as fc from "fast-check"
import type { Envelope } from "@merkato/domain/kernel/Event"
import { AttemptId, EventId, Id, OrderId, RefundId, UserId } from "@merkato/domain/kernel/Ids"
import { PaymentCaptured, RefundCompleted } from "@merkato/domain/payments/PaymentEvents"
import { toDecimal } from "@merkato/domain/kernel/Money"
import { type BusMessage, EventBus } from "@merkato/infra/events/EventBus"
import * as PostgresEventBus from "@merkato/infra/events/PostgresEventBus"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { AnalyticsRpc } from "@merkato/rpc/analytics/AnalyticsRpc"
import { contextsOn } from "../../../tests/support/InProcess.ts"
import { temporaryFolder } from "../../../tests/support/Processes.ts"
import { as } from "./Requests.ts"

const scope = Scope.makeUnsafe()
const folder = temporaryFolder()
type Services = Layer.Success<ReturnType<typeof contextsOn>> | EventBus
let shop: Context.Context<Services> | undefined
let url = Redacted.make("")

/** Late for more than 10 minutes is too late. */
const config = ConfigProvider.fromUnknown({ MERKATO_REVENUE_LATENESS_MINUTES: "10" })

beforeAll(
  () =>
    Effect.gen(function* () {
      url = (yield* TestDatabase.fresh).url
      const bus = PostgresEventBus.layer.pipe(
        Layer.provide(Database.layer({ url, maxConnections: 2, applicationName: "test" }))
      )
      shop = yield* Layer.build(Layer.provideMerge(bus, contextsOn(url, folder.path)))
    }).pipe(
      Effect.provideService(ConfigProvider.ConfigProvider, config),
      Effect.provide(Logger.layer([])),
      Scope.provide(scope),
      Effect.runPromise
    ),
  60_000
)
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  folder.remove()
})

const run = <A>(effect: Effect.Effect<A, unknown, Services>): Promise<A> => {
  if (shop === undefined) throw new Error("the shop has not started")
  return effect.pipe(Effect.provideContext(shop), Effect.withTracerEnabled(false), Effect.runPromise)
}

const admin = as("ADMIN", "admin")

interface Movement {
  readonly at: string
  readonly amountMinor: number
  readonly refund?: boolean
  readonly currency?: "USD" | "JPY"
}

let made = 0

/** An event as payments tells it. */
const told = ({ at, amountMinor, refund = false, currency = "USD" }: Movement): BusMessage => {
  const nth = ++made
  const id = `ATTEMPT-${nth}`
  const payload = {
    attemptId: AttemptId.make(id),
    orderId: OrderId.make(`ORDER-${nth}`),
    userId: UserId.make("ADA"),
    amount: toDecimal(amountMinor, currency),
    currency
  }
  const event = refund
    ? RefundCompleted.of(id, 1, { ...payload, refundId: RefundId.make(`REFUND-${nth}`) })
    : PaymentCaptured.of(id, 1, payload)
  const envelope: Envelope = {
    eventId: EventId.make(`EVENT-${nth}`),
    eventType: event.eventType,
    occurredAt: at,
    producer: "payments-service",
    traceId: "",
    correlationId: "",
    schemaVersion: "1.0",
    partitionKey: Id.make(id),
    region: "us",
    aggregateVersion: 1,
    payload: event.payload
  }
  return {
    topic: "payment.events",
    key: id,
    traceParent: "00-00000000000000000000000000000000-0000000000000000-00",
    envelope
  }
}

/** Begins anew: nothing was ever paid. */
const nothingYet = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`delete from analytics.revenue_minutes`
  yield* sql`update analytics.streams set newest = null`
})

/** Publishes, and waits until it is taken in. */
const hear = Effect.fnUntraced(function* (messages: ReadonlyArray<BusMessage>) {
  const bus = yield* EventBus
  yield* bus.publish(messages)
  yield* Effect.repeat(bus.lag("analytics.revenue-per-minute", ["payment.events"]), {
    until: (lag) => lag === 0,
    schedule: Schedule.spaced("10 millis"),
    times: 3_000
  })
})

const minutes = Effect.fnUntraced(function* (from: string, to: string) {
  const { newest, items } = yield* admin(
    AnalyticsRpc.use((analytics) =>
      analytics.RevenuePerMinute({ from: DateTime.makeUnsafe(from), to: DateTime.makeUnsafe(to) })
    )
  )
  return {
    newest: newest === null ? null : DateTime.formatIso(newest),
    items: items.map(
      ({ minute, currency, state, payments, revenueMinor, refunds, refundsMinor, corrections, tooLate }) => ({
        minute: DateTime.formatIso(minute).slice(11, 16),
        currency,
        state,
        in: [payments, revenueMinor],
        out: [refunds, refundsMinor],
        corrections,
        tooLate: [tooLate.payments, tooLate.revenueMinor, tooLate.refunds, tooLate.refundsMinor]
      })
    )
  }
})

const noon = (rest: string) => `2026-03-01T12:${rest}Z`
const atNoon = minutes(noon("00:00"), noon("59:00"))
const plain = { currency: "USD" as const, out: [0, 0], corrections: 0, tooLate: [0, 0, 0, 0] }

describe("revenue per minute", () => {
  test("is what was taken and given back within it, by currency", () =>
    run(
      Effect.gen(function* () {
        yield* nothingYet
        yield* hear([
          told({ at: noon("00:00.000"), amountMinor: 100 }),
          told({ at: noon("00:59.999"), amountMinor: 23 }),
          told({ at: noon("01:00.000"), amountMinor: 7 }),
          told({ at: noon("01:30.000"), amountMinor: 5, refund: true }),
          told({ at: noon("00:30.000"), amountMinor: 900, currency: "JPY" })
        ])
        expect(yield* atNoon).toEqual({
          newest: noon("01:30.000"),
          items: [
            { ...plain, minute: "12:00", currency: "JPY", state: "open", in: [1, 900] },
            { ...plain, minute: "12:00", state: "open", in: [2, 123] },
            { ...plain, minute: "12:01", state: "open", in: [1, 7], out: [1, 5] }
          ]
        })
      })
    ))

  test("a minute is open for a minute more, then closed and corrected by what is late, then final", () =>
    run(
      Effect.gen(function* () {
        yield* nothingYet
        yield* hear([told({ at: noon("00:10.000"), amountMinor: 100 })])
        // Not late: the stream has not come a minute further than the end of that minute.
        yield* hear([told({ at: noon("01:59.999"), amountMinor: 1 })])
        yield* hear([told({ at: noon("00:20.000"), amountMinor: 10 })])
        expect((yield* atNoon).items[0]).toEqual({ ...plain, minute: "12:00", state: "open", in: [2, 110] })
        // Now it has.
        yield* hear([told({ at: noon("02:00.000"), amountMinor: 1 })])
        expect((yield* atNoon).items[0]).toMatchObject({ state: "closed", corrections: 0 })
        yield* hear([told({ at: noon("00:30.000"), amountMinor: 1_000 })])
        yield* hear([told({ at: noon("00:40.000"), amountMinor: 30, refund: true })])
        expect((yield* atNoon).items[0]).toEqual({
          ...plain,
          minute: "12:00",
          state: "closed",
          in: [3, 1_110],
          out: [1, 30],
          corrections: 2
        })
        // Ten minutes after its end nothing is corrected any more, and nothing is lost either.
        yield* hear([told({ at: noon("10:59.999"), amountMinor: 1 })])
        yield* hear([told({ at: noon("00:50.000"), amountMinor: 2 })])
        expect((yield* atNoon).items[0]).toMatchObject({ state: "closed", in: [4, 1_112], corrections: 3 })
        yield* hear([told({ at: noon("11:00.000"), amountMinor: 1 })])
        yield* hear([
          told({ at: noon("00:55.000"), amountMinor: 70_000 }),
          told({ at: noon("00:56.000"), amountMinor: 6, refund: true })
        ])
        expect((yield* atNoon).items[0]).toEqual({
          ...plain,
          minute: "12:00",
          state: "final",
          in: [4, 1_112],
          out: [1, 30],
          corrections: 3,
          tooLate: [1, 70_000, 1, 6]
        })
      })
    ))

  test("what comes again is not counted again", () =>
    run(
      Effect.gen(function* () {
        yield* nothingYet
        const messages = [
          told({ at: noon("00:10.000"), amountMinor: 100 }),
          told({ at: noon("00:11.000"), amountMinor: 1 })
        ]
        yield* hear(messages)
        yield* hear(messages)
        yield* hear([...messages, ...messages])
        expect((yield* atNoon).items).toEqual([{ ...plain, minute: "12:00", state: "open", in: [2, 101] }])
      })
    ))

  test("in whatever order and batches events come, nothing is lost: what is not in a minute is told beside it", () =>
    run(
      Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(
            fc.array(
              fc.record({
                second: fc.integer({ min: 0, max: 1_800 }),
                amountMinor: fc.integer({ min: 1, max: 10_000 }),
                refund: fc.boolean()
              }),
              { minLength: 1, maxLength: 25 }
            ),
            fc.integer({ min: 1, max: 4 }),
            async (movements, batches) =>
              run(
                Effect.gen(function* () {
                  yield* nothingYet
                  const at = (second: number) => new Date(Date.parse(noon("00:00")) + second * 1_000).toISOString()
                  const messages = movements.map(({ second, ...rest }) => told({ ...rest, at: at(second) }))
                  const each = Math.ceil(messages.length / batches)
                  for (let from = 0; from < messages.length; from += each)
                    yield* hear(messages.slice(from, from + each))
                  const { newest, items } = yield* atNoon
                  expect(newest).toBe(at(Math.max(...movements.map(({ second }) => second))))
                  const sum = (minute: string, refund: boolean) =>
                    movements
                      .filter((each) => at(each.second).slice(11, 16) === minute && each.refund === refund)
                      .reduce((all, { amountMinor }) => all + amountMinor, 0)
                  expect(
                    items.map(({ minute, in: came, out, tooLate }) => [
                      minute,
                      (came[1] ?? 0) + (tooLate[1] ?? 0),
                      (out[1] ?? 0) + (tooLate[3] ?? 0)
                    ])
                  ).toEqual(
                    [...new Set(movements.map(({ second }) => at(second).slice(11, 16)))]
                      .toSorted()
                      .map((minute) => [minute, sum(minute, false), sum(minute, true)])
                  )
                })
              )
          ),
          { numRuns: 12 }
        )
      )
    ))

  test("is for those who run the shop, a day at most, and only the minutes that were asked for", () =>
    run(
      Effect.gen(function* () {
        yield* nothingYet
        yield* hear(["00:10", "01:10", "02:10"].map((at) => told({ at: noon(at), amountMinor: 1 })))
        expect((yield* minutes(noon("01:30"), noon("02:00"))).items.map(({ minute }) => minute)).toEqual(["12:01"])
        expect((yield* minutes(noon("01:00"), noon("02:01"))).items.map(({ minute }) => minute)).toEqual([
          "12:01",
          "12:02"
        ])
        const range = { from: DateTime.makeUnsafe(noon("00:00")), to: DateTime.makeUnsafe("2026-03-02T12:00:01Z") }
        const analytics = yield* AnalyticsRpc
        expect(yield* Effect.flip(admin(analytics.RevenuePerMinute(range)))).toMatchObject({
          _tag: "InvalidValue",
          path: "to"
        })
        const ada = as("ADA", "shopper")
        expect(yield* Effect.flip(ada(analytics.RevenuePerMinute({ ...range, to: range.from })))).toMatchObject({
          _tag: "Forbidden"
        })
      })
    ))
})
