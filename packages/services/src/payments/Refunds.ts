import { Cause, Context, DateTime, Effect, Layer } from "effect"
import type { SqlError } from "effect/sql"
import type * as Ids from "@merkato/domain/kernel/Ids"
import { toDecimal } from "@merkato/domain/kernel/Money"
import type { Forbidden, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import {
  NotRefundable,
  type Payment,
  Refund,
  RefundDenied,
  RefundExceedsPayment,
  RefundIdReused,
  refundableMinor
} from "@merkato/domain/payments/Payment"
import { evolve, RefundCompleted, RefundRequested, RefundWasRefused } from "@merkato/domain/payments/PaymentEvents"
import { authorize } from "@merkato/infra/authorizer/Authorizer"
import * as Provided from "@merkato/infra/context/Provided"
import { isUniqueViolation, orUnavailable, retryLostRace } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import * as GatewayCalls from "./GatewayCalls.ts"
import * as PaymentsStore from "./PaymentsStore.ts"

interface Request {
  readonly attemptId: Ids.AttemptId
  readonly refundId: Ids.RefundId
  readonly amountMinor: number
  readonly reason: string
}

type Refusal = NotRefundable | RefundExceedsPayment | RefundIdReused | RefundDenied

/**
 * Giving captured money back, all or a part. A refund is promised first (it takes from what can still be given back, so
 * the sum never exceeds what was captured), then asked for at the gateway that captured, under its own id, until that
 * has done it or refused for good.
 */
export class Refunds extends Context.Service<
  Refunds,
  {
    /** Still REQUESTED when the gateway does not answer: it will be asked again until it does. */
    refund(request: Request): Effect.Effect<Refund, Forbidden | Refusal | ServiceUnavailable>
    /** Asks again for refunds that have been open for long; how many. */
    readonly reconcile: Effect.Effect<number, ServiceUnavailable>
  }
>()("merkato/payments/Refunds") {
  static readonly layer = Layer.effect(
    Refunds,
    Effect.gen(function* () {
      const store = yield* PaymentsStore.make
      const gateways = yield* GatewayCalls.make
      const provided = yield* Provided.provided
      const orAway = orUnavailable("payments")

      const facts = (
        { userId }: Payment,
        refund: Pick<Refund, "attemptId" | "refundId" | "orderId" | "amountMinor" | "currency">
      ) => ({
        attemptId: refund.attemptId,
        refundId: refund.refundId,
        orderId: refund.orderId,
        userId,
        amount: toDecimal(refund.amountMinor, refund.currency),
        currency: refund.currency
      })

      const payment = Effect.fnUntraced(function* (attemptId: Ids.AttemptId) {
        return (yield* store.find(attemptId)) ?? (yield* Effect.die(new Error(`No payment ${attemptId}`)))
      })

      /** The refund as it was promised before, if it was, and for the same. */
      const promised = Effect.fnUntraced(function* ({ attemptId, refundId, amountMinor }: Request) {
        const refund = yield* store.findRefund(refundId)
        return refund === undefined || (refund.attemptId === attemptId && refund.amountMinor === amountMinor)
          ? refund
          : yield* new RefundIdReused({ refundId })
      })

      /** Takes the amount from what can still be given back; whoever comes second finds what is there. */
      const promise = (request: Request): Effect.Effect<Refund, Refusal | SqlError.SqlError> =>
        Effect.gen(function* () {
          const before = yield* promised(request)
          if (before !== undefined) return before
          const { attemptId, refundId, amountMinor, reason } = request
          const taken = yield* store.find(attemptId)
          if (taken?.status !== "CAPTURED") {
            return yield* new NotRefundable({ attemptId, paymentStatus: taken?.status ?? null })
          }
          const left = refundableMinor(taken)
          if (amountMinor > left) {
            // What is left may be less by this very refund, promised by somebody else since it was looked for.
            const promisedSince = yield* promised(request)
            return promisedSince ?? (yield* new RefundExceedsPayment({ attemptId, refundableMinor: left }))
          }
          const occurredAt = yield* DateTime.now
          const refund = new Refund({
            refundId,
            attemptId,
            orderId: taken.orderId,
            amountMinor,
            currency: taken.currency,
            status: "REQUESTED",
            reason,
            refusal: null,
            createdAt: occurredAt,
            updatedAt: occurredAt
          })
          const event = RefundRequested.of(attemptId, taken.version + 1, { ...facts(taken, refund), reason })
          const after = yield* Effect.orDie(evolve(taken, { ...event, occurredAt }))
          // Somebody may have used the refund id, or moved the payment, at the same moment.
          const saved = yield* retryLostRace(
            store.save(taken, after, [event], { refund: yield* store.adding(refund) })
          ).pipe(Effect.catchIf(isUniqueViolation, () => Effect.succeed(undefined)))
          return saved === undefined ? yield* promise(request) : refund
        })

      /** Records how a promised refund ended, once. */
      const end = (
        refund: Refund,
        status: "REFUNDED" | "REFUSED",
        refusal: string | null
      ): Effect.Effect<Refund, SqlError.SqlError> =>
        Effect.gen(function* () {
          const before = yield* payment(refund.attemptId)
          const current = yield* store.findRefund(refund.refundId)
          if (current !== undefined && current.status !== "REQUESTED") return current
          const occurredAt = yield* DateTime.now
          const ended = new Refund({ ...refund, status, refusal, updatedAt: occurredAt })
          const event =
            status === "REFUNDED"
              ? RefundCompleted.of(before.attemptId, before.version + 1, facts(before, refund))
              : RefundWasRefused.of(before.attemptId, before.version + 1, {
                  ...facts(before, refund),
                  reason: refusal ?? "refused"
                })
          const after = yield* Effect.orDie(evolve(before, { ...event, occurredAt }))
          // Somebody may have used the refund id, or moved the payment, at the same moment.
          const saved = yield* retryLostRace(
            store.save(before, after, [event], {
              refund: store.ending(ended),
              booking: status === "REFUNDED" ? PaymentsStore.refundBooking(ended) : undefined
            })
          )
          return saved === undefined ? yield* end(refund, status, refusal) : ended
        })

      /** Asks the gateway that has the money to give it back, under the refund's own id. */
      const carryOut = Effect.fnUntraced(function* (refund: Refund) {
        const { attemptId, refundId, amountMinor, currency } = refund
        const { gateway } = yield* payment(attemptId)
        return yield* gateways.refund(gateway, { attemptId, refundId, amountMinor, currency }).pipe(
          Effect.andThen(end(refund, "REFUNDED", null)),
          Effect.catchTags({
            RefundRefused: ({ reason }) => end(refund, "REFUSED", reason),
            NoAnswer: ({ reason }) =>
              Effect.as(
                Effect.logWarning("The gateway does not answer; the refund is asked for again", {
                  attemptId,
                  refundId,
                  gateway,
                  reason
                }),
                refund
              )
          })
        )
      })

      const refund = Tracing.fn("Payments.refund")(
        function* (request: Request) {
          yield* authorize("payment.move")
          const wanted = yield* promise(request)
          const ended = wanted.status === "REQUESTED" ? yield* carryOut(wanted) : wanted
          return ended.status === "REFUSED"
            ? yield* new RefundDenied({ refundId: ended.refundId, reason: ended.refusal ?? "refused" })
            : ended
        },
        orAway,
        provided
      )

      const reconcile = Effect.gen(function* () {
        const open = yield* store.takeOpenRefunds(20)
        yield* Effect.forEach(
          open,
          (refund) =>
            carryOut(refund).pipe(
              orAway,
              // The database is away: told already, and tried again.
              Effect.catchTag("ServiceUnavailable", () => Effect.void),
              Effect.tapCause((cause) =>
                Cause.hasInterruptsOnly(cause)
                  ? Effect.void
                  : Effect.logError("A refund cannot be carried out; it will be tried again", cause)
              ),
              Effect.ignoreCause
            ),
          { concurrency: 4, discard: true }
        )
        return open.length
      }).pipe(orAway, Effect.withTracerEnabled(false), provided)

      return Refunds.of({ refund, reconcile })
    })
  )
}
