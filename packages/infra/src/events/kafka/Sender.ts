import { Clock, Effect, Fiber, type Scope, Semaphore } from "effect"
import { compatibilityPartitioner, Producer, stringSerializers } from "@platformatic/kafka"
import type { ClientOptions } from "./Client.ts"
import type { Outgoing } from "./Message.ts"
import type { Topics } from "./Topics.ts"
import { attempt, closing, KafkaFailure } from "./Wire.ts"

/** How long a publisher waits for its turn and for Kafka's word; what it does not know then, it publishes again. */
const acknowledgedWithin = "5 seconds"

/** Returns when all replicas have them. */
export type Send = (messages: ReadonlyArray<Outgoing>) => Effect.Effect<void, KafkaFailure>

/** Publishes idempotently; a key's partition is found as Kafka's own clients find it. */
export const make = Effect.fnUntraced(function* (
  client: ClientOptions,
  topics: Topics
): Effect.fn.Return<Send, never, Scope.Scope> {
  const producer = yield* Effect.acquireRelease(
    Effect.sync(
      () =>
        new Producer({
          ...client,
          requestTimeout: 10_000,
          idempotent: true,
          acks: -1,
          autocreateTopics: false,
          partitioner: compatibilityPartitioner,
          serializers: stringSerializers
        })
    ),
    closing
  )
  const turn = Semaphore.makeUnsafe(1)
  const clock = yield* Clock.Clock

  /**
   * One after another: the producer numbers what it sends, and the broker refuses a number out of turn, as would be what is
   * tried again while another one is under way. Each send carries a relay's whole batch. What was begun is not broken off,
   * but nobody waits long for it: a relay waits in a transaction.
   */
  const sendInTurn = (messages: ReadonlyArray<Outgoing>) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        yield* restore(turn.take(1))
        const sending = attempt(() => producer.send({ messages: [...messages] }))
        const fiber = yield* Effect.forkDetach(Effect.ensuring(sending, turn.release(1)))
        return yield* restore(Fiber.join(fiber))
      })
    ).pipe(
      Effect.timeoutOrElse({
        duration: acknowledgedWithin,
        orElse: () => Effect.fail(new KafkaFailure({ cause: new Error("Kafka did not acknowledge in time") }))
      }),
      // By the clock of this process: a publisher's own may only stamp its events.
      Effect.provideService(Clock.Clock, clock)
    )

  return Effect.fnUntraced(
    function* (messages) {
      yield* topics.ensure([...new Set(messages.map(({ topic }) => topic))])
      yield* sendInTurn(messages)
    },
    Effect.tapError(() => topics.forget)
  )
})
