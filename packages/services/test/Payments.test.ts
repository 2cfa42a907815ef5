// Money at several gateways that fail in every way: never at two of them, never lost, and our books say what theirs say.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test"
import {
  Clock,
  ConfigProvider,
  Context,
  DateTime,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Metric,
  Result,
  Schedule,
  Scope
} from "effect"
import { SqlClient } from "effect/sql"
import * as fc from "fast-check"
import { AttemptId, OrderId, RefundId, UserId } from "@merkato/domain/kernel/Ids"
import { Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"
import {
  NotRefundable,
  PaymentDeclined,
  PaymentToken,
  PaymentUnavailable,
  PaymentUnknown,
  PaymentVoided,
  RefundDenied,
  RefundExceedsPayment,
  RefundIdReused
} from "@merkato/domain/payments/Payment"
import {
  evolve,
  PaymentAuthorised,
  PaymentInitiated,
  rebuild,
  rebuildRefunds
} from "@merkato/domain/payments/PaymentEvents"
import { Authorizer } from "@merkato/infra/authorizer/Authorizer"
import { EventStore, RelaySignal } from "@merkato/infra/events/EventStore"
import { Policies } from "@merkato/infra/policy/Policies"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { showing } from "../../../tests/support/Clocks.ts"
import { Payments as PaymentsContext } from "../src/payments/index.ts"
import * as Attempts from "../src/payments/Attempts.ts"
import { PaymentGateways } from "../src/payments/PaymentGateways.ts"
import { Payments } from "../src/payments/Payments.ts"
import { reconciliation } from "../src/payments/Reconciler.ts"
import * as PaymentsStore from "../src/payments/PaymentsStore.ts"
import { Refunds } from "../src/payments/Refunds.ts"
import * as Scripted from "./ScriptedGateways.ts"

const soap = Scripted.make("soap", "payment.soap")
const rest = Scripted.make("rest", "payment.rest")
const gateways = [soap, rest] as const

/** Five attempts and three, as in the shop; without pauses between them, and circuits that stay closed unless told. */
const patient = { firstMs: 1, maxMs: 1 }
const never = { failuresInARow: 1_000, failingRate: { share: 1, ofLast: 10_000, atLeast: 10_000 } }
const calm = {
  "payment.soap": { backoff: patient, breaker: never, attemptTimeoutMs: 60_000, deadlineMs: 60_000, retryBudget: null },
  "payment.rest": { backoff: patient, breaker: never, attemptTimeoutMs: 60_000, deadlineMs: 60_000, retryBudget: null }
}

const scope = Scope.makeUnsafe()
type Services = Payments | Refunds | EventStore | SqlClient.SqlClient | Policies
let context: Context.Context<Services> | undefined

beforeAll(
  () =>
    Effect.gen(function* () {
      const { url } = yield* TestDatabase.fresh
      const database = Database.layer({ url, maxConnections: 16, applicationName: "test" })
      yield* Effect.provide(PaymentsContext.migrate, database)
      context = yield* Layer.build(
        Layer.mergeAll(Payments.layer, Refunds.layer).pipe(
          Layer.provideMerge(EventStore.layer("payments")),
          Layer.provide(Layer.succeed(RelaySignal, { wake: Effect.void })),
          Layer.provide(Authorizer.layerRules),
          Layer.provide(Layer.succeed(PaymentGateways, { inOrder: gateways })),
          Layer.provideMerge(Policies.layerWith(calm)),
          Layer.provideMerge(database)
        )
      )
    }).pipe(Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Scope.provide(scope), Effect.runPromise),
  60_000
)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
beforeEach(() => {
  for (const gateway of gateways) gateway.reset()
  return run(
    Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql`truncate payments.payments, payments.refunds, payments.ledger, payments.events, payments.outbox`
    )
  )
})

const run = <A>(effect: Effect.Effect<A, unknown, Services>): Promise<A> => {
  if (context === undefined) throw new Error("payments have not started")
  return effect.pipe(
    Effect.provideContext(context),
    Effect.provideService(RequestContext, {
      principal: new Principal({ userId: UserId.make("USER-1"), role: "shopper", region: "us" }),
      correlationId: "test",
      traceParent: ""
    }),
    Effect.provide(Logger.layer([])),
    Effect.withTracerEnabled(false),
    Effect.runPromise
  )
}

let made = 0
const newAttempt = (amountMinor = 1_000) => {
  const nth = `${process.pid}-${++made}`
  return {
    attemptId: AttemptId.make(`PAY-${nth}`),
    orderId: OrderId.make(`ORDER-${nth}`),
    userId: UserId.make("USER-1"),
    amountMinor,
    currency: "USD" as const
  }
}
type Attempt = ReturnType<typeof newAttempt>
const token = PaymentToken.make("tok_very_secret")
const authorise = (attempt: Attempt) =>
  Payments.use((payments) => payments.authorise({ ...attempt, paymentToken: token, rail: "auto" }))
const resolve = (attempt: Attempt) => Payments.use((payments) => payments.resolve(attempt))
const capture = ({ attemptId }: Attempt) => Payments.use((payments) => payments.capture(attemptId))
const voidAttempt = ({ attemptId }: Attempt) => Payments.use((payments) => payments.void({ attemptId, reason: "over" }))
const refund = ({ attemptId }: Attempt, refundId: string, amountMinor: number) =>
  Refunds.use((refunds) =>
    refunds.refund({ attemptId, refundId: RefundId.make(refundId), amountMinor, reason: "stale" })
  )

const row = ({ attemptId }: Attempt) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<{ status: string; gateway: string; reason: string | null }>`
        select status, gateway, reason from payments.payments where attempt_id = ${attemptId}`,
      (rows) => rows[0]
    )
  )

const typesOf = ({ attemptId }: Attempt) =>
  Effect.flatMap(EventStore, (events) =>
    Effect.map(events.history(attemptId), (history) =>
      history.map(({ eventType }) => eventType.replace(/^ecommerce\.payment\.(?:payment\.)?(.*)\.v1$/, "$1"))
    )
  )

/** How the attempt stands at each gateway. */
const held = ({ attemptId }: Attempt) => gateways.map(({ book }) => book.get(attemptId)?.status ?? "-").join(" ")

/** An outcome in a word: the payment's status, or the error's tag. */
const inAWord = <E extends { readonly _tag: string }>(result: Result.Result<{ readonly status: string }, E>) =>
  Result.isSuccess(result) ? result.success.status : result.failure._tag
const come = <E extends { readonly _tag: string }, R>(effect: Effect.Effect<{ readonly status: string }, E, R>) =>
  Effect.map(Effect.result(effect), inAWord)

/** A moment so much later, for the effect's own clock. */
const later = (ms: number) => {
  return <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.flatMap(Clock.Clock, (live) =>
      Effect.provideService(
        effect,
        Clock.Clock,
        showing(live, () => live.currentTimeMillisUnsafe() + ms)
      )
    )
}
const longAfter = later(3_600_000)

const five = (turn: Scripted.Turn) => Array.from({ length: 5 }, () => turn)

interface Row {
  readonly soap?: ReadonlyArray<Scripted.Turn>
  readonly soapUsually?: Scripted.Turn
  readonly rest?: ReadonlyArray<Scripted.Turn>
  readonly restUsually?: Scripted.Turn
  readonly comes: string
  readonly at: "soap" | "rest"
  readonly held: string
  readonly events: ReadonlyArray<string>
}

