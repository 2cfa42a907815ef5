import { Option, Schema } from "effect"
import { Envelope } from "@merkato/domain/kernel/Event"
import { EventId, Id } from "@merkato/domain/kernel/Ids"
import { emptyTraceParent } from "@merkato/domain/kernel/RequestContext"
import type { BusMessage, DeadLetterCause, Delivery } from "../EventBus.ts"
import type { FetchedRecord, Place } from "./Wire.ts"

/** The type under which dead letters carry what was no event. */
export const malformedType = "ecommerce.bus.message.malformed.v1"

const decodeEnvelope = Schema.decodeUnknownOption(Envelope)

const dead = {
  topic: "x-dead-letter-topic",
  consumerGroup: "x-dead-letter-consumer-group",
  attempts: "x-dead-letter-attempts",
  reason: "x-dead-letter-reason"
} as const

const headersOfFailure = (failure: DeadLetterCause | undefined): Readonly<Record<string, string>> =>
  failure === undefined
    ? {}
    : {
        [dead.topic]: failure.topic,
        [dead.consumerGroup]: failure.consumerGroup,
        [dead.attempts]: String(failure.attempts),
        [dead.reason]: failure.reason
      }

/** A message as Kafka's producer takes it. */
export interface Outgoing {
  readonly topic: string
  readonly key: string
  readonly value: string
  readonly headers: Record<string, string>
  readonly timestamp: bigint
}

/**
 * A message as it goes to Kafka: the envelope as its value, and beside it, for whoever does not know the envelope, the headers
 * of CloudEvents 1.0 (Kafka protocol binding, binary mode) and of W3C trace context.
 */
export const toRecord = ({ topic, key, envelope, traceParent, failure }: BusMessage, nowMs: number): Outgoing => ({
  topic,
  key,
  value: JSON.stringify(envelope),
  timestamp: BigInt(nowMs),
  headers: {
    "content-type": "application/json",
    ce_specversion: "1.0",
    ce_id: envelope.eventId,
    ce_type: envelope.eventType,
    ce_source: envelope.producer,
    ce_time: envelope.occurredAt,
    ce_subject: envelope.partitionKey,
    ce_partitionkey: envelope.partitionKey,
    ce_correlationid: envelope.correlationId,
    ce_region: envelope.region,
    traceparent: traceParent,
    ...headersOfFailure(failure)
  }
})

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** What came in that is no event, in an envelope that tells so. */
const malformed = ({ topic, partition }: Place, record: FetchedRecord): Envelope => ({
  eventId: EventId.make(`MALFORMED-${topic.replace(/[^A-Za-z0-9_-]/g, "-")}-${partition}-${record.offset}`.slice(-64)),
  eventType: malformedType,
  occurredAt: new Date(record.timestamp).toISOString(),
  producer: "unknown",
  traceId: "",
  correlationId: "",
  schemaVersion: "1.0",
  partitionKey: Id.make("MALFORMED"),
  region: "us",
  aggregateVersion: 0,
  payload: { value: record.value?.toString().slice(0, 100_000) ?? null }
})

/** A record's header of this name. Those that nobody asks for are never made strings. */
const header = ({ headers }: FetchedRecord, name: string): string | undefined =>
  headers.find(([key]) => key?.length === name.length && key.toString() === name)?.[1]?.toString()

/** A record as the bus hands it over; one that is no event comes as one of the type `malformedType`. */
export const toDelivery = (place: Place, record: FetchedRecord): Delivery => {
  const envelope = decodeEnvelope(parsed(record.value?.toString() ?? ""))
  const failedIn = header(record, dead.topic)
  return {
    topic: place.topic,
    partition: place.partition,
    offset: record.offset,
    key: record.key?.toString() ?? "",
    traceParent: header(record, "traceparent") ?? emptyTraceParent,
    envelope: Option.getOrElse(envelope, () => malformed(place, record)),
    failure:
      failedIn === undefined
        ? undefined
        : {
            topic: failedIn,
            consumerGroup: header(record, dead.consumerGroup) ?? "",
            attempts: Number(header(record, dead.attempts) ?? 0),
            reason: header(record, dead.reason) ?? ""
          }
  }
}
