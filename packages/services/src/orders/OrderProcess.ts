import { Clock, Context, DateTime, Effect, Layer, Metric, Schema } from "effect"
import { SqlClient } from "effect/sql"
import type { EventDefinition, NewEvent } from "@merkato/domain/kernel/Event"
import { paymentHoldMs } from "@merkato/domain/inventory/Stock"
import * as Ids from "@merkato/domain/kernel/Ids"
import { toDecimal } from "@merkato/domain/kernel/Money"
import { IdempotencyKeyReused, RequestInProgress, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"
import { NotPayable, NotYourOrder, Order, OrderNotFound, PaymentInProgress } from "@merkato/domain/orders/Order"
import {
  evolve,
  itemsOf,
  OrderCanceled,
  OrderPaid,
  OrderPaymentFailed,
  OrderPaymentStarted
} from "@merkato/domain/orders/OrderEvents"
import { PaymentDeclined, type PaymentToken, PaymentUnavailable, type Rail } from "@merkato/domain/payments/Payment"
import { allowed, Authorizer } from "@merkato/infra/authorizer/Authorizer"
import { answerOf, Idempotency, inProgress, type Keyed } from "@merkato/infra/idempotency/Idempotency"
import { derivedId } from "@merkato/infra/idempotency/Digest"
import { orUnavailable, transaction } from "@merkato/infra/postgres/Database"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { PayRefusal } from "@merkato/rpc/orders/OrdersRpc"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import * as OrdersStore from "./OrdersStore.ts"
import * as SagaStore from "./SagaStore.ts"

/** What a payment can come to. `Open`: nobody knows yet whether money was taken; the process goes on by itself. */
type Outcome =
  | { readonly _tag: "Paid"; readonly order: Order }
  | { readonly _tag: "Refused"; readonly refusal: PaymentDeclined | NotPayable }
  | { readonly _tag: "Unavailable" }
  | { readonly _tag: "Open" }

/** Seconds a shopper waits before asking again about a payment that is not settled. */
const retryAfterSeconds = 5

/** Milliseconds before an unsettled process is looked at again. */
const againMs = 2_000

const PayAnswer = answerOf(Order, PayRefusal)
const encodeAnswer = Schema.encodeSync(Schema.toCodecJson(PayAnswer))
const decodeAnswer = Schema.decodeUnknownEffect(Schema.toCodecJson(PayAnswer))
type PayAnswer = typeof PayAnswer.Type

const takeovers = Metric.counter("saga_takeovers_total", {
  description: "Order processes taken over after their owner's deadline",
  incremental: true
})

export interface Pay {
  readonly idempotencyKey: Ids.IdempotencyKey
  readonly orderId: Ids.OrderId
  readonly paymentToken: PaymentToken
  readonly rail: Rail
}

/**
 * The process that turns a pending order into a paid one: hold → authorise → confirm → capture. The goods are made sure
 * of (hold, confirm) around the money (authorise, capture), so there is never money without goods nor goods without
 * money. Where it stands is in `orders.sagas`; whoever finds it past its deadline goes on, and each step may be repeated.
 */
export class OrderProcess extends Context.Service<
  OrderProcess,
  {
    pay(
      request: Pay
    ): Effect.Effect<
      { readonly answer: Order; readonly replayed: boolean },
      | (typeof PayRefusal)["Type"]
      | { readonly _tag: "Replayed"; readonly refusal: (typeof PayRefusal)["Type"] }
      | PaymentInProgress
      | PaymentUnavailable
      | IdempotencyKeyReused
      | RequestInProgress
      | ServiceUnavailable
    >
    /** Goes on with processes whose owner died or gave them back; how many. */
    readonly takeOver: Effect.Effect<number, ServiceUnavailable>
  }
>()("merkato/orders/OrderProcess") {
  static readonly layer = Layer.effect(
    OrderProcess,
    Effect.gen(function* () {
      const orders = yield* OrdersStore.make
      const sagas = yield* SagaStore.make
      const idempotency = yield* Idempotency
      const inventory = yield* InventoryRpc
      const payments = yield* PaymentsRpc
      const provided = yield* Effect.context<Authorizer | SqlClient.SqlClient>()
      const owner = yield* Ids.next
      const orAway = orUnavailable("orders")

      /** Applies events to a locked order, one after the other. */
      const apply = Effect.fnUntraced(function* (order: Order, events: ReadonlyArray<(order: Order) => NewEvent>) {
        const occurredAt = DateTime.makeUnsafe(yield* Clock.currentTimeMillis)
        const steps: Array<{ order: Order; event: NewEvent }> = []
        let current = order
        for (const next of events) {
          const event = next(current)
          current = yield* Effect.orDie(evolve(current, { ...event, occurredAt, region: order.region }))
          steps.push({ order: current, event })
        }
        yield* Effect.updateService(orders.save(steps), RequestContext, (request) => ({
          ...request,
          principal: new Principal({ ...request.principal, region: order.region })
        }))
        return current
      })

      const about =
        <A>(definition: EventDefinition<A>, payload: (order: Order) => A) =>
        (order: Order): NewEvent =>
          definition.of(order.orderId, order.version + 1, payload(order))

      const started = (attemptId: Ids.AttemptId) =>
        about(OrderPaymentStarted, ({ orderId, userId }) => ({ orderId, userId, attemptId }))
      const failed = (attemptId: Ids.AttemptId, reason: string) =>
        about(OrderPaymentFailed, ({ orderId, userId }) => ({ orderId, userId, attemptId, reason }))
      const canceled = (reason: string) =>
        about(OrderCanceled, ({ orderId, userId, reservationId }) => ({ orderId, userId, reservationId, reason }))
      const paid = (attemptId: Ids.AttemptId) =>
        about(OrderPaid, (order) => ({
          orderId: order.orderId,
          userId: order.userId,
          attemptId,
          items: itemsOf(order),
          totalAmount: toDecimal(order.totalMinor, order.currency),
          currency: order.currency
        }))

      /** Ends the process: what it did to the order, its last step and its answer, in one transaction. Undefined when it is somebody else's. */
      const finish = (
        saga: SagaStore.Saga,
        outcome: string,
        change: (order: Order) => ReadonlyArray<(order: Order) => NewEvent>,
        answer: (order: Order) => PayAnswer | undefined
      ) =>
        transaction(
          Effect.gen(function* () {
            if ((yield* sagas.move(saga, "done", outcome)) === undefined) return undefined
            const order = yield* orders.lock(saga.orderId)
            if (order === undefined) return yield* Effect.die(new Error(`Order ${saga.orderId} is gone`))
            const after = yield* apply(order, change(order))
            const kept = answer(after)
            yield* kept === undefined
              ? idempotency.abandon(saga.request)
              : idempotency.settle(saga.request, encodeAnswer(kept))
            yield* Effect.logDebug(`Order process ended: ${outcome}`).pipe(
              Effect.annotateLogs({ orderId: after.orderId, userId: after.userId })
            )
            return after
          })
        )

      const open: Outcome = { _tag: "Open" }
      const notPayable = (order: Order) => new NotPayable({ orderStatus: order.status })

      const finishPaid = Effect.fnUntraced(function* (saga: SagaStore.Saga) {
        const order = yield* finish(
          saga,
          "paid",
          () => [paid(saga.attemptId)],
          (after) => ({ _tag: "Done", value: after })
        )
        return order === undefined ? open : ({ _tag: "Paid", order } satisfies Outcome)
      })

      /** The goods are gone: the order ends. */
      const finishExpired = Effect.fnUntraced(function* (saga: SagaStore.Saga) {
        const order = yield* finish(
          saga,
          "reservation_expired",
          () => [failed(saga.attemptId, "reservation_expired"), canceled("reservation_expired")],
          (after) => ({ _tag: "Refused", refusal: notPayable(after) })
        )
        return order === undefined ? open : ({ _tag: "Refused", refusal: notPayable(order) } satisfies Outcome)
      })

      /** No money was taken. The order stays as it was, unless its reservation ended meanwhile. */
      const withoutMoney = (saga: SagaStore.Saga, reason: string) => (order: Order) =>
        order.reservationLost
          ? [failed(saga.attemptId, reason), canceled("reservation_expired")]
          : [failed(saga.attemptId, reason)]

      const finishDeclined = Effect.fnUntraced(function* (saga: SagaStore.Saga, refusal: PaymentDeclined) {
        const order = yield* finish(saga, "declined", withoutMoney(saga, refusal.reason), () => ({
          _tag: "Refused",
          refusal
        }))
        return order === undefined ? open : ({ _tag: "Refused", refusal } satisfies Outcome)
      })

      const finishUnavailable = Effect.fnUntraced(function* (saga: SagaStore.Saga) {
        const order = yield* finish(saga, "unavailable", withoutMoney(saga, "unavailable"), () => undefined)
        return order === undefined ? open : ({ _tag: "Unavailable" } satisfies Outcome)
      })

      /** Nobody can tell yet: gives the process back, to be looked at again soon. */
      const wait = (saga: SagaStore.Saga) => Effect.as(sagas.postpone(saga, againMs), open)

      const hold = Effect.fnUntraced(function* (saga: SagaStore.Saga, { reservationId }: Order) {
        const lost = yield* inventory.Extend({ reservationId, holdMs: paymentHoldMs }).pipe(
          Effect.as(false),
          Effect.catchTag("ReservationClosed", () => Effect.succeed(true))
        )
        return lost ? yield* finishExpired(saga) : undefined
      })

      /** Holds the money; without a token (after a takeover) only finds out whether it is held. */
      const authorise = Effect.fnUntraced(function* (saga: SagaStore.Saga, order: Order, request: Pay | undefined) {
        const attempt = {
          attemptId: saga.attemptId,
          orderId: order.orderId,
          userId: order.userId,
          amountMinor: order.totalMinor,
          currency: order.currency
        }
        const asked =
          request === undefined
            ? payments.Resolve(attempt)
            : payments.Authorise({ ...attempt, paymentToken: request.paymentToken, rail: request.rail })
        return yield* asked.pipe(
          Effect.as(undefined),
          Effect.catchTags({
            PaymentDeclined: (refusal) => finishDeclined(saga, refusal),
            PaymentVoided: () => finishUnavailable(saga),
            PaymentUnavailable: () => finishUnavailable(saga),
            PaymentUnknown: () => wait(saga)
          })
        )
      })

      /** Makes the goods the shopper's. False when the reservation is over. */
      const confirm = ({ reservationId }: Order) =>
        inventory.Commit({ reservationId }).pipe(
          Effect.as(true),
          Effect.catchTag("ReservationClosed", () => Effect.succeed(false))
        )

      const capture = (saga: SagaStore.Saga) =>
        payments.Capture({ attemptId: saga.attemptId }).pipe(
          Effect.andThen(finishPaid(saga)),
          Effect.catchTag("PaymentUnknown", () => wait(saga))
        )

      const giveBack = (saga: SagaStore.Saga) =>
        payments.Void({ attemptId: saga.attemptId, reason: "reservation_expired" }).pipe(
          Effect.andThen(finishExpired(saga)),
          Effect.catchTag("PaymentUnknown", () => wait(saga))
        )

      /** Goes on from where the process stands until it ends, waits, or turns out to be somebody else's. */
      const drive = (
        saga: SagaStore.Saga,
        order: Order,
        request: Pay | undefined
      ): Effect.Effect<Outcome, DriveError> =>
        Effect.gen(function* () {
          const onTo = (step: SagaStore.Step) =>
            Effect.flatMap(sagas.move(saga, step), (moved) =>
              moved === undefined ? Effect.succeed(open) : drive(moved, order, request)
            )
          switch (saga.step) {
            case "hold":
              return (yield* hold(saga, order)) ?? (yield* onTo("authorise"))
            case "authorise":
              return (yield* authorise(saga, order, request)) ?? (yield* onTo("confirm"))
            case "confirm":
              return yield* onTo((yield* confirm(order)) ? "capture" : "void")
            case "capture":
              return yield* capture(saga)
            case "void":
              return yield* giveBack(saga)
            case "done":
              return open
          }
        }).pipe(
          Effect.withSpan(`OrderProcess.${saga.step}`, { attributes: { orderId: saga.orderId } }),
          Effect.catchTags({
            // Within the shop a refusal by the Authorizer or a voided capture is a mistake of ours, not an outcome.
            Forbidden: Effect.die,
            PaymentVoided: Effect.die
          }),
          orAway,
          Effect.provideContext(provided)
        )

      const answered = Effect.fnUntraced(function* (stored: unknown) {
        const answer = yield* Effect.orDie(decodeAnswer(stored))
        return answer._tag === "Done"
          ? { answer: answer.value, replayed: true }
          : yield* Effect.fail({ _tag: "Replayed" as const, refusal: answer.refusal })
      })

      /** The first answer, if there is one; a request that still runs is refused. */
      const earlier = Effect.fnUntraced(function* (keyed: Keyed) {
        const found = yield* idempotency.find(keyed)
        switch (found._tag) {
          case "Answered":
            return yield* answered(found.answer)
          case "Running": {
            const now = yield* Clock.currentTimeMillis
            return found.leaseUntil > now ? yield* inProgress(found.leaseUntil, now) : undefined
          }
          case "Nothing":
            return undefined
        }
      })

      /** Why this order cannot be paid by the caller, as far as that is for good. */
      const refusalOf = Effect.fnUntraced(function* (orderId: Ids.OrderId, order: Order | undefined) {
        if (order === undefined) return new OrderNotFound({ orderId })
        if (!(yield* allowed("order.pay", { ownerId: order.userId }))) return new NotYourOrder()
        return order.status === "PENDING" ? undefined : notPayable(order)
      })

      /** Claims the key, marks the order and begins the process, in one transaction. */
      const begin = (keyed: Keyed, request: Pay) =>
        transaction(
          Effect.gen(function* () {
            if (!(yield* idempotency.claim(keyed, SagaStore.leaseMs))) return undefined
            const order = yield* orders.lock(request.orderId)
            const refusal = yield* refusalOf(request.orderId, order)
            if (order === undefined || refusal !== undefined) {
              const refused = refusal ?? new OrderNotFound({ orderId: request.orderId })
              yield* idempotency.settle(keyed, encodeAnswer({ _tag: "Refused", refusal: refused }))
              return { _tag: "Refused" as const, refusal: refused }
            }
            // With the order in it: a key that is free again may pay for another one.
            const sagaId = derivedId("SAGA", keyed.caller, keyed.operation, keyed.key, order.orderId)
            const before = yield* sagas.find(sagaId)
            const mine = before !== undefined && before.step !== "done" && order.paymentAttemptId === before.attemptId
            if (order.paymentAttemptId !== null && !mine) return yield* new PaymentInProgress({ retryAfterSeconds })
            if (mine) return { _tag: "Running" as const }
            const attempt = (before?.attempt ?? 0) + 1
            const attemptId = Ids.AttemptId.make(derivedId("PAY", sagaId, order.orderId, String(attempt)))
            const saga = yield* sagas.begin({
              sagaId,
              orderId: order.orderId,
              attempt,
              attemptId,
              owner,
              request: keyed
            })
            if (saga === undefined) return yield* new PaymentInProgress({ retryAfterSeconds })
            return { _tag: "Begun" as const, saga, order: yield* apply(order, [started(attemptId)]) }
          })
        )

      const pay = Effect.fn("OrderProcess.pay")(
        function* (request: Pay) {
          yield* Effect.annotateCurrentSpan({ orderId: request.orderId })
          const { idempotencyKey, ...payload } = request
          const keyed = yield* idempotency.keyed("pay", idempotencyKey, payload)
          const begun = yield* begin(keyed, request)
          if (begun === undefined) {
            const settled = yield* earlier(keyed)
            return settled ?? (yield* new RequestInProgress({ retryAfterSeconds }))
          }
          if (begun._tag === "Refused") return yield* Effect.fail(begun.refusal)
          if (begun._tag === "Running") return yield* new RequestInProgress({ retryAfterSeconds })
          const outcome = yield* drive(begun.saga, begun.order, request)
          switch (outcome._tag) {
            case "Paid":
              return { answer: outcome.order, replayed: false }
            case "Refused":
              return yield* Effect.fail(outcome.refusal)
            case "Unavailable":
              return yield* new PaymentUnavailable({ retryAfterSeconds: 30 })
            case "Open":
              return yield* new PaymentUnavailable({ retryAfterSeconds })
          }
        },
        orAway,
        Effect.provideContext(provided)
      )

      const takeOver = Effect.gen(function* () {
        const overdue = yield* sagas.takeOver(owner, 20)
        yield* Metric.update(takeovers, overdue.length)
        yield* Effect.forEach(
          overdue,
          (saga) =>
            Effect.flatMap(orders.find(saga.orderId), (order) =>
              order === undefined
                ? Effect.die(new Error(`Order ${saga.orderId} is gone`))
                : drive(saga, order, undefined)
            ).pipe(
              Effect.tapCause((cause) =>
                Effect.logError("An order process stumbled; it will be taken up again", cause)
              ),
              Effect.ignoreCause
            ),
          { concurrency: 4, discard: true }
        )
        return overdue.length
      }).pipe(orAway, Effect.withTracerEnabled(false))

      return OrderProcess.of({ pay, takeOver })
    })
  )
}

type DriveError = ServiceUnavailable

/** Looks for processes without a living owner: every second, and again at once while there are some. */
export const recovery = Effect.gen(function* () {
  const process = yield* OrderProcess
  return yield* Effect.forever(
    process.takeOver.pipe(
      Effect.flatMap((count) => (count > 0 ? Effect.void : Effect.sleep("1 second"))),
      Effect.catch((error) =>
        Effect.andThen(Effect.logWarning("Recovery of order processes pauses", error), Effect.sleep("1 second"))
      )
    )
  )
})
