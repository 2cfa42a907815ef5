/** The topics of the bus on the brokers: what they are made with, and that they are there before they are used. */
import { Duration, Effect, type Scope } from "effect"
import { Admin } from "@platformatic/kafka"
import type { ClientOptions } from "./Client.ts"
import * as Requeues from "./Requeues.ts"
import { attempt, byTopic, closing, type KafkaFailure, type Place } from "./Wire.ts"

/** Partitions of a topic that the bus makes. A key's partition never changes, so neither may this number. */
const partitionCount = 4

/** How long the topics keep events (contracts: topics). */
const retention = Duration.days(7)

/** What the topics are made with, whatever the brokers would do by themselves. */
const settings = [
  { name: "cleanup.policy", value: "delete" },
  { name: "retention.ms", value: String(Duration.toMillis(retention)) },
  { name: "message.timestamp.type", value: "CreateTime" }
]

const madeAs = (topic: string) => ({
  topic,
  partitions: topic === Requeues.topic ? 1 : partitionCount,
  // As many replicas as the brokers make by themselves.
  replicas: -1
})

export interface Topics {
  /** Makes those that are not there. */
  readonly ensure: (topics: ReadonlyArray<string>) => Effect.Effect<void, KafkaFailure>
  /** What was there may be gone: the next `ensure` looks again. */
  readonly forget: Effect.Effect<void>
  readonly all: Effect.Effect<ReadonlyArray<string>, KafkaFailure>
  /** Deletes all records before these offsets. */
  readonly cut: (places: ReadonlyArray<Place & { readonly from: number }>) => Effect.Effect<void, KafkaFailure>
}

export const make = Effect.fnUntraced(function* (client: ClientOptions): Effect.fn.Return<Topics, never, Scope.Scope> {
  const admin = yield* Effect.acquireRelease(
    Effect.sync(() => new Admin({ ...client, requestTimeout: 30_000 })),
    closing
  )
  const all = attempt(() => admin.listTopics())

  /** Topics that are known to be there. */
  const there = new Set<string>()

  const ensure: Topics["ensure"] = Effect.fnUntraced(function* (topics) {
    if (topics.every((topic) => there.has(topic))) return
    const found = new Set(yield* all)
    const missing = [...new Set(topics)].filter((topic) => !found.has(topic))
    if (missing.length > 0) yield* create(missing)
    for (const topic of topics) there.add(topic)
  })

  const create = (topics: ReadonlyArray<string>): Effect.Effect<void, KafkaFailure> =>
    attempt(() => admin.createTopics({ topics: topics.map(madeAs), configs: settings })).pipe(
      Effect.asVoid,
      // Somebody else makes them at the same moment; what is still missing, the next try makes.
      Effect.catchIf(
        (failure) => failure.says("TOPIC_ALREADY_EXISTS"),
        () => Effect.andThen(Effect.sleep("50 millis"), ensure(topics))
      )
    )

  const cut: Topics["cut"] = (places) =>
    Effect.asVoid(
      attempt(() =>
        admin.deleteRecords({
          topics: byTopic(places, ({ partition, from }) => ({ partition, offset: BigInt(from) }))
        })
      )
    )

  return { ensure, forget: Effect.sync(() => there.clear()), all, cut }
})
