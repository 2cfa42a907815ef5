import { Clock, Duration, Effect, Metric } from "effect"
import { orUnavailable } from "@merkato/infra/postgres/Database"
import { Payments } from "./Payments.ts"
import * as PaymentsStore from "./PaymentsStore.ts"
import { Refunds } from "./Refunds.ts"

const openOnes = Metric.gauge("payments_open", {
  description: "Payments begun (initiated) or held (authorised), and refunds requested, that are not settled"
})
const oldestSeconds = Metric.gauge("payments_open_oldest_seconds", {
  description: "Age of the oldest of them, in seconds"
})

/** Tells how many payments and refunds are open, and how old the oldest of each is. */
const measure = Effect.fnUntraced(function* (store: PaymentsStore.PaymentsStore) {
  const now = yield* Clock.currentTimeMillis
  for (const { state, count, oldest } of yield* store.open) {
    yield* Metric.update(Metric.withAttributes(openOnes, { state }), count)
    const ageMs = oldest === null ? 0 : Math.max(0, now - oldest.epochMilliseconds)
    yield* Metric.update(Metric.withAttributes(oldestSeconds, { state }), Math.floor(ageMs / 1_000))
  }
})

/**
 * Asks about payments and refunds that stay open until somebody knows: after `MERKATO_PAYMENT_RECONCILE_AFTER_MS` (30 s)
 * for the first time, then after twice as long each time, at most 10 minutes. It asks, calls off and repeats refunds under
 * their own id; it never charges. Every process of the context runs it: each takes other rows.
 */
export const reconciliation = Effect.gen(function* () {
  const payments = yield* Payments
  const refunds = yield* Refunds
  const store = yield* PaymentsStore.make
  const afterMs = yield* Effect.orDie(PaymentsStore.reconcileAfterMs)
  const pause = Duration.millis(Math.min(5_000, Math.max(10, afterMs / 4)))
  const round = Effect.gen(function* () {
    const found = (yield* payments.reconcile) + (yield* refunds.reconcile)
    yield* measure(store)
    return found
  })
  return yield* Effect.forever(
    round.pipe(
      orUnavailable("payments"),
      Effect.flatMap((found) => (found > 0 ? Effect.void : Effect.sleep(pause))),
      Effect.catch((error) =>
        Effect.andThen(Effect.logWarning("Reconciliation of payments pauses", error), Effect.sleep("1 second"))
      )
    )
  )
}).pipe(Effect.scoped, Effect.withTracerEnabled(false))
