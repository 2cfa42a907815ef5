/** What happens to an order in its process: the events, and the order after each of them. */
import { Clock, DateTime, Effect } from "effect"
import type { EventDefinition, NewEvent } from "@merkato/domain/kernel/Event"
import * as Ids from "@merkato/domain/kernel/Ids"
import { toDecimal } from "@merkato/domain/kernel/Money"
import { Order } from "@merkato/domain/orders/Order"
import {
  evolve,
  itemsOf,
  OrderCanceled,
  OrderHeld,
  OrderPaid,
  OrderPaymentFailed,
  OrderPaymentStarted
} from "@merkato/domain/orders/OrderEvents"
import type { Review } from "./ProcessOutcome.ts"
import * as SagaStore from "./SagaStore.ts"

/** What events make of an order, one after the other. */
export const evolved = Effect.fnUntraced(function* (
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

export type Change = (order: Order) => NewEvent

/** An order after each of some events. */
export const changed = (order: Order, changes: ReadonlyArray<Change>) =>
  evolved(
    order,
    order.region,
    changes.map((change) => (current) => change(current ?? order))
  )

const about =
  <A>(definition: EventDefinition<A>, payload: (order: Order) => A): Change =>
  (order) =>
    definition.of(order.orderId, order.version + 1, payload(order))

export const started = (attemptId: Ids.AttemptId) =>
  about(OrderPaymentStarted, ({ orderId, userId }) => ({ orderId, userId, attemptId }))
export const failed = (attemptId: Ids.AttemptId, reason: string) =>
  about(OrderPaymentFailed, ({ orderId, userId }) => ({ orderId, userId, attemptId, reason }))
export const canceled = (reason: string) =>
  about(OrderCanceled, ({ orderId, userId, reservationId }) => ({ orderId, userId, reservationId, reason }))
export const ofCart = ({ work: { cartId } }: SagaStore.Saga) => (cartId === undefined ? {} : { cartId })
export const paid = (saga: SagaStore.Saga) =>
  about(OrderPaid, (order) => ({
    orderId: order.orderId,
    userId: order.userId,
    attemptId: saga.attemptId,
    items: itemsOf(order),
    totalAmount: toDecimal(order.totalMinor, order.currency),
    currency: order.currency,
    ...ofCart(saga)
  }))
export const held = (saga: SagaStore.Saga, review: Review) =>
  about(OrderHeld, (order) => ({
    orderId: order.orderId,
    userId: order.userId,
    score: review.score,
    reasons: review.reasons,
    items: itemsOf(order),
    ...ofCart(saga)
  }))
