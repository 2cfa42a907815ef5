import { Cause, Context, Effect, Layer } from "effect"
import type { SqlError } from "effect/sql"
import type * as Ids from "@merkato/domain/kernel/Ids"
import type { Forbidden, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import {
  type Payment,
  PaymentDeclined,
  type PaymentUnavailable,
  PaymentUnknown,
  PaymentVoided
} from "@merkato/domain/payments/Payment"
import { authorize } from "@merkato/infra/authorizer/Authorizer"
import * as Provided from "@merkato/infra/context/Provided"
import { orUnavailable } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import * as Attempts from "./Attempts.ts"
import * as Authorising from "./Authorising.ts"
import { orUnknown, unknown } from "./Doubt.ts"
import * as GatewayCalls from "./GatewayCalls.ts"

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
      request: Authorising.Authorise
    ): Effect.Effect<
      Payment,
      Forbidden | PaymentDeclined | PaymentUnavailable | PaymentUnknown | PaymentVoided | ServiceUnavailable
    >
    resolve(
      attempt: Attempts.Attempt
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
      const attempts = yield* Attempts.make
      const gateways = yield* GatewayCalls.make
      const { authoriseAt, authoriseToo } = Authorising.make(attempts, gateways)
      const provided = yield* Provided.provided
      const orAway = orUnavailable("payments")

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

      /**
       * Finds out how an open attempt stands, and calls it off where its gateway has never heard of it, so that it cannot
       * arrive late. When it has gone on to another gateway meanwhile, it is called off there as well.
       */
      const settle = (payment: Payment): Effect.Effect<Payment, PaymentUnknown | SqlError.SqlError> =>
        payment.status === "INITIATED"
          ? Effect.gen(function* () {
              const { attemptId, gateway, version } = payment
              const found = yield* gateways.find(gateway, attemptId)
              const after = found === undefined ? payment : yield* attempts.record(payment, found)
              if (after.version !== version) return yield* settle(after)
              // Unknown there, or held although somebody calls it off.
              if (!(yield* attempts.fence(payment))) return yield* settle(yield* attempts.known(attemptId))
              const over = yield* attempts.record(payment, yield* gateways.void(gateway, attemptId))
              return over.version === version ? yield* unknown(payment, "cannot be called off") : yield* settle(over)
            }).pipe(orUnknown(payment))
          : Effect.succeed(payment)

      const resolve = Tracing.fn("Payments.resolve")(
        function* (attempt: Attempts.Attempt) {
          yield* authorize("payment.move")
          const begun = yield* attempts.initiate(attempt, gateways.first)
          // An attempt that never began here is begun and called off: its late authorisation will find it voided.
          const over = begun === undefined ? undefined : yield* attempts.end(begun, "never_begun", 1)
          if (over !== undefined) return yield* outcome(over.payment)
          return yield* outcome(yield* settle(yield* attempts.known(attempt.attemptId)))
        },
        orAway,
        provided
      )

      const authorise = Tracing.fn("Payments.authorise")(
        function* (request: Authorising.Authorise) {
          yield* authorize("payment.move")
          const begun = yield* attempts.initiate(request, gateways.first)
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
          const found = (yield* attempts.recall(attemptId)) ?? (yield* attempts.find(attemptId))
          if (found === undefined) return yield* new PaymentVoided({ attemptId })
          const payment = yield* settle(found)
          if (payment.status === "CAPTURED") return payment
          if (payment.status !== "AUTHORISED") return yield* new PaymentVoided({ attemptId })
          const answer = yield* gateways.capture(payment.gateway, attemptId).pipe(orUnknown(payment))
          const captured = yield* attempts.record(payment, answer)
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
              const now = yield* attempts.record(payment, answer.status === "voided" ? { ...answer, reason } : answer)
              if (now.status === "AUTHORISED") return yield* unknown(now, "not voided, not refused")
              return yield* voidWherever(now, reason)
            })
          : Effect.succeed(payment)

      const voidAttempt = Tracing.fn("Payments.void")(
        function* ({ attemptId, reason }: { readonly attemptId: Ids.AttemptId; readonly reason: string }) {
          yield* authorize("payment.move")
          const payment = yield* attempts.find(attemptId)
          if (payment === undefined) return yield* new PaymentUnknown({ attemptId })
          return yield* voidWherever(payment, reason)
        },
        orAway,
        provided
      )

      const reconcile = Effect.gen(function* () {
        const open = yield* attempts.takeOpen(20)
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
