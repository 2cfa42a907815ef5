import { Cause, Clock, Context, DateTime, Effect, Layer, Metric } from "effect"
import type { SqlError } from "effect/sql"
import type { EventDefinition, NewEvent } from "@merkato/domain/kernel/Event"
import type * as Ids from "@merkato/domain/kernel/Ids"
import { type Currency, toDecimal } from "@merkato/domain/kernel/Money"
import type { Forbidden, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import {
  type Payment,
  PaymentDeclined,
  type PaymentToken,
  PaymentUnavailable,
  PaymentUnknown,
  PaymentVoided,
  type Rail
} from "@merkato/domain/payments/Payment"
import {
  evolve,
  PaymentAuthorised,
  PaymentCaptured,
  PaymentInitiated,
  PaymentRerouted,
  PaymentWasDeclined,
  PaymentWasVoided
} from "@merkato/domain/payments/PaymentEvents"
import { authorize } from "@merkato/infra/authorizer/Authorizer"
import * as Provided from "@merkato/infra/context/Provided"
import { orUnavailable, retryLostRace } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import * as GatewayCalls from "./GatewayCalls.ts"
import type { GatewayAttempt } from "./PaymentGateways.ts"
import * as PaymentsStore from "./PaymentsStore.ts"

interface Attempt {
  readonly attemptId: Ids.AttemptId
  readonly orderId: Ids.OrderId
  readonly userId: Ids.UserId
  readonly amountMinor: number
  readonly currency: Currency
}

interface Authorise extends Attempt {
  readonly paymentToken: PaymentToken
  readonly rail: Rail
}

/** When a shopper should try again after every gateway was away, in seconds, if no circuit tells better. */
const retryAfterSeconds = 30

const reroutes = Metric.counter("payments_rerouted_total", {
  description: "Payment attempts that left a gateway which certainly held nothing for the next one",
  incremental: true
})
const unknowns = Metric.counter("payments_unknown_total", {
  description: "Times that nobody could tell whether a gateway holds the money of an attempt",
  incremental: true
})

/** Payments that a process remembers as held, at most: those between being authorised and being captured. */
const mostHeld = 1_000

/** Somebody who has set out to have the money held at the gateway where the payment is. */
interface Asker {
  readonly payment: Payment
  /** How many have set out, this one included. */
  readonly asked: number
  /** Whether anybody else may have asked this gateway: a process that died, or one that is at it. */
  readonly others: boolean
}

/**
 * The use cases of payments: holding money, taking it, giving it back, and finding out what happened.
 *
 * An attempt is at one gateway, recorded before that gateway is asked. It goes on to the next one only when it certainly
 * holds nothing here and never will: either every request of the only asker was refused before it could do anything, or the
 * attempt was called off here, and the gateway said so. What is in doubt stays where it is, and is asked about.
 */
export class Payments extends Context.Service<
  Payments,
  {
    authorise(
      request: Authorise
    ): Effect.Effect<
      Payment,
      Forbidden | PaymentDeclined | PaymentUnavailable | PaymentUnknown | PaymentVoided | ServiceUnavailable
    >
    resolve(
      attempt: Attempt
    ): Effect.Effect<Payment, Forbidden | PaymentDeclined | PaymentUnknown | PaymentVoided | ServiceUnavailable>
    capture(
      attemptId: Ids.AttemptId
    ): Effect.Effect<Payment, Forbidden | PaymentUnknown | PaymentVoided | ServiceUnavailable>
    void(request: {
      readonly attemptId: Ids.AttemptId
      readonly reason: string
    }): Effect.Effect<Payment, Forbidden | PaymentUnknown | ServiceUnavailable>
    /**
     * Asks about attempts that have been open for long; how many. Who began them may be dead, or about to ask again: both
     * find recorded what came of it. Money that is held stays held, whoever it was for: only the order process knows
     * whether its order still wants it, and takes it or gives it back, also after a takeover.
     */
    readonly reconcile: Effect.Effect<number, ServiceUnavailable>
  }
>()("merkato/payments/Payments") {
  static readonly layer = Layer.effect(
    Payments,
    Effect.gen(function* () {
      const store = yield* PaymentsStore.make
      const gateways = yield* GatewayCalls.make
      const provided = yield* Provided.provided
      const orAway = orUnavailable("payments")

      /**
       * What this process has had held, as it was then: a capture mostly follows, and need not read it again. It may have
       * been captured or voided since, elsewhere; then its gateway says so, and nothing is written over the newer version.
       */
      const held = new Map<Ids.AttemptId, Payment>()
      const remember = (payment: Payment) => {
        if (payment.status !== "AUTHORISED") return
        const [oldest] = held.keys()
        if (held.size >= mostHeld && oldest !== undefined) held.delete(oldest)
        held.set(payment.attemptId, payment)
      }
      /** Once: whoever asks again, since it came to nothing, reads how it stands. */
      const recall = (attemptId: Ids.AttemptId) =>
        Effect.sync(() => {
          const payment = held.get(attemptId)
          held.delete(attemptId)
          return payment
        })

      const facts = (payment: Pick<Payment, "attemptId" | "orderId" | "userId" | "amountMinor" | "currency">) => ({
        attemptId: payment.attemptId,
        orderId: payment.orderId,
        userId: payment.userId,
        amount: toDecimal(payment.amountMinor, payment.currency),
        currency: payment.currency
      })

      const evolved = Effect.fnUntraced(function* (payment: Payment | undefined, event: NewEvent) {
        const occurredAt = DateTime.makeUnsafe(yield* Clock.currentTimeMillis)
        return yield* Effect.orDie(evolve(payment, { ...event, occurredAt }))
      })

      const known = Effect.fnUntraced(function* (attemptId: Ids.AttemptId) {
        return (yield* store.find(attemptId)) ?? (yield* Effect.die(new Error(`No payment ${attemptId}`)))
      })

      /**
       * Records what became of an attempt at its gateway, once; whoever comes second finds it recorded and adds only what
       * is new. When the attempt has left that gateway, or is being called off there, what was found says nothing, and it
       * is returned as it is.
       */
      const record = (before: Payment, found: GatewayAttempt): Effect.Effect<Payment, SqlError.SqlError> =>
        Effect.gen(function* () {
          const { attemptId } = before
          let payment = before
          const changes: Array<NewEvent> = []
          const move = <A>(definition: EventDefinition<A>, payload: A) =>
            Effect.gen(function* () {
              const event = definition.of(attemptId, payment.version + 1, payload)
              payment = yield* evolved(payment, event)
              changes.push(event)
            })
          const reason = found.reason ?? found.status
          const { status } = before
          if (found.status === "declined" && status === "INITIATED") {
            yield* move(PaymentWasDeclined, { ...facts(before), reason })
          }
          if (found.status === "voided" && (status === "INITIATED" || status === "AUTHORISED")) {
            yield* move(PaymentWasVoided, { ...facts(before), reason })
          }
          if ((found.status === "authorised" || found.status === "captured") && status === "INITIATED") {
            yield* move(PaymentAuthorised, facts(before))
          }
          const captured = found.status === "captured" && (status === "INITIATED" || status === "AUTHORISED")
          if (captured) yield* move(PaymentCaptured, facts(before))
          if (changes.length === 0) return before
          const booking = captured ? PaymentsStore.captureBooking(payment) : undefined
          const lasting = status === "INITIATED" && (found.status === "authorised" || found.status === "captured")
          const saved = yield* retryLostRace(store.save(before, payment, changes, { booking, lasting }))
          if (saved !== undefined) {
            remember(payment)
            return payment
          }
          const now = yield* known(attemptId)
          if (now.version === before.version) return before
          return now.gateway === before.gateway ? yield* record(now, found) : now
        })

      /** What a recorded attempt means to whoever wanted its money. */
      const outcome = (payment: Payment) => {
        switch (payment.status) {
          case "AUTHORISED":
          case "CAPTURED":
            return Effect.succeed(payment)
          case "DECLINED":
            return Effect.fail(new PaymentDeclined({ reason: payment.reason ?? "declined" }))
          case "VOIDED":
            return Effect.fail(new PaymentVoided({ attemptId: payment.attemptId }))
          case "INITIATED":
            return Effect.fail(new PaymentUnknown({ attemptId: payment.attemptId }))
        }
      }

      const unknown = Effect.fnUntraced(function* (payment: Payment, reason: string) {
        const { attemptId, gateway } = payment
        yield* Metric.update(Metric.withAttributes(unknowns, { gateway }), 1)
        yield* Effect.logWarning("Nobody can tell whether the gateway holds the money", { attemptId, gateway, reason })
        return yield* new PaymentUnknown({ attemptId })
      })

      const orUnknown =
        (payment: Payment) =>
        <A, E, R>(effect: Effect.Effect<A, E | GatewayCalls.NoAnswer, R>) =>
          Effect.catchIf(
            effect,
            (error): error is Extract<E | GatewayCalls.NoAnswer, GatewayCalls.NoAnswer> =>
              error instanceof GatewayCalls.NoAnswer,
            ({ reason }) => unknown(payment, reason)
          )

      /**
       * Finds out how an open attempt stands, and calls it off where its gateway has never heard of it, so that it cannot
       * arrive late. When it has gone on to another gateway meanwhile, it is called off there as well.
       */
      const settle = (payment: Payment): Effect.Effect<Payment, PaymentUnknown | SqlError.SqlError> =>
        payment.status === "INITIATED"
          ? Effect.gen(function* () {
              const { attemptId, gateway, version } = payment
              const found = yield* gateways.find(gateway, attemptId)
              const after = found === undefined ? payment : yield* record(payment, found)
              if (after.version !== version) return yield* settle(after)
              // Unknown there, or held although somebody calls it off.
              if (!(yield* retryLostRace(store.fence(payment)))) return yield* settle(yield* known(attemptId))
              const over = yield* record(payment, yield* gateways.void(gateway, attemptId))
              return over.version === version ? yield* unknown(payment, "cannot be called off") : yield* settle(over)
            }).pipe(orUnknown(payment))
          : Effect.succeed(payment)

      /** Writes the attempt down before any gateway is asked; undefined when it is there already. */
      const initiate = Effect.fnUntraced(function* (request: Attempt) {
        const event = PaymentInitiated.of(request.attemptId, 1, { ...facts(request), gateway: gateways.first })
        const payment = yield* evolved(undefined, event)
        return (yield* retryLostRace(store.insert(payment, event))) ? payment : undefined
      })

      /** Ends an attempt that no gateway holds anything of; undefined when it has changed, or somebody asks for it. */
      const end = Effect.fnUntraced(function* (payment: Payment, reason: string, alone: number | undefined) {
        const event = PaymentWasVoided.of(payment.attemptId, payment.version + 1, { ...facts(payment), reason })
        const ended = yield* evolved(payment, event)
        return (yield* retryLostRace(store.save(payment, ended, [event], { alone }))) === undefined ? undefined : ended
      })

      const resolve = Tracing.fn("Payments.resolve")(
        function* (attempt: Attempt) {
          yield* authorize("payment.move")
          const begun = yield* initiate(attempt)
          // An attempt that never began here is begun and called off: its late authorisation will find it voided.
          const over = begun === undefined ? undefined : yield* end(begun, "never_begun", 1)
          if (over !== undefined) return yield* outcome(over)
          return yield* outcome(yield* settle(yield* known(attempt.attemptId)))
        },
        orAway,
        provided
      )

      /** Becomes one who asks, beside others: what they may have done at the gateway is looked at first. */
      const joining = Effect.fnUntraced(function* (payment: Payment) {
        const now = yield* retryLostRace(store.askToo(payment))
        if (now === undefined) return undefined
        const asker: Asker = { payment, asked: now.asked, others: true }
        return { asker, calledOff: now.calledOff }
      })

      /** Has the money of an attempt held that others have asked for, at whichever gateway it is now. */
      const authoriseToo = (
        attemptId: Ids.AttemptId,
        request: Authorise
      ): Effect.Effect<Payment, PaymentUnavailable | PaymentUnknown | SqlError.SqlError> =>
        Effect.gen(function* () {
          const payment = yield* known(attemptId)
          if (payment.status !== "INITIATED") return payment
          const joined = yield* joining(payment)
          if (joined === undefined) return yield* authoriseToo(attemptId, request)
          const found = yield* gateways.find(payment.gateway, attemptId).pipe(orUnknown(payment))
          if (found === undefined && !joined.calledOff) return yield* authoriseAt(joined.asker, request)
          const now = found === undefined ? payment : yield* record(payment, found)
          if (now.status !== "INITIATED") return now
          if (now.version !== payment.version) return yield* authoriseToo(attemptId, request)
          // It is being called off here. Who began that may be gone, and as long as somebody asks again, and so has set out
          // to ask, the reconciler leaves it alone: so it is brought to its end. Asking for the money once more would be in
          // vain, and open the circuit of a gateway that only refuses new money before it is told.
          return yield* callOff(payment, request, "called_off", [])
        })

      /** Records what a gateway said; when the attempt has left it, goes after it. */
      const recorded = Effect.fnUntraced(function* (payment: Payment, found: GatewayAttempt, request: Authorise) {
        const now = yield* record(payment, found)
        if (now.status !== "INITIATED") return now
        return now.version === payment.version
          ? yield* unknown(payment, "is being called off")
          : yield* authoriseToo(now.attemptId, request)
      })

      /** Has the money held at the gateway where the payment is, and where that certainly cannot be, at the next one. */
      const authoriseAt = (
        asker: Asker,
        request: Authorise,
        waits: ReadonlyArray<number> = []
      ): Effect.Effect<Payment, PaymentUnavailable | PaymentUnknown | SqlError.SqlError> =>
        Effect.gen(function* () {
          const { payment, asked, others } = asker
          const { attemptId, orderId, amountMinor, currency } = payment
          const { gateway } = payment
          const charge = { attemptId, orderId, amountMinor, currency, token: request.paymentToken }
          const came = yield* gateways.authorise(gateway, charge)
          switch (came._tag) {
            case "Answered":
              return yield* recorded(payment, came.attempt, request)
            case "Doubtful":
              return yield* unknown(payment, came.reason)
            case "Refused": {
              const next = came.retryAfterSeconds === undefined ? waits : [...waits, came.retryAfterSeconds]
              if (!others) return yield* leave(payment, asked, came.reason, request, next)
              // This call did nothing; what others did is not known, and must not come late.
              return yield* callOff(payment, request, came.reason, next)
            }
            case "NotThere":
              return yield* callOff(payment, request, "unknown_to_gateway", waits)
          }
        })

      /** Sees to it that a gateway never holds money for the attempt, then goes on. */
      const callOff = (
        payment: Payment,
        request: Authorise,
        reason: string,
        waits: ReadonlyArray<number>
      ): Effect.Effect<Payment, PaymentUnavailable | PaymentUnknown | SqlError.SqlError> =>
        Effect.gen(function* () {
          if (!(yield* retryLostRace(store.fence(payment)))) return yield* authoriseToo(payment.attemptId, request)
          const answer = yield* gateways.void(payment.gateway, payment.attemptId).pipe(orUnknown(payment))
          return answer.status === "voided"
            ? yield* leave(payment, undefined, reason, request, waits)
            : yield* recorded(payment, answer, request)
        })

      /**
       * Leaves a gateway that certainly holds nothing: for the next one, or for good. With `alone`, only if nobody else has
       * set out to ask there meanwhile; without, since it was called off there.
       */
      const leave = (
        payment: Payment,
        alone: number | undefined,
        reason: string,
        request: Authorise,
        waits: ReadonlyArray<number>
      ): Effect.Effect<Payment, PaymentUnavailable | PaymentUnknown | SqlError.SqlError> =>
        Effect.gen(function* () {
          const { attemptId, gateway, version } = payment
          const to = gateways.after(gateway)
          const event =
            to === undefined
              ? PaymentWasVoided.of(attemptId, version + 1, { ...facts(payment), reason: "unavailable" })
              : PaymentRerouted.of(attemptId, version + 1, { ...facts(payment), from: gateway, to, reason })
          const moved = yield* evolved(payment, event)
          const asked = yield* retryLostRace(store.save(payment, moved, [event], { alone }))
          if (asked === undefined) return yield* authoriseToo(attemptId, request)
          yield* Effect.logWarning("The gateway cannot take the payment, and certainly holds nothing of it", {
            attemptId,
            gateway,
            next: to ?? "none",
            reason
          })
          if (to === undefined) {
            return yield* new PaymentUnavailable({
              retryAfterSeconds: waits.length === 0 ? retryAfterSeconds : Math.max(1, Math.min(...waits))
            })
          }
          yield* Metric.update(Metric.withAttributes(reroutes, { from: gateway, to }), 1)
          return yield* authoriseAt({ payment: moved, asked, others: false }, request, waits)
        })

      const authorise = Tracing.fn("Payments.authorise")(
        function* (request: Authorise) {
          yield* authorize("payment.move")
          const begun = yield* initiate(request)
          return yield* outcome(
            begun === undefined
              ? yield* authoriseToo(request.attemptId, request)
              : yield* authoriseAt({ payment: begun, asked: 1, others: false }, request)
          )
        },
        orAway,
        provided
      )

      const capture = Tracing.fn("Payments.capture")(
        function* (attemptId: Ids.AttemptId) {
          yield* authorize("payment.move")
          const found = (yield* recall(attemptId)) ?? (yield* store.find(attemptId))
          if (found === undefined) return yield* new PaymentVoided({ attemptId })
          const payment = yield* settle(found)
          if (payment.status === "CAPTURED") return payment
          if (payment.status !== "AUTHORISED") return yield* new PaymentVoided({ attemptId })
          const answer = yield* gateways.capture(payment.gateway, attemptId).pipe(orUnknown(payment))
          const captured = yield* record(payment, answer)
          if (captured.status === "AUTHORISED") return yield* unknown(captured, "not captured, not refused")
          return captured.status === "CAPTURED" ? captured : yield* new PaymentVoided({ attemptId })
        },
        orAway,
        provided
      )

      /** Calls an attempt off where it is, and where it has gone on to meanwhile. */
      const voidWherever = (
        payment: Payment,
        reason: string
      ): Effect.Effect<Payment, PaymentUnknown | SqlError.SqlError> =>
        payment.status === "INITIATED" || payment.status === "AUTHORISED"
          ? Effect.gen(function* () {
              const answer = yield* gateways.void(payment.gateway, payment.attemptId).pipe(orUnknown(payment))
              const now = yield* record(payment, answer.status === "voided" ? { ...answer, reason } : answer)
              if (now.status === "AUTHORISED") return yield* unknown(now, "not voided, not refused")
              return yield* voidWherever(now, reason)
            })
          : Effect.succeed(payment)

      const voidAttempt = Tracing.fn("Payments.void")(
        function* ({ attemptId, reason }: { readonly attemptId: Ids.AttemptId; readonly reason: string }) {
          yield* authorize("payment.move")
          const payment = yield* store.find(attemptId)
          if (payment === undefined) return yield* new PaymentUnknown({ attemptId })
          return yield* voidWherever(payment, reason)
        },
        orAway,
        provided
      )

      const reconcile = Effect.gen(function* () {
        const open = yield* store.takeOpen(20)
        yield* Effect.forEach(
          open,
          (payment) =>
            settle(payment).pipe(
              orAway,
              // Nobody can tell yet, or the database is away: told already, and tried again.
              Effect.catchTags({ PaymentUnknown: () => Effect.void, ServiceUnavailable: () => Effect.void }),
              Effect.tapCause((cause) =>
                Cause.hasInterruptsOnly(cause)
                  ? Effect.void
                  : Effect.logError("A payment cannot be reconciled; it will be tried again", cause)
              ),
              Effect.ignoreCause
            ),
          { concurrency: 4, discard: true }
        )
        return open.length
      }).pipe(orAway, Effect.withTracerEnabled(false), provided)

      return Payments.of({ authorise, resolve, capture, void: voidAttempt, reconcile })
    })
  )
}
