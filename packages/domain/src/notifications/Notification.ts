import { Schema } from "effect"
import { Id, OrderId, UserId } from "../kernel/Ids.ts"

/** Something a user should know, in the app's feed. `kind` is the event it came from, without its namespace: `order.paid`. */
export class Notification extends Schema.Class<Notification>("Notification")({
  notificationId: Id,
  userId: UserId,
  kind: Schema.String,
  orderId: Schema.NullOr(OrderId),
  text: Schema.String,
  createdAt: Schema.DateTimeUtcFromString,
  readAt: Schema.NullOr(Schema.DateTimeUtcFromString)
}) {}
