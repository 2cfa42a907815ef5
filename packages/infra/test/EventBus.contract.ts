// What every side of the EventBus port keeps. A side calls `eventBusContract` with the Layer of one process; building it
// again is another process on the same log. Topics and groups are new in every test, so the log may be an old one.
import { describe, expect, test } from "bun:test"
import {
  Clock,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Option,
  Ref,
  Schedule,
  Scope
} from "effect"
import type { Envelope } from "@merkato/domain/kernel/Event"
import { EventId, Id } from "@merkato/domain/kernel/Ids"
import {
  type BusMessage,
  BusUnavailable,
  type DeadLetter,
  deadLetterTopic,
  type Delivery,
  EventBus
} from "../src/events/EventBus.ts"

type Bus = EventBus["Service"]

let made = 0
/** A name that no test used before, in this run or an earlier one. */
export const unique = (what: string): string => `${what}-${process.pid}-${Date.now().toString(36)}-${++made}`

/** An event as a relay would publish it; `n` is what the tests tell it by. */
export const message = (topic: string, key: string, n: number, more: Partial<Envelope> = {}): BusMessage => ({
  topic,
  key,
  traceParent: "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00",
  envelope: {
    eventId: EventId.make(unique("EVENT")),
    eventType: "ecommerce.test.thing.happened.v1",
    occurredAt: "2025-06-01T12:00:00.000Z",
    producer: "test-service",
    traceId: "0123456789abcdef0123456789abcdef",
    correlationId: `correlation-${n}`,
    schemaVersion: "1.0",
    partitionKey: Id.make(key),
    region: "eu",
    aggregateVersion: n,
    payload: { n, text: `"quoted" \\ ünïcode ☃ ${n}` },
    ...more
  }
})

export const numberOf = ({ envelope }: { readonly envelope: Envelope }): number => envelope.aggregateVersion

/** Asks until the answer is good; the last one when it never is, for the test to complain about. */
export const eventually = <A, E, R>(
  ask: Effect.Effect<A, E, R>,
  good: (answer: A) => boolean,
  withinMs = 10_000
): Effect.Effect<A, E, R> =>
  Effect.repeat(ask, { until: good, schedule: Schedule.spaced("10 millis"), times: Math.ceil(withinMs / 10) })

/** The numbers that a follower of a topic hears, which it does from now on. */
export const followed = Effect.fnUntraced(function* (bus: Bus, topic: string) {
  const heard: Array<number> = []
  const following = yield* Deferred.make<void>()
  yield* Effect.forkScoped(
    bus.follow({
      topics: [topic],
      following: Effect.asVoid(Deferred.succeed(following, undefined)),
      handle: (batch) => Effect.sync(() => void heard.push(...batch.map(numberOf)))
    })
  )
  yield* Deferred.await(following)
  return heard
})

/** Numbers by key, in the order of arrival. */
const byKey = (deliveries: ReadonlyArray<BusMessage>): Readonly<Record<string, ReadonlyArray<number>>> => {
  const numbers: Record<string, Array<number>> = {}
  for (const delivery of deliveries) numbers[delivery.key] = [...(numbers[delivery.key] ?? []), numberOf(delivery)]
  return numbers
}

const upTo = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, index) => index + 1)

const sorted = (numbers: Iterable<number>): ReadonlyArray<number> => [...numbers].toSorted((a, b) => a - b)

/** Reads on from where it stopped, a page at a time, until there is no more. */
const tail = Effect.fnUntraced(function* (bus: Bus, topic: string, limit: number, places = new Map<string, number>()) {
  const seen: Array<Delivery> = []
  for (;;) {
    const page = yield* bus.read({ topics: [topic], after: places, limit })
    if (page.length === 0) return seen
    for (const delivery of page) {
      seen.push(delivery)
      places.set(`${topic}/${delivery.partition}`, delivery.offset)
    }
  }
})

