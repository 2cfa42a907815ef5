import { Clock, Duration, Effect, Fiber, Latch, Layer, Option, Schema, Semaphore } from "effect"
import { Admin, type Broker, compatibilityPartitioner, Producer, stringSerializers } from "@platformatic/kafka"
import * as Ids from "@merkato/domain/kernel/Ids"
import {
  type BusMessage,
  BusUnavailable,
  type DeadLetter,
  deadLetterTopic,
  type Delivery,
  EventBus,
  type Following,
  patient,
  type Subscription
} from "./EventBus.ts"
import * as Group from "./kafka/Group.ts"
import { malformedType, toDelivery, toRecord } from "./kafka/Message.ts"
import {
  type Fetched,
  KafkaFailure,
  type Place,
  placeName,
  type Positions,
  type Wire,
  make as makeWire
} from "./kafka/Wire.ts"

/** Partitions of a topic that the bus makes. A key's partition never changes, so neither may this number. */
export const partitionCount = 4

/** How long the topics keep events (contracts: topics). */
const retention = Duration.days(7)

/** What the topics are made with, whatever the brokers would do by themselves. */
const settings = [
  { name: "cleanup.policy", value: "delete" },
  { name: "retention.ms", value: String(Duration.toMillis(retention)) },
  { name: "message.timestamp.type", value: "CreateTime" }
]

/** How long a reader waits for the first record before it asks again. */
const waitMs = 1_000

/** How long a consumer that has just worked lets events gather: under load, a few bigger batches instead of many small ones. */
const gatherFor = Duration.millis(25)

/** How long a publisher waits for its turn and for Kafka's word; what it does not know then, it publishes again. */
const acknowledgedWithin = "5 seconds"

/** Milliseconds between two tries to handle a batch: these at first, then twice as long each time, at most `longest`. */
const pauses = { first: 100, longest: 5_000 } as const

/** Which dead letters were put back, by whom: one partition, so that all who want to do it agree on who was first. */
const requeues = "bus.requeues"

/** How long who wants to put a dead letter back has it for itself. */
const claimMs = 60_000

/** A line of `requeues`: somebody is about to put a letter back, or has done so. */
const Claim = Schema.Struct({ letter: Schema.String, by: Schema.String, done: Schema.Boolean })
type Claim = typeof Claim.Type

const decodeClaim = Schema.decodeUnknownOption(Schema.fromJsonString(Claim))

const attempt = <A>(what: () => Promise<A>) =>
  Effect.tryPromise({ try: what, catch: (cause) => new KafkaFailure({ cause }) })

const unavailable = <A, R>(effect: Effect.Effect<A, KafkaFailure, R>) =>
  Effect.mapError(effect, ({ cause }) => new BusUnavailable({ cause }))

const letterName = (letter: Delivery): string => `${placeName(letter)}@${letter.offset}`

