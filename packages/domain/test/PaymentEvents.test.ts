import { describe, expect, test } from "bun:test"
import { Cause, DateTime, Effect, Exit, Result, Schema } from "effect"
import * as fc from "fast-check"
import { AttemptId, OrderId, RefundId, UserId } from "../src/kernel/Ids.ts"
import { Currency, maxMinor, toDecimal } from "../src/kernel/Money.ts"
import { Payment, PaymentStatus, Refund } from "../src/payments/Payment.ts"
import {
  evolve,
  ImpossiblePayment,
  PaymentAuthorised,
  PaymentCaptured,
  PaymentInitiated,
  PaymentRerouted,
  PaymentWasDeclined,
  PaymentWasVoided,
  rebuild,
  rebuildRefunds,
  RefundCompleted,
  RefundRequested,
  RefundWasRefused,
  type StoredPaymentEvent
} from "../src/payments/PaymentEvents.ts"

/** Money is held before it is taken, and what was declined, voided or taken is settled. */
const legal = new Set([
  "INITIATED→AUTHORISED",
  "INITIATED→DECLINED",
  "INITIATED→VOIDED",
  "AUTHORISED→CAPTURED",
  "AUTHORISED→VOIDED"
])
const final: ReadonlyArray<PaymentStatus> = ["CAPTURED", "DECLINED", "VOIDED"]

const begin = DateTime.makeUnsafe("2025-06-01T12:00:00.000Z")

const newPayment = fc
  .record({
    amountMinor: fc.oneof(fc.integer({ min: 1, max: 100_000 }), fc.integer({ min: 0, max: maxMinor })),
    currency: fc.constantFrom(...Currency.literals)
  })
  .map(
    (amount) =>
      new Payment({
        ...amount,
        attemptId: AttemptId.make("ATTEMPT-1"),
        orderId: OrderId.make("ORDER-1"),
        userId: UserId.make("USER-1"),
        status: "INITIATED",
        reason: null,
        gateway: "first",
        refundingMinor: 0,
        refundedMinor: 0,
        version: 1,
        createdAt: begin,
        updatedAt: begin
      })
  )

const kinds = [
  "initiated",
  "rerouted",
  "authorised",
  "captured",
  "declined",
  "voided",
  "refund requested",
  "refund completed",
  "refund refused",
  "unheard of"
] as const
type Kind = (typeof kinds)[number]

/** An event that somebody may try to add; `skew` is how far its version is off. */
interface Step {
  readonly kind: Kind
  readonly skew: number
  readonly minutes: number
}

/** An id is used once, so the refund that is talked of has the number of the requests so far. */
const refundIdAfter = (history: ReadonlyArray<StoredPaymentEvent>, kind: Kind) => {
  const requested = history.filter(({ eventType }) => eventType === RefundRequested.type).length
  return RefundId.make(`REFUND-${kind === "refund requested" ? requested + 1 : requested}`)
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom(...kinds),
  skew: fc.oneof({ weight: 12, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.integer({ min: -2, max: 2 }) }),
  minutes: fc.integer({ min: 0, max: 100 })
})
const first: Step = { kind: "initiated", skew: 0, minutes: 0 }
const steps = fc
  .tuple(fc.integer({ min: 0, max: 9 }), fc.array(step, { maxLength: 16, size: "max" }))
  .map(([luck, rest]) => (luck === 0 ? rest : [first, ...rest]))

const overTheWire = (payload: unknown): unknown => JSON.parse(JSON.stringify(payload))

const eventOf = (
  payment: Payment,
  version: number,
  { kind, minutes }: Step,
  refundId = RefundId.make("REFUND-1")
): StoredPaymentEvent => {
  const { attemptId, orderId, userId, currency } = payment
  const attempt = { attemptId, orderId, userId, currency, amount: toDecimal(payment.amountMinor, currency) }
  // The whole amount, so that a second request is one too many.
  const refund = { ...attempt, refundId }
  const event = {
    initiated: () => PaymentInitiated.of(attemptId, version, { ...attempt, gateway: "first" }),
    rerouted: () => PaymentRerouted.of(attemptId, version, { ...attempt, from: "first", to: "second", reason: "down" }),
    "refund requested": () => RefundRequested.of(attemptId, version, { ...refund, reason: "stale" }),
    "refund completed": () => RefundCompleted.of(attemptId, version, refund),
    "refund refused": () => RefundWasRefused.of(attemptId, version, { ...refund, reason: "too late" }),
    authorised: () => PaymentAuthorised.of(attemptId, version, attempt),
    captured: () => PaymentCaptured.of(attemptId, version, attempt),
    declined: () => PaymentWasDeclined.of(attemptId, version, { ...attempt, reason: "no funds" }),
    voided: () => PaymentWasVoided.of(attemptId, version, { ...attempt, reason: "reservation expired" }),
    "unheard of": () => ({ eventType: "ecommerce.payment.payment.lost.v1", payload: attempt })
  }[kind]()
  return {
    eventType: event.eventType,
    version,
    occurredAt: DateTime.add(begin, { minutes }),
    payload: overTheWire(event.payload)
  }
}

