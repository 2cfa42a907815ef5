import { describe, expect, test } from "bun:test"
import { Cause, DateTime, Effect, Exit, Result, Schema } from "effect"
import * as fc from "fast-check"
import { AttemptId, OrderId, ProductId, ReservationId, UserId } from "../src/kernel/Ids.ts"
import { Currency, maxPriceMinor } from "../src/kernel/Money.ts"
import { Region } from "../src/kernel/Region.ts"
import { mayBecome, Order, OrderStatus } from "../src/orders/Order.ts"
import {
  created,
  evolve,
  ImpossibleHistory,
  itemsOf,
  OrderCanceled,
  OrderCreated,
  OrderFulfilled,
  OrderHeld,
  OrderPaid,
  OrderPaymentFailed,
  OrderPaymentStarted,
  OrderReleased,
  OrderReservationLost,
  rebuild,
  statusAfter,
  type StoredOrderEvent
} from "../src/orders/OrderEvents.ts"

/** The contract: PENDING → PAID → FULFILLED; PENDING → CANCELED; PENDING → HELD → PENDING | CANCELED. */
const legal = new Set([
  "PENDING→PAID",
  "PAID→FULFILLED",
  "PENDING→CANCELED",
  "PENDING→HELD",
  "HELD→PENDING",
  "HELD→CANCELED"
])

const begin = DateTime.makeUnsafe("2025-06-01T12:00:00.000Z")
const after = (minutes: number) => DateTime.add(begin, { minutes })

const orderId = OrderId.make("ORDER-1")
const userId = UserId.make("USER-1")
const reservationId = ReservationId.make("RES-1")
const attempts = [AttemptId.make("ATTEMPT-1"), AttemptId.make("ATTEMPT-2")] as const

const currency = fc.constantFrom(...Currency.literals)
const line = fc.record({
  productId: fc.integer({ min: 1, max: 500 }).map((n) => ProductId.make(`P${n}`)),
  qty: fc.integer({ min: 1, max: 9_900 }),
  priceMinor: fc.oneof(fc.integer({ min: 1, max: 10_000 }), fc.integer({ min: 0, max: maxPriceMinor }))
})
const amount = fc.integer({ min: 0, max: 1_000_000 })

/** An order as it begins, with every amount in use. */
const newOrder = fc
  .record({
    items: fc.array(line, { minLength: 1, maxLength: 20 }),
    tax: amount,
    shipping: amount,
    currency,
    region: fc.constantFrom(...Region.literals)
  })
  .map(({ items, tax, shipping, currency, region }) => {
    const itemsMinor = items.reduce((sum, { qty, priceMinor }) => sum + qty * priceMinor, 0)
    const discountMinor = Math.floor(itemsMinor / 7)
    return new Order({
      orderId,
      userId,
      region,
      status: "PENDING",
      items,
      itemsMinor,
      discountMinor,
      taxMinor: tax,
      shippingMinor: shipping,
      totalMinor: itemsMinor - discountMinor + tax + shipping,
      currency,
      reservationId,
      paymentAttemptId: null,
      reservationLost: false,
      reviewed: false,
      version: 1,
      createdAt: begin,
      updatedAt: begin
    })
  })

const kinds = [
  "created",
  "started",
  "failed",
  "lost",
  "paid",
  "held",
  "released",
  "canceled",
  "fulfilled",
  "unheard of"
] as const
type Kind = (typeof kinds)[number]

/** An event that somebody may try to add; `skew` is how far its version is off. */
interface Step {
  readonly kind: Kind
  readonly attempt: 0 | 1
  readonly skew: number
  readonly minutes: number
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom("started" as const, "failed" as const, "paid" as const) },
    { weight: 2, arbitrary: fc.constantFrom(...kinds) }
  ),
  attempt: fc.constantFrom(0 as const, 0 as const, 1 as const),
  skew: fc.oneof({ weight: 12, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.integer({ min: -2, max: 2 }) }),
  minutes: fc.integer({ min: 0, max: 100 })
})

const overTheWire = (payload: unknown): unknown => JSON.parse(JSON.stringify(payload))

