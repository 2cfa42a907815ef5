import { DateTime, Effect } from "effect"
import type { Envelope, EventDefinition } from "@merkato/domain/kernel/Event"
import type { OrderId, UserId } from "@merkato/domain/kernel/Ids"
import { format, fromDecimal } from "@merkato/domain/kernel/Money"
import { Notification } from "@merkato/domain/notifications/Notification"
import {
  OrderCanceled,
  OrderCreated,
  OrderFulfilled,
  OrderHeld,
  OrderPaid,
  OrderReleased
} from "@merkato/domain/orders/OrderEvents"
import * as Consumer from "@merkato/infra/events/Consumer"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { Notifications } from "./Notifications.ts"

interface OfOrder {
  readonly orderId: OrderId
  readonly userId: UserId
}

/** What a kind of event has to say to its order's owner. */
const message = <A extends OfOrder>(kind: string, definition: EventDefinition<A>, text: (payload: A) => string) => ({
  type: definition.type,
  of: Effect.fnUntraced(function* (event: Envelope) {
    const payload = yield* definition.decode(event.payload)
    return new Notification({
      // One notification per event, however often the event comes.
      notificationId: event.eventId,
      userId: payload.userId,
      kind,
      orderId: payload.orderId,
      text: text(payload),
      createdAt: DateTime.makeUnsafe(event.occurredAt),
      readAt: null
    })
  })
})

const amount = ({
  totalAmount,
  currency
}: {
  readonly totalAmount: number
  readonly currency: typeof OrderPaid.payload.Type.currency
}) => {
  const minor = fromDecimal(totalAmount, currency)
  return minor._tag === "Success" ? format(minor.success, currency) : `${totalAmount} ${currency}`
}

const messages = [
  message(
    "order.created",
    OrderCreated,
    (order) => `We have your order over ${amount(order)}. It waits for its payment.`
  ),
  message("order.paid", OrderPaid, (order) => `Thank you! Your order over ${amount(order)} is paid.`),
  message("order.canceled", OrderCanceled, ({ reason }) =>
    reason === "reservation_expired"
      ? "Your order was canceled, because it was not paid in time."
      : reason === "payment_declined"
        ? "Your order was canceled, because its payment was declined."
        : "Your order was canceled."
  ),
  message("order.held", OrderHeld, () => "We are having a look at your order. You will hear from us within a day."),
  message("order.released", OrderReleased, () => "Your order is fine. It waits for its payment."),
  message("order.fulfilled", OrderFulfilled, () => "Your order is on its way.")
]

const tell = Tracing.fn("Notifications.tellShoppers")(function* (events: ReadonlyArray<Envelope>) {
  const told = yield* Effect.forEach(events, (event) => {
    const about = messages.find(({ type }) => type === event.eventType)
    return about === undefined ? Effect.die(new Error(`Nothing to say about ${event.eventType}`)) : about.of(event)
  })
  yield* (yield* Notifications).tell(told)
})

/** Tells shoppers how their orders come along. */
export const tellShoppers = Consumer.make({
  group: "notifications.tell-shoppers",
  topic: "order.events",
  eventTypes: messages.map(({ type }) => type),
  mode: "apply",
  handle: (event) => tell([event]),
  handleAll: tell
})
