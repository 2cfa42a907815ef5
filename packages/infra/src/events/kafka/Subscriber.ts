/** A consumer group's member in this process: reads what the group gave it, and hands it over until it is done. */
import { Duration, Effect, Latch, type Scope } from "effect"
import { type BusMessage, type BusUnavailable, type Delivery, type Subscription, turnForever } from "../EventBus.ts"
import { gaveUp, isFor, letterOf } from "../DeadLetters.ts"
import type { EventSchemasShape, Verdict } from "../EventSchemas.ts"
import * as Group from "./Group.ts"
import { malformedType } from "./Message.ts"
import * as Reading from "./Reading.ts"
import { type Fetched, type KafkaFailure, needed, type Place, placeName, topicsOf, type Wire } from "./Wire.ts"

/** How long a consumer that has just worked lets events gather: under load, a few bigger batches instead of many small ones. */
const gatherFor = Duration.millis(100)

/** Milliseconds between two tries to handle a batch: these at first, then twice as long each time, at most `longest`. */
const pauses = { first: 100, longest: 5_000 } as const

/** What a member needs of the bus. */
interface Bus extends Pick<EventSchemasShape, "wrongAsRead"> {
  readonly wire: Wire
  /** Connections of its own; no answer takes longer than that. */
  readonly newWire: (requestTimeoutMs: number) => Effect.Effect<Wire, never, Scope.Scope>
  readonly ensure: (topics: ReadonlyArray<string>) => Effect.Effect<void, KafkaFailure>
  readonly publish: (messages: ReadonlyArray<BusMessage>) => Effect.Effect<void, BusUnavailable>
}

export const letterName = (letter: Delivery): string => `${placeName(letter)}@${letter.offset}`

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

export const make = (bus: Bus) => {
  /** What is wrong with a message that anybody may have written. */
  const wrongWith = ({ envelope }: Delivery): Verdict =>
    envelope.eventType === malformedType
      ? "It is no event: its value is not the envelope of this shop's events."
      : bus.wrongAsRead(envelope.eventType, envelope.payload)

  /** Sends what is no event, or breaks the schema of one that is wanted, to the dead letters; keeps the rest. */
  const eventsOf = Effect.fnUntraced(function* (
    consumerGroup: string,
    deliveries: ReadonlyArray<Delivery>,
    isWanted: (delivery: Delivery) => boolean
  ) {
    const events: Array<Delivery> = []
    const letters: Array<BusMessage> = []
    for (const delivery of deliveries) {
      const wanted = isWanted(delivery)
      if (!wanted && delivery.envelope.eventType !== malformedType) continue
      const reason = wrongWith(delivery)
      if (reason === undefined) events.push(delivery)
      else letters.push(letterOf(delivery, { consumerGroup, attempts: 1, reason }))
    }
    if (letters.length === 0) return events
    yield* bus.publish(letters)
    yield* Effect.forEach(letters, gaveUp, { discard: true })
    return events
  })

  /** Where a group goes on: where it has been, or where its partitions begin now. */
  const startsOf = Effect.fnUntraced(function* (consumerGroup: string, places: ReadonlyArray<Place>) {
    const topics = [...new Set(places.map(({ topic }) => topic))]
    const starts = yield* bus.wire.starts(topics)
    yield* needed(topics, topicsOf(starts))
    const been = yield* Group.committed(bus.wire, consumerGroup, topics)
    return new Map(
      places.map((place) => {
        const [name, start] = [placeName(place), starts.get(placeName(place)) ?? 0]
        return [name, Math.max(been.get(name) ?? start, start)] as const
      })
    )
  })

  return <R>({
    consumerGroup,
    topics,
    eventTypes,
    batchSize,
    handle
  }: Subscription<R>): Effect.Effect<never, never, R> => {
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
        const waiting = Reading.next(reader, positions)
        const fetched = yield* Effect.raceFirst(waiting, Effect.as(changing.await, undefined))
        if (fetched === undefined) return
        let handled = 0
        for (const page of pages(fetched, batchSize)) {
          const batch = yield* eventsOf(
            consumerGroup,
            Reading.deliveriesOf(page).filter(isFor(consumerGroup)),
            isWanted
          )
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
        const reader = yield* bus.newWire(10_000)
        const speaker = yield* bus.newWire(Group.rebalanceMs + 10_000)
        const group = Group.make(speaker, consumerGroup, topics)
        yield* Effect.addFinalizer(() => group.leave)
        const life = Effect.gen(function* () {
          yield* bus.ensure(topics)
          const member = yield* group.join
          const changing = Latch.makeUnsafe(false)
          yield* Effect.raceFirst(work(reader, group, member, changing), group.heartbeats(member, changing))
        })
        return yield* turnForever(`Consumer group ${consumerGroup}`, life)
      })
    )
  }
}
