import { Cause, Clock, Config, Context, DateTime, Effect, Layer, Metric, Result, Schema } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { EventDefinition, NewEvent } from "@merkato/domain/kernel/Event"
import { paymentHoldMs, reservationTtlMs } from "@merkato/domain/inventory/Stock"
import * as Ids from "@merkato/domain/kernel/Ids"
import { toDecimal } from "@merkato/domain/kernel/Money"
import {
  codeOf,
  type Forbidden,
  type IdempotencyKeyReused,
  RequestInProgress,
  ServiceUnavailable
} from "@merkato/domain/kernel/Problem"
import { Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"
import {
  CartEmpty,
  CartOrdered,
  NotPayable,
  NotYourOrder,
  Order,
  ordered,
  OrderNotFound,
  PaymentInProgress,
  reviewHoldMs,
  RiskBlocked
} from "@merkato/domain/orders/Order"
import {
  created,
  evolve,
  itemsOf,
  OrderCanceled,
  OrderHeld,
  OrderPaid,
  OrderPaymentFailed,
  OrderPaymentStarted
} from "@merkato/domain/orders/OrderEvents"
import { OrderProcessNotFound, OrderProcessState, type ProcessStep } from "@merkato/domain/orders/OrderProcess"
import {
  type PaymentDeclined,
  PaymentToken,
  PaymentUnavailable,
  type PaymentVoided,
  type Rail
} from "@merkato/domain/payments/Payment"
import type { Quote } from "@merkato/domain/pricing/Quote"
import { Encryption } from "@merkato/infra/auth/Encryption"
import { allowed, authorize } from "@merkato/infra/authorizer/Authorizer"
import * as Provided from "@merkato/infra/context/Provided"
import { currentTraceParent } from "@merkato/infra/events/Stamp"
import {
  answerOf,
  Idempotency,
  inProgress,
  type Keyed,
  replay,
  type Replayed
} from "@merkato/infra/idempotency/Idempotency"
import { derivedId, derivedIdOf } from "@merkato/infra/idempotency/Digest"
import { isUniqueViolation, orUnavailable, transaction } from "@merkato/infra/postgres/Database"
import type { OperationName } from "@merkato/infra/policy/operations"
import { Policies } from "@merkato/infra/policy/Policies"
import { isPolicyError } from "@merkato/infra/policy/PolicyError"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { CheckoutRefusal, PayRefusal } from "@merkato/rpc/orders/OrdersRpc"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import { RiskRpc } from "@merkato/rpc/risk/RiskRpc"
import { ordersCreated, priceChange } from "./Orders.ts"
import * as OrdersStore from "./OrdersStore.ts"
import * as ProcessMoves from "./ProcessMoves.ts"
import * as SagaStore from "./SagaStore.ts"

const Refusal = Schema.Union([...PayRefusal.members, ...CheckoutRefusal.members])
type Refusal = typeof Refusal.Type
type PayRefusal = typeof PayRefusal.Type
type CheckoutRefusal = typeof CheckoutRefusal.Type
const isPayRefusal = Schema.is(PayRefusal)
const isRefusal = Schema.is(Refusal)
const isReplayed = Schema.is(Schema.TaggedStruct("Replayed", { refusal: Schema.toType(Refusal) }))
const isCheckoutRefusal = Schema.is(CheckoutRefusal)

const Answer = answerOf(Order, Refusal)
type Answer = typeof Answer.Type
const encodeAnswer = Schema.encodeSync(Schema.toCodecJson(Answer))
const decodeAnswer = Schema.decodeUnknownEffect(Schema.toCodecJson(Answer))

/** What a process can come to. `Open`: it is not known yet whether money was taken; the process goes on by itself. */
type Outcome =
  | { readonly _tag: "Done"; readonly order: Order }
  | { readonly _tag: "Refused"; readonly refusal: Refusal }
  /** No gateway took the money; the order can be paid later. */
  | { readonly _tag: "Unavailable"; readonly retryAfterSeconds: number }
  /** It came to nothing and left nothing behind; the same key may be tried again. */
  | { readonly _tag: "GivenUp" }
  /** Another checkout of the same cart is under way; the same key may be tried again. */
  | { readonly _tag: "CartTaken" }
  | { readonly _tag: "Open" }

/** Seconds a shopper waits before asking again about a payment that is not settled. */
const retryAfterSeconds = 5

/** Milliseconds before an unsettled process is looked at again. */
const againMs = 2_000

/** Milliseconds a checkout may take to its order; one that is taken over later is undone. */
const orderWithinMs = 60_000

const takeovers = Metric.counter("saga_takeovers_total", {
  description: "Order processes taken over after their owner's deadline",
  incremental: true
})
const compensations = Metric.counter("saga_compensations_total", {
  description: "Steps of order processes that were undone, by step",
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
      const orders = yield* OrdersStore.make
      const sagas = yield* SagaStore.make
      const moves = yield* ProcessMoves.make
      const idempotency = yield* Idempotency
      const encryption = yield* Encryption
      const cart = yield* CartRpc
      const pricing = yield* PricingRpc
      const risk = yield* RiskRpc
      const inventory = yield* InventoryRpc
      const payments = yield* PaymentsRpc
      const provided = yield* Provided.provided
      const owner = yield* Ids.next
      const orAway = orUnavailable("orders")
      const policies = yield* Policies

      /** A call to another context under its policy; when that gives up, the context is not available. */
      const guarded =
        (operation: OperationName, service: string) =>
        <A, E, R>(call: Effect.Effect<A, E | ServiceUnavailable, R>): Effect.Effect<A, E | ServiceUnavailable, R> =>
          call.pipe(
            policies.guard<E | ServiceUnavailable>(operation, {
              transient: (error) => error instanceof ServiceUnavailable
            }),
            Effect.catch((error) =>
              Effect.fail(
                isPolicyError(error)
                  ? new ServiceUnavailable({ service, retryAfterSeconds: error.retryAfterSeconds })
                  : error
              )
            )
          )

      /** What events make of an order, one after the other. */
      const evolved = Effect.fnUntraced(function* (
        order: Order | undefined,
        region: Order["region"],
        events: ReadonlyArray<(order: Order | undefined) => NewEvent>
      ) {
        const occurredAt = DateTime.makeUnsafe(yield* Clock.currentTimeMillis)
        const steps: Array<{ order: Order; event: NewEvent }> = []
        let current = order
        for (const next of events) {
          const event = next(current)
          current = yield* Effect.orDie(evolve(current, { ...event, occurredAt, region }))
          steps.push({ order: current, event })
        }
        return steps
      })

      type Change = (order: Order) => NewEvent

      /** An order after each of some events. */
      const changed = (order: Order, changes: ReadonlyArray<Change>) =>
        evolved(
          order,
          order.region,
          changes.map((change) => (current) => change(current ?? order))
        )

      const about =
        <A>(definition: EventDefinition<A>, payload: (order: Order) => A): Change =>
        (order) =>
          definition.of(order.orderId, order.version + 1, payload(order))

      const started = (attemptId: Ids.AttemptId) =>
        about(OrderPaymentStarted, ({ orderId, userId }) => ({ orderId, userId, attemptId }))
      const failed = (attemptId: Ids.AttemptId, reason: string) =>
        about(OrderPaymentFailed, ({ orderId, userId }) => ({ orderId, userId, attemptId, reason }))
      const canceled = (reason: string) =>
        about(OrderCanceled, ({ orderId, userId, reservationId }) => ({ orderId, userId, reservationId, reason }))
      const ofCart = ({ work: { cartId } }: SagaStore.Saga) => (cartId === undefined ? {} : { cartId })
      const paid = (saga: SagaStore.Saga) =>
        about(OrderPaid, (order) => ({
          orderId: order.orderId,
          userId: order.userId,
          attemptId: saga.attemptId,
          items: itemsOf(order),
          totalAmount: toDecimal(order.totalMinor, order.currency),
          currency: order.currency,
          ...ofCart(saga)
        }))
      const held = (saga: SagaStore.Saga, review: Review) =>
        about(OrderHeld, (order) => ({
          orderId: order.orderId,
          userId: order.userId,
          score: review.score,
          reasons: review.reasons,
          items: itemsOf(order),
          ...ofCart(saga)
        }))

      const logged = ({ orderId, work }: SagaStore.Saga, outcome: string) =>
        Effect.logDebug(`Order process ended: ${outcome}`).pipe(
          Effect.annotateLogs({ orderId, userId: work.principal.userId })
        )

      const keptFor = (end: Outcome) => {
        const answer = keptOf(end)
        return { kept: answer === undefined ? null : encodeAnswer(answer) }
      }

      /** Whether somebody else has gone on with the process. */
      const isReplaced = (saga: SagaStore.Saga) =>
        Effect.map(sagas.find(saga.sagaId), (now) => now?.epoch !== saga.epoch || now.step !== saga.step)

      /** Ends the process: what it did to the order, its last step and its answer, at once. `Open` when it is somebody else's. */
      const finish = (
        saga: Running,
        outcome: string,
        changes: (order: Order) => ReadonlyArray<Change>,
        ending: (order: Order) => Outcome
      ): Effect.Effect<Outcome, SqlError.SqlError> =>
        Effect.gen(function* () {
          const order = yield* orderOf(saga)
          // Read by an owner that was replaced: the other one has ended the payment already.
          if (order.paymentAttemptId !== saga.attemptId && (yield* isReplaced(saga))) return open
          const steps = yield* changed(order, changes(order))
          const end = ending(steps.at(-1)?.order ?? order)
          const change = { steps, from: order.version }
          switch (yield* moves.go({ saga, to: "done", outcome, change, answer: keptFor(end) })) {
            case "Moved":
              yield* logged(saga, outcome)
              return end
            case "Replaced":
              return open
            case "Overtaken":
              // Its reservation has ended meanwhile; no more than that happens to an order while a payment is under way.
              return yield* finish(without(saga), outcome, changes, ending)
          }
        })

      /** The same for a checkout that did not come to an order. */
      const finishEarly = Effect.fnUntraced(function* (saga: SagaStore.Saga, outcome: string, end: Outcome) {
        if ((yield* moves.go({ saga, to: "done", outcome, answer: keptFor(end) })) !== "Moved") return open
        yield* logged(saga, outcome)
        return end
      })

      const refused = (saga: SagaStore.Saga, refusal: Refusal) =>
        finishEarly(saga, codeOf(refusal._tag), { _tag: "Refused", refusal })

      const finishPaid = (saga: Running) =>
        finish(
          saga,
          "paid",
          () => [paid(saga)],
          (order) => ({ _tag: "Done", order })
        )

      const finishHeld = (saga: Running, review: Review) =>
        finish(
          saga,
          "held",
          () => [held(saga, review)],
          (order) => ({ _tag: "Done", order })
        )

      /** The goods are gone: the order ends. */
      const finishExpired = (saga: Running) =>
        finish(
          saga,
          "reservation_expired",
          () => [failed(saga.attemptId, "reservation_expired"), canceled("reservation_expired")],
          (order) => ({ _tag: "Refused", refusal: new NotPayable({ orderStatus: order.status }) })
        )

      /** No money was taken. The order stays as it was, unless its reservation ended meanwhile. */
      const withoutMoney = (saga: SagaStore.Saga, reason: string) => (order: Order) =>
        order.reservationLost
          ? [failed(saga.attemptId, reason), canceled("reservation_expired")]
          : [failed(saga.attemptId, reason)]

      /** A refusal about the money. Who pays an order tries another card; a checkout is over, and so is its order. */
      const finishRefused = Effect.fnUntraced(function* (
        saga: Running,
        refusal: PaymentDeclined | RiskBlocked,
        reason: string
      ) {
        const end = yield* finish(
          saga,
          codeOf(refusal._tag),
          saga.kind === "pay"
            ? withoutMoney(saga, reason)
            : () => [failed(saga.attemptId, reason), canceled(codeOf(refusal._tag))],
          () => ({ _tag: "Refused", refusal })
        )
        // The event of the cancellation does it too; this only makes sure that the stock is back when the shopper reads it.
        if (end._tag !== "Open" && saga.kind === "checkout") yield* Effect.ignore(giveStockBack(saga))
        return end
      })

      const finishUnavailable = (saga: Running, seconds = 30) =>
        finish(saga, "unavailable", withoutMoney(saga, "unavailable"), ({ status }) =>
          status === "CANCELED"
            ? { _tag: "Refused", refusal: new NotPayable({ orderStatus: status }) }
            : { _tag: "Unavailable", retryAfterSeconds: seconds }
        )

      /** Nobody can tell yet: gives the process back, to be looked at again soon. */
      const wait = (saga: SagaStore.Saga) => Effect.as(sagas.postpone(saga, againMs), open)

      /** What is bought, and for how much: from the cart, at the prices of now. */
      const quote = Effect.fnUntraced(function* (cartId: Ids.CartId, expectedTotal: number | undefined) {
        const { items, version } = yield* cart.GetCart({ cartId })
        if (items.length === 0) return yield* new CartEmpty({ cartId })
        const priced = yield* pricing.Quote({ items })
        const changed = priceChange(expectedTotal, priced)
        return changed === undefined ? { priced, cartId, cart: `${cartId}@${version}` } : yield* changed
      })

      /** Goes on with a cart that no other checkout turns into an order, or has: two keys do not buy it twice. */
      const claim = (saga: SagaStore.Saga, { priced, cartId, cart }: Effect.Success<ReturnType<typeof quote>>) => {
        const claimed = Effect.map(
          sagas.take(saga, cart, priced),
          (taken): Turn => (taken === undefined ? open : moving(taken))
        )
        return Effect.catchIf(claimed, isUniqueViolation, () =>
          Effect.flatMap(sagas.holderOf(cart), (holder) => {
            if (holder === undefined) return claimed
            if (holder.step !== "done") return finishEarly(saga, "cart_taken", cartTaken)
            return refused(saga, new CartOrdered({ cartId, orderId: holder.orderId }))
          })
        )
      }

      /** Decides whether the money may be asked for at all, or somebody has to look first. */
      const assess = Effect.fnUntraced(function* (
        { attemptId, orderId, work }: SagaStore.Saga,
        bill: Pick<Quote, "totalMinor" | "currency"> & { readonly lines: Quote["lines"] }
      ) {
        const { decision, score, reasons } = yield* risk
          .Assess({
            assessmentId: Ids.AssessmentId.make(derivedIdOf("RISK", orderId, attemptId)),
            orderId,
            userId: work.principal.userId,
            amountMinor: bill.totalMinor,
            currency: bill.currency,
            region: work.principal.region,
            units: bill.lines.reduce((sum, { qty }) => sum + qty, 0),
            lines: bill.lines.length,
            ...(work.deviceId === undefined ? {} : { deviceId: work.deviceId })
          })
          .pipe(guarded("risk.assess", "risk"), Tracing.withSpan("OrderProcess.risk", { attributes: { orderId } }))
        return { decision, score, reasons: reasons.map(({ rule }) => rule) }
      })

      const giveStockBack = ({ orderId, work: { reservationId } }: SagaStore.Saga) =>
        Effect.andThen(
          Metric.update(Metric.withAttributes(compensations, { step: "reserve" }), 1),
          inventory.Release({ reservationId, orderId })
        )

      /** Writes the order of a checkout down and moves on, at once: it waits for its money, or for a review. */
      const place = Effect.fnUntraced(function* (saga: SagaStore.Saga, bill: Quote, review: Review | undefined) {
        const { principal, reservationId } = saga.work
        const at = DateTime.makeUnsafe(yield* Clock.currentTimeMillis)
        const { userId, region } = principal
        const order = ordered(bill, { orderId: saga.orderId, userId, region, reservationId, createdAt: at })
        const next = review === undefined ? started(saga.attemptId) : held(saga, review)
        const steps = yield* evolved(undefined, principal.region, [
          () => created(order),
          (current) => next(current ?? order)
        ])
        const after = steps.at(-1)?.order ?? order
        const end: Outcome = { _tag: "Done", order: after }
        const moved = yield* moves.go({
          saga,
          change: { steps, from: 0 },
          ...(review === undefined ? { to: "authorise" } : { to: "done", outcome: "held", answer: keptFor(end) })
        })
        if (moved !== "Moved") return open
        yield* Metric.update(ordersCreated, 1)
        return review === undefined ? moving({ ...saga, step: "authorise", order: after }) : end
      })

      const hold = ({ work: { reservationId } }: SagaStore.Saga, holdMs: number) =>
        inventory.Extend({ reservationId, holdMs }).pipe(
          Effect.as(true),
          Effect.catchTag("ReservationClosed", () => Effect.succeed(false))
        )

      /** Holds the money. After a takeover this asks what became of the same attempt, and goes on with it. */
      const authorise = Effect.fnUntraced(function* (saga: SagaStore.Saga, order: Order) {
        const { attemptId } = saga
        const { paymentToken, rail } = saga.work
        const { orderId, userId, totalMinor: amountMinor, currency } = order
        const attempt = { attemptId, orderId, userId, amountMinor, currency }
        const token = paymentToken === null ? undefined : yield* decrypted(paymentToken, saga.sagaId)
        return yield* token === undefined
          ? payments.Resolve(attempt)
          : payments.Authorise({ ...attempt, paymentToken: token, rail })
      })

      const decrypted = (cipher: string, about: string) =>
        encryption.decrypt(cipher, about).pipe(
          Effect.map(PaymentToken.make),
          Effect.tapError((error) => Effect.logError("A payment token can no longer be read", error)),
          Effect.orElseSucceed(() => undefined)
        )

      /** Makes the goods the shopper's. False when the reservation is over. */
      const confirm = ({ work: { reservationId } }: SagaStore.Saga) =>
        inventory.Commit({ reservationId }).pipe(
          Effect.as(true),
          Effect.catchTag("ReservationClosed", () => Effect.succeed(false))
        )

      /** The order, as far as this owner knows it: it may have lost its reservation since. */
      const orderOf = (saga: Running) =>
        saga.order === undefined
          ? Effect.flatMap(orders.find(saga.orderId), (order) =>
              order === undefined ? Effect.die(new Error(`Order ${saga.orderId} is gone`)) : Effect.succeed(order)
            )
          : Effect.succeed(saga.order)

      const quoteOf = ({ sagaId, work }: SagaStore.Saga) =>
        work.quote === undefined ? Effect.die(new Error(`Checkout ${sagaId} has no quote`)) : Effect.succeed(work.quote)

      const spanOf = (step: ProcessStep, { orderId }: SagaStore.Saga) =>
        Tracing.withSpan(`OrderProcess.${step}`, { attributes: { orderId } })

      const onTo = (saga: Running, step: ProcessStep) =>
        Effect.map(
          moves.go({ saga, to: step }),
          (moved): Turn => (moved === "Moved" ? moving({ ...saga, step }) : open)
        )

      /** Asks whether the goods live long enough for a payment, and goes on to it. */
      const holdOn = (saga: Running) =>
        Effect.flatMap(hold(saga, paymentHoldMs), (held) =>
          held ? onTo(saga, "authorise") : finishExpired(saga)
        ).pipe(spanOf("hold", saga))

      /** Judges the order that is to be paid, and goes on with it; or with its review. */
      const judge = Effect.fnUntraced(function* (saga: Running) {
        const order = yield* orderOf(saga)
        const { decision, ...review } = yield* assess(saga, { ...order, lines: order.items })
        if (decision === "block") return yield* finishRefused(saga, new RiskBlocked(), "risk_blocked")
        if (decision === "allow") return yield* holdOn(saga)
        return (yield* hold(saga, reviewHoldMs)) ? yield* finishHeld(saga, review) : yield* finishExpired(saga)
      })

      /**
       * Keeps the goods for as long as a review may take, then writes the order down. They are not reserved for so long at
       * once: a request that the network held back until its checkout had come to nothing would take them for a day.
       */
      const placeHeld = (saga: SagaStore.Saga, bill: Quote, review: Review) =>
        Effect.flatMap(hold(saga, reviewHoldMs), (kept) =>
          kept ? place(saga, bill, review) : finishEarly(saga, "reservation_expired", givenUp)
        )

      /** Judges what a checkout buys, takes it aside and writes its order down. */
      const reserve = Effect.fnUntraced(function* (saga: SagaStore.Saga) {
        const bill = yield* quoteOf(saga)
        const { decision, ...judgement } = yield* assess(saga, bill)
        if (decision === "block") return yield* refused(saga, new RiskBlocked())
        const review = decision === "review" ? judgement : undefined
        const reserving = inventory
          .Reserve({
            reservationId: saga.work.reservationId,
            orderId: saga.orderId,
            items: bill.lines.map(({ productId, qty }) => ({ productId, qty })),
            ttlMs: reservationTtlMs
          })
          .pipe(
            guarded("stock.reserve", "inventory"),
            Effect.andThen(review === undefined ? place(saga, bill, review) : placeHeld(saga, bill, review)),
            Effect.catchTags({
              OutOfStock: (refusal) => refused(saga, refusal),
              ReservationClosed: () => finishEarly(saga, "reservation_expired", givenUp)
            })
          )
        return yield* spanOf("reserve", saga)(reserving)
      })

      /** Takes the money that is held. */
      const capture = (saga: Running) =>
        payments.Capture({ attemptId: saga.attemptId }).pipe(
          Effect.andThen(finishPaid(saga)),
          Effect.catchTag("PaymentUnknown", () => wait(saga)),
          spanOf("capture", saga)
        )

      /**
       * What is done from each step that a process may be found in; each says what comes next. It may be more than the step is
       * named after: whatever is repeated under its own ids finds its own answers, so that nothing has to be remembered in
       * between. What goes wrong for good ends the process, and undoes what it did.
       */
      const steps: Record<
        Exclude<ProcessStep, "done">,
        (saga: Running) => Effect.Effect<Turn, StepError, SqlClient.SqlClient>
      > = {
        quote: (saga) => {
          const { cartId, expectedTotal } = saga.work
          if (cartId === undefined) return Effect.die(new Error(`Checkout ${saga.sagaId} has no cart`))
          return quote(cartId, expectedTotal).pipe(
            Effect.flatMap((bought) => claim(saga, bought)),
            Effect.catchTags({
              CartNotFound: (refusal) => refused(saga, refusal),
              CartEmpty: (refusal) => refused(saga, refusal),
              ProductNotFound: (refusal) => refused(saga, refusal),
              CurrencyNotSupported: (refusal) => refused(saga, refusal),
              PriceChanged: (refusal) => refused(saga, refusal)
            }),
            spanOf("quote", saga)
          )
        },
        risk: (saga) => (saga.kind === "pay" ? judge(saga) : reserve(saga)),
        reserve,
        release: (saga) =>
          giveStockBack(saga).pipe(
            Effect.catchTag("ReservationClosed", () => Effect.void),
            Effect.andThen(finishEarly(saga, "given_up", givenUp)),
            spanOf("release", saga)
          ),
        hold: holdOn,
        authorise: (saga) =>
          orderOf(saga).pipe(
            Effect.flatMap((order) => authorise(saga, order)),
            Effect.andThen(onTo(saga, "confirm")),
            Effect.catchTags({
              PaymentDeclined: (refusal) => finishRefused(saga, refusal, refusal.reason),
              PaymentVoided: () => finishUnavailable(saga),
              PaymentUnavailable: (error) => finishUnavailable(saga, error.retryAfterSeconds),
              PaymentUnknown: () => wait(saga)
            }),
            spanOf("authorise", saga)
          ),
        confirm: (saga) =>
          Effect.flatMap(confirm(saga).pipe(spanOf("confirm", saga)), (sold) =>
            sold ? capture(saga) : onTo(saga, "void")
          ),
        capture,
        void: (saga) =>
          payments.Void({ attemptId: saga.attemptId, reason: "reservation_expired" }).pipe(
            Effect.tap(Metric.update(Metric.withAttributes(compensations, { step: "authorise" }), 1)),
            Effect.andThen(finishExpired(saga)),
            Effect.catchTag("PaymentUnknown", () => wait(saga)),
            spanOf("void", saga)
          )
      }

      /** Goes on from where the process stands until it ends, waits, or turns out to be somebody else's. */
      const drive = (saga: Running): Effect.Effect<Outcome, ServiceUnavailable> =>
        saga.step === "done"
          ? Effect.succeed(open)
          : steps[saga.step](saga).pipe(
              Effect.catchTags({
                // Within the shop a refusal by the Authorizer or a voided capture is a mistake of ours, not an outcome.
                Forbidden: Effect.die,
                PaymentVoided: Effect.die
              }),
              orAway,
              // Whoever is away may be back soon: nobody has to wait for the end of this owner's time.
              Effect.tapError(() => Effect.ignore(sagas.postpone(saga, againMs))),
              provided,
              Effect.flatMap((turn) => (turn._tag === "Moving" ? drive(turn.saga) : Effect.succeed(turn)))
            )

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
      const refusalOf = Effect.fnUntraced(function* (orderId: Ids.OrderId, order: Order | undefined) {
        if (order === undefined) return new OrderNotFound({ orderId })
        if (!(yield* allowed("order.pay", { ownerId: order.userId }))) return new NotYourOrder()
        return order.status === "PENDING" ? undefined : new NotPayable({ orderStatus: order.status })
      })

      /** Claims the key, marks the order and begins the process, in one transaction. */
      const beginPay = (keyed: Keyed, request: Pay) =>
        transaction(
          Effect.gen(function* () {
            if (!(yield* idempotency.claim(keyed, SagaStore.leaseMs))) return undefined
            const order = yield* orders.lock(request.orderId)
            const refusal = yield* refusalOf(request.orderId, order)
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
            const ofCart = ofCheckout(request)
            const left =
              before?.request.payloadHash === keyed.payloadHash ? yield* orders.lock(before.orderId) : undefined
            if (left?.status === "PENDING") {
              if (left.paymentAttemptId !== null) return yield* new PaymentInProgress({ retryAfterSeconds })
              return yield* beginPayment(left, {
                sagaId,
                kind: "checkout",
                attempt,
                request: keyed,
                work: { ...work, ...ofCart, reservationId: left.reservationId }
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
                ...ofCart,
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

/** A process that runs here, with its order as this owner knows it. */
interface Running extends SagaStore.Saga {
  readonly order?: Order
}

/** The order is to be read again. */
const without = ({ order: _, ...saga }: Running): Running => saga

/** What a process keeps of the request for a checkout. */
const ofCheckout = ({ cartId, expectedTotal }: Checkout) => ({
  cartId,
  ...(expectedTotal === undefined ? {} : { expectedTotal })
})

/** What follows a step: another one, or the end. */
type Turn = Outcome | { readonly _tag: "Moving"; readonly saga: Running }
const moving = (saga: Running): Turn => ({ _tag: "Moving", saga })
const open: Outcome = { _tag: "Open" }
const givenUp: Outcome = { _tag: "GivenUp" }
const cartTaken: Outcome = { _tag: "CartTaken" }

type StepError = ServiceUnavailable | Forbidden | PaymentVoided | SqlError.SqlError

type NewSaga = Parameters<Effect.Success<typeof SagaStore.make>["begin"]>[0]
type Review = NonNullable<SagaStore.Work["review"]>

/** What of an ending is kept under the request's key: what was done, and refusals of the domain. */
const keptOf = (end: Outcome): Answer | undefined => {
  switch (end._tag) {
    case "Done":
      return { _tag: "Done", value: end.order }
    case "Refused":
      return { _tag: "Refused", refusal: end.refusal }
    default:
      return undefined
  }
}

/** Looks for processes without a living owner: every second, and again at once while there are some. */
export const recovery = Effect.gen(function* () {
  const process = yield* OrderProcess
  const pauseMs = yield* Effect.orDie(Config.Int("MERKATO_ORDER_PROCESS_SWEEP_MS").pipe(Config.withDefault(1_000)))
  return yield* Effect.forever(
    process.takeOver.pipe(
      Effect.flatMap((count) => (count > 0 ? Effect.void : Effect.sleep(pauseMs))),
      Effect.catch((error) =>
        Effect.andThen(Effect.logWarning("Recovery of order processes pauses", error), Effect.sleep("1 second"))
      )
    )
  )
})
