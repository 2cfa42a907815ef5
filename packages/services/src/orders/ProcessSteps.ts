import { Clock, DateTime, Effect, Metric } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { type OutOfStock, paymentHoldMs, reservationTtlMs } from "@merkato/domain/inventory/Stock"
import * as Ids from "@merkato/domain/kernel/Ids"
import { type Forbidden, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import {
  CartEmpty,
  CartOrdered,
  Order,
  ordered,
  orderWithinMs,
  reviewHoldMs,
  RiskBlocked
} from "@merkato/domain/orders/Order"
import { created } from "@merkato/domain/orders/OrderEvents"
import type { ProcessStep } from "@merkato/domain/orders/OrderProcess"
import { PaymentToken, type PaymentVoided } from "@merkato/domain/payments/Payment"
import type { Quote } from "@merkato/domain/pricing/Quote"
import { Encryption } from "@merkato/infra/auth/Encryption"
import * as Provided from "@merkato/infra/context/Provided"
import { derivedIdOf } from "@merkato/infra/idempotency/Digest"
import { isUniqueViolation, orUnavailable } from "@merkato/infra/postgres/Database"
import type { OperationName } from "@merkato/infra/policy/operations"
import { Policies } from "@merkato/infra/policy/Policies"
import { isPolicyError } from "@merkato/infra/policy/PolicyError"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import { RiskRpc } from "@merkato/rpc/risk/RiskRpc"
import { evolved, held, started } from "./OrderChanges.ts"
import { ordersCreated, priceChange } from "./Orders.ts"
import * as ProcessEndings from "./ProcessEndings.ts"
import { againMs, compensated } from "./ProcessEndings.ts"
import {
  cartTaken,
  givenUp,
  moving,
  open,
  type Outcome,
  type Review,
  type Running,
  type Turn
} from "./ProcessOutcome.ts"
import * as SagaStore from "./SagaStore.ts"

type StepError = ServiceUnavailable | Forbidden | PaymentVoided | SqlError.SqlError

/** What is done from each step of an order process, and how one leads to the next. */
export const make = Effect.fnUntraced(function* (stores: ProcessEndings.Stores) {
  const { sagas, moves } = stores
  const {
    orderOf,
    closeReservation,
    giveStockBack,
    keptFor,
    finishEarly,
    refused,
    finishPaid,
    finishHeld,
    finishExpired,
    finishRefused,
    finishUnavailable,
    wait
  } = yield* ProcessEndings.make(stores)
  const encryption = yield* Encryption
  const cart = yield* CartRpc
  const pricing = yield* PricingRpc
  const risk = yield* RiskRpc
  const inventory = yield* InventoryRpc
  const payments = yield* PaymentsRpc
  const policies = yield* Policies
  const provided = yield* Provided.provided
  const orAway = orUnavailable("orders")

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

  /** What is bought, and for how much: from the cart, at the prices of now. */
  const quote = Effect.fnUntraced(function* (cartId: Ids.CartId, expectedTotal: number | undefined) {
    const { items, ordersTaken } = yield* cart.GetCart({ cartId })
    if (items.length === 0) return yield* new CartEmpty({ cartId })
    const priced = yield* pricing.Quote({ items })
    const changed = priceChange(expectedTotal, priced)
    return changed === undefined ? { priced, cartId, cart: `${cartId}#${ordersTaken}` } : yield* changed
  })

  const onTo = (saga: Running, step: ProcessStep) =>
    Effect.map(moves.go({ saga, to: step }), (moved): Turn => (moved === "Moved" ? moving({ ...saga, step }) : open))

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

  /**
   * Writes the order of a checkout down and moves on, at once: it waits for its money, or for a review. Too late, it undoes the
   * checkout instead: the goods may have gone already, and whoever heard of that knew of no order.
   */
  const place = Effect.fnUntraced(function* (saga: SagaStore.Saga, bill: Quote, review: Review | undefined) {
    const { principal, reservationId } = saga.work
    const at = DateTime.makeUnsafe(yield* Clock.currentTimeMillis)
    if (at.epochMilliseconds - saga.begunAt.epochMilliseconds > orderWithinMs) return yield* onTo(saga, "release")
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

  const quoteOf = ({ sagaId, work }: SagaStore.Saga) =>
    work.quote === undefined ? Effect.die(new Error(`Checkout ${sagaId} has no quote`)) : Effect.succeed(work.quote)

  const spanOf = (step: ProcessStep, { orderId }: SagaStore.Saga) =>
    Tracing.withSpan(`OrderProcess.${step}`, { attributes: { orderId } })

  /** Asks whether the goods live long enough for a payment, and goes on to it. */
  const holdOn = (saga: Running) =>
    Effect.flatMap(hold(saga, paymentHoldMs), (held) => (held ? onTo(saga, "authorise") : finishExpired(saga))).pipe(
      spanOf("hold", saga)
    )

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

  /**
   * Ends a checkout whose goods are not there, and has inventory refuse them from now on: they may come back, and an owner
   * that was replaced without noticing would still take them. Not before the move, which only the owner of now can make.
   */
  const refuseForGood = Effect.fnUntraced(function* (saga: SagaStore.Saga, refusal: OutOfStock) {
    const turn = yield* onTo(saga, "release")
    if (turn._tag !== "Moving") return turn
    yield* closeReservation(turn.saga)
    return yield* refused(turn.saga, refusal)
  })

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
          OutOfStock: (refusal) => refuseForGood(saga, refusal),
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
      giveStockBack(saga).pipe(Effect.andThen(finishEarly(saga, "given_up", givenUp)), spanOf("release", saga)),
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
        Effect.tap(compensated("authorise")),
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

  return { quote, drive }
})
