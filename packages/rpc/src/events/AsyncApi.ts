import { Schema } from "effect"
import { allEvents } from "@merkato/domain/events"
import { Envelope, type Topic } from "@merkato/domain/kernel/Event"
import { type JsonSchema, readSchema } from "@merkato/domain/kernel/EventSchema"

/** A schema as it stands inside the document: AsyncAPI has no use for what names a file. */
const inside = ({ $id: _, $schema: __, ...schema }: JsonSchema) => schema

const envelope = (type: string): object => {
  const { schema } = Schema.toJsonSchemaDocument(Envelope)
  const { properties, ...rest } = schema as JsonSchema
  return {
    ...rest,
    properties: {
      ...properties,
      eventType: { type: "string", enum: [type] },
      payload: { $ref: `#/components/schemas/${type}` }
    }
  }
}

const topics: ReadonlyArray<Topic> = [...new Set(allEvents.map(({ topic }) => topic))].toSorted()

const key = (topic: string) => topic.replaceAll(".", "_")

/** What is on the bus, as AsyncAPI 3.0: a channel per topic, a message per kind of event. */
export const asyncApi = () => ({
  asyncapi: "3.0.0",
  info: {
    title: "Merkato events",
    version: "1",
    description:
      "Every event comes in the same envelope, at least once, in order for events of one partitionKey; topics keep them 7 days. Readers pass over properties they do not know: events evolve additively. What a consumer gave up on is in <topic>.dlq, in the same form."
  },
  defaultContentType: "application/json",
  channels: Object.fromEntries(
    topics.map((topic) => [
      key(topic),
      {
        address: topic,
        messages: Object.fromEntries(
          allEvents
            .filter((definition) => definition.topic === topic)
            .map(({ type }) => [type, { $ref: `#/components/messages/${type}` }])
        )
      }
    ])
  ),
  operations: Object.fromEntries(
    topics.map((topic) => [`publish_${key(topic)}`, { action: "send", channel: { $ref: `#/channels/${key(topic)}` } }])
  ),
  components: {
    messages: Object.fromEntries(
      allEvents.map(({ type }) => [type, { name: type, contentType: "application/json", payload: envelope(type) }])
    ),
    schemas: Object.fromEntries(allEvents.map((definition) => [definition.type, inside(readSchema(definition))]))
  }
})
