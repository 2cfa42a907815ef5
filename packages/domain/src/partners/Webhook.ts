import { Schema } from "effect"
import { DeliveryId, EventId, Id, SubscriptionId, UserId } from "../kernel/Ids.ts"
import { PublicEventType } from "./OpenToPartners.ts"

/** The document says it without classes of Unicode, which not every program that reads it knows. */
const isUnbroken = Schema.makeFilter<string>(
  (url) => (/[\s\p{Cc}\p{Cs}]/u.test(url) ? "Expected a URL without white space and control characters" : undefined),
  { title: "unbroken text", toJsonSchema: () => ({ pattern: "^[^\\s\\u0000-\\u001f\\u007f-\\u009f]+$" }) }
)

/**
 * Where a partner wants to be told: an absolute URL; which ones are taken is for the deployment to say. White space, control
 * characters and lone surrogates are in no URL (RFC 3986): parsers drop or replace them, and what is kept is what is asked.
 */
export const WebhookUrl = Schema.String.check(Schema.isMinLength(1), Schema.isMaxCodePoints(2_048), isUnbroken)

/** What a partner wants to be told of; each type once. */
export const EventTypes = Schema.Array(PublicEventType).check(
  Schema.isMinLength(1),
  Schema.isMaxLength(PublicEventType.literals.length),
  Schema.isUnique()
)

/**
 * ACTIVE: is told. DISABLED: too many deliveries in a row were given up; its owner can enable it again. GONE: the receiver
 * answered 410, it wants to hear nothing more.
 */
export const SubscriptionStatus = Schema.Literals(["ACTIVE", "DISABLED", "GONE"])
export type SubscriptionStatus = typeof SubscriptionStatus.Type

/** A partner's wish to be told of events. Its secret is not part of it: that is shown once. */
export class Subscription extends Schema.Class<Subscription>("Subscription")({
  subscriptionId: SubscriptionId,
  ownerId: UserId,
  url: Schema.String,
  eventTypes: Schema.Array(Schema.String),
  status: SubscriptionStatus,
  createdAt: Schema.DateTimeUtcFromString
}) {}

/** A secret, shown this once: `whsec_` and 256 bits in base64 (Standard Webhooks). */
export class SecretShown extends Schema.Class<SecretShown>("SecretShown")({
  subscription: Subscription,
  secret: Schema.String,
  /** Until then what is sent is signed with the secret before, too. */
  previousUntil: Schema.NullOr(Schema.DateTimeUtcFromString)
}) {}

/**
 * PENDING: owed, and tried until it is told or given up. DELIVERED: the receiver said 2xx. FAILED: given up. SKIPPED: not
 * sent, since the subscription was not active; a replay sends it.
 */
export const DeliveryStatus = Schema.Literals(["PENDING", "DELIVERED", "FAILED", "SKIPPED"])
export type DeliveryStatus = typeof DeliveryStatus.Type

/** One try to tell: what was asked is the delivery's body, this is what came of it. */
export const DeliveryAttempt = Schema.Struct({
  attemptedAt: Schema.DateTimeUtcFromString,
  durationMs: Schema.Int,
  /** The headers of the request, without the signatures. */
  requestHeaders: Schema.Record(Schema.String, Schema.String),
  /** null: there was no answer, and `error` says why. */
  responseStatus: Schema.NullOr(Schema.Int),
  /** The beginning of the answer. */
  responseBody: Schema.NullOr(Schema.String),
  error: Schema.NullOr(Schema.String)
})
export type DeliveryAttempt = typeof DeliveryAttempt.Type

const delivery = {
  deliveryId: DeliveryId,
  subscriptionId: SubscriptionId,
  eventId: EventId,
  eventType: Schema.String,
  /** What the event is about; events of one aggregate are told in their order. */
  aggregateId: Id,
  status: DeliveryStatus,
  attempts: Schema.Int,
  createdAt: Schema.DateTimeUtcFromString,
  /** When it was told; null while it is not. */
  deliveredAt: Schema.NullOr(Schema.DateTimeUtcFromString)
}

/** An event that is, or was, owed to a subscription. */
export class Delivery extends Schema.Class<Delivery>("Delivery")(delivery) {}

/** The same with what is sent, to the byte, and what came of each try; the latest first. */
export class DeliveryLog extends Schema.Class<DeliveryLog>("DeliveryLog")({
  ...delivery,
  body: Schema.String,
  log: Schema.Array(DeliveryAttempt)
}) {}

export class SubscriptionNotFound extends Schema.TaggedError<SubscriptionNotFound>()(
  "SubscriptionNotFound",
  { subscriptionId: Schema.String },
  { httpApiStatus: 404 }
) {
  override get message() {
    return `No such webhook subscription: ${this.subscriptionId}`
  }
}

export class DeliveryNotFound extends Schema.TaggedError<DeliveryNotFound>()(
  "DeliveryNotFound",
  { deliveryId: Schema.String },
  { httpApiStatus: 404 }
) {
  override get message() {
    return `No such webhook delivery: ${this.deliveryId}`
  }
}

/** Nothing is sent while the subscription is not active: enable it first. */
export class SubscriptionNotActive extends Schema.TaggedError<SubscriptionNotActive>()(
  "SubscriptionNotActive",
  { subscriptionId: SubscriptionId, status: SubscriptionStatus },
  { httpApiStatus: 409 }
) {
  override get message() {
    return `The webhook subscription ${this.subscriptionId} is ${this.status}`
  }
}

/** Each subscription costs a request per event, so nobody has more than so many. */
export class TooManySubscriptions extends Schema.TaggedError<TooManySubscriptions>()(
  "TooManySubscriptions",
  { most: Schema.Int },
  { httpApiStatus: 409 }
) {
  override get message() {
    return `Nobody has more than ${this.most} webhook subscriptions`
  }
}