/** Records of several partitions, a page of each at a time. */
function* pages(fetched: ReadonlyArray<Fetched>, size: number) {
  for (let from = 0; fetched.some(({ records }) => records.length > from || from === 0); from += size) {
    yield fetched
      .filter(({ records }) => records.length > from || from === 0)
      .map(({ topic, partition, records, next }) => {
        const page = records.slice(from, from + size)
        const last = page.at(-1)
        const isLast = records.length <= from + size
        return { topic, partition, records: page, next: isLast || last === undefined ? next : last.offset + 1 }
      })
  }
}

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
      const clientId = "merkato"
      const client = { clientId, bootstrapBrokers: [...brokers], retries: 2, retryDelay: 100, connectTimeout: 5_000 }
      const closing = (client: { readonly close: () => Promise<void> }) =>
        Effect.ignore(
          Effect.timeout(
            attempt(() => client.close()),
            "2 seconds"
          )
        )
      const admin = yield* Effect.acquireRelease(
        Effect.sync(() => new Admin({ ...client, requestTimeout: 30_000 })),
        closing
      )
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
      const wire = yield* makeWire({ brokers, clientId, requestTimeoutMs: 10_000 })

      const turn = Semaphore.makeUnsafe(1)
      const clock = yield* Clock.Clock

      /**
       * One after another: the producer numbers what it sends, and the broker refuses a number out of turn, as would be what is
       * tried again while another one is under way. Each send carries a relay's whole batch. What was begun is not broken off,
       * but nobody waits long for it: a relay waits in a transaction.
       */
      const sendInTurn = (messages: ReadonlyArray<ReturnType<typeof toRecord>>) =>
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

      /** Topics that are known to be there. */
      const there = new Set<string>()

      const madeAs = (topic: string) => ({
        topic,
        partitions: topic === requeues ? 1 : partitionCount,
        // As many replicas as the brokers make by themselves.
        replicas: -1
      })

      const ensure = Effect.fnUntraced(function* (topics: ReadonlyArray<string>) {
        if (topics.every((topic) => there.has(topic))) return
        const found = new Set(yield* attempt(() => admin.listTopics()))
        const missing = [...new Set(topics)].filter((topic) => !found.has(topic))
        yield* Effect.forEach(
          missing.length === 0 ? [] : [missing],
          (missing) =>
            attempt(() => admin.createTopics({ topics: missing.map(madeAs), configs: settings })).pipe(
              // Somebody else makes them at the same moment; what is still missing, the next try makes.
              Effect.catchIf(
                (failure) => failure.says("TOPIC_ALREADY_EXISTS"),
                () => Effect.flatMap(Effect.sleep("50 millis"), () => again(missing))
              )
            ),
          { discard: true }
        )
        for (const topic of topics) there.add(topic)
      })
      const again = (topics: ReadonlyArray<string>): Effect.Effect<void, KafkaFailure> => ensure(topics)

      const send = Effect.fnUntraced(
        function* (messages: ReadonlyArray<ReturnType<typeof toRecord>>) {
          yield* ensure([...new Set(messages.map(({ topic }) => topic))])
          yield* sendInTurn(messages)
        },
        Effect.tapError(() => Effect.sync(() => there.clear()))
      )

      const publish = Effect.fn("EventBus.publish")(function* (messages: ReadonlyArray<BusMessage>) {
        if (messages.length === 0) return
        const now = yield* Clock.currentTimeMillis
        yield* send(messages.map((message) => toRecord(message, now)))
      }, unavailable)

      const deliveriesOf = (fetched: ReadonlyArray<Fetched>) =>
        fetched.flatMap((place) => place.records.map((record) => toDelivery(place, record)))

      /** Sends what is no event to the dead letters, and keeps the rest. */
      const eventsOf = Effect.fnUntraced(function* (consumerGroup: string, deliveries: ReadonlyArray<Delivery>) {
        const events = deliveries.filter(({ envelope }) => envelope.eventType !== malformedType)
        const others = deliveries.filter(({ envelope }) => envelope.eventType === malformedType)
        if (others.length === 0) return events
        const reason = "It is no event: its value is not the envelope of this shop's events."
        yield* Effect.logError("Messages go to the dead letters: they are no events", others.map(letterName))
        yield* publish(
          others.map((delivery) => ({
            ...delivery,
            topic: deadLetterTopic(delivery.topic),
            failure: { topic: delivery.topic, consumerGroup, attempts: 1, reason }
          }))
        )
        return events
      })

      const subscribe = <R>(options: Subscription<R>): Effect.Effect<never, never, R> => {
        const { consumerGroup, topics, eventTypes, batchSize, handle } = options
        const isWanted = ({ envelope }: Delivery) => eventTypes === undefined || eventTypes.includes(envelope.eventType)

        /** Until it is done, or the group changes: false. */
        const handleUntilDone = Effect.fnUntraced(function* (batch: ReadonlyArray<Delivery>, changing: Latch.Latch) {
          for (let pause: number = pauses.first; ; pause = Math.min(pause * 2, pauses.longest)) {
            const done = yield* Effect.sandbox(handle(batch)).pipe(
              Effect.tapError((cause) => Effect.logWarning(`Consumer group ${consumerGroup} pauses`, cause)),
              Effect.match({ onSuccess: () => true, onFailure: () => false })
            )
            if (done) return true
            const goOn = Effect.as(Effect.sleep(pause), true)
            if (!(yield* Effect.raceFirst(goOn, Effect.as(changing.await, false)))) return false
          }
        })

        const work = Effect.fnUntraced(function* (
          reader: Wire,
          { commit }: ReturnType<typeof Group.make>,
          member: Group.Member,
          changing: Latch.Latch
        ) {
          if (member.places.length === 0) return yield* changing.await
          const positions = yield* startsOf(consumerGroup, member.places)
          while (true) {
            const waiting = reader.fetch(positions, waitMs).pipe(recover(reader, positions))
            const fetched = yield* Effect.raceFirst(waiting, Effect.as(changing.await, undefined))
            if (fetched === undefined) return
            let handled = 0
            for (const page of pages(fetched, batchSize)) {
              const batch = (yield* eventsOf(consumerGroup, deliveriesOf(page))).filter(isWanted)
              if (batch.length > 0 && !(yield* handleUntilDone(batch, changing))) return
              handled += batch.length
              for (const place of page) positions.set(placeName(place), place.next)
              yield* commit(member, new Map(page.map((place) => [placeName(place), place.next])))
              if (changing.isOpen()) return
            }
            if (handled > 0 && handled < batchSize) yield* Effect.sleep(gatherFor)
          }
        })

        return Effect.scoped(
          Effect.gen(function* () {
            // A member's word must not wait behind records that may come.
            const reader = yield* makeWire({ brokers, clientId, requestTimeoutMs: 10_000 })
            const speaker = yield* makeWire({ brokers, clientId, requestTimeoutMs: Group.rebalanceMs + 10_000 })
            const group = Group.make(speaker, consumerGroup, topics)
            yield* Effect.addFinalizer(() => group.leave)
            const life = Effect.gen(function* () {
              yield* ensure(topics)
              const member = yield* group.join
              const changing = Latch.makeUnsafe(false)
              yield* Effect.raceFirst(work(reader, group, member, changing), group.heartbeats(member, changing))
            })
            return yield* Effect.forever(
              life.pipe(
                // Defects as well: whatever it stumbles over, a consumer that is gone would miss every event from then on.
                Effect.sandbox,
                Effect.tapError((cause) => Effect.logWarning(`Consumer group ${consumerGroup} pauses`, cause)),
                Effect.retry(patient),
                Effect.orDie
              )
            )
          })
        )
      }

      /** Where a group goes on: where it has been, or where its partitions begin now. */
      const startsOf = Effect.fnUntraced(function* (consumerGroup: string, places: ReadonlyArray<Place>) {
        const topics = [...new Set(places.map(({ topic }) => topic))]
        const [been, starts] = yield* Effect.all([Group.committed(wire, consumerGroup, topics), wire.starts(topics)])
        return new Map(
          places.map((place) => {
            const [name, start] = [placeName(place), starts.get(placeName(place)) ?? 0]
            return [name, Math.max(been.get(name) ?? start, start)] as const
          })
        )
      })

      /** Goes on where a partition begins or ends, when what was read on from is not there any more. */
      const recover =
        (reader: Wire, positions: Map<string, number>) =>
        <A>(fetching: Effect.Effect<A, KafkaFailure>): Effect.Effect<A, KafkaFailure> =>
          Effect.tapError(fetching, (failure) =>
            Effect.gen(function* () {
              if (!failure.says("OFFSET_OUT_OF_RANGE")) return
              const topics = [...new Set([...positions.keys()].map((name) => name.slice(0, name.lastIndexOf("/"))))]
              const [starts, ends] = yield* Effect.all([reader.starts(topics), reader.ends(topics)])
              for (const [name, position] of positions) {
                positions.set(name, Math.max(starts.get(name) ?? 0, Math.min(position, ends.get(name) ?? position)))
              }
            })
          )

      const follow = <R>(options: Following<R>): Effect.Effect<never, never, R> =>
        Effect.scoped(
          Effect.gen(function* () {
            const { topics, following, handle } = options
            const reader = yield* makeWire({ brokers, clientId, requestTimeoutMs: 10_000 })
            const positions = new Map(
              yield* Effect.andThen(ensure(topics), reader.ends(topics)).pipe(
                Effect.tapError((failure) => Effect.logWarning("A follower of the bus waits for it", failure)),
                Effect.retry(patient),
                Effect.orDie
              )
            )
            yield* following
            const turn = Effect.gen(function* () {
              const fetched = yield* reader.fetch(positions, waitMs).pipe(recover(reader, positions))
              const events = deliveriesOf(fetched).filter(({ envelope }) => envelope.eventType !== malformedType)
              if (events.length > 0) yield* handle(events)
              for (const place of fetched) positions.set(placeName(place), place.next)
            })
            return yield* Effect.forever(turn.pipe(Effect.sandbox, Effect.retry(patient), Effect.orDie))
          })
        ).pipe(Effect.withTracerEnabled(false))

      /** What stands from these positions to where the partitions end now; at most `limit` of each. */
      const stand = Effect.fnUntraced(function* (topics: ReadonlyArray<string>, from: Positions, limit: number) {
        const [starts, ends] = yield* Effect.all([wire.starts(topics), wire.ends(topics)], { concurrency: 2 })
        const positions = new Map<string, number>()
        for (const [name, start] of starts) positions.set(name, Math.max(from.get(name) ?? start, start))
        const read = new Map<string, Array<Delivery & { readonly publishedAt: number }>>()
        while (true) {
          for (const [name, position] of positions) {
            if (position >= (ends.get(name) ?? 0) || (read.get(name)?.length ?? 0) >= limit) positions.delete(name)
          }
          if (positions.size === 0) break
          for (const place of yield* wire.fetch(positions, waitMs)) {
            const name = placeName(place)
            const end = ends.get(name) ?? 0
            const records = place.records.filter(({ offset }) => offset < end)
            const deliveries = records.map((record) => ({
              ...toDelivery(place, record),
              publishedAt: record.timestamp
            }))
            read.set(name, [...(read.get(name) ?? []), ...deliveries].slice(0, limit))
            positions.set(name, place.next)
          }
        }
        // As in the other bus: an event counts as old as the newest before it, so that a page never passes over one.
        return [...read.values()]
          .flatMap((deliveries) => {
            let arrived = 0
            return deliveries.map((delivery) => {
              arrived = Math.max(arrived, delivery.publishedAt)
              return { ...delivery, arrived }
            })
          })
          .toSorted(
            (a, b) =>
              a.arrived - b.arrived ||
              (a.topic < b.topic ? -1 : a.topic > b.topic ? 1 : 0) ||
              a.partition - b.partition ||
              a.offset - b.offset
          )
      })

      const read: EventBus["Service"]["read"] = Effect.fnUntraced(function* ({ topics, after, limit }) {
        const from = new Map([...after].map(([name, offset]) => [name, offset + 1]))
        const all = yield* stand(topics, from, limit)
        return all.slice(0, limit).map(({ arrived: _, publishedAt: _1, ...delivery }): Delivery => delivery)
      }, unavailable)

      const ends: EventBus["Service"]["ends"] = Effect.fnUntraced(function* (topics) {
        const ends = yield* wire.ends(topics)
        return new Map([...ends].filter(([, next]) => next > 0).map(([name, next]) => [name, next - 1]))
      }, unavailable)

      /** Who has put back which letters, or is about to, after all that was claimed before now. */
      const requeued = Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const holders = new Map<string, { readonly by: string; readonly at: number; readonly done: boolean }>()
        for (const { payload: claim, at } of yield* claims) {
          const held = holders.get(claim.letter)
          const isFree = held === undefined || (!held.done && at - held.at > claimMs)
          if (held?.by === claim.by ? claim.done : isFree) {
            holders.set(claim.letter, { by: claim.by, at, done: claim.done })
          }
        }
        return { holders, isTaken: (letter: string) => isHeld(holders.get(letter), now) }
      })
      const isHeld = (held: { readonly at: number; readonly done: boolean } | undefined, now: number) =>
        held !== undefined && (held.done || now - held.at <= claimMs)

      const claims = Effect.gen(function* () {
        const [starts, ends] = yield* Effect.all([wire.starts([requeues]), wire.ends([requeues])])
        const found: Array<{ readonly payload: Claim; readonly at: number }> = []
        const [name, end] = [
          placeName({ topic: requeues, partition: 0 }),
          ends.get(placeName({ topic: requeues, partition: 0 })) ?? 0
        ]
        for (let position = starts.get(name) ?? 0; position < end; ) {
          for (const { records, next } of yield* wire.fetch(new Map([[name, position]]), waitMs)) {
            for (const { value, timestamp } of records) {
              const claim = decodeClaim(value?.toString() ?? "")
              if (Option.isSome(claim)) found.push({ payload: claim.value, at: timestamp })
            }
            position = next
          }
        }
        return found
      })

      const claim = Effect.fnUntraced(function* (claims: ReadonlyArray<Claim>) {
        const timestamp = BigInt(yield* Clock.currentTimeMillis)
        yield* send(
          claims.map((claim) => ({
            topic: requeues,
            key: claim.letter,
            value: JSON.stringify(claim),
            headers: {},
            timestamp
          }))
        )
      })

      const deadLetters: EventBus["Service"]["deadLetters"] = Effect.fnUntraced(function* ({ topic, limit }) {
        const topics = Option.match(topic, {
          onNone: () =>
            Effect.map(
              attempt(() => admin.listTopics()),
              (all) => all.filter((name) => name.endsWith(".dlq"))
            ),
          onSome: (topic) => Effect.succeed([deadLetterTopic(topic)])
        })
        const { isTaken } = yield* requeued
        const all = yield* stand(yield* topics, new Map(), Number.POSITIVE_INFINITY)
        return all
          .filter((letter) => !isTaken(letterName(letter)))
          .slice(0, limit)
          .map(({ publishedAt, arrived: _, ...letter }) => ({
            ...letter,
            requeued: false,
            failedAt: new Date(publishedAt)
          }))
      }, unavailable)

      const requeue: EventBus["Service"]["requeue"] = Effect.fnUntraced(function* (letters: ReadonlyArray<DeadLetter>) {
        const wanted = new Map(
          letters.filter(({ failure }) => failure !== undefined).map((letter) => [letterName(letter), letter])
        )
        if (wanted.size === 0) return 0
        const by = yield* Ids.next
        const now = yield* Clock.currentTimeMillis
        yield* claim([...wanted.keys()].map((letter) => ({ letter, by, done: false })))
        const { holders } = yield* requeued
        const mine = [...wanted].filter(([name]) => holders.get(name)?.by === by)
        yield* send(
          mine.flatMap(([, { failure, key, envelope, traceParent }]) =>
            failure === undefined ? [] : [toRecord({ topic: failure.topic, key, envelope, traceParent }, now)]
          )
        )
        if (mine.length > 0) yield* claim(mine.map(([letter]) => ({ letter, by, done: true })))
        return mine.length
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
        const topics = yield* attempt(() => admin.listTopics())
        const [starts, ends, kept] = yield* Effect.all([
          wire.starts(topics),
          wire.ends(topics),
          wire.since(topics, before)
        ])
        const places = (yield* wire.partitions(topics)).flatMap((place) => {
          const name = placeName(place)
          const [start, end, first] = [starts.get(name) ?? 0, ends.get(name) ?? 0, kept.get(name) ?? -1]
          const from = first < 0 ? end : first
          return from > start ? [{ ...place, from, gone: from - start }] : []
        })
        if (places.length === 0) return 0
        yield* attempt(() =>
          admin.deleteRecords({
            topics: [...Map.groupBy(places, ({ topic }) => topic)].map(([name, ofTopic]) => ({
              name,
              partitions: ofTopic.map(({ partition, from }) => ({ partition, offset: BigInt(from) }))
            }))
          })
        )
        return places.reduce((sum, { gone }) => sum + gone, 0)
      }, unavailable)

      yield* unavailable(ensure(wantedTopics.flatMap((topic) => [topic, deadLetterTopic(topic)])))

      return EventBus.of({ publish, subscribe, follow, read, ends, deadLetters, requeue, lag, expire })
    })
  )