/** The rule, row by row: what the gateways do, and what comes of the payment. */
const rule: Readonly<Record<string, Row>> = {
  "the first gateway answers": {
    comes: "AUTHORISED",
    at: "soap",
    held: "authorised -",
    events: ["initiated", "authorised"]
  },
  "the first gateway refuses four times, then answers": {
    soap: ["down", "down", "down", "down"],
    comes: "AUTHORISED",
    at: "soap",
    held: "authorised -",
    events: ["initiated", "authorised"]
  },
  "the first gateway refuses every attempt": {
    soapUsually: "down",
    comes: "AUTHORISED",
    at: "rest",
    held: "- authorised",
    events: ["initiated", "rerouted", "authorised"]
  },
  "one attempt is in doubt and four are refused": {
    soap: ["unknown"],
    soapUsually: "down",
    comes: "PaymentUnknown",
    at: "soap",
    held: "- -",
    events: ["initiated"]
  },
  "four are refused and the last is in doubt": {
    soap: ["down", "down", "down", "down", "unknown"],
    soapUsually: "down",
    comes: "PaymentUnknown",
    at: "soap",
    held: "- -",
    events: ["initiated"]
  },
  "it has charged and its answer is lost, and it knows when asked": {
    soap: ["lost"],
    comes: "AUTHORISED",
    at: "soap",
    held: "authorised -",
    events: ["initiated", "authorised"]
  },
  "it has charged, its answer is lost, and it can be asked no more": {
    soap: ["lost"],
    soapUsually: "down",
    comes: "PaymentUnknown",
    at: "soap",
    held: "authorised -",
    events: ["initiated"]
  },
  "nothing is answered, and when asked it does not know the attempt": {
    soap: ["unknown"],
    comes: "AUTHORISED",
    at: "rest",
    held: "voided authorised",
    events: ["initiated", "rerouted", "authorised"]
  },
  "it does not know the attempt, and calling it off is not answered": {
    soap: ["unknown", "ok"],
    soapUsually: "unknown",
    comes: "PaymentUnknown",
    at: "soap",
    held: "- -",
    events: ["initiated"]
  },
  "both refuse": {
    soapUsually: "down",
    restUsually: "down",
    comes: "PaymentUnavailable",
    at: "rest",
    held: "- -",
    events: ["initiated", "rerouted", "voided"]
  },
  "the first refuses and the second is in doubt": {
    soapUsually: "down",
    restUsually: "unknown",
    comes: "PaymentUnknown",
    at: "rest",
    held: "- -",
    events: ["initiated", "rerouted"]
  },
  "both are silent, and know nothing when asked": {
    soap: ["unknown"],
    rest: ["unknown"],
    comes: "PaymentUnavailable",
    at: "rest",
    held: "voided voided",
    events: ["initiated", "rerouted", "voided"]
  }
}

describe("when", () => {
  for (const [what, { soap: first = [], rest: second = [], ...row }] of Object.entries(rule)) {
    test(`${what}, the payment is ${row.comes}`, () =>
      run(
        Effect.gen(function* () {
          const attempt = newAttempt()
          soap.script = [...first]
          rest.script = [...second]
          soap.usually = row.soapUsually ?? "ok"
          rest.usually = row.restUsually ?? "ok"
          expect(yield* come(authorise(attempt))).toBe(row.comes)
          expect(held(attempt)).toBe(row.held)
          expect(yield* typesOf(attempt)).toEqual([...row.events])
          expect((yield* rowOf(attempt)).gateway).toBe(row.at)
          // No gateway is asked to charge again once one request may have reached it.
          for (const gateway of gateways) {
            const charges = gateway.asked.filter((request) => request === "authorise").length
            expect(charges).toBeLessThanOrEqual(5)
            if (gateway === soap && first[0] !== undefined && first[0] !== "down") expect(charges).toBe(1)
          }
        })
      ))
  }
})

const rowOf = (attempt: Attempt) =>
  Effect.flatMap(row(attempt), (found) =>
    found === undefined ? Effect.die(new Error("no row")) : Effect.succeed(found)
  )

