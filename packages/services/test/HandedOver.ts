import { Effect } from "effect"
import type { Envelope } from "@merkato/domain/kernel/Event"
import * as Consumer from "@merkato/infra/events/Consumer"
import { EventBus } from "@merkato/infra/events/EventBus"

const notAsked = Effect.die(new Error("nobody asks for this"))

/**
 * A context's consumer gets events of traced requests as one batch, once: each is handled by itself, in their order, and all
 * in one transaction.
 */
export const handedOver = <R>(schema: string, consumer: Consumer.Consumer<R>, events: ReadonlyArray<Envelope>) => {
  const batch = events.map((envelope, offset) => ({
    topic: consumer.topic,
    partition: 0,
    offset,
    key: envelope.partitionKey,
    envelope,
    traceParent: "00-00000000000000000000000000000001-0000000000000001-01"
  }))
  const bus = EventBus.of({
    subscribe: ({ handle }) => Effect.andThen(Effect.orDie(handle(batch)), Effect.interrupt),
    publish: () => notAsked,
    follow: () => notAsked,
    read: () => notAsked,
    ends: () => notAsked,
    deadLetters: () => notAsked,
    requeue: () => notAsked,
    lag: () => notAsked,
    expire: () => notAsked
  })
  return Effect.exit(Effect.provideService(Consumer.run(schema, consumer), EventBus, bus))
}
