import { Cause, Clock, Config, Context, Effect, Layer, Metric, Result } from "effect"
import * as Ids from "@merkato/domain/kernel/Ids"
import {
  type Forbidden,
  type IdempotencyKeyReused,
  RequestInProgress,
  ServiceUnavailable
} from "@merkato/domain/kernel/Problem"
import { Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"
import {
  NotPayable,
  NotYourOrder,
  Order,
  OrderNotFound,
  orderWithinMs,
  PaymentInProgress
} from "@merkato/domain/orders/Order"
import { OrderProcessNotFound, OrderProcessState } from "@merkato/domain/orders/OrderProcess"
import { PaymentToken, PaymentUnavailable, type Rail } from "@merkato/domain/payments/Payment"
import { Encryption } from "@merkato/infra/auth/Encryption"
import { allowed, authorize } from "@merkato/infra/authorizer/Authorizer"
import { milliseconds } from "@merkato/infra/config/Milliseconds"
import * as Provided from "@merkato/infra/context/Provided"
import { currentTraceParent } from "@merkato/infra/events/Stamp"
import { Idempotency, inProgress, type Keyed, replay, type Replayed } from "@merkato/infra/idempotency/Idempotency"
import { derivedId, derivedIdOf } from "@merkato/infra/idempotency/Digest"
import { orUnavailable, transaction } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { changed, ofCart, started } from "./OrderChanges.ts"
import * as OrdersStore from "./OrdersStore.ts"
import * as ProcessMoves from "./ProcessMoves.ts"
import {
  type CheckoutRefusal,
  decodeAnswer,
  encodeAnswer,
  isCheckoutRefusal,
  isPayRefusal,
  isRefusal,
  isReplayed,
  moving,
  open,
  type Outcome,
  type PayRefusal,
  type Refusal,
  retryAfterSeconds,
  type Turn
} from "./ProcessOutcome.ts"
import * as ProcessSteps from "./ProcessSteps.ts"
import * as SagaStore from "./SagaStore.ts"

/** Milliseconds between two looks; read at the start, too, so that a value that cannot be used is told then. */
const sweepMs = milliseconds("MERKATO_ORDER_PROCESS_SWEEP_MS").pipe(Config.withDefault(1_000))

const takeovers = Metric.counter("saga_takeovers_total", {
  description: "Order processes taken over after their owner's deadline",
  incremental: true
})

interface Payment {
  readonly idempotencyKey: Ids.IdempotencyKey
  readonly paymentToken: PaymentToken
  readonly rail: Rail
  readonly deviceId?: string
}

export interface Pay extends Payment {
  readonly orderId: Ids.OrderId
}

export interface Checkout extends Payment {
  readonly cartId: Ids.CartId
  readonly expectedTotal?: number
}

interface Answered {
  readonly answer: Order
  readonly replayed: boolean
}

type ProcessFailure<R> =
  | Forbidden
  | R
  | Replayed<R>
  | PaymentInProgress
  | PaymentUnavailable
  | IdempotencyKeyReused
  | RequestInProgress
  | ServiceUnavailable

/**
 * The process that makes paid orders: of a cart at once (checkout), or of an order that waits for its payment (pay). The
 * goods are made sure of (reserve or hold, confirm) around the money (authorise, capture), so there is never money without
 * goods nor goods without money. Where it stands is in `orders.sagas`; whoever finds it past its deadline goes on, each
 * step may be repeated, and each has its way back: release after reserve, void after authorise.
 */
export class OrderProcess extends Context.Service<
  OrderProcess,
  {
    pay(request: Pay): Effect.Effect<Answered, ProcessFailure<PayRefusal>>
    checkout(request: Checkout): Effect.Effect<Answered, ProcessFailure<CheckoutRefusal>>
    /** Where a process stands, by its id or its order's. */
    state(id: string): Effect.Effect<OrderProcessState, Forbidden | OrderProcessNotFound | ServiceUnavailable>
    /** Goes on with processes whose owner died or gave them back; how many. */
    readonly takeOver: Effect.Effect<number, ServiceUnavailable>
  }
>()("merkato/orders/OrderProcess") {
  static readonly layer = Layer.effect(
    OrderProcess,
    Effect.gen(function* () {
      yield* Effect.orDie(sweepMs)
      const orders = yield* OrdersStore.make
      const sagas = yield* SagaStore.make
      const moves = yield* ProcessMoves.make
      const idempotency = yield* Idempotency
      const encryption = yield* Encryption
      const provided = yield* Provided.provided
      const owner = yield* Ids.next
      const orAway = orUnavailable("orders")
      const { quote, drive } = yield* ProcessSteps.make({ orders, sagas, moves })

      /** The first answer, if there is one; a request that still runs is refused. */
      const earlier = Effect.fnUntraced(function* (keyed: Keyed) {
        const found = yield* idempotency.find(keyed)
        switch (found._tag) {
          case "Answered":
            return yield* replay(yield* Effect.orDie(decodeAnswer(found.answer)))
          case "Running": {
            const now = yield* Clock.currentTimeMillis
            return yield* inProgress(found.leaseUntil, now)
          }
          case "Nothing":
            return yield* new RequestInProgress({ retryAfterSeconds })
        }
      })

      /** What the process keeps of the request. */
      const workOf = Effect.fnUntraced(function* (sagaId: string, { paymentToken, rail, deviceId }: Payment) {
        const { principal, correlationId } = yield* RequestContext
        return {
          principal,
          correlationId,
          traceParent: yield* currentTraceParent,
          paymentToken: yield* encryption.encrypt(paymentToken, sagaId),
          rail,
          ...(deviceId === undefined ? {} : { deviceId })
        }
      })

      const attemptIdOf = (sagaId: string, orderId: Ids.OrderId, attempt: number) =>
        Ids.AttemptId.make(derivedIdOf("PAY", orderId, sagaId, String(attempt)))

      /** Marks a pending order and begins its payment, inside the transaction of the caller. */
      const beginPayment = Effect.fnUntraced(function* (
        order: Order,
        saga: Omit<NewSaga, "step" | "orderId" | "attemptId" | "owner">
      ) {
        const attemptId = attemptIdOf(saga.sagaId, order.orderId, saga.attempt)
        const step = order.reviewed || saga.kind === "checkout" ? "hold" : "risk"
        const begun = yield* sagas.begin({ ...saga, orderId: order.orderId, attemptId, step, owner })
        if (begun === undefined) return yield* new PaymentInProgress({ retryAfterSeconds })
        const steps = yield* changed(order, [started(attemptId)])
        // The events belong where the order does, wherever its shopper is by now.
        yield* Effect.updateService(orders.save(steps), RequestContext, (request) => ({
          ...request,
          principal: new Principal({ ...request.principal, region: order.region })
        }))
        return moving({ ...begun, order: steps.at(-1)?.order ?? order })
      })

      /** Why this order cannot be paid by the caller, as far as that is for good. */
      const refusalOf = (orderId: Ids.OrderId, order: Order | undefined, isAllowed: boolean) => {
        if (order === undefined) return new OrderNotFound({ orderId })
        if (!isAllowed) return new NotYourOrder()
        return order.status === "PENDING" ? undefined : new NotPayable({ orderStatus: order.status })
      }

      /** Asked outside of the transaction: who decides may be another machine, and an owner never changes. */
      const payable = Effect.fnUntraced(function* (orderId: Ids.OrderId) {
        const order = yield* orders.find(orderId)
        return order !== undefined && (yield* allowed("order.pay", { ownerId: order.userId }))
      })

      /**
       * Claims the key, marks the order and begins the process, in one transaction. The order is locked before the key, as
       * by moves of processes: the same payment may be ending at this moment.
       */
      const beginPay = Effect.fnUntraced(function* (keyed: Keyed, request: Pay) {
        const isAllowed = yield* payable(request.orderId)
        return yield* transaction(
          Effect.gen(function* () {
            const order = yield* orders.lock(request.orderId)
            if (!(yield* idempotency.claim(keyed, SagaStore.leaseMs))) return undefined
            const refusal = refusalOf(request.orderId, order, isAllowed)
            if (order === undefined || refusal !== undefined) {
              const final = refusal ?? new OrderNotFound({ orderId: request.orderId })
              yield* idempotency.settle(keyed, encodeAnswer({ _tag: "Refused", refusal: final }))
              return { _tag: "Refused", refusal: final } satisfies Outcome
            }
            // With the order in it: a key that is free again may pay for another one.
            const sagaId = derivedId("SAGA", keyed.caller, keyed.operation, keyed.key, order.orderId)
            const before = yield* sagas.find(sagaId)
            const mine = before !== undefined && before.step !== "done" && order.paymentAttemptId === before.attemptId
            if (mine) return open
            if (order.paymentAttemptId !== null) return yield* new PaymentInProgress({ retryAfterSeconds })
            // The cart of a checkout that came to no money is emptied by whoever pays; that of a held order is empty already.
            const latest = order.reviewed ? undefined : yield* sagas.ofOrder(order.orderId)
            return yield* beginPayment(order, {
              sagaId,
              kind: "pay",
              attempt: (before?.attempt ?? 0) + 1,
              request: keyed,
              work: {
                ...(yield* workOf(sagaId, request)),
                ...(latest === undefined ? {} : ofCart(latest)),
                reservationId: order.reservationId
              }
            })
          })
        )
      })

      const sagaIdOf = ({ caller, operation, key }: Keyed) => derivedId("SAGA", caller, operation, key)

      const reservationIdOf = (sagaId: string, orderId: Ids.OrderId, attempt: number) =>
        Ids.ReservationId.make(derivedIdOf("RES", orderId, sagaId, String(attempt)))

      /**
       * Begins a checkout that is nothing but new: what it buys is read first, and the key, the cart and the process are one
       * statement. Undefined when there is anything more to say about it; nothing was written then.
       */
      const beginFresh = Effect.fnUntraced(function* (keyed: Keyed, request: Checkout) {
        const read = quote(request.cartId, request.expectedTotal).pipe(Tracing.withSpan("OrderProcess.quote"))
        const bought = yield* Effect.result(read)
        if (Result.isFailure(bought)) return undefined
        const { priced, cart } = bought.success
        const sagaId = sagaIdOf(keyed)
        const orderId = yield* Ids.nextOrderId
        const begun = yield* moves.begin({
          sagaId,
          kind: "checkout",
          orderId,
          step: "reserve",
          attempt: 1,
          attemptId: attemptIdOf(sagaId, orderId, 1),
          owner,
          request: keyed,
          work: {
            ...(yield* workOf(sagaId, request)),
            ...ofCheckout(request),
            quote: priced,
            reservationId: reservationIdOf(sagaId, orderId, 1)
          },
          cart
        })
        return begun === undefined ? undefined : moving(begun)
      })

      /**
       * Claims the key and begins the process, in one transaction. A try before this one may have left an order that waits
       * for its payment: then that is paid, so that no key makes two orders.
       */
      const beginCheckout = (keyed: Keyed, request: Checkout) =>
        transaction(
          Effect.gen(function* () {
            if (!(yield* idempotency.claim(keyed, SagaStore.leaseMs))) return undefined
            const sagaId = sagaIdOf(keyed)
            const before = yield* sagas.find(sagaId)
            if (before !== undefined && before.step !== "done") return open
            const attempt = (before?.attempt ?? 0) + 1
            const work = yield* workOf(sagaId, request)
            const wanted = ofCheckout(request)
            const left =
              before?.request.payloadHash === keyed.payloadHash ? yield* orders.lock(before.orderId) : undefined
            if (left?.status === "PENDING") {
              if (left.paymentAttemptId !== null) return yield* new PaymentInProgress({ retryAfterSeconds })
              return yield* beginPayment(left, {
                sagaId,
                kind: "checkout",
                attempt,
                request: keyed,
                work: { ...work, ...wanted, reservationId: left.reservationId }
              })
            }
            if (left !== undefined && left.status !== "CANCELED") {
              // Meanwhile it was paid by itself, or is held since somebody tried.
              yield* idempotency.settle(keyed, encodeAnswer({ _tag: "Done", value: left }))
              return { _tag: "Done", order: left } satisfies Outcome
            }
            const orderId = yield* Ids.nextOrderId
            const begun = yield* sagas.begin({
              sagaId,
              kind: "checkout",
              orderId,
              step: "quote",
              attempt,
              attemptId: attemptIdOf(sagaId, orderId, attempt),
              owner,
              request: keyed,
              work: {
                ...work,
                ...wanted,
                reservationId: reservationIdOf(sagaId, orderId, attempt)
              }
            })
            return begun === undefined ? open : moving(begun)
          })
        )

      /** Runs what was begun to its end, as far as that is near, and says what came of it. */
      const conclude = Effect.fnUntraced(function* (keyed: Keyed, begun: Turn | undefined) {
        if (begun === undefined) return yield* earlier(keyed)
        if (begun._tag === "Open") return yield* new RequestInProgress({ retryAfterSeconds })
        const saga = begun._tag === "Moving" ? begun.saga : undefined
        const outcome = begun._tag === "Moving" ? yield* drive(begun.saga) : begun
        const orderId = saga?.kind === "checkout" ? { orderId: saga.orderId } : {}
        switch (outcome._tag) {
          case "Done":
            return { answer: outcome.order, replayed: false }
          case "Refused":
            return yield* Effect.fail(outcome.refusal)
          case "GivenUp":
            return yield* new ServiceUnavailable({ service: "orders", retryAfterSeconds: 1 })
          case "CartTaken":
            return yield* new PaymentInProgress({ retryAfterSeconds })
          case "Unavailable":
            return yield* new PaymentUnavailable({ retryAfterSeconds: outcome.retryAfterSeconds, ...orderId })
          case "Open":
            // Taken over before there was an order: whoever has it now makes one, or gives it up.
            return saga?.kind === "checkout" && (yield* orders.find(saga.orderId)) === undefined
              ? yield* new RequestInProgress({ retryAfterSeconds })
              : yield* new PaymentUnavailable({ retryAfterSeconds, ...orderId })
        }
      })

      /** Of the refusals that a process can come to, those of the operation; any other is a mistake of ours. */
      const refusing =
        <R extends Refusal>(is: (refusal: unknown) => refusal is R) =>
        <A, E>(effect: Effect.Effect<A, E | Refusal | Replayed<Refusal>>) =>
          Effect.catch(
            effect,
            (error): Effect.Effect<never, Exclude<E, Refusal | Replayed<Refusal>> | R | Replayed<R>> => {
              if (is(error)) return Effect.fail(error)
              if (isReplayed(error)) {
                return is(error.refusal)
                  ? Effect.fail({ _tag: "Replayed", refusal: error.refusal })
                  : Effect.die(error.refusal)
              }
              return isRefusal(error)
                ? Effect.die(error)
                : Effect.fail(error as Exclude<E, Refusal | Replayed<Refusal>>)
            }
          )

      const pay = Tracing.fn("OrderProcess.pay")(
        function* (request: Pay) {
          yield* Effect.annotateCurrentSpan({ orderId: request.orderId })
          const { idempotencyKey, ...payload } = request
          const keyed = yield* idempotency.keyed("pay", idempotencyKey, payload)
          return yield* conclude(keyed, yield* beginPay(keyed, request))
        },
        orAway,
        provided,
        refusing(isPayRefusal)
      )

      const checkout = Tracing.fn("OrderProcess.checkout")(
        function* (request: Checkout) {
          yield* authorize("order.place")
          const { idempotencyKey, ...payload } = request
          const keyed = yield* idempotency.keyed("checkout", idempotencyKey, payload)
          return yield* conclude(keyed, (yield* beginFresh(keyed, request)) ?? (yield* beginCheckout(keyed, request)))
        },
        orAway,
        provided,
        refusing(isCheckoutRefusal)
      )

      const state = Tracing.fn("OrderProcess.state")(
        function* (id: string) {
          yield* authorize("ops.read")
          const saga = (yield* sagas.find(id)) ?? (yield* sagas.ofOrder(id))
          return saga === undefined ? yield* new OrderProcessNotFound({ id }) : new OrderProcessState(saga)
        },
        orAway,
        provided
      )

      /** Goes on with a process in the name of whoever began it; one that has not come to an order in time is undone. */
      const resume = Effect.fnUntraced(function* (saga: SagaStore.Saga) {
        const { principal, correlationId, traceParent } = saga.work
        const now = yield* Clock.currentTimeMillis
        const late = now - saga.begunAt.epochMilliseconds > orderWithinMs
        const beforeOrder = saga.kind === "checkout" && ["quote", "risk", "reserve"].includes(saga.step)
        const inTheirName = Effect.provideService(RequestContext, { principal, correlationId, traceParent })
        if (!late || !beforeOrder) return yield* inTheirName(drive(saga))
        const step = "release"
        const undone = yield* inTheirName(moves.go({ saga, to: step }))
        return undone === "Moved" ? yield* inTheirName(drive({ ...saga, step })) : open
      })

      const takeOver = Effect.gen(function* () {
        const overdue = yield* sagas.takeOver(owner, 20)
        yield* Metric.update(takeovers, overdue.length)
        yield* Effect.forEach(
          overdue,
          (saga) =>
            resume(saga).pipe(
              // Its own statements meet a lost connection as those of its use cases do.
              orAway,
              Effect.catchTag("ServiceUnavailable", (error) =>
                Effect.logWarning("An order process cannot go on now; it will be taken up again", error)
              ),
              // The next shop goes on with what this one was stopped in.
              Effect.tapCause((cause) =>
                Cause.hasInterruptsOnly(cause)
                  ? Effect.void
                  : Effect.logError("An order process stumbled; it will be taken up again", cause)
              ),
              Effect.ignoreCause
            ),
          { concurrency: 4, discard: true }
        )
        return overdue.length
      }).pipe(orAway, provided, Effect.withTracerEnabled(false))

      return OrderProcess.of({ pay, checkout, state, takeOver })
    })
  )
}

/** What a process keeps of the request for a checkout. */
const ofCheckout = ({ cartId, expectedTotal }: Checkout) => ({
  cartId,
  ...(expectedTotal === undefined ? {} : { expectedTotal })
})

type NewSaga = Parameters<Effect.Success<typeof SagaStore.make>["begin"]>[0]

/** Looks for processes without a living owner: every second unless told otherwise, and again at once while there are some. */
export const recovery = Effect.gen(function* () {
  const process = yield* OrderProcess
  const pauseMs = yield* Effect.orDie(sweepMs)
  return yield* Effect.forever(
    process.takeOver.pipe(
      Effect.flatMap((count) => (count > 0 ? Effect.void : Effect.sleep(pauseMs))),
      Effect.catch((error) =>
        Effect.andThen(Effect.logWarning("Recovery of order processes pauses", error), Effect.sleep("1 second"))
      )
    )
  )
})
