import { Clock, Config, Context, DateTime, Duration, Effect, Layer } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
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
  PaymentWasDeclined,
  PaymentWasVoided
} from "@merkato/domain/payments/PaymentEvents"
import { authorize, Authorizer } from "@merkato/infra/authorizer/Authorizer"
import { orUnavailable, retryLostRace } from "@merkato/infra/postgres/Database"
import { type GatewayAttempt, GatewayUnknown, PaymentGateways } from "./PaymentGateways.ts"
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

/** The booking of a capture: the provider owes us what was sold. */
const bookingOf = (amountMinor: number): ReadonlyArray<PaymentsStore.Entry> =>
  amountMinor === 0
    ? []
    : [
        { account: "psp_receivable", amountMinor },
        { account: "sales", amountMinor: -amountMinor }
      ]

/** Milliseconds a call to the gateway may take; 2,000 unless `MERKATO_PAYMENT_TIMEOUT_MS` says otherwise. */
const timeoutMs = Config.Int("MERKATO_PAYMENT_TIMEOUT_MS").pipe(Config.withDefault(2_000))

/** When a shopper should try again after gateways were away, in seconds. */
const retryAfterSeconds = 30

/** The use cases of payments: holding money, taking it, giving it back, and finding out what happened. */
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
  }
>()("merkato/payments/Payments") {
  static readonly layer = Layer.effect(
    Payments,
    Effect.gen(function* () {
      const store = yield* PaymentsStore.make
      const [gateway] = (yield* PaymentGateways).inOrder
      const limit = Duration.millis(yield* Effect.orDie(timeoutMs))
      const inTime = <A, E, R>(asked: Effect.Effect<A, E, R>) =>
        Effect.timeoutOrElse(asked, {
          duration: limit,
          orElse: () => Effect.fail(new GatewayUnknown({ reason: "no answer in time" }))
        })
      const provided = yield* Effect.context<Authorizer | SqlClient.SqlClient>()
      const orAway = orUnavailable("payments")

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

      /** Records what became of an attempt, once; whoever comes second finds it recorded and adds only what is new. */
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
          const saved = yield* retryLostRace(
            store.save(before, payment, changes, captured ? bookingOf(payment.amountMinor) : [])
          )
          if (saved) return payment
          const now = yield* store.find(attemptId)
          return now === undefined ? yield* Effect.die(new Error(`No payment ${attemptId}`)) : yield* record(now, found)
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

      /** Asks the gateway; an attempt it never heard of is called off there, so that it cannot arrive late. */
      const askGateway = (attemptId: Ids.AttemptId) =>
        inTime(gateway.find(attemptId)).pipe(
          Effect.catchTag("AttemptNotFound", () => inTime(gateway.void(attemptId))),
          Effect.catchTags({
            GatewayDown: () => Effect.fail(new PaymentUnknown({ attemptId })),
            GatewayUnknown: () => Effect.fail(new PaymentUnknown({ attemptId }))
          })
        )

      /** Writes the attempt down before the gateway is asked; whoever comes second gets what is there. */
      const initiate = Effect.fnUntraced(function* (request: Attempt) {
        const event = PaymentInitiated.of(request.attemptId, 1, facts(request))
        const payment = yield* evolved(undefined, event)
        if (yield* retryLostRace(store.insert(payment, event))) return payment
        return (
          (yield* store.find(request.attemptId)) ?? (yield* Effect.die(new Error(`No payment ${request.attemptId}`)))
        )
      })

      const resolve = Effect.fn("Payments.resolve")(
        function* (attempt: Attempt) {
          yield* authorize("payment.move")
          const { attemptId } = attempt
          // An attempt that never began here is begun and called off: its late authorisation will find it voided.
          const payment = yield* initiate(attempt)
          if (payment.status !== "INITIATED") return yield* outcome(payment)
          return yield* outcome(yield* record(payment, yield* askGateway(attemptId)))
        },
        orAway,
        Effect.provideContext(provided)
      )

      const authorise = Effect.fn("Payments.authorise")(
        function* (request: Authorise) {
          yield* authorize("payment.move")
          const { attemptId, orderId, amountMinor, currency, paymentToken } = request
          const payment = yield* initiate(request)
          if (payment.status !== "INITIATED") return yield* outcome(payment)
          const answer = yield* gateway
            .authorise({ attemptId, orderId, amountMinor, currency, token: paymentToken })
            .pipe(
              inTime,
              Effect.catchTag("GatewayUnknown", () => askGateway(attemptId)),
              Effect.catchTag("GatewayDown", () => Effect.fail(new PaymentUnavailable({ retryAfterSeconds })))
            )
          return yield* outcome(yield* record(payment, answer))
        },
        orAway,
        Effect.provideContext(provided)
      )

      const unknown =
        (attemptId: Ids.AttemptId) =>
        <A, E, R>(effect: Effect.Effect<A, E, R>) =>
          effect.pipe(
            Effect.tapError((error) => Effect.logWarning("The gateway does not answer", error)),
            Effect.mapError(() => new PaymentUnknown({ attemptId }))
          )

      const capture = Effect.fn("Payments.capture")(
        function* (attemptId: Ids.AttemptId) {
          yield* authorize("payment.move")
          const payment = yield* store.find(attemptId)
          if (payment === undefined || payment.status === "VOIDED" || payment.status === "DECLINED") {
            return yield* new PaymentVoided({ attemptId })
          }
          if (payment.status === "CAPTURED") return payment
          const captured = yield* record(payment, yield* inTime(gateway.capture(attemptId)).pipe(unknown(attemptId)))
          return captured.status === "CAPTURED" ? captured : yield* new PaymentVoided({ attemptId })
        },
        orAway,
        Effect.provideContext(provided)
      )

      const voidAttempt = Effect.fn("Payments.void")(
        function* ({ attemptId, reason }: { readonly attemptId: Ids.AttemptId; readonly reason: string }) {
          yield* authorize("payment.move")
          const payment = yield* store.find(attemptId)
          if (payment === undefined) return yield* new PaymentUnknown({ attemptId })
          if (payment.status === "VOIDED" || payment.status === "DECLINED") return payment
          const answer = yield* inTime(gateway.void(attemptId)).pipe(unknown(attemptId))
          return yield* record(payment, { ...answer, reason })
        },
        orAway,
        Effect.provideContext(provided)
      )

      return Payments.of({ authorise, resolve, capture, void: voidAttempt })
    })
  )
}
