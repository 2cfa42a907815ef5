/**
 * Attempts to pay as they are written down: where each is, and what has become of it. Whoever writes second finds what is
 * there; nothing is written over a newer version.
 */
import { DateTime, Effect } from "effect"
import type { SqlError } from "effect/sql"
import type { EventDefinition, NewEvent } from "@merkato/domain/kernel/Event"
import type * as Ids from "@merkato/domain/kernel/Ids"
import { type Currency, toDecimal } from "@merkato/domain/kernel/Money"
import type { Payment } from "@merkato/domain/payments/Payment"
import {
  evolve,
  PaymentAuthorised,
  PaymentCaptured,
  PaymentInitiated,
  PaymentRerouted,
  PaymentWasDeclined,
  PaymentWasVoided
} from "@merkato/domain/payments/PaymentEvents"
import { retryLostRace } from "@merkato/infra/postgres/Database"
import type { GatewayAttempt } from "./PaymentGateways.ts"
import * as PaymentsStore from "./PaymentsStore.ts"

export interface Attempt {
  readonly attemptId: Ids.AttemptId
  readonly orderId: Ids.OrderId
  readonly userId: Ids.UserId
  readonly amountMinor: number
  readonly currency: Currency
}

/** Payments that a process remembers as held, at most: those between being authorised and being captured. */
const mostHeld = 1_000

const facts = ({ attemptId, orderId, userId, amountMinor, currency }: Attempt) => ({
  attemptId,
  orderId,
  userId,
  amount: toDecimal(amountMinor, currency),
  currency
})

const evolved = Effect.fnUntraced(function* (payment: Payment | undefined, event: NewEvent) {
  const occurredAt = yield* DateTime.now
  return yield* Effect.orDie(evolve(payment, { ...event, occurredAt }))
})

export const make = Effect.gen(function* () {
  const store = yield* PaymentsStore.make

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

  const known = Effect.fnUntraced(function* (attemptId: Ids.AttemptId) {
    return (yield* store.find(attemptId)) ?? (yield* Effect.die(new Error(`No payment ${attemptId}`)))
  })

  /** Writes the attempt down before any gateway is asked; undefined when it is there already. */
  const initiate = Effect.fnUntraced(function* (request: Attempt, gateway: string) {
    const event = PaymentInitiated.of(request.attemptId, 1, { ...facts(request), gateway })
    const payment = yield* evolved(undefined, event)
    return (yield* retryLostRace(store.insert(payment, event))) ? payment : undefined
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

  /**
   * Writes what happened to an attempt that its gateway certainly holds nothing of, and how many have set out to ask;
   * undefined when it has changed. With `alone`, also when more than so many have set out to ask.
   */
  const written = Effect.fnUntraced(function* (before: Payment, event: NewEvent, alone: number | undefined) {
    const payment = yield* evolved(before, event)
    const asked = yield* retryLostRace(store.save(before, payment, [event], { alone }))
    return asked === undefined ? undefined : { payment, asked }
  })

  /** Ends an attempt that no gateway holds anything of. */
  const end = (payment: Payment, reason: string, alone: number | undefined) => {
    const { attemptId, version } = payment
    return written(payment, PaymentWasVoided.of(attemptId, version + 1, { ...facts(payment), reason }), alone)
  }

  /** Has an attempt go on to another gateway. */
  const reroute = (payment: Payment, to: string, reason: string, alone: number | undefined) => {
    const { attemptId, gateway: from, version } = payment
    return written(payment, PaymentRerouted.of(attemptId, version + 1, { ...facts(payment), from, to, reason }), alone)
  }

  return {
    find: store.find,
    takeOpen: store.takeOpen,
    /** Registers one more who sets out to ask, beside others; undefined when the attempt has changed. */
    askToo: (payment: Payment) => retryLostRace(store.askToo(payment)),
    /** Marks an attempt as being called off at its gateway, before the gateway is told; false when the attempt has changed. */
    fence: (payment: Payment) => retryLostRace(store.fence(payment)),
    known,
    recall,
    initiate,
    record,
    end,
    reroute
  }
})

export type Attempts = Effect.Success<typeof make>
