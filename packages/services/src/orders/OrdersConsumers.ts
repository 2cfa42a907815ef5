import { Effect } from "effect"
import { ReservationExpired } from "@merkato/domain/inventory/InventoryEvents"
import type { Envelope } from "@merkato/domain/kernel/Event"
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
  }),
  lock: Effect.fnUntraced(function* (events: ReadonlyArray<Envelope>) {
    const expired = yield* Effect.forEach(events, ({ payload }) => ReservationExpired.decode(payload))
    yield* (yield* Orders).lock(expired.map(({ orderId }) => orderId))
  })
})