const eventOf = (order: Order, version: number, { kind, attempt, minutes }: Step): StoredOrderEvent => {
  const common = { orderId, userId }
  const attemptId = attempts[attempt]
  const event = {
    created: () => created(order),
    started: () => OrderPaymentStarted.of(orderId, version, { ...common, attemptId }),
    failed: () => OrderPaymentFailed.of(orderId, version, { ...common, attemptId, reason: "declined" }),
    lost: () => OrderReservationLost.of(orderId, version, { ...common, reservationId }),
    paid: () =>
      OrderPaid.of(orderId, version, { ...common, attemptId, items: itemsOf(order), totalAmount: 1, currency: "USD" }),
    held: () =>
      OrderHeld.of(orderId, version, { ...common, score: 60, reasons: ["amount.high"], items: itemsOf(order) }),
    released: () => OrderReleased.of(orderId, version, { ...common, releasedBy: UserId.make("ADMIN") }),
    canceled: () => OrderCanceled.of(orderId, version, { ...common, reservationId, reason: "changed my mind" }),
    fulfilled: () => OrderFulfilled.of(orderId, version, common),
    "unheard of": () => ({ eventType: "ecommerce.order.order.eaten.v1", payload: common })
  }[kind]()
  return {
    eventType: event.eventType,
    version,
    occurredAt: after(minutes),
    region: order.region,
    payload: overTheWire(event.payload)
  }
}

/** What the contract says about an order, in as few words as possible. */
interface Model {
  readonly status: OrderStatus
  readonly attempt: AttemptId | null
  readonly lost: boolean
  readonly reviewed: boolean
}

const beginning: Model = { status: "PENDING", attempt: null, lost: false, reviewed: false }

const expected = (model: Model | undefined, { kind, attempt }: Step): Model | "impossible" => {
  if (model === undefined) return kind === "created" ? beginning : "impossible"
  const { status } = model
  const paying = model.attempt !== null
  const itsOwn = model.attempt === attempts[attempt]
  switch (kind) {
    case "started":
      return status === "PENDING" && !paying ? { ...model, attempt: attempts[attempt] } : "impossible"
    case "failed":
      return itsOwn ? { ...model, attempt: null } : "impossible"
    case "lost":
      return paying ? { ...model, lost: true } : "impossible"
    case "paid":
      return itsOwn ? { ...model, status: "PAID", attempt: null } : "impossible"
    case "held":
      return status === "PENDING" ? { ...model, status: "HELD", attempt: null } : "impossible"
    case "released":
      return status === "HELD" ? { ...model, status: "PENDING", reviewed: true } : "impossible"
    case "canceled":
      return (status === "PENDING" && !paying) || status === "HELD" ? { ...model, status: "CANCELED" } : "impossible"
    case "fulfilled":
      return status === "PAID" ? { ...model, status: "FULFILLED" } : "impossible"
    default:
      return "impossible"
  }
}

const evolved = (order: Order | undefined, event: StoredOrderEvent) =>
  Effect.runSync(Effect.result(evolve(order, event)))
const encoded = Schema.encodeSync(Order)

/** Adds steps one by one, as far as they are possible, and tells each of them what came of it. */
const play = (
  template: Order,
  start: Order | undefined,
  steps: ReadonlyArray<Step>,
  told: (
    before: Order | undefined,
    event: StoredOrderEvent,
    result: Result.Result<Order, ImpossibleHistory>,
    step: Step
  ) => void
): { readonly order: Order | undefined; readonly history: ReadonlyArray<StoredOrderEvent> } => {
  const history: Array<StoredOrderEvent> = []
  let order = start
  for (const next of steps) {
    const event = eventOf(template, (order?.version ?? 0) + 1 + next.skew, next)
    const result = evolved(order, event)
    told(order, event, result, next)
    if (Result.isSuccess(result)) {
      order = result.success
      history.push(event)
    }
  }
  return { order, history }
}

