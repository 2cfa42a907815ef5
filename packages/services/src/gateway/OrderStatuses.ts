import { Effect, Layer, Option } from "effect"
import type { Envelope } from "@merkato/domain/kernel/Event"
import type { OrderStatus } from "@merkato/domain/orders/Order"
import { events as orderEvents, statusAfter } from "@merkato/domain/orders/OrderEvents"
import { SharedCache } from "@merkato/infra/cache/SharedCache"
import * as Lag from "@merkato/infra/events/Lag"
import { BusUnavailable, EventBus } from "@merkato/infra/events/EventBus"

const group = { group: "edge.order-status", topic: "order.events" } as const

/**
 * Milliseconds that a status is kept. Redis may lose the last word about an order when it dies; what it says then is wrong for
 * as long as this at most.
 */
const ttlMs = 3_600_000

/** Milliseconds that it is remembered that an order has come to its end. */
const rememberedMs = 60_000

/** Events whose words are written at once, and how many at a time. */
const [batchSize, together] = [100, 16]

const ended: ReadonlySet<OrderStatus> = new Set(["FULFILLED", "CANCELED"])

const eventTypes = orderEvents.map(({ type }) => type).filter((type) => statusAfter(type) !== undefined)

const keyOf = (orderId: string) => `order_status:${orderId}`

/** What an event says of its order: kept, or dropped where that is its end. */
const tell = (
  cache: typeof SharedCache.Service,
  { eventType, partitionKey, aggregateVersion, occurredAt }: Envelope
) => {
  const status = statusAfter(eventType)
  if (status === undefined) return Effect.void
  const key = keyOf(partitionKey)
  return ended.has(status)
    ? cache.drop(key, aggregateVersion, rememberedMs)
    : cache.put(key, aggregateVersion, JSON.stringify({ status, occurredAt }), ttlMs)
}

/**
 * The status of each order that has not come to its end, in the cache that processes share (`order_status:{orderId}` of the
 * caches): for who watches many orders from outside. The shop itself tells a status from the order, since whoever has just
 * paid wants to see it.
 */
export const layer = Layer.effectDiscard(
  Effect.gen(function* () {
    const cache = yield* Effect.serviceOption(SharedCache)
    if (Option.isNone(cache)) return
    const bus = yield* EventBus
    const writing = bus.subscribe({
      consumerGroup: group.group,
      topics: [group.topic],
      eventTypes,
      batchSize,
      handle: (batch) => {
        // Of an order's events the last one alone counts.
        const last = new Map(batch.map(({ envelope }) => [envelope.partitionKey, envelope]))
        return Effect.forEach(last.values(), (envelope) => tell(cache.value, envelope), {
          discard: true,
          concurrency: together
        }).pipe(
          Effect.timeout("5 seconds"),
          Effect.mapError((cause) => new BusUnavailable({ cause }))
        )
      }
    })
    yield* Effect.forkScoped(writing)
    yield* Effect.forkScoped(Lag.watch([group]))
  })
)
