/** Having the money of an attempt held: at one gateway, or at the next, where that certainly cannot be. */
import { Effect, Metric } from "effect"
import type { SqlError } from "effect/sql"
import type * as Ids from "@merkato/domain/kernel/Ids"
import {
  type Payment,
  type PaymentToken,
  PaymentUnavailable,
  type PaymentUnknown,
  type Rail
} from "@merkato/domain/payments/Payment"
import type { Attempt, Attempts } from "./Attempts.ts"
import { orUnknown, unknown } from "./Doubt.ts"
import type { GatewayCalls } from "./GatewayCalls.ts"
import type { GatewayAttempt } from "./PaymentGateways.ts"

export interface Authorise extends Attempt {
  readonly paymentToken: PaymentToken
  readonly rail: Rail
}

/** When a shopper should try again after every gateway was away, in seconds, if no circuit tells better. */
const retryAfterSeconds = 30

const reroutes = Metric.counter("payments_rerouted_total", {
  description: "Payment attempts that left a gateway which certainly held nothing for the next one",
  incremental: true
})

/** Somebody who has set out to have the money held at the gateway where the payment is. */
interface Asker {
  readonly payment: Payment
  /** How many have set out, this one included. */
  readonly asked: number
  /** Whether anybody else may have asked this gateway: a process that died, or one that is at it. */
  readonly others: boolean
}

export const make = (attempts: Attempts, gateways: GatewayCalls) => {
  /** Has the money of an attempt held that others have asked for, at whichever gateway it is now. */
  const authoriseToo = (
    attemptId: Ids.AttemptId,
    request: Authorise
  ): Effect.Effect<Payment, PaymentUnavailable | PaymentUnknown | SqlError.SqlError> =>
    Effect.gen(function* () {
      const payment = yield* attempts.known(attemptId)
      if (payment.status !== "INITIATED") return payment
      const joined = yield* attempts.askToo(payment)
      if (joined === undefined) return yield* authoriseToo(attemptId, request)
      const found = yield* gateways.find(payment.gateway, attemptId).pipe(orUnknown(payment))
      if (found === undefined && !joined.calledOff) {
        return yield* authoriseAt({ payment, asked: joined.asked, others: true }, request)
      }
      const now = found === undefined ? payment : yield* attempts.record(payment, found)
      if (now.status !== "INITIATED") return now
      if (now.version !== payment.version) return yield* authoriseToo(attemptId, request)
      // It is being called off here. Who began that may be gone, and as long as somebody asks again, and so has set out
      // to ask, the reconciler leaves it alone: so it is brought to its end. Asking for the money once more would be in
      // vain, and open the circuit of a gateway that only refuses new money before it is told.
      return yield* callOff(payment, request, "called_off", [])
    })

  /** Records what a gateway said; when the attempt has left it, goes after it. */
  const recorded = Effect.fnUntraced(function* (payment: Payment, found: GatewayAttempt, request: Authorise) {
    const now = yield* attempts.record(payment, found)
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
      const { attemptId, orderId, amountMinor, currency, gateway } = payment
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
      if (!(yield* attempts.fence(payment))) return yield* authoriseToo(payment.attemptId, request)
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
      const { attemptId, gateway } = payment
      const to = gateways.after(gateway)
      const left =
        to === undefined
          ? yield* attempts.end(payment, "unavailable", alone)
          : yield* attempts.reroute(payment, to, reason, alone)
      if (left === undefined) return yield* authoriseToo(attemptId, request)
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
      return yield* authoriseAt({ ...left, others: false }, request, waits)
    })

  return { authoriseAt, authoriseToo }
}