const first: Step = { kind: "created", attempt: 0, skew: 0, minutes: 0 }
/** Mostly histories that begin as they should; some that do not. */
const steps = fc
  .tuple(fc.integer({ min: 0, max: 9 }), fc.array(step, { maxLength: 25, size: "max" }))
  .map(([luck, rest]) => (luck === 0 ? rest : [first, ...rest]))
/** Nothing yet, or an order that risk holds back. */
const start = fc.oneof(
  { weight: 5, arbitrary: fc.constant("nothing" as const) },
  { weight: 1, arbitrary: fc.constant("HELD" as const) }
)
const startOf = (template: Order, from: "nothing" | "HELD") =>
  from === "HELD" ? new Order({ ...template, status: "HELD", version: 3 }) : undefined

describe("the statuses of an order", () => {
  test("change as the contract says and in no other way", () => {
    for (const from of OrderStatus.literals) {
      for (const to of OrderStatus.literals)
        expect([from, to, mayBecome(from, to)]).toEqual([from, to, legal.has(`${from}→${to}`)])
    }
  })
})

describe("an order, whatever events are tried on it", () => {
  test("does exactly what the contract says, event by event", () => {
    const seen = new Set<string>()
    fc.assert(
      fc.property(newOrder, start, steps, (template, from, tried) => {
        let model: Model | undefined = from === "HELD" ? { ...beginning, status: "HELD" } : undefined
        play(template, startOf(template, from), tried, (before, event, result, next) => {
          const outcome = next.skew === 0 ? expected(model, next) : "impossible"
          seen.add(`${model === undefined ? "NOTHING" : model.status} ${next.kind} ${outcome !== "impossible"}`)
          if (outcome === "impossible") {
            expect(Result.isFailure(result)).toBe(true)
            if (Result.isFailure(result)) {
              expect(result.failure).toBeInstanceOf(ImpossibleHistory)
              expect([result.failure.event, result.failure.version]).toEqual([event.eventType, event.version])
            }
            return
          }
          model = outcome
          expect(encoded(Result.getOrThrow(result))).toEqual({
            ...encoded(before ?? template),
            status: model.status,
            paymentAttemptId: model.attempt,
            reservationLost: model.lost,
            reviewed: model.reviewed,
            version: event.version,
            createdAt: DateTime.formatIso(before?.createdAt ?? event.occurredAt),
            updatedAt: DateTime.formatIso(event.occurredAt)
          })
        })
      }),
      { numRuns: 600 }
    )
    // The property has seen every event in every status, so none of it holds for want of trying.
    const possible = new Set([
      "NOTHING created",
      "PENDING started",
      "PENDING failed",
      "PENDING lost",
      "PENDING paid",
      "PENDING canceled",
      "PENDING held",
      "HELD released",
      "PAID fulfilled",
      "HELD canceled"
    ])
    for (const status of ["NOTHING", ...OrderStatus.literals]) {
      for (const kind of kinds) {
        if (possible.has(`${status} ${kind}`)) expect(seen).toContain(`${status} ${kind} true`)
        else {
          expect(seen).toContain(`${status} ${kind} false`)
          expect(seen).not.toContain(`${status} ${kind} true`)
        }
      }
    }
  })

  test("never makes a change of status that the contract does not have", () => {
    fc.assert(
      fc.property(newOrder, start, steps, (template, from, tried) => {
        play(template, startOf(template, from), tried, (before, _, result) => {
          if (before === undefined || Result.isFailure(result)) return
          const { status } = result.success
          if (status !== before.status) expect(legal).toContain(`${before.status}→${status}`)
        })
      })
    )
  })

  test("counts its events one by one, from 1", () => {
    fc.assert(
      fc.property(newOrder, steps, (template, tried) => {
        const { order, history } = play(template, undefined, tried, (before, event, result) => {
          if (event.version !== (before?.version ?? 0) + 1) expect(Result.isFailure(result)).toBe(true)
          if (Result.isSuccess(result)) expect(result.success.version).toBe((before?.version ?? 0) + 1)
        })
        expect(history.map(({ version }) => version)).toEqual(history.map((_, index) => index + 1))
        expect(order?.version ?? 0).toBe(history.length)
      })
    )
  })

  test("stays fulfilled or canceled for good", () => {
    fc.assert(
      fc.property(
        newOrder,
        fc.constantFrom("FULFILLED" as const, "CANCELED" as const),
        step,
        (template, status, tried) => {
          const ended = new Order({ ...template, status, version: 4 })
          const event = eventOf(template, 5, { ...tried, skew: 0 })
          expect(Result.isFailure(evolved(ended, event))).toBe(true)
        }
      )
    )
  })

  test("has a payment under way only while it is pending, and one at a time", () => {
    fc.assert(
      fc.property(newOrder, start, steps, (template, from, tried) => {
        play(template, startOf(template, from), tried, (before, _, result) => {
          if (Result.isFailure(result)) return
          const { paymentAttemptId, status } = result.success
          if (paymentAttemptId !== null) expect(status).toBe("PENDING")
          const previous = before?.paymentAttemptId ?? null
          if (previous !== null && paymentAttemptId !== null) expect(paymentAttemptId).toBe(previous)
        })
      })
    )
  })

  test("is not canceled while a payment is under way", () => {
    fc.assert(
      fc.property(newOrder, steps, (template, tried) => {
        play(template, undefined, tried, (before, _, result) => {
          if (before === undefined || Result.isFailure(result) || result.success.status !== "CANCELED") return
          expect(before.paymentAttemptId).toBeNull()
        })
      })
    )
  })

  test("counts as looked at from its release on, for good", () => {
    fc.assert(
      fc.property(newOrder, start, steps, (template, from, tried) => {
        play(template, startOf(template, from), tried, (before, _, result, { kind }) => {
          if (Result.isFailure(result)) return
          expect(result.success.reviewed).toBe(kind === "released" || (before?.reviewed ?? false))
        })
      })
    )
  })

  test("loses its reservation only while a payment is under way", () => {
    fc.assert(
      fc.property(newOrder, steps, (template, tried) => {
        play(template, undefined, tried, (before, _, result) => {
          if (Result.isFailure(result) || before?.reservationLost === result.success.reservationLost) return
          if (result.success.reservationLost) expect(before?.paymentAttemptId ?? null).not.toBeNull()
        })
      })
    )
  })

  test("keeps what was ordered, for whom, where and at what prices", () => {
    const fixed = ({
      status: _1,
      paymentAttemptId: _2,
      reservationLost: _3,
      reviewed: _4,
      version: _5,
      updatedAt: _6,
      ...rest
    }: Order) => rest
    fc.assert(
      fc.property(newOrder, steps, (template, tried) => {
        play(template, undefined, [first, ...tried], (_, __, result) => {
          if (Result.isSuccess(result)) expect(fixed(result.success)).toEqual(fixed(template))
        })
      })
    )
  })

  test("is a new value after each event; the one before is not touched", () => {
    fc.assert(
      fc.property(newOrder, steps, (template, tried) => {
        const values: Array<readonly [Order, typeof Order.Encoded]> = []
        play(template, undefined, tried, (_, __, result) => {
          if (Result.isSuccess(result)) values.push([result.success, encoded(result.success)])
        })
        expect(values.map(([order]) => encoded(order))).toEqual(values.map(([, then]) => then))
      })
    )
  })
})

