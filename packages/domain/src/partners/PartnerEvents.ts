import { Schema } from "effect"
import * as Event from "../kernel/Event.ts"
import { DeliveryId, EventId, SubscriptionId, UserId } from "../kernel/Ids.ts"

/** A partner could not be told of an event, however often it was tried; it waits in the dead letters for a redelivery. */
export const WebhookDeliveryFailed = Event.define(
  "ecommerce.webhook.delivery.failed.v1",
  "partner.events",
  Schema.Struct({
    subscriptionId: SubscriptionId,
    ownerId: UserId,
    deliveryId: DeliveryId,
    /** The event that was to be told, and its type. */
    eventId: EventId,
    eventType: Schema.String,
    attempts: Schema.Int,
    /** What came of the last attempt. */
    reason: Schema.String,
    failedAt: Schema.DateTimeUtcFromString
  })
)

export const events = [WebhookDeliveryFailed] as const
