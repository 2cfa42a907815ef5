/** Stock over gRPC: what inventory.proto promises, as messages with the rules of the domain, and what they are in `InventoryRpc`. */
import { Schema } from "effect"
import { ReservationClosed, OutOfStock, reservationTtlMs, StockLevels } from "@merkato/domain/inventory/Stock"
import { OrderId, ProductId, ReservationId } from "@merkato/domain/kernel/Ids"
import { Forbidden, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { LineQuantity } from "@merkato/domain/pricing/Quote"
import inventoryProto from "./inventory.proto" with { type: "text" }
import * as Refusals from "./Refusals.ts"

/** The file as it is published. */
export { inventoryProto }

export const service = "merkato.inventory.v1.Inventory"

/** Whose the reasons are that refusals carry. */
export const domain = "inventory.merkato"

/** The longest that stock may be held: a day. */
const maxTtlSeconds = 86_400

export const ReserveRequest = Schema.Struct({
  reservation_id: ReservationId,
  order_id: OrderId,
  items: Schema.Array(Schema.Struct({ product_id: ProductId, qty: LineQuantity })),
  ttl_seconds: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: maxTtlSeconds }))
})
export const ReserveReply = Schema.Struct({ order_id: OrderId })
export const ReleaseRequest = Schema.Struct({ reservation_id: ReservationId })
export const StockQuery = Schema.Struct({ product_id: ProductId })

/** As `InventoryRpc` is asked. */
export interface Reserve {
  readonly reservationId: ReservationId
  readonly orderId: OrderId
  readonly items: ReadonlyArray<{ readonly productId: ProductId; readonly qty: number }>
  readonly ttlMs: number
}

export const toReserve = (request: typeof ReserveRequest.Type): Reserve => ({
  reservationId: request.reservation_id,
  orderId: request.order_id,
  items: request.items.map(({ product_id: productId, qty }) => ({ productId, qty })),
  ttlMs: request.ttl_seconds === 0 ? reservationTtlMs : request.ttl_seconds * 1_000
})

/** Held for whole seconds: not shorter than was asked for. */
export const fromReserve = ({ reservationId, orderId, items, ttlMs }: Reserve): typeof ReserveRequest.Encoded => ({
  reservation_id: reservationId,
  order_id: orderId,
  items: items.map(({ productId, qty }) => ({ product_id: productId, qty })),
  ttl_seconds: Math.ceil(ttlMs / 1_000)
})

/**
 * The message names no order: that of a reservation which is there is known, and what a release before its reserve leaves
 * behind only refuses the late reserve, so that its own id stands in.
 */
export const toRelease = ({ reservation_id: reservationId }: typeof ReleaseRequest.Type) => ({
  reservationId,
  orderId: OrderId.make(reservationId)
})

export const toQuery = ({ product_id: productId }: typeof StockQuery.Type) => ({ productId })

export const fromLevels = ({ productId, onHand, reserved, available, version }: StockLevels) => ({
  product_id: productId,
  on_hand: onHand,
  reserved,
  available,
  version
})

/** Refusals of a reservation, from what their `ErrorInfo` says: the same errors as over RPC. */
export const reserveRefusal = Refusals.reader([Forbidden, OutOfStock, ReservationClosed, ServiceUnavailable])
