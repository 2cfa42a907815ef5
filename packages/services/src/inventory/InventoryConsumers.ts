import { OrderCanceled } from "@merkato/domain/orders/OrderEvents"
import * as Consumer from "@merkato/infra/events/Consumer"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { Inventory } from "./Inventory.ts"

/** Gives back the stock of canceled orders. Whoever canceled has tried already; this is for when it died in between. */
export const releaseCanceled = Consumer.make({
  group: "inventory.release-canceled",
  topic: "order.events",
  eventTypes: [OrderCanceled.type],
  mode: "apply",
  handle: Tracing.fn("Inventory.releaseCanceled")(function* ({ payload }) {
    const { reservationId, orderId } = yield* OrderCanceled.decode(payload)
    yield* (yield* Inventory).release({ reservationId, orderId })
  })
})