describe("a payment", () => {
  test("that the bank declines is not tried elsewhere", () =>
    run(
      Effect.gen(function* () {
        const attempt = newAttempt()
        soap.declines = true
        expect(yield* Effect.flip(authorise(attempt))).toEqual(new PaymentDeclined({ reason: "no funds" }))
        expect(rest.asked).toEqual([])
        expect(yield* Effect.flip(authorise(attempt))).toEqual(new PaymentDeclined({ reason: "no funds" }))
        expect(soap.asked).toEqual(["authorise"])
      })
    ))

  test("whose attempt runs out of time is in doubt, not refused", () =>
    run(
      Effect.gen(function* () {
        const policies = yield* Policies
        const slow = { attemptTimeoutMs: 20, backoff: patient, breaker: never, retryBudget: null }
        yield* policies.change({ ...calm, "payment.soap": { ...slow, deadlineMs: 60_000 } })
        const attempt = newAttempt()
        soap.script = ["silent", ...five("down")]
        expect(yield* come(authorise(attempt))).toBe("PaymentUnknown")
        expect(held(attempt)).toBe("authorised -")
        // One that is cut off by the deadline of the whole call is in doubt as well.
        yield* policies.change({
          ...calm,
          "payment.soap": { ...slow, attemptTimeoutMs: 100, deadlineMs: 100, attempts: 1, backoff: null }
        })
        const another = newAttempt()
        soap.script = ["silent"]
        soap.usually = "down"
        expect(yield* come(authorise(another))).toBe("PaymentUnknown")
        expect(rest.asked).toEqual([])
      }).pipe(Effect.ensuring(Effect.ignore(Policies.use((policies) => policies.change(calm)))))
    ))

  test("is paid elsewhere at once while a circuit is open, and is told how long it stays open when all are", () =>
    run(
      Effect.gen(function* () {
        const policies = yield* Policies
        const quick = { ...never, failuresInARow: 5, openMs: 600_000 }
        yield* closed
        yield* policies.change({
          "payment.soap": { ...calm["payment.soap"], breaker: quick },
          "payment.rest": { ...calm["payment.rest"], breaker: quick }
        })
        soap.usually = "down"
        expect(yield* come(authorise(newAttempt()))).toBe("AUTHORISED")
        expect(soap.asked).toEqual(five("down").map(() => "authorise"))
        soap.usually = "ok"
        const attempt = newAttempt()
        expect(yield* come(authorise(attempt))).toBe("AUTHORISED")
        expect(held(attempt)).toBe("- authorised")
        expect(soap.asked.length).toBe(5)
        rest.usually = "down"
        expect(yield* come(authorise(newAttempt()))).toBe("PaymentUnavailable")
        expect(yield* come(authorise(newAttempt()))).toBe("PaymentUnavailable")
        const error = yield* Effect.flip(authorise(newAttempt()))
        expect(error).toBeInstanceOf(PaymentUnavailable)
        const { retryAfterSeconds } = error instanceof PaymentUnavailable ? error : { retryAfterSeconds: 0 }
        expect(retryAfterSeconds).toBeGreaterThan(500)
        expect(retryAfterSeconds).toBeLessThanOrEqual(600)
      }).pipe(Effect.ensuring(Effect.ignore(reopened)))
    ))

  test("that could be made nowhere has ended: it cannot be authorised any more", () =>
    run(
      Effect.gen(function* () {
        const attempt = newAttempt()
        soap.usually = "down"
        rest.usually = "down"
        expect(yield* Effect.flip(authorise(attempt))).toEqual(new PaymentUnavailable({ retryAfterSeconds: 30 }))
        expect(yield* row(attempt)).toEqual({ status: "VOIDED", gateway: "rest", reason: "unavailable" })
        soap.usually = "ok"
        rest.usually = "ok"
        expect(yield* Effect.flip(authorise(attempt))).toEqual(new PaymentVoided({ attemptId: attempt.attemptId }))
        expect(held(attempt)).toBe("- -")
      })
    ))

  test("goes on to a third provider, which is one more in the list, and is taken, given back and called off there", () =>
    run(
      Effect.gen(function* () {
        // A real one would have a policy of its own.
        const bank = Scripted.make("bank", "payment.rest")
        const three = yield* Layer.build(
          Layer.fresh(Layer.merge(Payments.layer, Refunds.layer)).pipe(
            Layer.provide(EventStore.layer("payments")),
            Layer.provide(Layer.succeed(RelaySignal, { wake: Effect.void })),
            Layer.provide(Authorizer.layerRules),
            Layer.provide(Layer.succeed(PaymentGateways, { inOrder: [...gateways, bank] }))
          )
        )
        const there = Effect.provideContext(three)
        for (const gateway of gateways) gateway.usually = "down"
        const [taken, called] = [newAttempt(), newAttempt()]
        for (const attempt of [taken, called]) {
          expect(yield* come(there(authorise(attempt)))).toBe("AUTHORISED")
          expect((yield* rowOf(attempt)).gateway).toBe("bank")
          expect(yield* typesOf(attempt)).toEqual(["initiated", "rerouted", "rerouted", "authorised"])
        }
        expect(yield* come(there(capture(taken)))).toBe("CAPTURED")
        expect(yield* come(there(refund(taken, `R-${taken.attemptId}`, 300)))).toBe("REFUNDED")
        expect(yield* come(there(voidAttempt(called)))).toBe("VOIDED")
        expect(bank.book.get(taken.attemptId)).toMatchObject({ status: "captured", amountMinor: 1_000 })
        expect([...(bank.book.get(taken.attemptId)?.refunds.values() ?? [])]).toEqual([300])
        expect(bank.book.get(called.attemptId)?.status).toBe("voided")
        expect([taken, called].map(held)).toEqual(["- -", "- -"])
      }).pipe(Effect.scoped)
    ))

  test("goes to the next gateway only after that is written down, and whoever takes over asks there", () =>
    run(
      Effect.gen(function* () {
        const attempt = newAttempt()
        soap.usually = "down"
        const gate = yield* Scripted.gate
        rest.before = () => gate.pass
        // It dies on the way: the request never leaves.
        const dying = yield* Effect.forkChild(authorise(attempt))
        yield* gate.arrived
        expect(yield* row(attempt)).toEqual({ status: "INITIATED", gateway: "rest", reason: null })
        yield* Fiber.interrupt(dying)
        rest.before = () => Effect.void
        soap.usually = "ok"
        soap.asked.length = 0
        rest.asked.length = 0
        expect(yield* come(authorise(attempt))).toBe("AUTHORISED")
        expect(rest.asked).toEqual(["find", "authorise"])
        expect(soap.asked).toEqual([])
        expect(held(attempt)).toBe("- authorised")
      })
    ))

  test("of a process that died asks first what became of it, and is in doubt as long as that is not answered", () =>
    run(
      Effect.gen(function* () {
        for (const died of ["before it asked", "after it was charged"]) {
          for (const gateway of gateways) gateway.reset()
          const attempt = newAttempt()
          const gate = yield* Scripted.gate
          if (died === "before it asked") soap.before = () => gate.pass
          else soap.script = ["silent"]
          const dying = yield* Effect.forkChild(authorise(attempt))
          yield* died === "before it asked"
            ? gate.arrived
            : Effect.repeat(
                Effect.sync(() => held(attempt)),
                { until: (how) => how === "authorised -", schedule: Schedule.spaced("2 millis"), times: 2_000 }
              )
          yield* Fiber.interrupt(dying)
          soap.before = () => Effect.void
          soap.usually = "down"
          // Refused now; what the dead one did is not known, and so it goes nowhere else.
          expect(yield* Effect.flip(authorise(attempt))).toEqual(new PaymentUnknown({ attemptId: attempt.attemptId }))
          expect(rest.asked).toEqual([])
          soap.usually = "ok"
          soap.asked.length = 0
          expect(yield* come(authorise(attempt))).toBe("AUTHORISED")
          expect(soap.asked).toEqual(died === "before it asked" ? ["find", "authorise"] : ["find"])
          expect(held(attempt)).toBe("authorised -")
        }
      })
    ))

  test("repeated by somebody who is refused, while the first one's request is still on its way, is called off before it goes on", () =>
    run(
      Effect.gen(function* () {
        const attempt = newAttempt()
        const gate = yield* Scripted.gate
        let first = true
        soap.before = (request) => {
          if (request !== "authorise" || !first) return Effect.void
          first = false
          return gate.pass
        }
        const slow = yield* Effect.forkChild(Effect.result(authorise(attempt)))
        yield* gate.arrived
        // The second one: asked, not known there, refused five times; called off, and made at the other one.
        soap.script = ["ok", ...five("down"), "ok"]
        expect(yield* come(authorise(attempt))).toBe("AUTHORISED")
        expect(held(attempt)).toBe("voided authorised")
        // Now the first one arrives.
        yield* gate.open
        expect(inAWord(yield* Fiber.join(slow))).toBe("AUTHORISED")
        expect(held(attempt)).toBe("voided authorised")
      })
    ))

  test("does not leave a gateway on the word of one, when another one has asked there meanwhile", () =>
    run(
      Effect.gen(function* () {
        const attempt = newAttempt()
        const gate = yield* Scripted.gate
        let asked = 0
        soap.before = (request) => (request === "authorise" && ++asked === 5 ? gate.pass : Effect.void)
        soap.script = five("down").slice(1)
        // The first one has been refused four times, and its fifth request is on its way.
        const refused = yield* Effect.forkChild(Effect.result(authorise(attempt)))
        yield* gate.arrived
        expect(yield* come(authorise(attempt))).toBe("AUTHORISED")
        soap.script = ["down"]
        yield* gate.open
        expect(inAWord(yield* Fiber.join(refused))).toBe("AUTHORISED")
        expect(held(attempt)).toBe("authorised -")
      })
    ))

  test("that is held by one and certainly refused to another at the same moment is held once", () =>
    run(
      Effect.gen(function* () {
        const attempt = newAttempt()
        const refusedNow = yield* Scripted.gate
        const heldNow = yield* Scripted.gate
        let asked = 0
        soap.before = (request) => {
          if (request !== "authorise") return Effect.void
          asked += 1
          return asked === 5 ? refusedNow.pass : asked === 6 ? heldNow.pass : Effect.void
        }
        soap.script = five("down").slice(1)
        const refused = yield* Effect.forkChild(Effect.result(authorise(attempt)))
        yield* refusedNow.arrived
        const second = yield* Effect.forkChild(Effect.result(authorise(attempt)))
        yield* heldNow.arrived
        soap.script = ["down"]
        yield* refusedNow.open
        // The first one knows of the second: it does not just go on, but calls the attempt off here.
        expect(inAWord(yield* Fiber.join(refused))).toBe("AUTHORISED")
        yield* heldNow.open
        expect(inAWord(yield* Fiber.join(second))).toBe("AUTHORISED")
        expect(
          held(attempt)
            .split(" ")
            .filter((how) => how === "authorised").length
        ).toBe(1)
        expect((yield* rowOf(attempt)).gateway).toBe(
          soap.book.get(attempt.attemptId)?.status === "authorised" ? "soap" : "rest"
        )
      })
    ))

  test("called off where it was, just as it goes on to the next gateway, is called off there too", () =>
    run(
      Effect.gen(function* () {
        const attempt = newAttempt()
        soap.usually = "down"
        const charging = yield* Scripted.gate
        const voiding = yield* Scripted.gate
        rest.before = (request) => (request === "authorise" ? charging.pass : Effect.void)
        soap.before = (request) => (request === "void" ? voiding.pass : Effect.void)
        const gone = yield* Effect.forkChild(authorise(attempt).pipe(Effect.result))
        yield* charging.arrived
        soap.usually = "ok"
        expect(yield* come(voidAttempt(attempt))).toBe("VOIDED")
        yield* charging.open
        expect(inAWord(yield* Fiber.join(gone))).toBe("PaymentVoided")
        expect(held(attempt)).toBe("- voided")
      })
    ))

  test("called off while its authorisation is on its way is never believed to be held", () =>
    run(
      Effect.gen(function* () {
        const attempt = newAttempt()
        const charging = yield* Scripted.gate
        const voiding = yield* Scripted.gate
        soap.before = (request) =>
          request === "authorise" ? charging.pass : request === "void" ? voiding.pass : Effect.void
        const slow = yield* Effect.forkChild(Effect.result(authorise(attempt)))
        yield* charging.arrived
        // Not known there yet, so it is to be called off; before that arrives, the money is held.
        const resolving = yield* Effect.forkChild(Effect.result(resolve(attempt)))
        yield* voiding.arrived
        yield* charging.open
        expect(inAWord(yield* Fiber.join(slow))).toBe("PaymentUnknown")
        expect((yield* rowOf(attempt)).status).toBe("INITIATED")
        yield* voiding.open
        expect(inAWord(yield* Fiber.join(resolving))).toBe("PaymentVoided")
        expect(held(attempt)).toBe("voided -")
        expect(yield* come(authorise(attempt))).toBe("PaymentVoided")
      })
    ))

  test("whose calling off was begun and never ended is not asked about for ever: who asks again ends it, and goes on", () =>
    run(
      Effect.gen(function* () {
        const attempt = newAttempt()
        soap.script = ["lost"]
        soap.usually = "down"
        expect(yield* come(authorise(attempt))).toBe("PaymentUnknown")
        soap.usually = "ok"
        expect(held(attempt)).toBe("authorised -")
        // Somebody sets out to call it off, and dies before the gateway hears of it.
        const store = yield* PaymentsStore.make
        const payment = yield* store.find(attempt.attemptId)
        if (payment === undefined) throw new Error("The attempt was not written down")
        expect(yield* store.fence(payment)).toBe(true)
        expect(yield* come(authorise(attempt))).toBe("AUTHORISED")
        expect(held(attempt)).toBe("voided authorised")
        expect((yield* rowOf(attempt)).gateway).toBe("rest")
      }).pipe(Effect.scoped)
    ))

  test("at a gateway that answers questions and takes no new money goes on, although each refusal opens its circuit", () =>
    run(
      Effect.gen(function* () {
        const policies = yield* Policies
        yield* closed
        const openMs = 50
        yield* policies.change({
          "payment.soap": { ...calm["payment.soap"], breaker: { ...never, failuresInARow: 5, openMs } }
        })
        const attempt = newAttempt()
        // The first one dies, so that nobody knows what it did.
        const gate = yield* Scripted.gate
        soap.before = () => gate.pass
        const dying = yield* Effect.forkChild(authorise(attempt))
        yield* gate.arrived
        yield* Fiber.interrupt(dying)
        soap.before = (request) =>
          Effect.sync(() => {
            soap.script = [request === "authorise" ? "down" : "ok"]
          })
        expect(yield* come(authorise(attempt))).toBe("PaymentUnknown")
        expect(soap.asked).toEqual(["authorise", "find", ...five("down").map(() => "authorise")])
        yield* Effect.sleep(2 * openMs)
        expect(yield* come(authorise(attempt))).toBe("AUTHORISED")
        expect(soap.asked.slice(7)).toEqual(["find", "void"])
        expect(held(attempt)).toBe("voided authorised")
      }).pipe(Effect.ensuring(Effect.ignore(reopened)))
    ))

  test("is resolved by asking; what its gateway never heard of is called off there", () =>
    run(
      Effect.gen(function* () {
        const lost = newAttempt()
        soap.script = ["lost"]
        soap.usually = "down"
        expect(yield* come(authorise(lost))).toBe("PaymentUnknown")
        expect(yield* come(resolve(lost))).toBe("PaymentUnknown")
        soap.usually = "ok"
        expect(yield* come(resolve(lost))).toBe("AUTHORISED")
        const late = newAttempt()
        soap.script = ["late", ...five("down")]
        expect(yield* come(authorise(late))).toBe("PaymentUnknown")
        soap.script = []
        expect(yield* come(resolve(late))).toBe("PaymentVoided")
        soap.arrive()
        expect(held(late)).toBe("voided -")
        const never = newAttempt()
        expect(yield* come(resolve(never))).toBe("PaymentVoided")
        expect(yield* come(authorise(never))).toBe("PaymentVoided")
        expect(held(never)).toBe("- -")
      })
    ))

  test("that somebody calls off at the moment somebody else begins it is held and open for good, or neither", () =>
    run(
      Effect.gen(function* () {
        const ends = yield* Effect.forEach(
          Array.from({ length: 200 }, () => newAttempt()),
          Effect.fnUntraced(function* (attempt) {
            yield* Effect.all([come(resolve(attempt)), come(authorise(attempt))], { concurrency: 2 })
            return `${(yield* rowOf(attempt)).status} ${soap.book.get(attempt.attemptId)?.status ?? "-"}`
          }),
          { concurrency: 4 }
        )
        const possible = ["AUTHORISED authorised", "VOIDED voided", "VOIDED -"]
        expect(ends.filter((end) => !possible.includes(end))).toEqual([])
      })
    ))

  test("is captured and voided at the gateway that has it, under its policy", () =>
    run(
      Effect.gen(function* () {
        const [taken, given] = [newAttempt(), newAttempt()]
        soap.usually = "down"
        yield* authorise(taken)
        yield* authorise(given)
        rest.script = ["down", "unknown"]
        expect(yield* come(capture(taken))).toBe("CAPTURED")
        rest.script = ["lost", "down", "down"]
        expect(yield* come(voidAttempt(given))).toBe("PaymentUnknown")
        expect(yield* come(voidAttempt(given))).toBe("VOIDED")
        expect(held(taken)).toBe("- captured")
        expect(held(given)).toBe("- voided")
        expect(yield* come(capture(given))).toBe("PaymentVoided")
        // What was taken is not given back by voiding.
        expect(yield* come(voidAttempt(taken))).toBe("CAPTURED")
        expect(soap.asked.every((request) => request === "authorise")).toBe(true)
      })
    ))

  test("that is held is remembered by the process that had it held, for the one who asks first", () =>
    run(
      Effect.gen(function* () {
        const attempts = yield* Attempts.make
        const attempt = newAttempt()
        const { attemptId } = attempt
        const begun = yield* attempts.initiate(attempt, "soap")
        if (begun === undefined) throw new Error("It is there already")
        expect(yield* attempts.initiate(attempt, "soap")).toBeUndefined()
        expect(yield* attempts.recall(attemptId)).toBeUndefined()
        const authorised = yield* attempts.record(begun, { status: "authorised", reason: null })
        expect(yield* attempts.recall(attemptId)).toEqual(authorised)
        expect(yield* attempts.recall(attemptId)).toBeUndefined()
        const captured = yield* attempts.record(authorised, { status: "captured", reason: null })
        expect([authorised.status, captured.status]).toEqual(["AUTHORISED", "CAPTURED"])
        expect(yield* attempts.recall(attemptId)).toBeUndefined()
      }).pipe(Effect.scoped)
    ))

  test("at a gateway that is no more is in doubt", () =>
    run(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const attempt = newAttempt()
        soap.script = five("unknown")
        yield* come(authorise(attempt))
        yield* sql`update payments.payments set gateway = 'gone' where attempt_id = ${attempt.attemptId}`
        expect(yield* come(authorise(attempt))).toBe("PaymentUnknown")
        expect(rest.asked).toEqual([])
        yield* sql`update payments.payments set gateway = 'soap' where attempt_id = ${attempt.attemptId}`
      })
    ))
})

