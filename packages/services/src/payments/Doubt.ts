/** What is said and counted when nobody can tell whether a gateway holds the money of an attempt. */
import { Effect, Metric } from "effect"
import { type Payment, PaymentUnknown } from "@merkato/domain/payments/Payment"
import { NoAnswer } from "./GatewayCalls.ts"

const unknowns = Metric.counter("payments_unknown_total", {
  description: "Times that nobody could tell whether a gateway holds the money of an attempt",
  incremental: true
})

export const unknown = Effect.fnUntraced(function* (payment: Payment, reason: string) {
  const { attemptId, gateway } = payment
  yield* Metric.update(Metric.withAttributes(unknowns, { gateway }), 1)
  yield* Effect.logWarning("Nobody can tell whether the gateway holds the money", { attemptId, gateway, reason })
  return yield* new PaymentUnknown({ attemptId })
})

/** A gateway that does not answer leaves its attempt in doubt. */
export const orUnknown =
  (payment: Payment) =>
  <A, E, R>(effect: Effect.Effect<A, E | NoAnswer, R>) =>
    Effect.catchIf(
      effect,
      (error): error is Extract<E | NoAnswer, NoAnswer> => error instanceof NoAnswer,
      ({ reason }) => unknown(payment, reason)
    )