describe("the history of an order", () => {
  test("rebuilds the order that its events made one by one", () => {
    fc.assert(
      fc.property(newOrder, steps, (template, tried) => {
        const { order, history } = play(template, undefined, tried, () => {})
        expect(Effect.runSync(rebuild(history))).toEqual(order)
      }),
      { numRuns: 300 }
    )
  })

  test("has the statuses that each event alone says it brings", () => {
    fc.assert(
      fc.property(newOrder, steps, (template, tried) => {
        let order: Order | undefined
        for (const event of play(template, undefined, tried, () => {}).history) {
          const next = Effect.runSync(evolve(order, event))
          expect<string | undefined>(statusAfter(event.eventType) ?? order?.status).toBe(next.status)
          order = next
        }
      })
    )
  })

  test("that is empty is no order", () => {
    expect(Effect.runSync(rebuild([]))).toBeUndefined()
  })

  test("does not rebuild when an event is missing, doubled, or out of its place", () => {
    fc.assert(
      fc.property(newOrder, steps, fc.nat(), fc.constantFrom("drop", "double", "swap"), (template, tried, at, how) => {
        const { history } = play(template, undefined, [first, ...tried], () => {})
        fc.pre(history.length > 1)
        // Dropping the last one leaves a shorter history that is true.
        const index = at % (history.length - 1)
        const [one, two] = [history.slice(index, index + 1), history.slice(index + 1, index + 2)]
        const rest = history.slice(index + 2)
        const middle = { drop: two, double: [...one, ...one, ...two], swap: [...two, ...one] }[how] ?? []
        const result = Effect.runSync(Effect.result(rebuild([...history.slice(0, index), ...middle, ...rest])))
        expect(Result.isFailure(result) && result.failure._tag).toBe("ImpossibleHistory")
      })
    )
  })

  test("fails on the same event as the order itself, with the same reason", () => {
    fc.assert(
      fc.property(newOrder, steps, step, (template, tried, last) => {
        const { order, history } = play(template, undefined, tried, () => {})
        const event = eventOf(template, history.length + 1 + last.skew, last)
        const stepwise = evolved(order, event)
        fc.pre(Result.isFailure(stepwise))
        expect(Effect.runSync(Effect.result(rebuild([...history, event])))).toEqual(stepwise)
      })
    )
  })
})