/** Circuits that a test has opened are closed again: after their time, one request finds all well. */
const reopened = Effect.gen(function* () {
  for (const gateway of gateways) gateway.reset()
  const policies = yield* Policies
  yield* policies.change({})
  yield* policies.change(calm)
  yield* longAfter(closed)
})

/** Both circuits are closed, and have forgotten what failed before. */
const closed = Effect.flatMap(Effect.service(Policies), ({ guard }) =>
  Effect.forEach(gateways, ({ operation }) => guard(operation, { transient: () => true })(Effect.void))
)

describe("a refund", () => {
  const taken = Effect.fnUntraced(function* (amountMinor = 1_000) {
    const attempt = newAttempt(amountMinor)
    yield* authorise(attempt)
    yield* capture(attempt)
    return attempt
  })
  const backAt = ({ attemptId }: Attempt) =>
    [...(soap.book.get(attemptId)?.refunds.values() ?? [])].reduce((sum, minor) => sum + minor, 0)

  test("gives back all or a part, once for each id", () =>
    run(
      Effect.gen(function* () {
        const attempt = yield* taken()
        const id = attempt.attemptId
        expect(yield* come(refund(attempt, `R1-${id}`, 300))).toBe("REFUNDED")
        expect(yield* come(refund(attempt, `R1-${id}`, 300))).toBe("REFUNDED")
        expect(backAt(attempt)).toBe(300)
        expect(yield* Effect.flip(refund(attempt, `R1-${id}`, 301))).toEqual(
          new RefundIdReused({ refundId: RefundId.make(`R1-${id}`) })
        )
        const other = yield* taken()
        expect(yield* Effect.flip(refund(other, `R1-${id}`, 300))).toBeInstanceOf(RefundIdReused)
        expect(yield* Effect.flip(refund(attempt, `R2-${id}`, 701))).toEqual(
          new RefundExceedsPayment({ attemptId: id, refundableMinor: 700 })
        )
        expect(yield* come(refund(attempt, `R2-${id}`, 700))).toBe("REFUNDED")
        expect(backAt(attempt)).toBe(1_000)
        expect(yield* typesOf(attempt)).toEqual([
          "initiated",
          "authorised",
          "captured",
          "refund.requested",
          "refund.completed",
          "refund.requested",
          "refund.completed"
        ])
      })
    ))

  test("is of money that was taken", () =>
    run(
      Effect.gen(function* () {
        const attempt = newAttempt()
        yield* authorise(attempt)
        expect(yield* Effect.flip(refund(attempt, `R-${attempt.attemptId}`, 1))).toEqual(
          new NotRefundable({ attemptId: attempt.attemptId, paymentStatus: "AUTHORISED" })
        )
        const nobody = newAttempt()
        expect(yield* Effect.flip(refund(nobody, `R-${nobody.attemptId}`, 1))).toEqual(
          new NotRefundable({ attemptId: nobody.attemptId, paymentStatus: null })
        )
      })
    ))

  test("that is refused for good takes nothing from what can be given back", () =>
    run(
      Effect.gen(function* () {
        const attempt = yield* taken()
        const id = `R-${attempt.attemptId}`
        soap.refusesRefunds = true
        const denied = new RefundDenied({ refundId: RefundId.make(id), reason: "too late" })
        expect(yield* Effect.flip(refund(attempt, id, 1_000))).toEqual(denied)
        soap.refusesRefunds = false
        expect(yield* Effect.flip(refund(attempt, id, 1_000))).toEqual(denied)
        expect(yield* come(refund(attempt, `${id}-2`, 1_000))).toBe("REFUNDED")
      })
    ))

  test("that the gateway does not answer is promised, and carried out later, once", () =>
    run(
      Effect.gen(function* () {
        const attempt = yield* taken()
        soap.script = ["lost", "down", "down", "down", "down"]
        const id = `R-${attempt.attemptId}`
        expect(yield* come(refund(attempt, id, 600))).toBe("REQUESTED")
        expect(yield* come(refund(attempt, `${id}-2`, 401))).toBe("RefundExceedsPayment")
        const refunds = yield* Refunds
        expect(yield* refunds.reconcile).toBe(0)
        expect(yield* longAfter(refunds.reconcile)).toBe(1)
        expect(yield* come(refund(attempt, id, 600))).toBe("REFUNDED")
        expect(backAt(attempt)).toBe(600)
        expect(yield* longAfter(refunds.reconcile)).toBe(0)
      })
    ))

  test("and another one at the same moment never give back more than was taken, whoever is first", () =>
    run(
      Effect.gen(function* () {
        const attempt = yield* taken(1_000)
        const came = yield* Effect.forEach(
          Array.from({ length: 24 }, (_, nth) => nth),
          (nth) => come(refund(attempt, `R${nth % 12}-${attempt.attemptId}`, 150)),
          { concurrency: "unbounded" }
        )
        expect(new Set(came)).toEqual(new Set(["REFUNDED", "RefundExceedsPayment"]))
        expect(backAt(attempt)).toBe(900)
        const sql = yield* SqlClient.SqlClient
        expect(
          yield* sql`select refunding_minor, refunded_minor from payments.payments where attempt_id = ${attempt.attemptId}`
        ).toEqual([{ refunding_minor: 0, refunded_minor: 900 }])
      })
    ))

  test("of all that is left, asked for several times at the same moment, is told to everybody as the one that it is", () =>
    run(
      Effect.forEach(
        Array.from({ length: 10 }, (_, nth) => nth),
        (nth) =>
          Effect.gen(function* () {
            const attempt = yield* taken(1_000)
            const came = yield* Effect.forEach(
              Array.from({ length: 6 }, () => `ALL-${nth}-${attempt.attemptId}`),
              (id) => come(refund(attempt, id, 1_000)),
              { concurrency: "unbounded" }
            )
            expect(new Set(came)).toEqual(new Set(["REFUNDED"]))
            expect(backAt(attempt)).toBe(1_000)
          }),
        { discard: true }
      )
    ))
})