interface Model {
  readonly status: PaymentStatus
  readonly reason: string | null
  readonly gateway: string
  readonly refundingMinor: number
  readonly refundedMinor: number
}

const atFirst: Model = { status: "INITIATED", reason: null, gateway: "first", refundingMinor: 0, refundedMinor: 0 }

const expected = (model: Model | undefined, kind: Kind, amountMinor: number): Model | "impossible" => {
  if (model === undefined) return kind === "initiated" ? atFirst : "impossible"
  switch (`${model.status} ${kind}`) {
    case "INITIATED rerouted":
      return model.gateway === "first" ? { ...model, gateway: "second" } : "impossible"
    case "INITIATED authorised":
      return { ...model, status: "AUTHORISED" }
    case "AUTHORISED captured":
      return { ...model, status: "CAPTURED" }
    case "INITIATED declined":
      return { ...model, status: "DECLINED", reason: "no funds" }
    case "INITIATED voided":
    case "AUTHORISED voided":
      return { ...model, status: "VOIDED", reason: "reservation expired" }
    case "CAPTURED refund requested":
      return amountMinor > 0 && model.refundingMinor === 0 && model.refundedMinor === 0
        ? { ...model, refundingMinor: amountMinor }
        : "impossible"
    case "CAPTURED refund completed":
      return amountMinor > 0 && amountMinor <= model.refundingMinor
        ? { ...model, refundingMinor: 0, refundedMinor: model.refundedMinor + amountMinor }
        : "impossible"
    case "CAPTURED refund refused":
      return amountMinor > 0 && amountMinor <= model.refundingMinor ? { ...model, refundingMinor: 0 } : "impossible"
    default:
      return "impossible"
  }
}

const evolved = (payment: Payment | undefined, event: StoredPaymentEvent) =>
  Effect.runSync(Effect.result(evolve(payment, event)))
const encoded = Schema.encodeSync(Payment)

/** Adds steps one by one, as far as they are possible, and tells what came of each. */
const play = (
  template: Payment,
  tried: ReadonlyArray<Step>,
  told: (
    before: Payment | undefined,
    event: StoredPaymentEvent,
    result: Result.Result<Payment, ImpossiblePayment>,
    step: Step
  ) => void
): { readonly payment: Payment | undefined; readonly history: ReadonlyArray<StoredPaymentEvent> } => {
  const history: Array<StoredPaymentEvent> = []
  let payment: Payment | undefined
  for (const next of tried) {
    const event = eventOf(template, (payment?.version ?? 0) + 1 + next.skew, next, refundIdAfter(history, next.kind))
    const result = evolved(payment, event)
    told(payment, event, result, next)
    if (Result.isSuccess(result)) {
      payment = result.success
      history.push(event)
    }
  }
  return { payment, history }
}

