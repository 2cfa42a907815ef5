import { Schema } from "effect"
import { RpcGroup } from "effect/rpc"
import {
  AdjustmentReason,
  Delta,
  OutOfStock,
  ReservationClosed,
  StockLevels,
  StockWouldBeNegative,
  StockWouldOverflow
} from "@merkato/domain/inventory/Stock"
import { ProductNotFound } from "@merkato/domain/catalogue/Product"
import { IdempotencyKey, OrderId, ProductId, ReservationId } from "@merkato/domain/kernel/Ids"
import { Forbidden, IdempotencyKeyReused, RequestInProgress } from "@merkato/domain/kernel/Problem"
import { LineQuantity } from "@merkato/domain/pricing/Quote"
import { Contract } from "../contract/Contract.ts"
import { command, idsOf, query } from "../contract/Operation.ts"
import { answered } from "../contract/Replayed.ts"

export const InventoryGroup = RpcGroup.make(
  query("Levels", { payload: { productId: ProductId }, success: StockLevels, errors: [] }),
  /** The levels of many at once, in their order; zeros for a product without stock. */
  query("LevelsOf", { payload: { productIds: idsOf(ProductId) }, success: Schema.Array(StockLevels), errors: [] }),
  /** With a key a repeat changes nothing, and gets the levels of the first time; what was refused is judged anew. */
  command("Adjust", {
    payload: {
      idempotencyKey: Schema.optionalKey(IdempotencyKey),
      productId: ProductId,
      delta: Delta,
      reason: AdjustmentReason
    },
    success: answered(StockLevels),
    errors: [
      Forbidden,
      ProductNotFound,
      StockWouldBeNegative,
      StockWouldOverflow,
      IdempotencyKeyReused,
      RequestInProgress
    ]
  }),
  /**
   * Takes stock aside, all items or none. The reservation id is the idempotency key: a repeat of a held reservation
   * succeeds and changes nothing; one that has ended fails with `ReservationClosed`.
   */
  command("Reserve", {
    payload: {
      reservationId: ReservationId,
      orderId: OrderId,
      items: Schema.Array(Schema.Struct({ productId: ProductId, qty: LineQuantity })),
      ttlMs: Schema.Int
    },
    /** The order that the reservation was made for: on a repeat it may be another than the caller's. */
    success: Schema.Struct({ orderId: OrderId }),
    errors: [Forbidden, OutOfStock, ReservationClosed]
  }),
  /** Makes a held reservation live at least `holdMs` from now. */
  command("Extend", {
    payload: { reservationId: ReservationId, holdMs: Schema.Int },
    success: Schema.Void,
    errors: [Forbidden, ReservationClosed]
  }),
  /** The goods are sold: they leave the stock. Repeats are harmless. */
  command("Commit", {
    payload: { reservationId: ReservationId },
    success: Schema.Void,
    errors: [Forbidden, ReservationClosed]
  }),
  /**
   * Gives the stock back. Repeats are harmless; a release before its reserve leaves a tombstone that refuses the late
   * reserve. A committed reservation stays as it is.
   */
  command("Release", {
    payload: { reservationId: ReservationId, orderId: OrderId },
    success: Schema.Void,
    errors: [Forbidden, ReservationClosed]
  })
)

export class InventoryRpc extends Contract<InventoryRpc>()("inventory", InventoryGroup) {}
