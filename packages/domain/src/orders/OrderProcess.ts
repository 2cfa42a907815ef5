import { Schema } from "effect"
import { AttemptId, OrderId } from "../kernel/Ids.ts"

/** How a process was entered: a pending order is paid, or a cart is bought at once. */
export const ProcessKind = Schema.Literals(["pay", "checkout"])
export type ProcessKind = typeof ProcessKind.Type

/**
 * Where an order process stands: the step from which whoever takes it over goes on. The way is quote → risk → reserve →
 * authorise → confirm → capture for a checkout, and risk → hold → authorise → confirm → capture for a pending order.
 * `release` and `void` undo reserve and authorise. Steps that are simply repeated are not written down one by one: a
 * checkout is at `reserve` from its beginning, a pending order at `risk` until its money is asked for, and `confirm` lasts
 * until the money is taken.
 */
export const ProcessStep = Schema.Literals([
  "quote",
  "risk",
  "reserve",
  "release",
  "hold",
  "authorise",
  "confirm",
  "capture",
  "void",
  "done"
])
export type ProcessStep = typeof ProcessStep.Type

/** An order process as operators see it. */
export class OrderProcessState extends Schema.Class<OrderProcessState>("OrderProcessState")({
  sagaId: Schema.String,
  kind: ProcessKind,
  orderId: OrderId,
  step: ProcessStep,
  /** How it ended; null while it goes on. */
  outcome: Schema.NullOr(Schema.String),
  /** Which try under the same Idempotency-Key this is, from 1. */
  attempt: Schema.Int,
  /** The payment attempt: what payments and the gateways know it by. */
  attemptId: AttemptId,
  /** The process of the shop that works on it, and how often that changed. */
  owner: Schema.String,
  epoch: Schema.Int,
  begunAt: Schema.DateTimeUtcFromString,
  updatedAt: Schema.DateTimeUtcFromString,
  /** When somebody else takes it over, unless it moves on before. */
  deadline: Schema.DateTimeUtcFromString
}) {}

/** Neither a process nor an order that went through one. */
export class OrderProcessNotFound extends Schema.TaggedError<OrderProcessNotFound>()(
  "OrderProcessNotFound",
  { id: Schema.String },
  { httpApiStatus: 404 }
) {
  override get message() {
    return "No such order process"
  }
}
