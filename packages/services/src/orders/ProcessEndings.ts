import { Effect, Metric } from "effect"
import type { SqlError } from "effect/sql"
import { codeOf } from "@merkato/domain/kernel/Problem"
import { NotPayable, Order, RiskBlocked } from "@merkato/domain/orders/Order"
import type { PaymentDeclined } from "@merkato/domain/payments/Payment"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { canceled, type Change, changed, failed, held, paid } from "./OrderChanges.ts"
import * as OrdersStore from "./OrdersStore.ts"
import * as ProcessMoves from "./ProcessMoves.ts"
import {
  encodeAnswer,
  keptOf,
  open,
  type Outcome,
  type Refusal,
  type Review,
  type Running,
  without
} from "./ProcessOutcome.ts"
import * as SagaStore from "./SagaStore.ts"

const compensations = Metric.counter("saga_compensations_total", {
  description: "Steps of order processes that were undone, by step",
  incremental: true
})

/** A step was undone. */
export const compensated = (step: "reserve" | "authorise") =>
  Metric.update(Metric.withAttributes(compensations, { step }), 1)

/** Milliseconds before an unsettled process is looked at again. */
export const againMs = 2_000

/** Where orders and their processes are kept. What they combine they combine for all who share them. */
export interface Stores {
  readonly orders: Effect.Success<typeof OrdersStore.make>
  readonly sagas: Effect.Success<typeof SagaStore.make>
  readonly moves: Effect.Success<typeof ProcessMoves.make>
}

/** The ways in which a process ends, each with what it does to the order and what its request is told. */
export const make = Effect.fnUntraced(function* ({ orders, sagas, moves }: Stores) {
  const inventory = yield* InventoryRpc

  /** The order, as far as this owner knows it: it may have lost its reservation since. */
  const orderOf = (saga: Running) =>
    saga.order === undefined
      ? Effect.flatMap(orders.find(saga.orderId), (order) =>
          order === undefined ? Effect.die(new Error(`Order ${saga.orderId} is gone`)) : Effect.succeed(order)
        )
      : Effect.succeed(saga.order)

  /** From now on inventory refuses to reserve for this process; what it has reserved is free again, unless it is sold. */
  const closeReservation = ({ orderId, work: { reservationId } }: SagaStore.Saga) =>
    inventory.Release({ reservationId, orderId }).pipe(Effect.catchTag("ReservationClosed", () => Effect.void))

  const giveStockBack = (saga: SagaStore.Saga) => Effect.andThen(compensated("reserve"), closeReservation(saga))

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

  return {
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
  }
})