describe("a payment, whatever events are tried on it", () => {
  test("does exactly what the model says, event by event", () => {
    const seen = new Set<string>()
    fc.assert(
      fc.property(newPayment, steps, (template, tried) => {
        let model: Model | undefined
        play(template, tried, (before, event, result, next) => {
          const outcome = next.skew === 0 ? expected(model, next.kind, template.amountMinor) : "impossible"
          seen.add(`${model?.status ?? "NOTHING"} ${next.kind} ${outcome !== "impossible"}`)
          if (outcome === "impossible") {
            expect(result).toEqual(
              Result.fail(new ImpossiblePayment({ event: event.eventType, version: event.version }))
            )
            return
          }
          model = outcome
          expect(encoded(Result.getOrThrow(result))).toEqual({
            ...encoded(before ?? template),
            ...model,
            version: event.version,
            createdAt: DateTime.formatIso(before?.createdAt ?? event.occurredAt),
            updatedAt: DateTime.formatIso(event.occurredAt)
          })
        })
      }),
      { numRuns: 600 }
    )
    // The property has seen every event in every status, so none of it holds for want of trying.
    for (const status of [undefined, ...PaymentStatus.literals]) {
      for (const kind of kinds) {
        const possible = expected(status === undefined ? undefined : { ...atFirst, status }, kind, 1) !== "impossible"
        expect(seen).toContain(`${status ?? "NOTHING"} ${kind} ${possible}`)
      }
    }
  })

  test("never makes a change of status that is not legal, and none that leads from a final one", () => {
    fc.assert(
      fc.property(newPayment, steps, (template, tried) => {
        play(template, tried, (before, _, result) => {
          if (before === undefined || Result.isFailure(result)) return
          // Going elsewhere, or giving money back, is no change of status.
          if (before.status === result.success.status) return
          expect(final).not.toContain(before.status)
          expect(legal).toContain(`${before.status}→${result.success.status}`)
        })
      })
    )
  })

  test("stays captured, declined or voided for good", () => {
    fc.assert(
      fc.property(newPayment, fc.constantFrom(...final), fc.constantFrom(...kinds), (template, status, kind) => {
        const ended = new Payment({ ...template, status, version: 3 })
        const result = evolved(ended, eventOf(template, 4, { kind, skew: 0, minutes: 1 }))
        expect(Result.isFailure(result) || (status === "CAPTURED" && result.success.status === "CAPTURED")).toBe(true)
      })
    )
  })

  test("takes money at most once, and only after it was held", () => {
    fc.assert(
      fc.property(newPayment, steps, (template, tried) => {
        const { history } = play(template, tried, () => {})
        const types = history.map(({ eventType }) => eventType)
        const captures = types.filter((type) => type === PaymentCaptured.type)
        expect(captures.length).toBeLessThanOrEqual(1)
        if (captures.length === 1) {
          const moves = [PaymentInitiated.type, PaymentAuthorised.type, PaymentCaptured.type]
          expect(types.filter((type) => moves.includes(type))).toEqual(moves)
        }
      })
    )
  })

  test("counts its events one by one, from 1", () => {
    fc.assert(
      fc.property(newPayment, steps, (template, tried) => {
        const { payment, history } = play(template, tried, () => {})
        expect(history.map(({ version }) => version)).toEqual(history.map((_, index) => index + 1))
        expect(payment?.version ?? 0).toBe(history.length)
      })
    )
  })

  test("keeps its order, its payer and its amount to the last unit", () => {
    const fixed = ({ attemptId, orderId, userId, amountMinor, currency, createdAt }: Payment) => ({
      attemptId,
      orderId,
      userId,
      amountMinor,
      currency,
      createdAt
    })
    fc.assert(
      fc.property(newPayment, steps, (template, tried) => {
        play(template, [first, ...tried], (_, __, result) => {
          if (Result.isSuccess(result)) expect(fixed(result.success)).toEqual(fixed(template))
        })
      }),
      { numRuns: 300 }
    )
  })

  test("is a new value after each event; the one before is not touched", () => {
    fc.assert(
      fc.property(newPayment, steps, (template, tried) => {
        const values: Array<readonly [Payment, typeof Payment.Encoded]> = []
        play(template, tried, (_, __, result) => {
          if (Result.isSuccess(result)) values.push([result.success, encoded(result.success)])
        })
        expect(values.map(([payment]) => encoded(payment))).toEqual(values.map(([, then]) => then))
      })
    )
  })
})