describe("the first event of an order", () => {
  test("carries the whole order, exactly, in every currency", () => {
    fc.assert(
      fc.property(newOrder, (order) => {
        const event = created(order)
        const stored = { ...event, payload: overTheWire(event.payload), occurredAt: begin, region: order.region }
        expect(Effect.runSync(evolve(undefined, stored))).toEqual(order)
        expect([event.aggregateId, event.version, event.eventType]).toEqual([orderId, 1, OrderCreated.type])
      }),
      { numRuns: 300 }
    )
  })
})

describe("an event that cannot be read", () => {
  const died = (order: Order | undefined, event: StoredOrderEvent) => {
    const exit = Effect.runSyncExit(evolve(order, event))
    return Exit.isFailure(exit) && Cause.hasDies(exit.cause)
  }

  test("is a defect and changes nothing", () => {
    fc.assert(
      fc.property(newOrder, fc.constantFrom(null, {}, "paid", { orderId, userId, attemptId: "" }), (order, payload) => {
        const about = { occurredAt: begin, region: order.region, payload }
        const paying = new Order({ ...order, paymentAttemptId: attempts[0] })
        expect(died(undefined, { ...about, eventType: OrderCreated.type, version: 1 })).toBe(true)
        expect(died(order, { ...about, eventType: OrderPaymentStarted.type, version: 2 })).toBe(true)
        expect(died(paying, { ...about, eventType: OrderPaymentFailed.type, version: 2 })).toBe(true)
        expect(died(paying, { ...about, eventType: OrderPaid.type, version: 2 })).toBe(true)
      })
    )
  })

  test("is one with money that its currency cannot express, or units that nobody can order", () => {
    const payload = {
      orderId,
      userId,
      items: [{ productId: "P1", qty: 1, price: 10 }],
      itemsAmount: 10,
      discountAmount: 0,
      taxAmount: 0,
      shippingAmount: 0,
      totalAmount: 10,
      currency: "USD",
      reservationId
    }
    const about = { eventType: OrderCreated.type, version: 1, occurredAt: begin, region: "us" as const }
    expect(died(undefined, { ...about, payload })).toBe(false)
    for (const broken of [
      { totalAmount: 10.005 },
      { totalAmount: -10 },
      { taxAmount: 1e30 },
      { items: [{ productId: "P1", qty: 1, price: 9.999 }] },
      { items: [{ productId: "P1", qty: 0, price: 10 }] },
      { items: [{ productId: "P1", qty: 9_901, price: 10 }] },
      { currency: "JPY", totalAmount: 10.5 },
      { currency: "XTS" }
    ]) {
      expect(died(undefined, { ...about, payload: { ...payload, ...broken } })).toBe(true)
    }
  })
})
