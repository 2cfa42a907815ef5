import { Effect, Schema } from "effect"
import { Envelope, type Topic } from "@merkato/domain/kernel/Event"
import { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import { WebhookDeliveryFailed } from "@merkato/domain/partners/PartnerEvents"
import { publicEvents } from "@merkato/domain/partners/OpenToPartners"
import * as Consumer from "@merkato/infra/events/Consumer"
import { deadLetterTopic, EventBus } from "@merkato/infra/events/EventBus"
import { Webhooks } from "./Webhooks.ts"

const owe = Effect.fnUntraced(function* (events: ReadonlyArray<Envelope>) {
  yield* (yield* Webhooks).owe(events)
})

/** `order.events` is read by `partners.webhooks-order`. */
const groupOf = (topic: Topic) => `partners.webhooks-${topic.replace(/\.events$/, "")}`

/** The key of what is owed tells whether an event came before: no inbox is needed, and nothing is written for nobody. */
const oweOf = (topic: Topic) =>
  Consumer.make({
    group: groupOf(topic),
    topic,
    eventTypes: publicEvents.filter((event) => event.topic === topic).map(({ type }) => type),
    mode: "conditional",
    handle: (event) => owe([event]),
    handleAll: owe
  })

/** Makes the shop's public events owed to the partners who want to be told of them. */
export const owing = [...new Set(publicEvents.map(({ topic }) => topic))].map(oweOf)

const decodeEnvelope = Schema.decodeUnknownEffect(Schema.fromJsonString(Envelope))
const topicOf = (eventType: string) => publicEvents.find(({ type }) => type === eventType)?.topic

/**
 * What was given up lies with the dead letters, under the name of who could not take it: requeued from there, it is sent
 * again. Without an inbox: a bus may keep the letter until the batch is done, and a row that says "done" would be there
 * before. So the letter may lie there twice, and is sent again once all the same.
 */
export const deadLetters = Consumer.make({
  group: "partners.dead-letters",
  topic: "partner.events",
  eventTypes: [WebhookDeliveryFailed.type],
  mode: "conditional",
  handle: Effect.fnUntraced(function* (event: Envelope) {
    const { deliveryId, eventType, attempts, reason, subscriptionId } = yield* WebhookDeliveryFailed.decode(
      event.payload
    )
    const kept = yield* (yield* Webhooks).kept(deliveryId)
    const topic = topicOf(eventType)
    if (kept === undefined || topic === undefined) return
    const envelope = yield* decodeEnvelope(kept.body)
    const { traceParent } = yield* RequestContext
    const failure = {
      topic,
      consumerGroup: groupOf(topic),
      attempts,
      reason: `${subscriptionId} ${deliveryId}: ${reason}`
    }
    const letter = { topic: deadLetterTopic(topic), key: envelope.partitionKey, envelope, traceParent, failure }
    yield* (yield* EventBus)
      .publish([letter])
      .pipe(Effect.mapError(() => new ServiceUnavailable({ service: "bus", retryAfterSeconds: 1 })))
  })
})