/** A consumer that notes what it gets and then does what it is told to. */
const listen = <R = never>(
  bus: Bus,
  options: {
    readonly group: string
    readonly topic: string
    readonly batchSize?: number
    readonly eventTypes?: ReadonlyArray<string>
    readonly then?: (batch: ReadonlyArray<Delivery>) => Effect.Effect<void, BusUnavailable, R>
  }
) =>
  Effect.gen(function* () {
    const got: Array<ReadonlyArray<Delivery>> = []
    const fiber = yield* Effect.forkScoped(
      bus.subscribe({
        consumerGroup: options.group,
        topics: [options.topic],
        ...(options.eventTypes === undefined ? {} : { eventTypes: options.eventTypes }),
        batchSize: options.batchSize ?? 50,
        handle: (batch) =>
          Effect.andThen(
            Effect.sync(() => void got.push(batch)),
            options.then?.(batch) ?? Effect.void
          )
      })
    )
    return {
      fiber,
      batches: got,
      all: () => got.flat(),
      until: (count: number) =>
        eventually(
          Effect.sync(() => got.flat()),
          (all) => all.length >= count
        )
    }
  })

const unavailable = new BusUnavailable({ cause: "told to fail" })

/** Runs the contract on one side of the port. */
export const eventBusContract = <E>(name: string, layer: Layer.Layer<EventBus, E>): void => {
  /** One more process that uses the log, until the scope ends. */
  const start = Effect.map(Layer.build(Layer.fresh(layer)), (context) => Context.get(context, EventBus))

  const run = <A>(body: (bus: Bus, topic: string) => Effect.Effect<A, unknown, Scope.Scope>): Promise<A> =>
    Effect.flatMap(start, (bus) => body(bus, unique("topic"))).pipe(
      Effect.scoped,
      Effect.provide(Logger.layer([])),
      Effect.withTracerEnabled(false),
      Effect.runPromise
    )

  describe(`the event bus ${name}`, () => {
    test("an event comes out as it went in", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const sent = message(topic, "KEY-1", 1)
          yield* bus.publish([])
          yield* bus.publish([sent])
          const [got] = yield* bus.read({ topics: [topic], after: new Map(), limit: 10 })
          expect(got).toMatchObject({ topic, key: sent.key, traceParent: sent.traceParent, offset: 0 })
          expect(got?.envelope).toEqual(sent.envelope)
          expect(got?.failure).toBeUndefined()
        })
      ))

    test("events with the same key come in the order in which they were published", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const keys = upTo(12).map((n) => `KEY-${n}`)
          const { until } = yield* listen(bus, { group: unique("group"), topic, batchSize: 7 })
          yield* Effect.forEach(
            keys,
            (key) =>
              Effect.forEach([0, 10, 20], (from) => bus.publish(upTo(10).map((n) => message(topic, key, from + n)))),
            { concurrency: 4, discard: true }
          )
          const all = yield* until(360)
          expect(byKey(all)).toEqual(Object.fromEntries(keys.map((key) => [key, upTo(30)])))
        })
      ))

    test("who reads on from where it stopped misses nothing while many publish at once", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const publishing = yield* Effect.forkScoped(
            Effect.forEach(
              upTo(8),
              (publisher) =>
                Effect.forEach(upTo(25), (n) =>
                  bus.publish(upTo(3).map((line) => message(topic, `${publisher}-${line}`, n)))
                ),
              { concurrency: 8, discard: true }
            )
          )
          const places = new Map<string, number>()
          const seen: Array<Delivery> = []
          while (publishing.pollUnsafe() === undefined) seen.push(...(yield* tail(bus, topic, 5, places)))
          expect(publishing.pollUnsafe()).toEqual(Exit.succeed(undefined))
          seen.push(...(yield* tail(bus, topic, 5, places)))
          expect(seen).toHaveLength(600)
          expect(new Set(Object.values(byKey(seen)).map(String))).toEqual(new Set([String(upTo(25))]))
        })
      ))

    test("who reads page by page misses nothing when the publishers' clocks disagree", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const now = yield* Clock.currentTimeMillis
          for (const [n, ahead] of [5_000, 0, 3_000, -2_000, 9_000].entries()) {
            yield* bus
              .publish([message(topic, "KEY", n + 1)])
              .pipe(Effect.provideService(Clock.Clock, clockAt(now + ahead)))
          }
          expect((yield* tail(bus, topic, 1)).map(numberOf)).toEqual([1, 2, 3, 4, 5])
        })
      ))

    test("a page has at most as many events as asked for, and begins after the places that are named", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          yield* bus.publish(upTo(10).map((n) => message(topic, "KEY", n)))
          const first = yield* bus.read({ topics: [topic], after: new Map(), limit: 4 })
          expect(first.map(numberOf)).toEqual([1, 2, 3, 4])
          const last = first.at(-1)
          const after = new Map([[`${topic}/${last?.partition}`, last?.offset ?? -1]])
          expect((yield* bus.read({ topics: [topic], after, limit: 100 })).map(numberOf)).toEqual([5, 6, 7, 8, 9, 10])
          expect(yield* bus.read({ topics: [unique("nothing")], after: new Map(), limit: 100 })).toEqual([])
        })
      ))

    test("where topics end is where a reader finds nothing yet, and from where it misses nothing", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          expect(yield* bus.ends([topic])).toEqual(new Map())
          yield* bus.publish(upTo(20).map((n) => message(topic, `KEY-${n}`, n)))
          const after = yield* bus.ends([topic, unique("nothing")])
          expect(yield* bus.read({ topics: [topic], after, limit: 10 })).toEqual([])
          yield* bus.publish(upTo(20).map((n) => message(topic, `KEY-${n}`, 20 + n)))
          const more = yield* bus.read({ topics: [topic], after, limit: 100 })
          expect(sorted(more.map(numberOf))).toEqual(upTo(20).map((n) => 20 + n))
        })
      ))

    test("a follower sees everything that is published once it follows, in order per key, and nothing from before", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const fresh = unique("topic")
          yield* bus.publish(upTo(10).map((n) => message(topic, `KEY-${n % 3}`, n)))
          const follower = Effect.gen(function* () {
            const got: Array<Delivery> = []
            const following = yield* Deferred.make<void>()
            yield* Effect.forkScoped(
              bus.follow({
                topics: [topic, fresh],
                following: Effect.asVoid(Deferred.succeed(following, undefined)),
                handle: (batch) => Effect.sync(() => void got.push(...batch))
              })
            )
            yield* Deferred.await(following)
            return got
          })
          const [one, two] = yield* Effect.all([follower, follower])
          const elsewhere = yield* start
          for (const n of upTo(12)) {
            yield* (n % 2 === 0 ? bus : elsewhere).publish([message(topic, `KEY-${n % 3}`, 10 + n)])
          }
          yield* bus.publish([message(fresh, "KEY-0", 23)])
          for (const got of [one, two]) {
            const all = yield* eventually(
              Effect.sync(() => [...got]),
              ({ length }) => length >= 13
            )
            expect(sorted(all.map(numberOf))).toEqual(upTo(13).map((n) => 10 + n))
            for (const numbers of Object.values(byKey(all.filter((delivery) => delivery.topic === topic)))) {
              expect(numbers).toEqual(sorted(numbers))
            }
          }
          const late = yield* follower
          yield* bus.publish([message(topic, "KEY-0", 24)])
          expect(
            (yield* eventually(
              Effect.sync(() => [...late]),
              ({ length }) => length > 0
            )).map(numberOf)
          ).toEqual([24])
        })
      ))

    test("a follower whose handling is a defect gets the events again", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const got: Array<number> = []
          const following = yield* Deferred.make<void>()
          yield* Effect.forkScoped(
            bus.follow({
              topics: [topic],
              following: Effect.asVoid(Deferred.succeed(following, undefined)),
              handle: (batch) =>
                Effect.suspend(() => {
                  got.push(...batch.map(numberOf))
                  return got.length === 1 ? Effect.die("not prepared for this") : Effect.void
                })
            })
          )
          yield* Deferred.await(following)
          yield* bus.publish([message(topic, "KEY", 1)])
          yield* eventually(
            Effect.sync(() => got.length),
            (count) => count === 2
          )
          yield* bus.publish([message(topic, "KEY", 2)])
          yield* eventually(
            Effect.sync(() => got.length),
            (count) => count === 3
          )
          expect(got).toEqual([1, 1, 2])
        })
      ))

    test("every group sees every event, the group that comes late as well", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const early = yield* listen(bus, { group: unique("early"), topic })
          const other = yield* listen(bus, { group: unique("other"), topic })
          yield* bus.publish(upTo(40).map((n) => message(topic, `KEY-${n % 5}`, n)))
          expect(sorted((yield* early.until(40)).map(numberOf))).toEqual(upTo(40))
          expect(sorted((yield* other.until(40)).map(numberOf))).toEqual(upTo(40))
          const late = yield* listen(bus, { group: unique("late"), topic })
          expect(sorted((yield* late.until(40)).map(numberOf))).toEqual(upTo(40))
        })
      ))

    test("a batch holds each partition's events in order, and no more of one partition than asked for", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          yield* bus.publish(upTo(60).map((n) => message(topic, `KEY-${n % 10}`, n)))
          const { batches, until } = yield* listen(bus, { group: unique("group"), topic, batchSize: 4 })
          yield* until(60)
          const next = new Map<number, number>()
          for (const batch of batches) {
            for (const [partition, deliveries] of Map.groupBy(batch, ({ partition }) => partition)) {
              expect(deliveries.length).toBeLessThanOrEqual(4)
              const first = next.get(partition) ?? 0
              expect(deliveries.map(({ offset }) => offset)).toEqual(deliveries.map((_, index) => first + index))
              next.set(partition, first + deliveries.length)
            }
          }
        })
      ))

    test("a consumer gets the event types it asks for, and has taken the others none the less", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const group = unique("group")
          const wanted = ["ecommerce.test.wanted.v1", "ecommerce.test.also.wanted.v1"]
          const types = [...wanted, "ecommerce.test.unwanted.v1"]
          const { until, all } = yield* listen(bus, { group, topic, batchSize: 7, eventTypes: wanted })
          yield* bus.publish(upTo(90).map((n) => message(topic, `KEY-${n % 7}`, n, { eventType: types[n % 3] ?? "" })))
          expect(sorted((yield* until(60)).map(numberOf))).toEqual(upTo(90).filter((n) => n % 3 !== 2))
          expect(yield* eventually(bus.lag(group, [topic]), (lag) => lag === 0)).toBe(0)
          yield* bus.publish([message(topic, "KEY-1", 91, { eventType: types[2] ?? "" })])
          expect(yield* eventually(bus.lag(group, [topic]), (lag) => lag === 0)).toBe(0)
          expect(all()).toHaveLength(60)
        })
      ))

    for (const [how, trouble] of [
      ["failed", Effect.fail(unavailable)],
      ["is a defect", Effect.die(new TypeError("undefined is not a function"))]
    ] as const) {
      test(`a batch whose handling ${how} comes again, whole and in order, until it is done; then the next ones come`, () =>
        run((bus, topic) =>
          Effect.gen(function* () {
            const failures = yield* Ref.make(2)
            const { batches, until } = yield* listen(bus, {
              group: unique("group"),
              topic,
              batchSize: 3,
              then: () =>
                Effect.flatMap(
                  Ref.getAndUpdate(failures, (left) => left - 1),
                  (left) => (left > 0 ? trouble : Effect.void)
                )
            })
            yield* bus.publish(upTo(5).map((n) => message(topic, "KEY", n)))
            yield* until(11)
            expect(batches.map((batch) => batch.map(numberOf))).toEqual([
              [1, 2, 3],
              [1, 2, 3],
              [1, 2, 3],
              [4, 5]
            ])
          })
        ))
    }

    test("a consumer that cannot go on waits longer and longer before it tries again", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const tries: Array<number> = []
          yield* bus.publish([message(topic, "KEY", 1)])
          yield* listen(bus, {
            group: unique("group"),
            topic,
            then: () =>
              Effect.flatMap(Clock.currentTimeMillis, (now) => {
                tries.push(now)
                return tries.length < 5 ? Effect.fail(unavailable) : Effect.void
              })
          })
          yield* eventually(
            Effect.sync(() => tries.length),
            (count) => count >= 5
          )
          const pauses = tries.slice(1).map((time, index) => time - (tries[index] ?? 0))
          const expected = [100, 200, 400, 800]
          for (const [index, pause] of pauses.entries()) {
            // A timer may fire a millisecond early; the work and a busy machine come on top.
            expect(pause).toBeGreaterThanOrEqual((expected[index] ?? 0) - 2)
            expect(pause).toBeLessThan((expected[index] ?? 0) + 2_000)
          }
        })
      ))

    test("what a killed consumer had in hand comes to the next one", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const group = unique("group")
          const begun = yield* Deferred.make<void>()
          const killed = yield* listen(bus, {
            group,
            topic,
            batchSize: 2,
            then: (batch) =>
              batch.some((delivery) => numberOf(delivery) === 3)
                ? Effect.andThen(Deferred.succeed(begun, undefined), Effect.never)
                : Effect.void
          })
          yield* bus.publish(upTo(6).map((n) => message(topic, "KEY", n)))
          yield* Deferred.await(begun)
          yield* Fiber.interrupt(killed.fiber)
          // A commit that came while the group changed is refused: then the first ones have come twice.
          expect([...new Set(killed.all().map(numberOf))]).toEqual([1, 2, 3, 4])
          const next = yield* listen(yield* start, { group, topic })
          expect((yield* next.until(4)).map(numberOf)).toEqual([3, 4, 5, 6])
        })
      ))

    test("two consumers of a group share the work, and never work on one partition at the same time", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const group = unique("group")
          const busy = new Set<number>()
          const clashes: Array<number> = []
          const slowly = (batch: ReadonlyArray<Delivery>) => {
            const partitions = new Set(batch.map(({ partition }) => partition))
            clashes.push(...[...partitions].filter((partition) => busy.has(partition)))
            for (const partition of partitions) busy.add(partition)
            return Effect.andThen(
              Effect.sleep("4 millis"),
              Effect.sync(() => partitions.forEach((partition) => busy.delete(partition)))
            )
          }
          yield* bus.publish(upTo(200).map((n) => message(topic, `KEY-${n % 20}`, n)))
          const one = yield* listen(bus, { group, topic, batchSize: 5, then: slowly })
          const two = yield* listen(yield* start, { group, topic, batchSize: 5, then: slowly })
          // Who is quicker may get all there is at first: more, until both have got something.
          let sent = 200
          const bothHaveSome = () => one.all().length > 0 && two.all().length > 0
          for (let round = 1; round <= 5 || (round <= 200 && !bothHaveSome()); round++) {
            const more = upTo(40).map((n) => message(topic, `KEY-${n % 20}`, sent + n))
            yield* bus.publish(more)
            sent += more.length
            yield* Effect.sleep("20 millis")
          }
          const all = yield* eventually(
            Effect.sync(() => [...one.all(), ...two.all()]),
            (both) => both.length >= sent
          )
          expect(sorted(all.map(numberOf))).toEqual(upTo(sent))
          expect(clashes).toEqual([])
          expect(one.all().length).toBeGreaterThan(0)
          expect(two.all().length).toBeGreaterThan(0)
          expect(yield* eventually(bus.lag(group, [topic]), (lag) => lag === 0)).toBe(0)
        })
      ))

    test("a consumer that was there before its topic sees the first event", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const { until } = yield* listen(bus, { group: unique("group"), topic })
          yield* Effect.sleep("50 millis")
          const elsewhere = yield* start
          yield* elsewhere.publish([message(topic, "KEY", 1)])
          expect((yield* until(1)).map(numberOf)).toEqual([1])
        })
      ))

    test("the lag of a group is what it has not taken yet", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const group = unique("group")
          const open = yield* Deferred.make<void>()
          yield* bus.publish(upTo(9).map((n) => message(topic, "KEY", n)))
          expect(yield* bus.lag(group, [topic])).toBe(9)
          yield* listen(bus, {
            group,
            topic,
            batchSize: 4,
            then: (batch) => (batch.some((delivery) => numberOf(delivery) === 5) ? Deferred.await(open) : Effect.void)
          })
          expect(yield* eventually(bus.lag(group, [topic]), (lag) => lag === 5)).toBe(5)
          yield* Deferred.succeed(open, undefined)
          expect(yield* eventually(bus.lag(group, [topic]), (lag) => lag === 0)).toBe(0)
          expect(yield* bus.lag(unique("another"), [topic])).toBe(9)
        })
      ))

    test("old events are forgotten; a group that had not read them goes on with what is left, and lacks nothing else", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const group = unique("group")
          const now = yield* Clock.currentTimeMillis
          const old = bus.publish(upTo(3).map((n) => message(topic, "KEY", n)))
          yield* Effect.provideService(old, Clock.Clock, clockAt(now - Duration.toMillis("8 days")))
          yield* bus.publish([message(topic, "KEY", 4)])
          expect(yield* bus.expire(Duration.days(7))).toBeGreaterThanOrEqual(3)
          expect((yield* bus.read({ topics: [topic], after: new Map(), limit: 10 })).map(numberOf)).toEqual([4])
          const { until } = yield* listen(bus, { group, topic })
          expect((yield* until(1)).map(numberOf)).toEqual([4])
          expect(yield* eventually(bus.lag(group, [topic]), (lag) => lag === 0)).toBe(0)
        })
      ))

    test("a group that never read before everything was forgotten lacks nothing", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const group = unique("group")
          const now = yield* Clock.currentTimeMillis
          yield* Effect.provideService(
            bus.publish(upTo(3).map((n) => message(topic, "KEY", n))),
            Clock.Clock,
            clockAt(now - Duration.toMillis("8 days"))
          )
          yield* bus.expire(Duration.days(7))
          const { until } = yield* listen(bus, { group, topic })
          expect(yield* eventually(bus.lag(group, [topic]), (lag) => lag === 0, 1_000)).toBe(0)
          yield* bus.publish([message(topic, "KEY", 4)])
          expect((yield* until(1)).map(numberOf)).toEqual([4])
        })
      ))

    const dead = (topic: string, n: number, group: string): BusMessage => ({
      ...message(deadLetterTopic(topic), "KEY", n),
      failure: { topic, consumerGroup: group, attempts: 3, reason: `because of ${n}` }
    })

    test("dead letters are listed with their cause, of one topic or of all", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const other = unique("topic")
          yield* bus.publish([dead(topic, 1, "a"), dead(other, 2, "b"), dead(topic, 3, "a")])
          const listed = yield* bus.deadLetters({ topic: Option.some(topic), limit: 10 })
          expect(listed.map(numberOf)).toEqual([1, 3])
          expect(listed[0]).toMatchObject({
            topic: deadLetterTopic(topic),
            requeued: false,
            failure: { topic, consumerGroup: "a", attempts: 3, reason: "because of 1" }
          })
          expect(yield* bus.deadLetters({ topic: Option.some(topic), limit: 1 })).toHaveLength(1)
          const all = yield* bus.deadLetters({ topic: Option.none(), limit: 1_000 })
          expect(all.map(({ topic }) => topic)).toEqual(
            expect.arrayContaining([deadLetterTopic(topic), deadLetterTopic(other)])
          )
        })
      ))

    test("a requeued letter is for the group alone that had given up on it, and for no follower", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const [failed, other] = [unique("failed"), unique("other")]
          const heard = yield* followed(bus, topic)
          const [one, two] = [yield* listen(bus, { group: failed, topic }), yield* listen(bus, { group: other, topic })]
          yield* bus.publish([dead(topic, 1, failed), dead(topic, 2, "orders.relay")])
          expect(yield* bus.requeue(yield* bus.deadLetters({ topic: Option.some(topic), limit: 10 }))).toBe(2)
          yield* bus.publish([message(topic, "KEY", 3)])
          expect((yield* one.until(3)).map(numberOf)).toEqual([1, 2, 3])
          expect((yield* two.until(2)).map(numberOf)).toEqual([2, 3])
          yield* eventually(
            Effect.sync(() => heard.length),
            (length) => length === 2
          )
          expect(heard).toEqual([2, 3])
        })
      ))

    test("a requeued letter is the same event in its old topic, once, however often and by whomever it is requeued", () =>
      run((bus, topic) =>
        Effect.gen(function* () {
          const letter = dead(topic, 1, "a")
          yield* bus.publish([letter, dead(topic, 2, "a")])
          const [first] = yield* bus.deadLetters({ topic: Option.some(topic), limit: 10 })
          const letters: ReadonlyArray<DeadLetter> = first === undefined ? [] : [first]
          const elsewhere = yield* start
          const counts = yield* Effect.all(
            [bus.requeue(letters), elsewhere.requeue(letters), bus.requeue([...letters, ...letters])],
            { concurrency: 3 }
          )
          expect(counts.reduce((sum, count) => sum + count, 0)).toBe(1)
          expect(yield* bus.requeue(letters)).toBe(0)
          const back = yield* bus.read({ topics: [topic], after: new Map(), limit: 10 })
          expect(
            back.map(({ key, traceParent, envelope, failure }) => ({ key, traceParent, envelope, failure }))
          ).toEqual([
            { key: letter.key, traceParent: letter.traceParent, envelope: letter.envelope, failure: letter.failure }
          ])
          const left = yield* bus.deadLetters({ topic: Option.some(topic), limit: 10 })
          expect(left.map(numberOf)).toEqual([2])
        })
      ))
  })
}

/** A clock that stands still at a time. */
export const clockAt = (millis: number): Clock.Clock => ({
  currentTimeMillisUnsafe: () => millis,
  currentTimeMillis: Effect.succeed(millis),
  currentTimeNanosUnsafe: () => BigInt(millis) * 1_000_000n,
  currentTimeNanos: Effect.succeed(BigInt(millis) * 1_000_000n),
  monotonicTimeNanosUnsafe: () => BigInt(millis) * 1_000_000n,
  monotonicTimeNanos: Effect.succeed(BigInt(millis) * 1_000_000n),
  sleep: () => Effect.void
})