describe("the reconciler", () => {
  const reconcile = Effect.flatMap(Effect.service(Payments), ({ reconcile }) => reconcile)

  test("asks about what has been open for long, until it knows, with pauses that grow", () =>
    run(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const attempt = newAttempt()
        soap.script = ["lost"]
        soap.usually = "down"
        expect(yield* come(authorise(attempt))).toBe("PaymentUnknown")
        const due = Effect.map(
          sql<{ at: Date }>`select ask_again_at as at from payments.payments where attempt_id = ${attempt.attemptId}`,
          ([found]) => found?.at.getTime() ?? 0
        )
        const began = yield* Clock.currentTimeMillis
        expect(yield* later(20_000)(reconcile)).toBe(0)
        let from = yield* due
        const pauses: Array<number> = []
        for (let round = 0; round < 8; round++) {
          const at = from - (yield* Clock.currentTimeMillis) + 1
          expect(yield* later(at)(reconcile)).toBe(1)
          pauses.push(Math.round(((yield* due) - from) / 1_000))
          from = yield* due
        }
        expect(pauses).toEqual([30, 60, 120, 240, 480, 600, 600, 600])
        expect(from).toBeGreaterThan(began)
        expect((yield* rowOf(attempt)).status).toBe("INITIATED")
        soap.usually = "ok"
        expect(yield* longAfter(reconcile)).toBe(1)
        // It is held, and stays so: whose it is decides the order process.
        expect((yield* rowOf(attempt)).status).toBe("AUTHORISED")
        expect(yield* longAfter(reconcile)).toBe(0)
        expect(held(attempt)).toBe("authorised -")
        expect(soap.asked.filter((request) => request === "authorise").length).toBe(1)
        expect(rest.asked).toEqual([])
      })
    ))

  test("calls off what its gateway never heard of, so that it cannot charge late", () =>
    run(
      Effect.gen(function* () {
        const attempt = newAttempt()
        soap.script = ["late", ...five("down")]
        expect(yield* come(authorise(attempt))).toBe("PaymentUnknown")
        expect(yield* longAfter(reconcile)).toBe(1)
        expect((yield* rowOf(attempt)).status).toBe("VOIDED")
        soap.arrive()
        expect(held(attempt)).toBe("voided -")
      })
    ))

  test("goes on by itself, and tells how much is open", () =>
    run(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const events = yield* EventStore
        const policies = yield* Policies
        const [attempt, taken] = [newAttempt(), newAttempt()]
        yield* authorise(taken)
        yield* capture(taken)
        soap.script = ["lost", ...five("down")]
        expect(yield* come(authorise(attempt))).toBe("PaymentUnknown")
        soap.script = five("down")
        expect(yield* come(refund(taken, `R-${taken.attemptId}`, 100))).toBe("REQUESTED")
        yield* sql`update payments.payments set ask_again_at = created_at`
        yield* sql`update payments.refunds set ask_again_at = created_at`
        const context = yield* Layer.build(
          Layer.mergeAll(Payments.layer, Refunds.layer).pipe(
            Layer.provide(Authorizer.layerRules),
            Layer.provide(Layer.succeed(PaymentGateways, { inOrder: gateways })),
            Layer.provideMerge(Layer.succeed(EventStore, events)),
            Layer.provideMerge(Layer.succeed(Policies, policies)),
            Layer.provideMerge(Layer.succeed(SqlClient.SqlClient, sql))
          )
        )
        const gauge = Effect.map(Metric.snapshot, (metrics) => {
          const ofOpen = metrics.filter(({ id }) => id === "payments_open")
          return Object.fromEntries(
            ofOpen.map((metric) => [
              metric.attributes?.["state"],
              "value" in metric.state && Number(metric.state.value)
            ])
          )
        })
        const running = yield* Effect.forkChild(Effect.provideContext(reconciliation, context))
        const standing = { initiated: 0, authorised: 1, refund_requested: 0 }
        yield* Effect.repeat(gauge, {
          until: (open) => Bun.deepEquals(open, standing),
          schedule: Schedule.spaced("10 millis"),
          times: 1_000
        })
        yield* Fiber.interrupt(running)
        expect(yield* gauge).toEqual(standing)
        expect((yield* rowOf(attempt)).status).toBe("AUTHORISED")
        expect(yield* come(refund(taken, `R-${taken.attemptId}`, 100))).toBe("REFUNDED")
        expect(soap.book.get(taken.attemptId)?.refunds.size).toBe(1)
      }).pipe(
        Effect.scoped,
        Effect.provideService(
          ConfigProvider.ConfigProvider,
          ConfigProvider.fromUnknown({ MERKATO_PAYMENT_RECONCILE_AFTER_MS: "40" })
        )
      )
    ))

  test("is one of several, and each attempt is asked about by one of them", () =>
    run(
      Effect.gen(function* () {
        soap.usually = "down"
        soap.script = Array.from({ length: 40 }, () => "unknown" as const)
        for (let nth = 0; nth < 8; nth++) yield* come(authorise(newAttempt()))
        soap.usually = "ok"
        soap.script = []
        soap.asked.length = 0
        const counts = yield* longAfter(Effect.all([reconcile, reconcile, reconcile, reconcile], { concurrency: 4 }))
        expect(counts.reduce((sum, count) => sum + count, 0)).toBe(8)
        expect(soap.asked.toSorted()).toEqual(
          [..."ffffffff"].map(() => "find").concat([..."vvvvvvvv"].map(() => "void"))
        )
      })
    ))
})