describe("the refunds of a payment", () => {
  test("never give back more than was taken, and are as many as were requested", () => {
    fc.assert(
      fc.property(newPayment, steps, (template, tried) => {
        const { payment, history } = play(template, [first, ...tried], () => {})
        const refunds = Effect.runSync(rebuildRefunds(history))
        const sum = (status: string) =>
          refunds.filter((refund) => refund.status === status).reduce((all, { amountMinor }) => all + amountMinor, 0)
        expect([sum("REQUESTED"), sum("REFUNDED")]).toEqual([payment?.refundingMinor ?? 0, payment?.refundedMinor ?? 0])
        expect(sum("REQUESTED") + sum("REFUNDED")).toBeLessThanOrEqual(template.amountMinor)
      }),
      { numRuns: 300 }
    )
  })

  test("are told by their events: when, how much, why, and how they ended", () => {
    const [template] = fc.sample(newPayment, 1)
    if (template === undefined) throw new Error("no payment")
    const payment = new Payment({ ...template, amountMinor: 500, currency: "USD" })
    const told = (...kinds: ReadonlyArray<Kind>) =>
      kinds.map((kind, index) => eventOf(payment, index + 1, { kind, skew: 0, minutes: index }))
    const taken = ["initiated", "authorised", "captured"] as const
    expect(Effect.runSync(rebuildRefunds(told(...taken)))).toEqual([])
    const refused = Effect.runSync(rebuildRefunds(told(...taken, "refund requested", "refund refused")))
    expect(refused.map((refund) => Schema.encodeSync(Refund)(refund))).toEqual([
      {
        refundId: "REFUND-1",
        attemptId: "ATTEMPT-1",
        orderId: "ORDER-1",
        amountMinor: 500,
        currency: "USD",
        status: "REFUSED",
        reason: "stale",
        refusal: "too late",
        createdAt: "2025-06-01T12:03:00.000Z",
        updatedAt: "2025-06-01T12:04:00.000Z"
      }
    ])
    const impossible = Effect.runSync(Effect.result(rebuildRefunds(told(...taken, "refund completed"))))
    expect(Result.isFailure(impossible)).toBe(true)
  })
})

describe("the history of a payment", () => {
  test("rebuilds the payment that its events made one by one", () => {
    fc.assert(
      fc.property(newPayment, steps, (template, tried) => {
        const { payment, history } = play(template, tried, () => {})
        expect(Effect.runSync(rebuild(history))).toEqual(payment)
      }),
      { numRuns: 300 }
    )
  })

  test("that is empty is no payment", () => {
    expect(Effect.runSync(rebuild([]))).toBeUndefined()
  })

  test("does not rebuild when an event is missing, doubled, or out of its place", () => {
    fc.assert(
      fc.property(
        newPayment,
        steps,
        fc.nat(),
        fc.constantFrom("drop", "double", "swap"),
        (template, tried, at, how) => {
          const { history } = play(template, [first, ...tried], () => {})
          fc.pre(history.length > 1)
          // Dropping the last one leaves a shorter history that is true.
          const index = at % (history.length - 1)
          const [one, two] = [history.slice(index, index + 1), history.slice(index + 1, index + 2)]
          const rest = history.slice(index + 2)
          const middle = { drop: two, double: [...one, ...one, ...two], swap: [...two, ...one] }[how] ?? []
          const result = Effect.runSync(Effect.result(rebuild([...history.slice(0, index), ...middle, ...rest])))
          expect(Result.isFailure(result) && result.failure._tag).toBe("ImpossiblePayment")
        }
      )
    )
  })

  test("fails on the same event as the payment itself", () => {
    fc.assert(
      fc.property(newPayment, steps, step, (template, tried, last) => {
        const { payment, history } = play(template, tried, () => {})
        const event = eventOf(template, history.length + 1 + last.skew, last)
        const stepwise = evolved(payment, event)
        fc.pre(Result.isFailure(stepwise))
        expect(Effect.runSync(Effect.result(rebuild([...history, event])))).toEqual(stepwise)
      })
    )
  })
})

describe("a first event that cannot be read", () => {
  const died = (payload: unknown) => {
    const exit = Effect.runSyncExit(
      evolve(undefined, { eventType: PaymentInitiated.type, version: 1, occurredAt: begin, payload })
    )
    return Exit.isFailure(exit) && Cause.hasDies(exit.cause)
  }

  test("is a defect", () => {
    const payload = { attemptId: "A", orderId: "ORDER-1", userId: "USER-1", amount: 10, currency: "USD" }
    expect(died(payload)).toBe(false)
    for (const broken of [
      { amount: 10.005 },
      { amount: -1 },
      { amount: "10" },
      { attemptId: "" },
      { currency: "XTS" }
    ]) {
      expect(died({ ...payload, ...broken })).toBe(true)
    }
    for (const payload of [null, {}, "paid"]) expect(died(payload)).toBe(true)
  })
})
