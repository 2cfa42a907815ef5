import { Schema } from "effect"
import * as Event from "../kernel/Event.ts"
import { AssessmentId, OrderId, UserId } from "../kernel/Ids.ts"
import { Points, Reason } from "./Assessment.ts"

/**
 * An attempt to pay was not simply allowed. Says who and why by ids, points and amounts; nothing else about a person.
 * Its key is the assessment, which happens once.
 */
export const OrderFlagged = Event.define(
  "ecommerce.fraud.order.flagged.v1",
  "fraud.events",
  Schema.Struct({
    assessmentId: AssessmentId,
    orderId: OrderId,
    userId: UserId,
    score: Points,
    decision: Schema.Literals(["review", "block"]),
    reasons: Schema.Array(Reason)
  })
)

export const events = [OrderFlagged] as const
