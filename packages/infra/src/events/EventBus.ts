import { Context, type Duration, Effect, Schedule, Schema } from "effect"
import type { Envelope } from "@merkato/domain/kernel/Event"
import type * as Option from "effect/Option"

/** The bus cannot take or give events now; the caller keeps what it has and tries again. */
export class BusUnavailable extends Schema.TaggedError<BusUnavailable>()("BusUnavailable", {
  cause: Schema.Defect()
}) {}

/** An event on its way to a topic. Events with the same key stay in order. */
export interface BusMessage {
  readonly topic: string
  readonly key: string
  readonly envelope: Envelope
  readonly traceParent: string
  /**
   * Why the event is in a dead-letter topic, and which group could not take it. One that was put back still says so: it is
   * for that group alone.
   */
  readonly failure?: DeadLetterCause | undefined
}

/** Whether the request that an event came from is traced. */
export const isSampled = ({ traceParent }: Pick<BusMessage, "traceParent">): boolean => traceParent.endsWith("1")

export interface DeadLetterCause {
  readonly topic: string
  readonly consumerGroup: string
  readonly attempts: number
  readonly reason: string
}

/** An event off a topic, with its place there. */
export interface Delivery extends BusMessage {
  readonly partition: number
  readonly offset: number
}

/** An event that a consumer group gave up on. */
export interface DeadLetter extends Delivery {
  readonly requeued: boolean
  readonly failedAt: Date
}

/** What a consumer group reads, and what it does with it. */
export interface Subscription<R> {
  readonly consumerGroup: string
  readonly topics: ReadonlyArray<string>
  /** All types, when it is left out. */
  readonly eventTypes?: ReadonlyArray<string>
  /** At most so many events of each partition at a time. */
  readonly batchSize: number
  readonly handle: (batch: ReadonlyArray<Delivery>) => Effect.Effect<void, BusUnavailable, R>
}

/** What is read from now on; `following` runs once the starting point is known. */
export interface Following<R> {
  readonly topics: ReadonlyArray<string>
  readonly following: Effect.Effect<void>
  readonly handle: (batch: ReadonlyArray<Delivery>) => Effect.Effect<void, never, R>
}

/** How a bus that is away is tried again: soon at first, then every 5 s. */
export const patient = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")])

/**
 * Takes turn after turn for good. What fails is told and tried again, defects as well: whatever it stumbles over, a reader
 * that is gone would miss every event from then on.
 */
export const turnForever = <E, R>(reader: string, turn: Effect.Effect<unknown, E, R>): Effect.Effect<never, never, R> =>
  turn.pipe(
    Effect.sandbox,
    Effect.tapError((cause) => Effect.logWarning(`${reader} pauses`, cause)),
    Effect.retry(patient),
    Effect.orDie,
    Effect.forever
  )

export const deadLetterTopic = (topic: string): string => `${topic}.dlq`

/**
 * The log that carries events between contexts. At least once; in order per key; each consumer group sees every event, but for
 * those that were put back for another one.
 * One contract test runs against each side (Postgres here, Kafka elsewhere).
 */
export class EventBus extends Context.Service<
  EventBus,
  {
    /**
     * The Postgres that keeps what is published and how far each group is, as `Database.cluster` names it; undefined for
     * what is kept elsewhere.
     */
    readonly cluster?: Effect.Effect<string | undefined>
    /**
     * Returns when every message is durable; within `handle` of a subscription, a side may keep them until the batch is done:
     * then they are there with its place, and not at all when the batch comes again.
     */
    readonly publish: (messages: ReadonlyArray<BusMessage>) => Effect.Effect<void, BusUnavailable>
    /**
     * Reads on forever for a group. `handle` gets events of some partitions, in order within each; when it returns, they
     * are done, and when it fails or the process dies, they come again. Events of other types are passed over unread.
     */
    readonly subscribe: <R>(options: Subscription<R>) => Effect.Effect<never, never, R>
    /**
     * Reads on forever what is published from now on, for this process alone and without remembering how far: what
     * caches and live connections need.
     */
    readonly follow: <R>(options: Following<R>) => Effect.Effect<never, never, R>
    /** What stands in the topics from a moment on, oldest first; at most `limit`. */
    readonly read: (options: {
      readonly topics: ReadonlyArray<string>
      readonly after: ReadonlyMap<string, number>
      readonly limit: number
    }) => Effect.Effect<ReadonlyArray<Delivery>, BusUnavailable>
    /** Where the topics end now: the offset of the last event by `topic/partition`, as `read` takes it in `after`. */
    readonly ends: (topics: ReadonlyArray<string>) => Effect.Effect<ReadonlyMap<string, number>, BusUnavailable>
    readonly deadLetters: (options: {
      readonly topic: Option.Option<string>
      readonly limit: number
    }) => Effect.Effect<ReadonlyArray<DeadLetter>, BusUnavailable>
    /**
     * Puts dead letters back into the topic they came from, once each, for the group that had given up on the event. The others
     * have had it, maybe so long ago that their inbox does not know it any more. What a relay had kept back is for all.
     */
    readonly requeue: (letters: ReadonlyArray<DeadLetter>) => Effect.Effect<number, BusUnavailable>
    /** Events that a group has not taken yet, over all its topics. */
    readonly lag: (consumerGroup: string, topics: ReadonlyArray<string>) => Effect.Effect<number, BusUnavailable>
    /** Forgets events older than this; how many went. */
    readonly expire: (keep: Duration.Duration) => Effect.Effect<number, BusUnavailable>
  }
>()("merkato/infra/EventBus") {}
