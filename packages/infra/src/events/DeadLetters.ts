/** What is said and counted when events are given up on. */
import { Effect, Metric } from "effect"
import { type BusMessage, deadLetterTopic } from "./EventBus.ts"
import type { EventSchemasShape, Verdict } from "./EventSchemas.ts"
import { malformedType } from "./kafka/Message.ts"

const deadLettered = Metric.counter("events_dead_lettered_total", {
  description: "Events given up on, by consumer group",
  incremental: true
})

/** Characters of a reason that are kept. */
const reasonLength = 2_000

/** The message as it goes to the dead letters of its topic. */
export const letterOf = (
  message: BusMessage,
  why: { readonly consumerGroup: string; readonly attempts: number; readonly reason: string }
): BusMessage => ({
  ...message,
  topic: deadLetterTopic(message.topic),
  failure: { topic: message.topic, ...why, reason: why.reason.slice(0, reasonLength) }
})

/** To be run when the letter is durable. */
export const gaveUp = Effect.fnUntraced(function* ({ envelope, failure }: BusMessage) {
  const group = failure?.consumerGroup ?? ""
  yield* Effect.logError("Event goes to the dead letters", failure?.reason).pipe(
    Effect.annotateLogs({ eventType: envelope.eventType, eventId: envelope.eventId, consumerGroup: group })
  )
  yield* Metric.update(Metric.withAttributes(deadLettered, { group }), 1)
})

/** The relay of a context, as the one who gave up on an event. */
export const relayOf = (schema: string): string => `${schema}.relay`

const isOfRelay = ({ failure }: BusMessage): boolean => failure?.consumerGroup.endsWith(relayOf("")) === true

/** Whether a message of a topic is for this group; for followers, who are none, without one. */
export const isFor =
  (consumerGroup?: string) =>
  (message: BusMessage): boolean =>
    message.failure === undefined || message.failure.consumerGroup === consumerGroup || isOfRelay(message)

/** Why a letter stays where it is: put back, it would break its schema in the topic. */
export const wrongWithLetter = (letter: BusMessage, schemas: EventSchemasShape): Verdict => {
  const { eventType, payload } = letter.envelope
  if (eventType === malformedType) return "It is no event."
  return isOfRelay(letter) ? schemas.wrongAsWritten(eventType, payload) : schemas.wrongAsRead(eventType, payload)
}
