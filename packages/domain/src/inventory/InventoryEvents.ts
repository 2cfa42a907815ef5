import { Schema } from "effect"
import * as Event from "../kernel/Event.ts"
import { OrderId, ProductId, ReservationId } from "../kernel/Ids.ts"

/** Levels after the change, and their version. Every change of onHand or reserved emits one of these four. */
const levels = {
  productId: ProductId,
  warehouseId: Schema.String,
  onHand: Schema.Int,
  reserved: Schema.Int,
  available: Schema.Int,
  version: Schema.Int
}

export const StockAdjusted = Event.define(
  "ecommerce.inventory.stock.adjusted.v1",
  "inventory.events",
  Schema.Struct({ ...levels, delta: Schema.Int, reason: Schema.String })
)

const ofReservation = (type: string) =>
  Event.define(
    `ecommerce.inventory.stock.${type}.v1`,
    "inventory.events",
    Schema.Struct({ ...levels, qty: Schema.Int, reservationId: ReservationId, orderId: OrderId })
  )

export const StockReserved = ofReservation("reserved")
export const StockReleased = ofReservation("released")
export const StockCommitted = ofReservation("committed")

/** A reservation's time was over before it was paid (key: orderId). */
export const ReservationExpired = Event.define(
  "ecommerce.inventory.reservation.expired.v1",
  "inventory.events",
  Schema.Struct({ reservationId: ReservationId, orderId: OrderId })
)

/**
 * A device's message that could not be applied, as it lies in the dead letters. Nobody publishes it: it is in the topic only
 * when an operator puts it back, and is then tried again (key: the SKU).
 */
export const DeviceDeltaReceived = Event.define(
  "ecommerce.inventory.device_delta.received.v1",
  "inventory.events",
  Schema.Struct({
    sku: Schema.String,
    delta: Schema.Int,
    reason: Schema.String,
    messageId: Schema.optionalKey(Schema.String),
    deviceId: Schema.optionalKey(Schema.String)
  })
)

export const events = [
  StockAdjusted,
  StockReserved,
  StockReleased,
  StockCommitted,
  ReservationExpired,
  DeviceDeltaReceived
] as const
