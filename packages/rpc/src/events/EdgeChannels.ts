import { Schema } from "effect"
import { PublicEventType } from "@merkato/domain/partners/OpenToPartners"
import * as FlashSalesLive from "../live/FlashSalesLive.ts"
import * as OrdersLive from "../live/OrdersLive.ts"

/** What is told without being asked each time, outside of the bus: as parts of an AsyncAPI 3.0 document. */

const schemaOf = (schema: Schema.Top): object => Schema.toJsonSchemaDocument(schema).schema

const json = { contentType: "application/json" }

const ref = (path: string) => ({ $ref: `#/${path}` })
const toMessages = (names: ReadonlyArray<string>) =>
  Object.fromEntries(names.map((name) => [name, ref(`components/messages/${name}`)]))

const frames = {
  auth: {
    name: "auth",
    summary: "The first frame, within 10 s; a later one with a newer token of the same person",
    payload: schemaOf(OrdersLive.AuthFrame)
  },
  subscribe: {
    name: "subscribe",
    summary: "Of one of one's own orders, or of all of them",
    payload: schemaOf(OrdersLive.SubscribeFrame)
  },
  order: { name: "order", summary: "Where an order stands", payload: schemaOf(OrdersLive.OrderFrame) },
  error: {
    name: "error",
    summary: "What went wrong, with the members of REST's problem",
    payload: schemaOf(OrdersLive.ErrorFrame)
  }
} as const

const notices = Object.values(FlashSalesLive.notices).map(({ event, data }) => ({
  name: `flash_sales.${event}`,
  payload: {
    type: "object",
    properties: { code: { type: "string", enum: [data.code] } },
    required: ["code"]
  }
}))

const sales = FlashSalesLive.events.map(({ event, definition }) => ({
  name: event,
  payload: ref(`components/schemas/${definition.type}`)
}))

const signature = { type: "string", description: "Made of the bytes of the body as sent: verify before parsing" }

/** A webhook's headers: those of Standard Webhooks, and the HMAC alone. */
const webhookHeaders = {
  type: "object",
  properties: {
    "webhook-id": { type: "string", description: "The same at each try: who has seen it has seen the event" },
    "webhook-timestamp": { type: "string", description: "Seconds since 1970 at which this try was signed" },
    "webhook-signature": {
      ...signature,
      description: `${signature.description}. \`v1,\` and base64; two of them while a secret is rotated`
    },
    "x-bv-signature": {
      ...signature,
      description: `${signature.description}. HMAC-SHA256 with the subscription's secret, in hex`
    }
  },
  required: ["webhook-id", "webhook-timestamp", "webhook-signature", "x-bv-signature"]
}

const webhook = (type: string) => `webhook.${type}`

const closings = Object.values(OrdersLive.closings)
  .map(({ code, reason }) => `${code} ${reason}`)
  .join(", ")

export const servers = {
  websocket: { host: "localhost:8080", protocol: "ws", description: "The shop; wss where it is served over TLS" },
  http: { host: "localhost:8080", protocol: "http", description: "The shop; https where it is served over TLS" }
}

export const channels = {
  ws_orders: {
    address: OrdersLive.path,
    description: `One's own orders. The socket ends with the token unless a newer one is sent. Close codes: ${closings}.`,
    servers: [ref("servers/websocket")],
    messages: toMessages(Object.keys(frames)),
    bindings: { ws: { method: "GET" } }
  },
  sse_flash_sales: {
    address: FlashSalesLive.path,
    description:
      "Server-sent events; the name of a message is the stream's `event`, the id of a sale's that of its event. `Last-Event-ID` takes a stream up after that event.",
    servers: [ref("servers/http")],
    messages: toMessages([...sales, ...notices].map(({ name }) => name)),
    bindings: { http: {} }
  },
  webhooks: {
    address: null,
    description:
      "Sent by POST to the URL of a subscription (POST /api/v1/webhooks/subscriptions), events of one aggregate in their order. 2xx takes it; 410 ends the subscription; everything else is tried again after 30 s, 2, 5, 15 and 30 min, with 429 or 503 and `Retry-After` later if that asks for it (30 min at most).",
    messages: toMessages(PublicEventType.literals.map(webhook)),
    bindings: { http: {} }
  }
}

const sent = (channel: keyof typeof channels, names: ReadonlyArray<string>, action: "send" | "receive") => ({
  action,
  channel: ref(`channels/${channel}`),
  messages: names.map((name) => ref(`channels/${channel}/messages/${name}`))
})

/** By the shop, as the whole document has it: what it sends, and what it receives. */
export const operations = {
  watch_orders: sent("ws_orders", ["auth", "subscribe"], "receive"),
  tell_orders: sent("ws_orders", ["order", "error"], "send"),
  tell_flash_sales: sent(
    "sse_flash_sales",
    [...sales, ...notices].map(({ name }) => name),
    "send"
  ),
  call_webhooks: sent("webhooks", PublicEventType.literals.map(webhook), "send")
}

export const messages = Object.fromEntries(
  [
    ...Object.values(frames),
    ...sales,
    ...notices,
    ...PublicEventType.literals.map((type) => ({
      name: webhook(type),
      headers: webhookHeaders,
      payload: ref(`components/messages/${type}/payload`)
    }))
  ].map((message) => [message.name, { ...json, ...message }])
)
