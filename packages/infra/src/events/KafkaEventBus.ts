import { Clock, Duration, Effect, Layer, Option } from "effect"
import type { Broker } from "@platformatic/kafka"
import {
  type BusMessage,
  BusUnavailable,
  type DeadLetter,
  deadLetterTopic,
  type Delivery,
  EventBus,
  type Following,
  patient,
  turnForever
} from "./EventBus.ts"
import { isFor } from "./DeadLetters.ts"
import { EventSchemas } from "./EventSchemas.ts"
import { clientId, clientOptions } from "./kafka/Client.ts"
import * as Group from "./kafka/Group.ts"
import { malformedType, toRecord } from "./kafka/Message.ts"
import * as Reading from "./kafka/Reading.ts"
import * as Requeues from "./kafka/Requeues.ts"
import * as Sender from "./kafka/Sender.ts"
import * as Subscriber from "./kafka/Subscriber.ts"
import * as Topics from "./kafka/Topics.ts"
import { type KafkaFailure, make as makeWire, needed, placeName, topicsOf } from "./kafka/Wire.ts"

const unavailable = <A, R>(effect: Effect.Effect<A, KafkaFailure, R>) =>
  Effect.mapError(effect, ({ cause }) => new BusUnavailable({ cause }))

export interface Options {
  readonly brokers: ReadonlyArray<Broker>
  /** Topics that are made at the start, each with its dead letters; others are made when they are first used. */
  readonly topics: ReadonlyArray<string>
}

/**
 * The bus on Kafka. Publishing is idempotent and acknowledged by all replicas; a key's events stay in one partition, found
 * as Kafka's own clients find it. A group's offsets are committed after its handling is done, and its partitions change
 * hands only between two batches; what a failure brings again, the inbox of the consumers ignores.
 */