describe("payments of one moment", () => {
  test("share their statements, and each has its own outcome, events and bookings", () =>
    run(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const attempts = Array.from({ length: 20 }, (_, nth) => newAttempt(1_000 + nth))
        const together = <A, E, R>(does: (attempt: Attempt) => Effect.Effect<A, E, R>) =>
          Effect.forEach(attempts, does, { concurrency: "unbounded" })
        expect(yield* together((attempt) => come(authorise(attempt)))).toEqual(attempts.map(() => "AUTHORISED"))
        // A row says which transaction wrote it last.
        const [written] = yield* sql<{ transactions: number }>`
          select count(distinct xmin::text)::int as transactions from payments.payments`
        expect(written?.transactions).toBeLessThan(attempts.length)
        expect(yield* together((attempt) => come(capture(attempt)))).toEqual(attempts.map(() => "CAPTURED"))
        for (const attempt of attempts) {
          expect(yield* typesOf(attempt)).toEqual(["initiated", "authorised", "captured"])
          expect(held(attempt)).toBe("captured -")
        }
        const booked = yield* sql<{
          attemptId: string
          orderId: string
          account: string
          amount: number
          line: number
        }>`
          select attempt_id as "attemptId", order_id as "orderId", account, amount_minor as amount, line
          from payments.ledger order by attempt_id, line`
        expect(booked).toEqual(
          attempts
            .toSorted((a, b) => (a.attemptId < b.attemptId ? -1 : 1))
            .flatMap(({ attemptId, orderId, amountMinor }) => [
              { attemptId, orderId, account: "psp_receivable", amount: amountMinor, line: 1 },
              { attemptId, orderId, account: "sales", amount: -amountMinor, line: 2 }
            ])
        )
      })
    ))

  test("fail alone: what is stale, asked for by others, called off or booked wrongly is not written, its neighbours are", () =>
    run(
      Effect.gen(function* () {
        const store = yield* PaymentsStore.make
        const names = ["good", "stale", "joined", "calledOff", "wrong"] as const
        const begun = yield* Effect.forEach(names, (name) =>
          Effect.gen(function* () {
            const { attemptId, ...attempt } = newAttempt()
            const { amountMinor: _, ...rest } = attempt
            const event = PaymentInitiated.of(attemptId, 1, { ...rest, attemptId, amount: 10, gateway: "soap" })
            const occurredAt = DateTime.makeUnsafe(yield* Clock.currentTimeMillis)
            const payment = yield* evolve(undefined, { ...event, occurredAt })
            const next = PaymentAuthorised.of(attemptId, 2, { ...rest, attemptId, amount: 10 })
            return { name, attemptId, payment, event, next, after: yield* evolve(payment, { ...next, occurredAt }) }
          })
        )
        const twice = begun.flatMap((one) => [one, one])
        const inserted = yield* Effect.forEach(twice, ({ payment, event }) => store.insert(payment, event), {
          concurrency: "unbounded"
        })
        // Two of one id are two statements; either may be first.
        for (const [nth] of begun.entries()) {
          expect(inserted.slice(2 * nth, 2 * nth + 2).toSorted()).toEqual([false, true])
        }
        const saved = yield* Effect.gen(function* () {
          for (const { name, payment } of begun) {
            if (name === "joined") yield* store.askToo(payment)
            if (name === "calledOff") yield* store.fence(payment)
          }
          return yield* Effect.forEach(
            begun,
            ({ name, attemptId, payment, next, after }) =>
              store
                .save(name === "stale" ? after : payment, after, [next], {
                  alone: name === "joined" ? 1 : undefined,
                  lasting: true,
                  booking:
                    name === "wrong"
                      ? { bookingId: `wrong-${attemptId}`, entries: [{ account: "sales", amountMinor: 1 }] }
                      : undefined
                })
                .pipe(
                  Effect.map((asked) => asked ?? "not written"),
                  Effect.catchTag("SqlError", () => Effect.succeed("refused"))
                ),
            { concurrency: "unbounded" }
          )
        })
        expect(saved).toEqual([1, "not written", "not written", "not written", "refused"])
        for (const { name, attemptId, payment, after } of begun) {
          const events = yield* typesOf({ ...newAttempt(), attemptId })
          expect([name, events]).toEqual([name, name === "good" ? ["initiated", "authorised"] : ["initiated"]])
          expect(yield* store.find(attemptId)).toEqual(name === "good" ? after : payment)
        }
      }).pipe(Effect.scoped)
    ))
})

