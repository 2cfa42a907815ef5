import { Clock, Context, Effect, Latch, Layer } from "effect"
import { type Delivery, EventBus, patient } from "@merkato/infra/events/EventBus"
import { limits } from "@merkato/rpc/live/FlashSalesLive"
import * as LiveMetrics from "./LiveMetrics.ts"
import * as OrderChanges from "./OrderChanges.ts"
import * as SaleEvents from "./SaleEvents.ts"

/** What live connections of this process are told. Without a bus there is nothing to tell, and they are refused. */
export interface Live {
  readonly orders: OrderChanges.OrderChanges
  readonly sales: SaleEvents.SaleEvents
  /** Whether the bus is listened to; before that, a connection might wait for what has gone by. */
  readonly isListening: () => boolean
}
export const Live = Context.Reference<Live | undefined>("merkato/gateway/Live", { defaultValue: () => undefined })

const [orderTopic, saleTopic] = ["order.events", "promo.events"] as const

/** Events of a topic that are read at a time. */
const pageSize = 500

/** What the log still has of the sales' topic: the newest of each partition, as many as are kept at most. */
const past = Effect.fnUntraced(function* (bus: typeof EventBus.Service) {
  const ends = yield* bus.ends([saleTopic])
  const after = new Map([...ends].map(([place, last]) => [place, Math.max(-1, last - limits.keptEvents)]))
  const events: Array<SaleEvents.SaleEvent> = []
  for (;;) {
    const page: ReadonlyArray<Delivery> = yield* bus.read({ topics: [saleTopic], after, limit: pageSize })
    for (const delivery of page) {
      after.set(`${delivery.topic}/${delivery.partition}`, delivery.offset)
      const event = SaleEvents.saleEventOf(delivery)
      if (event !== undefined) events.push(event)
    }
    if (page.length < pageSize) return events
  }
})

/** One reader of the bus for all live connections of the process, and one heartbeat. */
export const layer = Layer.effect(
  Live,
  Effect.gen(function* () {
    const bus = yield* EventBus
    const services = yield* Effect.context<never>()
    const orders = OrderChanges.make()
    const sales = SaleEvents.make()

    const tell = ({ topic, envelope, ...rest }: Delivery) => {
      if (topic === orderTopic) {
        return Effect.catchTag(orders.tell(envelope), "SchemaError", (error) =>
          Effect.as(Effect.logWarning(`Nobody is told of ${envelope.eventType} ${envelope.eventId}`, error), false)
        )
      }
      const event = SaleEvents.saleEventOf({ topic, envelope, ...rest })
      return Effect.succeed(event !== undefined && sales.tell(event))
    }
    const following = Latch.makeUnsafe(false)
    yield* Effect.forkScoped(
      bus.follow({
        topics: [orderTopic, saleTopic],
        following: Effect.sync(() => following.openUnsafe()),
        handle: (batch) =>
          Effect.forEach(
            batch,
            (delivery) =>
              Effect.zipWith(tell(delivery), Clock.currentTimeMillis, (told, nowMs) => {
                if (told) LiveMetrics.handedOver(delivery.envelope.occurredAt, nowMs, services)
              }),
            { discard: true }
          )
      })
    )
    // First what comes is listened to, then the past is read: so nothing falls between the two. The edge does not wait.
    let listening = false
    yield* following.await.pipe(
      Effect.andThen(Effect.retry(past(bus), patient)),
      Effect.tap((events) =>
        Effect.sync(() => {
          sales.precede(events)
          listening = true
        })
      ),
      Effect.orDie,
      Effect.withTracerEnabled(false),
      Effect.forkScoped
    )

    const heartbeat = new TextEncoder().encode(":\n\n")
    yield* Effect.forkScoped(
      Effect.forever(
        Effect.andThen(
          Effect.sleep(limits.heartbeatMs),
          Effect.sync(() => sales.send(heartbeat))
        )
      ).pipe(Effect.withTracerEnabled(false))
    )
    return { orders, sales, isListening: () => listening }
  })
)
