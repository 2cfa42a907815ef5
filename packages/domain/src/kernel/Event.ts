import { type Effect, Schema } from "effect"
import { EventId, Id } from "./Ids.ts"
import { Region } from "./Region.ts"

/** The topics of the event bus (contracts: tables and topics). */
export const Topic = Schema.Literals([
  "order.events",
  "payment.events",
  "inventory.events",
  "cart.events",
  "fulfilment.events",
  "catalogue.events",
  "promo.events",
  "return.events",
  "user.events",
  "notification.events",
  "analytics.events",
  "fraud.events",
  "partner.events"
])
export type Topic = typeof Topic.Type

/** An event that a use case decided on, before it is stored. */
export interface NewEvent {
  readonly eventType: string
  readonly aggregateId: string
  /** Position in the aggregate's own history, from 1; unique with the aggregate (optimistic concurrency). */
  readonly version: number
  /** The payload as it goes over the wire. */
  readonly payload: unknown
}

/** What travels on the bus (contracts: events). */
export const Envelope = Schema.Struct({
  eventId: EventId,
  eventType: Schema.String,
  occurredAt: Schema.String,
  producer: Schema.String,
  traceId: Schema.String,
  correlationId: Schema.String,
  schemaVersion: Schema.String,
  partitionKey: Id,
  region: Region,
  /** Version of the aggregate after this event; what conditional writes compare. */
  aggregateVersion: Schema.Int,
  payload: Schema.Unknown
})
export type Envelope = typeof Envelope.Type

/**
 * A kind of event: its name on the wire, where it goes, and what it carries. A definition evolves additively only; a
 * golden file per type fails the test when it does not.
 */
export interface EventDefinition<A> {
  readonly type: string
  readonly topic: Topic
  readonly payload: Schema.Codec<A, unknown>
  /** The event as it is stored. The aggregate and its next version are the caller's to know. */
  readonly of: (aggregateId: string, version: number, payload: A) => NewEvent
  /** Reads a payload off the wire; a failure sends the event to the dead letters. */
  readonly decode: (payload: unknown) => Effect.Effect<A, Schema.SchemaError>
}

export const define = <A, I>(type: string, topic: Topic, payload: Schema.Codec<A, I>): EventDefinition<A> => {
  const encode = Schema.encodeSync(payload)
  return {
    type,
    topic,
    payload,
    of: (aggregateId, version, value) => ({ eventType: type, aggregateId, version, payload: encode(value) }),
    decode: Schema.decodeUnknownEffect(payload)
  }
}