describe("a capture", () => {
  test("of what was voided since by another process, or taken and refunded, tells how it stands", () =>
    run(
      Effect.gen(function* () {
        const [called, taken] = [newAttempt(), newAttempt()]
        yield* authorise(called)
        yield* authorise(taken)
        // Another process: it has the same database and the same gateways, and nothing of what this one remembers.
        const elsewhere = yield* Layer.build(
          Layer.fresh(Layer.merge(Payments.layer, Refunds.layer)).pipe(
            Layer.provide(EventStore.layer("payments")),
            Layer.provide(Layer.succeed(RelaySignal, { wake: Effect.void })),
            Layer.provide(Authorizer.layerRules),
            Layer.provide(Layer.succeed(PaymentGateways, { inOrder: gateways }))
          )
        )
        const there = Effect.provideContext(elsewhere)
        expect(yield* come(there(voidAttempt(called)))).toBe("VOIDED")
        expect(yield* come(there(capture(taken)))).toBe("CAPTURED")
        expect(yield* come(there(refund(taken, `R-${taken.attemptId}`, 300)))).toBe("REFUNDED")
        for (const _ of [1, 2]) {
          expect(yield* come(capture(called))).toBe("PaymentVoided")
          expect(yield* come(capture(taken))).toBe("CAPTURED")
        }
        expect(yield* typesOf(taken)).toEqual([
          "initiated",
          "authorised",
          "captured",
          "refund.requested",
          "refund.completed"
        ])
        expect(yield* typesOf(called)).toEqual(["initiated", "authorised", "voided"])
      }).pipe(Effect.scoped)
    ))
})

