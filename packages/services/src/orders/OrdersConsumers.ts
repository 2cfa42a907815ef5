import { ReservationExpired } from "@merkato/domain/inventory/InventoryEvents"
import * as Consumer from "@merkato/infra/events/Consumer"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { Orders } from "./Orders.ts"

/** Ends orders whose stock is no longer held. */
export const endExpired = Consumer.make({
  group: "orders.end-expired",
  topic: "inventory.events",
  eventTypes: [ReservationExpired.type],
  mode: "apply",
  handle: Tracing.fn("Orders.endExpired")(function* ({ payload }) {
    yield* (yield* Orders).reservationExpired(yield* ReservationExpired.decode(payload))
  })
})