export const layer = ({ brokers, topics: wantedTopics }: Options) =>
  Layer.effect(
    EventBus,
    Effect.gen(function* () {
      const client = clientOptions(brokers)
      const topics = yield* Topics.make(client)
      const send = yield* Sender.make(client, topics)
      const newWire = (requestTimeoutMs: number) => makeWire({ brokers, clientId, requestTimeoutMs })
      const wire = yield* newWire(10_000)
      const requeues = Requeues.make(wire, send)

      const publish = Effect.fn("EventBus.publish")(function* (messages: ReadonlyArray<BusMessage>) {
        if (messages.length === 0) return
        const now = yield* Clock.currentTimeMillis
        yield* send(messages.map((message) => toRecord(message, now)))
      }, unavailable)

      const { wrongAsRead } = yield* EventSchemas
      const subscribe = Subscriber.make({ wire, newWire, ensure: topics.ensure, publish, wrongAsRead })

      const follow = <R>(options: Following<R>): Effect.Effect<never, never, R> =>
        Effect.scoped(
          Effect.gen(function* () {
            const { topics: wanted, following, handle } = options
            const reader = yield* newWire(10_000)
            const positions = new Map(
              yield* Effect.andThen(topics.ensure(wanted), reader.ends(wanted)).pipe(
                Effect.tap((ends) => needed(wanted, topicsOf(ends))),
                Effect.tapError((failure) => Effect.logWarning("A follower of the bus waits for it", failure)),
                Effect.retry(patient),
                Effect.orDie
              )
            )
            yield* following
            const turn = Effect.gen(function* () {
              const fetched = yield* Reading.next(reader, positions)
              const events = Reading.deliveriesOf(fetched)
                .filter(isFor())
                .filter(
                  ({ envelope: { eventType, payload } }) =>
                    eventType !== malformedType && wrongAsRead(eventType, payload) === undefined
                )
              if (events.length > 0) yield* handle(events)
              for (const place of fetched) positions.set(placeName(place), place.next)
            })
            return yield* turnForever("A follower of the bus", turn)
          })
        ).pipe(Effect.withTracerEnabled(false))

      const read: EventBus["Service"]["read"] = Effect.fnUntraced(function* ({ topics, after, limit }) {
        const from = new Map([...after].map(([name, offset]) => [name, offset + 1]))
        const all = yield* Reading.standing(wire, topics, from, limit)
        return all.slice(0, limit).map(({ arrived: _, publishedAt: _1, ...delivery }): Delivery => delivery)
      }, unavailable)

      const ends: EventBus["Service"]["ends"] = Effect.fnUntraced(function* (topics) {
        const ends = yield* wire.ends(topics)
        return new Map([...ends].filter(([, next]) => next > 0).map(([name, next]) => [name, next - 1]))
      }, unavailable)

      const deadLetters: EventBus["Service"]["deadLetters"] = Effect.fnUntraced(function* ({ topic, limit }) {
        const wanted = Option.match(topic, {
          onNone: () => Effect.map(topics.all, (all) => all.filter((name) => name.endsWith(".dlq"))),
          onSome: (topic) => Effect.succeed([deadLetterTopic(topic)])
        })
        const isTaken = yield* requeues.taken
        const all = yield* Reading.standing(wire, yield* wanted, new Map(), Number.POSITIVE_INFINITY)
        return all
          .filter((letter) => !isTaken(Subscriber.letterName(letter)))
          .slice(0, limit)
          .map(({ publishedAt, arrived: _, ...letter }) => ({
            ...letter,
            requeued: false,
            failedAt: new Date(publishedAt)
          }))
      }, unavailable)

      const requeue: EventBus["Service"]["requeue"] = Effect.fnUntraced(function* (letters: ReadonlyArray<DeadLetter>) {
        const wanted = new Map(
          letters
            .filter(({ failure }) => failure !== undefined)
            .map((letter) => [Subscriber.letterName(letter), letter])
        )
        if (wanted.size === 0) return 0
        const now = yield* Clock.currentTimeMillis
        const { by, own } = yield* requeues.claim([...wanted.keys()])
        if (own.length === 0) return 0
        yield* send(
          own.flatMap((name) => {
            const letter = wanted.get(name)
            if (letter?.failure === undefined) return []
            const { failure, key, envelope, traceParent } = letter
            return [toRecord({ topic: failure.topic, key, envelope, traceParent, failure }, now)]
          })
        )
        yield* requeues.settle(by, own)
        return own.length
      }, unavailable)

      const lag: EventBus["Service"]["lag"] = Effect.fnUntraced(function* (consumerGroup, topics) {
        const [been, starts, ends] = yield* Effect.all([
          Group.committed(wire, consumerGroup, topics),
          wire.starts(topics),
          wire.ends(topics)
        ])
        let sum = 0
        for (const [name, end] of ends) sum += end - Math.max(been.get(name) ?? 0, starts.get(name) ?? 0)
        return sum
      }, unavailable)

      const expire: EventBus["Service"]["expire"] = Effect.fnUntraced(function* (keep) {
        const before = (yield* Clock.currentTimeMillis) - Duration.toMillis(keep)
        const all = yield* topics.all
        const [starts, ends, kept] = yield* Effect.all([wire.starts(all), wire.ends(all), wire.since(all, before)])
        const places = (yield* wire.partitions(all)).flatMap((place) => {
          const name = placeName(place)
          const [start, end, first] = [starts.get(name) ?? 0, ends.get(name) ?? 0, kept.get(name) ?? -1]
          const from = first < 0 ? end : first
          return from > start ? [{ ...place, from, gone: from - start }] : []
        })
        if (places.length === 0) return 0
        yield* topics.cut(places)
        return places.reduce((sum, { gone }) => sum + gone, 0)
      }, unavailable)

      yield* unavailable(topics.ensure(wantedTopics.flatMap((topic) => [topic, deadLetterTopic(topic)])))

      return EventBus.of({ publish, subscribe, follow, read, ends, deadLetters, requeue, lag, expire })
    })
  )
