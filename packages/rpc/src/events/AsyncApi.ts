import { Schema } from "effect"
import { allEvents } from "@merkato/domain/events"
import { Envelope, type Topic } from "@merkato/domain/kernel/Event"
import { type JsonSchema, readSchema } from "@merkato/domain/kernel/EventSchema"
import * as EdgeChannels from "./EdgeChannels.ts"

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

const channelOf = (topic: Topic) => ({
  address: topic,
  servers: [{ $ref: "#/servers/bus" }],
  messages: Object.fromEntries(
    allEvents
      .filter((definition) => definition.topic === topic)
      .map(({ type }) => [type, { $ref: `#/components/messages/${type}` }])
  )
})

/**
 * What is told without being asked each time, as AsyncAPI 3.0: on the bus a channel per topic and a message per kind of event;
 * at the edge live connections and webhooks.
 */
export const asyncApi = () => ({
  asyncapi: "3.0.0",
  info: {
    title: "Merkato events",
    version: "1",
    description:
      "Every event comes in the same envelope, at least once, in order for events of one partitionKey; topics keep them 7 days. Readers pass over properties they do not know: events evolve additively. What a consumer gave up on is in <topic>.dlq, in the same form."
  },
  defaultContentType: "application/json",
  servers: { bus: { host: "localhost:9092", protocol: "kafka" }, ...EdgeChannels.servers },
  channels: {
    ...Object.fromEntries(topics.map((topic) => [key(topic), channelOf(topic)])),
    ...EdgeChannels.channels
  },
  operations: {
    ...Object.fromEntries(
      topics.map((topic) => [
        `publish_${key(topic)}`,
        { action: "send", channel: { $ref: `#/channels/${key(topic)}` } }
      ])
    ),
    ...EdgeChannels.operations
  },
  components: {
    messages: {
      ...Object.fromEntries(
        allEvents.map(({ type }) => [type, { name: type, contentType: "application/json", payload: envelope(type) }])
      ),
      ...EdgeChannels.messages
    },
    schemas: Object.fromEntries(allEvents.map((definition) => [definition.type, inside(readSchema(definition))]))
  }
})