describe("whatever the gateways do", () => {
  const turn = fc.constantFrom(...Scripted.turns)
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.constant("authorise" as const) },
    { weight: 2, arbitrary: fc.constant("resolve" as const) },
    { weight: 3, arbitrary: fc.constant("capture" as const) },
    { weight: 2, arbitrary: fc.constant("void" as const) },
    { weight: 2, arbitrary: fc.constant("refund" as const) },
    { weight: 2, arbitrary: fc.constant("reconcile" as const) },
    { weight: 2, arbitrary: fc.constant("arrive" as const) },
    { weight: 2, arbitrary: fc.constant("die" as const) }
  )
  const script = fc.array(turn, { maxLength: 14, size: "max" })
  const story = fc.record({
    soap: script,
    rest: script,
    soapUsually: fc.constantFrom("ok" as const, "ok" as const, "down" as const),
    restUsually: fc.constantFrom("ok" as const, "ok" as const, "down" as const),
    declines: fc.nat({ max: 9 }),
    steps: fc.array(fc.array(step, { minLength: 1, maxLength: 3 }), { minLength: 2, maxLength: 7, size: "max" })
  })
  type Story = typeof story extends fc.Arbitrary<infer A> ? A : never
  /** One story for each way that an attempt can end at each gateway: by chance alone some are rare. */
  const sure = (["ok", "down"] as const).flatMap((soapUsually) =>
    ([[], ["void"], ["capture"]] as const).map(
      (then): Story => ({
        soap: [],
        rest: [],
        soapUsually,
        restUsually: "ok",
        declines: 1,
        steps: [["authorise"], [...then]]
      })
    )
  )

  test(
    "money is never at two of them, is taken at most once, and our books say what theirs say",
    () =>
      run(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const events = yield* EventStore
          const payments = yield* Payments
          const refunds = yield* Refunds
          const seen = new Map<string, number>()
          for (const { steps, ...told } of [...sure, ...fc.sample(story, 150)]) {
            for (const gateway of gateways) gateway.reset()
            const attempt = newAttempt()
            soap.script = [...told.soap]
            rest.script = [...told.rest]
            soap.usually = told.soapUsually
            rest.usually = told.restUsually
            soap.declines = told.declines === 0
            let refundsMade = 0
            /** Never at two gateways, at no moment at which the shop has said where it is. */
            const once = () => {
              const at = gateways.filter(({ book }) => {
                const status = book.get(attempt.attemptId)?.status
                return status === "authorised" || status === "captured"
              })
              expect({ told, steps, at: at.length < 2 }).toEqual({ told, steps, at: true })
            }
            for (const together of steps) {
              yield* Effect.forEach(
                together,
                (what): Effect.Effect<unknown, never, Services> => {
                  switch (what) {
                    case "authorise":
                      return Effect.exit(authorise(attempt))
                    case "resolve":
                      return Effect.exit(resolve(attempt))
                    case "capture":
                      return Effect.exit(capture(attempt))
                    case "void":
                      return Effect.exit(voidAttempt(attempt))
                    case "refund":
                      return Effect.exit(refund(attempt, `R${++refundsMade}-${attempt.attemptId}`, 400))
                    case "reconcile":
                      return Effect.exit(longAfter(Effect.andThen(payments.reconcile, refunds.reconcile)))
                    case "arrive":
                      return Effect.sync(() => gateways.forEach((gateway) => gateway.arrive()))
                    case "die":
                      // Somebody who asks and dies at some point of it.
                      return Effect.exit(Effect.timeout(authorise(attempt), (refundsMade + together.length) % 4))
                  }
                },
                { concurrency: "unbounded" }
              )
              once()
            }
            // All is well again: everything late arrives, and it is asked until everything is known.
            for (const gateway of gateways) {
              gateway.arrive()
              gateway.script = []
              gateway.usually = "ok"
            }
            once()
            // A row that somebody who died still holds is passed over, and taken the next time.
            for (let round = 2; round < 200; round++) {
              yield* later(round * 3_600_000)(Effect.andThen(payments.reconcile, refunds.reconcile))
              for (const gateway of gateways) gateway.arrive()
              const open = yield* sql`
              select from payments.payments where status = 'INITIATED'
              union all select from payments.refunds where status = 'REQUESTED'`
              if (open.length === 0) break
              // Who died may hold it until the disk has answered: a busy machine takes seconds for that.
              yield* Effect.sleep(round < 100 ? "5 millis" : "100 millis")
            }
            once()
            const found = yield* row(attempt)
            if (found === undefined) continue
            seen.set(`${found.status} ${found.gateway}`, (seen.get(`${found.status} ${found.gateway}`) ?? 0) + 1)
            expect({ open: found.status === "INITIATED", told, steps }).toEqual({ open: false, told, steps })
            const there = gateways.find(({ name }) => name === found.gateway)?.book.get(attempt.attemptId)
            // What could be made nowhere, or was never begun, no gateway has heard of.
            const status = there?.status ?? (found.status === "VOIDED" ? "voided" : "not there")
            // A capture whose answer was lost is known when somebody asks for it again.
            if (status === "captured" && found.status === "AUTHORISED") {
              expect(yield* come(capture(attempt))).toBe("CAPTURED")
            } else if (status === "voided" && found.status === "AUTHORISED") {
              expect(yield* come(voidAttempt(attempt))).toBe("VOIDED")
            } else {
              expect({ status, told, steps }).toEqual({ status: found.status.toLowerCase(), told, steps })
            }
            const gone = gateways.find(({ name }) => name !== found.gateway)?.book.get(attempt.attemptId)?.status
            expect(["-", "voided", "declined"]).toContain(gone ?? "-")
            const [books] = yield* sql<{ receivable: number }>`
            select coalesce(sum(amount_minor), 0)::bigint as receivable from payments.ledger
            where attempt_id = ${attempt.attemptId} and account = 'psp_receivable'`
            const back = [...(there?.refunds.values() ?? [])].reduce((sum, minor) => sum + minor, 0)
            expect(books?.receivable).toBe(status === "captured" ? attempt.amountMinor - back : 0)
            // And its row is what its events make of it.
            const history = yield* events.history(attempt.attemptId)
            const store = yield* Effect.scoped(PaymentsStore.make)
            expect(yield* rebuild(history)).toEqual(yield* store.find(attempt.attemptId))
            for (const refund of yield* rebuildRefunds(history)) {
              expect(yield* store.findRefund(refund.refundId)).toEqual(refund)
            }
          }
          expect(yield* unbalanced).toEqual([])
          // Else the property holds for want of trying.
          for (const end of [
            "AUTHORISED soap",
            "AUTHORISED rest",
            "VOIDED soap",
            "VOIDED rest",
            "CAPTURED soap",
            "CAPTURED rest"
          ]) {
            expect({ end, seen: [...seen] }).toEqual({ end, seen: expect.arrayContaining([[end, expect.any(Number)]]) })
          }
        })
      ),
    120_000
  )
})

const unbalanced = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`
    select booking_id from payments.ledger group by booking_id, currency having sum(amount_minor) <> 0`
)

describe("the ledger", () => {
  test("books captures and refunds twice, and every booking sums to zero", () =>
    run(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const attempt = newAttempt(1_000)
        yield* authorise(attempt)
        yield* capture(attempt)
        yield* refund(attempt, `R-${attempt.attemptId}`, 250)
        const entries = yield* sql<{ booking_id: string; account: string; amount_minor: number }>`
          select booking_id, account, amount_minor from payments.ledger
          where attempt_id = ${attempt.attemptId} order by booking_id, line`
        expect(entries.map(({ booking_id, account, amount_minor }) => [booking_id, account, amount_minor])).toEqual([
          [`capture-${attempt.attemptId}`, "psp_receivable", 1_000],
          [`capture-${attempt.attemptId}`, "sales", -1_000],
          [`refund-R-${attempt.attemptId}`, "refunds", 250],
          [`refund-R-${attempt.attemptId}`, "psp_receivable", -250]
        ])
        expect(yield* unbalanced).toEqual([])
      })
    ))

  test("takes no booking that does not sum to zero, in each currency, whoever writes it", () =>
    run(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const book = (...lines: ReadonlyArray<readonly [currency: string, amountMinor: number]>) =>
          Effect.exit(sql`
            insert into payments.ledger (booking_id, line, attempt_id, order_id, account, amount_minor, currency, booked_at)
            select 'false-booking', nth, 'A', 'O', 'sales', amount, currency, to_timestamp(0)
            from unnest(${lines.map(([currency]) => currency)}::text[],
              ${lines.map(([, minor]) => String(minor))}::text[]::bigint[]) with ordinality as l (currency, amount, nth)`)
        for (const lines of [
          [["USD", 1]],
          [
            ["USD", 2],
            ["USD", -1]
          ],
          [
            ["USD", 1],
            ["EUR", -1]
          ]
        ] as const) {
          expect(Exit.isFailure(yield* book(...lines))).toBe(true)
        }
        expect(yield* sql`select from payments.ledger where booking_id = 'false-booking'`).toEqual([])
        expect(Exit.isSuccess(yield* book(["USD", 1], ["USD", -1], ["EUR", 2], ["EUR", -2]))).toBe(true)
      })
    ))
})

test("a payment token stands in no table, whatever became of its payment", () =>
  run(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      for (const turns of [[], five("down"), ["unknown"], ["lost", ...five("down")]] as const) {
        soap.script = [...turns]
        yield* come(authorise(newAttempt()))
      }
      const tables = yield* sql<{ name: string }>`
        select table_name as name from information_schema.tables where table_schema = 'payments'`
      expect(tables.length).toBeGreaterThan(5)
      for (const { name } of tables) {
        const rows = yield* sql`select 1 from payments.${sql(name)} as t where t::text like ${"%secret%"}`
        expect([name, rows.length]).toEqual([name, 0])
      }
    })
  ))
