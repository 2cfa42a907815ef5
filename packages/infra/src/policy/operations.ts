import type { PolicyOptions } from "./Limits.ts"

const exponential = (firstMs: number, maxMs: number) =>
  ({ kind: "exponential", firstMs, factor: 2, maxMs, jitter: true }) as const

/** 5 failed attempts in a row, or half of the last 50, open it for 30 s. */
const breaker = {
  failuresInARow: 5,
  failingRate: { share: 0.5, ofLast: 50, atLeast: 20 },
  openMs: 30_000
} as const

/** The same for what is our own: it is back soon after it was away. */
const ownBreaker = { ...breaker, openMs: 5_000 } as const

/** Every guarded operation of the shop, with its limits. null is "without". */
export const operations = {
  "payment.soap": {
    about: "payment over SOAP, then REST where it is safe",
    usedBy: "payments",
    deadlineMs: 12_000,
    attemptTimeoutMs: 2_000,
    attempts: 5,
    backoff: exponential(100, 2_000),
    breaker,
    bulkhead: { concurrent: 64, waiting: 256 },
    rateLimit: null,
    retryBudget: { tokens: 200, refund: 0.2 }
  },
  "payment.rest": {
    about: "payment over REST",
    usedBy: "payments",
    deadlineMs: 7_000,
    attemptTimeoutMs: 2_000,
    attempts: 3,
    backoff: exponential(100, 1_000),
    breaker,
    bulkhead: { concurrent: 64, waiting: 256 },
    rateLimit: null,
    retryBudget: { tokens: 200, refund: 0.2 }
  },
  "stock.reserve": {
    about: "stock reserve, in a checkout and over gRPC",
    usedBy: "orders",
    deadlineMs: 8_000,
    attemptTimeoutMs: 3_000,
    attempts: 3,
    backoff: exponential(50, 400),
    breaker: ownBreaker,
    bulkhead: { concurrent: 512, waiting: 4_096 },
    rateLimit: null,
    retryBudget: { tokens: 500, refund: 0.1 }
  },
  "risk.assess": {
    about: "risk assessment of an order",
    usedBy: "orders",
    deadlineMs: 8_000,
    attemptTimeoutMs: 3_000,
    attempts: 2,
    backoff: exponential(50, 200),
    breaker: ownBreaker,
    bulkhead: { concurrent: 256, waiting: 2_048 },
    rateLimit: null,
    retryBudget: { tokens: 200, refund: 0.1 }
  },
  "webhook.dispatch": {
    about: "webhook dispatch; after the last retry the dead letters",
    usedBy: "partners",
    deadlineMs: null,
    attemptTimeoutMs: 10_000,
    attempts: 6,
    backoff: { kind: "exactly", delaysMs: [30_000, 120_000, 300_000, 900_000, 1_800_000] },
    breaker: null,
    bulkhead: null,
    rateLimit: null,
    retryBudget: null
  },
  "webhook.alarm": {
    about: "alarm in RabbitMQ for webhooks that wait: without it the table is looked at all the time",
    usedBy: "partners",
    deadlineMs: 4_000,
    attemptTimeoutMs: 2_000,
    attempts: 2,
    backoff: exponential(50, 200),
    breaker: ownBreaker,
    bulkhead: { concurrent: 64, waiting: 4_096 },
    rateLimit: null,
    retryBudget: null
  },
  "event.publish": {
    about: "event publish, retried in the background",
    usedBy: "every context",
    deadlineMs: null,
    attemptTimeoutMs: null,
    attempts: null,
    backoff: { kind: "exponential", firstMs: 100, factor: 2, maxMs: 5_000, jitter: false },
    breaker: null,
    bulkhead: null,
    rateLimit: null,
    retryBudget: null
  },
  "flash_sale.price": {
    about: "flash sale price update: fails fast",
    usedBy: "pricing",
    deadlineMs: 1_000,
    attemptTimeoutMs: 1_000,
    attempts: 1,
    backoff: null,
    breaker: null,
    bulkhead: { concurrent: 16, waiting: 0 },
    rateLimit: null,
    retryBudget: null
  },
  "authorizer.decide": {
    about: "decision by an OPA: without it nobody is let through",
    usedBy: "every context",
    deadlineMs: 1_000,
    attemptTimeoutMs: 400,
    attempts: 2,
    backoff: exponential(20, 50),
    breaker: ownBreaker,
    bulkhead: { concurrent: 256, waiting: 2_048 },
    rateLimit: null,
    retryBudget: { tokens: 200, refund: 0.1 }
  },
  "cache.shared": {
    about: "shared cache: who reads goes on without it",
    usedBy: "the edge",
    deadlineMs: 250,
    attemptTimeoutMs: 250,
    attempts: 1,
    backoff: null,
    breaker: ownBreaker,
    bulkhead: { concurrent: 256, waiting: 0 },
    rateLimit: null,
    retryBudget: null
  },
  "search.products": {
    about: "search of products in OpenSearch, then in Postgres",
    usedBy: "catalogue",
    deadlineMs: 1_000,
    attemptTimeoutMs: 1_000,
    attempts: 1,
    backoff: null,
    breaker: ownBreaker,
    bulkhead: { concurrent: 128, waiting: 0 },
    rateLimit: null,
    retryBudget: null
  },
  "orders.history": {
    about: "a customer's orders in Cassandra, then in Postgres",
    usedBy: "orders",
    deadlineMs: 1_000,
    attemptTimeoutMs: 1_000,
    attempts: 1,
    backoff: null,
    breaker: ownBreaker,
    bulkhead: { concurrent: 256, waiting: 0 },
    rateLimit: null,
    retryBudget: null
  },
  "revenue.daily": {
    about: "what days brought in ClickHouse, then in Postgres",
    usedBy: "payments",
    deadlineMs: 3_000,
    attemptTimeoutMs: 3_000,
    attempts: 1,
    backoff: null,
    breaker: ownBreaker,
    bulkhead: { concurrent: 16, waiting: 0 },
    rateLimit: null,
    retryBudget: null
  },
  "inventory.snapshot": {
    about: "stock of a product in Redis, then in Postgres",
    usedBy: "inventory",
    deadlineMs: null,
    attemptTimeoutMs: 250,
    attempts: 1,
    backoff: null,
    breaker: ownBreaker,
    bulkhead: { concurrent: 256, waiting: 0 },
    rateLimit: null,
    retryBudget: null
  },
  "pricing.map": {
    about: "prices of sales that run in Redis, then in Postgres",
    usedBy: "pricing",
    deadlineMs: null,
    attemptTimeoutMs: 250,
    attempts: 1,
    backoff: null,
    breaker: ownBreaker,
    bulkhead: { concurrent: 256, waiting: 0 },
    rateLimit: null,
    retryBudget: null
  },
  "object.store": {
    about: "object store: the archive of events and the warehouse, in the operators' command",
    usedBy: "analytics",
    deadlineMs: 120_000,
    attemptTimeoutMs: 30_000,
    attempts: 5,
    backoff: exponential(200, 5_000),
    breaker: null,
    bulkhead: { concurrent: 16, waiting: 4_096 },
    rateLimit: null,
    retryBudget: null
  },
  "schema.registry": {
    about: "schema registry: asked when the shop starts, and by its commands",
    usedBy: "every context",
    deadlineMs: 20_000,
    attemptTimeoutMs: 5_000,
    attempts: 3,
    backoff: exponential(200, 1_000),
    breaker: null,
    bulkhead: { concurrent: 4, waiting: 1_024 },
    rateLimit: null,
    retryBudget: null
  },
  "relay.configure": {
    about: "change data capture: its connector is told what to do",
    usedBy: "every context",
    deadlineMs: 40_000,
    attemptTimeoutMs: 10_000,
    attempts: 5,
    backoff: exponential(500, 4_000),
    breaker: null,
    bulkhead: null,
    rateLimit: null,
    retryBudget: null
  },
  "mqtt.ingest": {
    about: "MQTT ingest, by the batch; as many messages wait unacknowledged as calls may, the others at the broker",
    usedBy: "inventory",
    deadlineMs: 60_000,
    attemptTimeoutMs: 5_000,
    attempts: 5,
    backoff: exponential(200, 5_000),
    breaker: null,
    bulkhead: { concurrent: 4, waiting: 10_000 },
    rateLimit: { calls: 5_000, perMs: 1_000 },
    retryBudget: null
  }
} as const satisfies Record<string, PolicyOptions>

export type OperationName = keyof typeof operations

export const isOperation = (name: string): name is OperationName => Object.hasOwn(operations, name)

export const operationNames = Object.keys(operations).filter(isOperation)
