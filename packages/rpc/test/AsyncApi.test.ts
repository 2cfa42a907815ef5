// The AsyncAPI document holds together, and describes what is really put on the bus.
import { expect, test } from "bun:test"
import { allEvents } from "@merkato/domain/events"
import { Topic } from "@merkato/domain/kernel/Event"
import { asyncApi } from "../src/events/AsyncApi.ts"

const document: unknown = JSON.parse(JSON.stringify(asyncApi()))

const at = (pointer: string): unknown =>
  pointer
    .split("/")
    .slice(1)
    .reduce<unknown>(
      (value, key) =>
        typeof value === "object" && value !== null
          ? Object.entries(value).find(([name]) => name === key)?.[1]
          : undefined,
      document
    )

const references = (value: unknown): ReadonlyArray<string> => {
  if (typeof value !== "object" || value === null) return []
  return Object.entries(value).flatMap(([key, each]) =>
    key === "$ref" && typeof each === "string" ? [each] : references(each)
  )
}

test("every reference leads somewhere", () => {
  const all = references(document)
  expect(all.length).toBeGreaterThan(2 * allEvents.length)
  expect(all.filter((reference) => at(reference.slice(1)) === undefined)).toEqual([])
})

test("every event is a message of its topic, with its name and its payload in the envelope", () => {
  for (const { type, topic } of allEvents) {
    const channel = topic.replaceAll(".", "_")
    expect(Topic.literals).toContain(topic)
    expect(at(`/channels/${channel}/address`)).toBe(topic)
    expect(at(`/channels/${channel}/messages/${type}`)).toEqual({ $ref: `#/components/messages/${type}` })
    expect(at(`/operations/publish_${channel}/channel`)).toEqual({ $ref: `#/channels/${channel}` })
    expect(at(`/components/messages/${type}/payload`)).toMatchObject({
      required: expect.arrayContaining(["eventId", "eventType", "occurredAt", "partitionKey", "payload"]),
      properties: { eventType: { enum: [type] }, payload: { $ref: `#/components/schemas/${type}` } }
    })
  }
})
