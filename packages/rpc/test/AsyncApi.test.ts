// The AsyncAPI document holds together, and describes what is really put on the bus.
import { expect, test } from "bun:test"
import { allEvents } from "@merkato/domain/events"
import { Topic } from "@merkato/domain/kernel/Event"
import { PublicEventType } from "@merkato/domain/partners/OpenToPartners"
import * as WebhookSignature from "@merkato/infra/auth/WebhookSignature"
import * as FlashSalesLive from "../src/live/FlashSalesLive.ts"
import * as OrdersLive from "../src/live/OrdersLive.ts"
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

test("live connections are channels: what clients say, what they are told, and at which address", () => {
  expect(at("/channels/ws_orders/address")).toBe(OrdersLive.path)
  expect(at("/operations/watch_orders")).toMatchObject({ action: "receive" })
  expect(at("/components/messages/order/payload")).toMatchObject({
    required: Object.keys(OrdersLive.OrderFrame.fields)
  })
  expect(at("/components/messages/auth/payload")).toMatchObject({ required: ["auth"] })
  expect(at("/channels/sse_flash_sales/address")).toBe(FlashSalesLive.path)
  for (const { event, definition } of FlashSalesLive.events) {
    expect(at(`/components/messages/${event}/payload`)).toEqual({ $ref: `#/components/schemas/${definition.type}` })
  }
  expect(Object.keys(Object(at("/channels/sse_flash_sales/messages")))).toEqual([
    ...FlashSalesLive.events.map(({ event }) => event),
    ...Object.values(FlashSalesLive.notices).map(({ event }) => `flash_sales.${event}`)
  ])
})

test("webhooks are a channel with each event that partners can be told of, signed as it is sent", () => {
  expect(Object.keys(Object(at("/channels/webhooks/messages")))).toEqual(
    PublicEventType.literals.map((type) => `webhook.${type}`)
  )
  const message = { id: "EVENT-1", body: "{}", at: 0 }
  const sent = {
    ...WebhookSignature.headersOf(message),
    ...WebhookSignature.signatures(message, WebhookSignature.secretOf("c2VjcmV0"), undefined)
  }
  for (const type of PublicEventType.literals) {
    const headers = Object(at(`/components/messages/webhook.${type}/headers`))
    expect(Object.keys(sent)).toEqual(expect.arrayContaining(headers.required))
    expect(headers.required).toEqual(Object.keys(headers.properties))
    expect(at(`/components/messages/webhook.${type}/payload`)).toEqual({
      $ref: `#/components/messages/${type}/payload`
    })
  }
})
