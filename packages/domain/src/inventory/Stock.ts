import { Schema } from "effect"
import { ProductId, ReservationId } from "../kernel/Ids.ts"
import { text } from "../kernel/Text.ts"

/** The warehouse of a shop that has one. */
export const defaultWarehouse = "MAIN"

/** The most units of one product a warehouse can hold: 10^9. */
export const maxUnits = 1_000_000_000

const Units = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: maxUnits }))

/** Units of a product in a warehouse: `available = onHand - reserved`, and none is ever negative. */
export class StockLevels extends Schema.Class<StockLevels>("StockLevels")({
  productId: ProductId,
  onHand: Units,
  reserved: Units,
  available: Units,
  /** Counts the changes, from 1; 0 for a product that never had stock. */
  version: Schema.Int
}) {}

/** A change of stock by hand or by a device: not 0, at most 10^6 units either way. */
export const Delta = Schema.Int.check(
  Schema.isBetween({ minimum: -1_000_000, maximum: 1_000_000 }),
  Schema.makeFilter((delta) => (delta === 0 ? "Expected a change other than 0" : undefined), {
    toJsonSchema: () => ({ not: { const: 0 } })
  })
)

export const AdjustmentReason = text(200)

/** `held` until it is committed (sold), released, or its time is over. The last three are final. */
export const ReservationStatus = Schema.Literals(["held", "committed", "released", "expired"])
export type ReservationStatus = typeof ReservationStatus.Type

/** Milliseconds a reservation lives without payment (design: 15 minutes). */
export const reservationTtlMs = 15 * 60_000

/** Milliseconds a hold is extended by when payment starts; the payment must be over by then. */
export const paymentHoldMs = 10 * 60_000

export const Shortage = Schema.Struct({
  productId: ProductId,
  requested: Schema.Int,
  available: Schema.Int
})

/** Not enough units of these products. */
export class OutOfStock extends Schema.TaggedError<OutOfStock>()(
  "OutOfStock",
  { products: Schema.Array(Shortage) },
  { httpApiStatus: 409 }
) {
  override get message() {
    return "Not enough stock"
  }
}

export class StockWouldBeNegative extends Schema.TaggedError<StockWouldBeNegative>()(
  "StockWouldBeNegative",
  { productId: ProductId, available: Schema.Int },
  { httpApiStatus: 409 }
) {
  override get message() {
    return `Only ${this.available} units are free to be taken away`
  }
}

export class StockWouldOverflow extends Schema.TaggedError<StockWouldOverflow>()(
  "StockWouldOverflow",
  { productId: ProductId },
  { httpApiStatus: 409 }
) {
  override get message() {
    return `A warehouse holds at most ${maxUnits} units of a product`
  }
}

/** The reservation has ended, or never was: what was asked can no longer be done with it. */
export class ReservationClosed extends Schema.TaggedError<ReservationClosed>()(
  "ReservationClosed",
  { reservationId: ReservationId, status: Schema.String },
  { httpApiStatus: 409 }
) {
  override get message() {
    return `Reservation ${this.reservationId} is ${this.status}`
  }
}
