import { describe, expect, test } from "bun:test"
import { Clock, Context, Data, Deferred, Effect, Fiber, Layer, Logger, Option, Redacted, Scope } from "effect"
import { SqlClient } from "effect/sql"
import { connect, createServer, type Socket } from "node:net"
import type { Envelope } from "@merkato/domain/kernel/Event"
import { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { RequestContext, type RequestContextShape } from "@merkato/domain/kernel/RequestContext"
import * as Retention from "../src/context/Retention.ts"
import * as Consumer from "../src/events/Consumer.ts"
import { letterOf, relayOf } from "../src/events/DeadLetters.ts"
import { type BusMessage, BusUnavailable, deadLetterTopic, EventBus } from "../src/events/EventBus.ts"
import * as PostgresEventBus from "../src/events/PostgresEventBus.ts"
import * as Database from "../src/postgres/Database.ts"
import * as Migrations from "../src/postgres/Migrations.ts"
import * as TestDatabase from "../src/postgres/TestDatabase.ts"
import { clockAt, eventually, message as anyMessage, numberOf } from "./EventBus.contract.ts"

const topic = "order.events"
const wanted = "ecommerce.test.wanted.v1"
const unwanted = "ecommerce.test.unwanted.v1"

const message = (n: number, eventType = wanted): BusMessage => anyMessage(topic, `KEY-${n}`, n, { eventType })

/** Events of one key: one after the other in one partition. */
const inARow = (count: number): ReadonlyArray<BusMessage> =>
  Array.from({ length: count }, (_, index) => anyMessage(topic, "KEY", index + 1, { eventType: wanted }))

/** What a handler does about an event. */
type Work = Effect.Effect<void, unknown, SqlClient.SqlClient>

class Poisoned extends Data.TaggedError("Poisoned")<{ readonly why: string }> {
  override get message() {
    return this.why
  }
}

const tables = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* Migrations.run(PostgresEventBus.migrations)
  yield* Migrations.run({ schema: "shop", folder: undefined, common: true })
  yield* sql`create table shop.effects (line integer generated always as identity, n integer not null check (n < 1000))`
})

/** A context `shop` and a bus, each with connections of its own; `body` gets the bus and the context's SQL. */
const inContext = <A, E>(
  body: Effect.Effect<A, E, EventBus | SqlClient.SqlClient | Scope.Scope>,
  /** Where the context finds its database; the bus always finds it. */
  contextUrl: (url: Redacted.Redacted) => Effect.Effect<Redacted.Redacted, never, Scope.Scope> = Effect.succeed
): Promise<A> =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.fresh
    yield* Effect.provide(tables, Database.layer({ url, maxConnections: 2, applicationName: "migrations" }))
    const bus = PostgresEventBus.layer.pipe(
      Layer.provide(Database.layer({ url, maxConnections: 4, applicationName: "bus" }))
    )
    const own = Database.layer({ url: yield* contextUrl(url), maxConnections: 4, applicationName: "shop" })
    return yield* Effect.provideContext(
      body,
      Context.merge(yield* Effect.context<Scope.Scope>(), yield* Layer.build(Layer.merge(bus, own)))
    )
  }).pipe(Effect.scoped, Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Effect.runPromise)

/** The effect that the tests count. */
const count = Effect.fnUntraced(function* (event: Envelope) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`insert into shop.effects (n) values (${numberOf({ envelope: event })})`
})

const effects = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ n: number }>`select n from shop.effects order by n, line`
  return rows.map(({ n }) => n)
})

const start = <R>(
  handle: (event: Envelope) => Effect.Effect<void, unknown, R>,
  { group = "shop.count", mode = "apply" }: { readonly group?: string; readonly mode?: "apply" | "react" } = {}
) => Effect.forkScoped(Consumer.run("shop", Consumer.make({ group, topic, eventTypes: [wanted], mode, handle })))

const publish = (messages: ReadonlyArray<BusMessage>) => Effect.flatMap(EventBus, (bus) => bus.publish(messages))
const lag = (group = "shop.count") => Effect.flatMap(EventBus, (bus) => bus.lag(group, [topic]))
const allTaken = (group?: string, withinMs?: number) => eventually(lag(group), (left) => left === 0, withinMs)
const deadLetters = Effect.flatMap(EventBus, (bus) => bus.deadLetters({ topic: Option.some(topic), limit: 100 }))

/** Calls of a handler: which event, and when. */
const journal = () => {
  const calls: Array<{ readonly n: number; readonly at: number }> = []
  return {
    calls,
    noted:
      <R>(handle: (event: Envelope) => Effect.Effect<void, unknown, R>) =>
      (event: Envelope) =>
        Effect.flatMap(Clock.currentTimeMillis, (at) => {
          calls.push({ n: numberOf({ envelope: event }), at })
          return handle(event)
        }),
    of: (n: number) => calls.filter((call) => call.n === n)
  }
}

/** The bus as another one sees it; what is left out is as it was. */
const withBus = (change: (bus: EventBus["Service"]) => Partial<EventBus["Service"]>) =>
  Effect.updateService(EventBus, (bus) => EventBus.of({ ...bus, ...change(bus) }))

describe("a consumer", () => {
  test("has one effect per event, however often the event comes: at once, in the next batch, or much later", () =>
    inContext(
      Effect.gen(function* () {
        const { calls, noted } = journal()
        const [one, two, three] = [message(1), message(2), message(3)]
        yield* publish([one, two, one, one])
        yield* start(noted(count))
        yield* allTaken()
        yield* publish([two, one, three])
        yield* allTaken()
        yield* publish([three, one])
        yield* allTaken()
        expect(yield* effects).toEqual([1, 2, 3])
        expect(calls.map(({ n }) => n).toSorted()).toEqual([1, 2, 3])
      })
    ))

  test("does not mind that another group has had the event", () =>
    inContext(
      Effect.gen(function* () {
        yield* start(count, { group: "shop.one" })
        yield* start(count, { group: "shop.two" })
        yield* publish(inARow(3))
        yield* allTaken("shop.one")
        yield* allTaken("shop.two")
        expect(yield* effects).toEqual([1, 1, 2, 2, 3, 3])
      })
    ))

  for (const mode of ["apply", "react"] as const) {
    test(`that dies after its effect and before the bus knows of it has its effect once (${mode})`, () =>
      inContext(
        Effect.gen(function* () {
          const { calls, noted } = journal()
          const done = yield* Deferred.make<void>()
          const dying = yield* start(noted(count), { mode }).pipe(
            withBus((bus) => ({
              subscribe: (options) =>
                bus.subscribe({
                  ...options,
                  handle: (batch) =>
                    options
                      .handle(batch)
                      .pipe(Effect.andThen(Deferred.succeed(done, undefined)), Effect.andThen(Effect.never))
                })
            }))
          )
          yield* publish(inARow(4))
          yield* Deferred.await(done)
          yield* Fiber.interrupt(dying)
          expect(yield* effects).toEqual([1, 2, 3, 4])
          expect(yield* lag()).toBe(4)
          yield* start(noted(count), { mode })
          expect(yield* allTaken()).toBe(0)
          expect(yield* effects).toEqual([1, 2, 3, 4])
          expect(calls).toHaveLength(4)
        })
      ))
  }

  test("that dies in the middle of a batch leaves no effect behind, and then has each once (apply)", () =>
    inContext(
      Effect.gen(function* () {
        const begun = yield* Deferred.make<void>()
        const dying = yield* start((event) =>
          count(event).pipe(
            Effect.andThen(
              numberOf({ envelope: event }) === 3
                ? Effect.andThen(Deferred.succeed(begun, undefined), Effect.never)
                : Effect.void
            )
          )
        )
        yield* publish(inARow(4))
        yield* Deferred.await(begun)
        yield* Fiber.interrupt(dying)
        expect(yield* effects).toEqual([])
        yield* start(count)
        yield* allTaken()
        expect(yield* effects).toEqual([1, 2, 3, 4])
      })
    ))

  test("that reacts works outside a transaction, and again only on what it had not finished", () =>
    inContext(
      Effect.gen(function* () {
        const { noted, of } = journal()
        const begun = yield* Deferred.make<void>()
        const sql = yield* SqlClient.SqlClient
        const inTransaction: Array<boolean> = []
        const dying = yield* start(
          noted((event) =>
            Effect.withFiber((fiber) => {
              inTransaction.push(fiber.context.mapUnsafe.has(sql.transactionService.key))
              return numberOf({ envelope: event }) === 3
                ? Effect.andThen(Deferred.succeed(begun, undefined), Effect.never)
                : Effect.void
            })
          ),
          { mode: "react" }
        )
        yield* publish(inARow(4))
        yield* Deferred.await(begun)
        yield* Fiber.interrupt(dying)
        yield* start(
          noted(() => Effect.void),
          { mode: "react" }
        )
        expect(yield* allTaken()).toBe(0)
        expect([1, 2, 3, 4].map((n) => of(n).length)).toEqual([1, 1, 2, 1])
        expect(inTransaction).toEqual([false, false, false])
      })
    ))

  test("passes over events of other types", () =>
    inContext(
      Effect.gen(function* () {
        const { calls, noted } = journal()
        yield* start(noted(count))
        yield* publish([message(1, unwanted), message(2), message(3, unwanted)])
        yield* publish([message(4, unwanted)])
        expect(yield* allTaken()).toBe(0)
        expect(yield* effects).toEqual([2])
        expect(calls.map(({ n }) => n)).toEqual([2])
        expect(yield* deadLetters).toEqual([])
      })
    ))

  test("works as the shop itself, within the event's region, correlation and trace", () =>
    inContext(
      Effect.gen(function* () {
        const seen = yield* Deferred.make<unknown>()
        const sent = message(7)
        yield* start(() => Effect.flatMap(RequestContext, (request) => Deferred.succeed(seen, request)))
        yield* publish([sent])
        expect(yield* Deferred.await(seen)).toMatchObject({
          principal: { userId: "system", role: "service", region: "eu" },
          correlationId: "correlation-7",
          traceParent: sent.traceParent
        })
      })
    ))
})

describe("an event that a consumer cannot take", () => {
  const poisons: ReadonlyArray<
    readonly [what: string, poison: Effect.Effect<void, unknown, SqlClient.SqlClient>, RegExp]
  > = [
    ["fails", Effect.fail(new Poisoned({ why: "the payload makes no sense" })), /the payload makes no sense/],
    ["is a defect", Effect.die(new TypeError("undefined is not a function")), /undefined is not a function/],
    [
      "breaks a rule of the database",
      Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.asVoid(sql`insert into shop.effects (n) values (1000)`)),
      /effects_n_check/
    ]
  ]
  for (const mode of ["apply", "react"] as const) {
    for (const [what, poison, reason] of poisons) {
      test(`and ${what} is tried 3 times, then lies in the dead letters with its cause; its neighbours have their effect (${mode})`, () =>
        inContext(
          Effect.gen(function* () {
            const { noted, of } = journal()
            const sent = inARow(5)
            yield* publish(sent)
            yield* start(
              noted((event) => (numberOf({ envelope: event }) === 3 ? poison : count(event))),
              { mode }
            )
            expect(yield* allTaken()).toBe(0)
            expect(yield* effects).toEqual([1, 2, 4, 5])

            const letters = yield* deadLetters
            expect(letters).toHaveLength(1)
            expect(letters[0]).toMatchObject({
              topic: deadLetterTopic(topic),
              key: "KEY",
              traceParent: sent[2]?.traceParent,
              requeued: false,
              failure: { topic, consumerGroup: "shop.count", attempts: 3 }
            })
            expect(letters[0]?.envelope).toEqual(sent[2]?.envelope)
            expect(letters[0]?.failure?.reason).toMatch(reason)

            const tries = of(3).map(({ at }) => at)
            expect(tries).toHaveLength(3)
            const pauses = tries.slice(1).map((at, index) => at - (tries[index] ?? 0))
            for (const [index, least] of [100, 200].entries()) {
              // A timer may fire a millisecond early; the work and a busy machine come on top.
              expect(pauses[index]).toBeGreaterThanOrEqual(least - 2)
              expect(pauses[index]).toBeLessThan(least + 2_000)
            }
          })
        ))
    }
  }

  test("for a moment has its effect at the second or third try, and never sees the dead letters", () =>
    inContext(
      Effect.gen(function* () {
        const { noted, of } = journal()
        yield* start(
          noted((event) =>
            Effect.suspend((): Work => {
              const n = numberOf({ envelope: event })
              return of(n).length <= n - 1 ? Effect.fail(new Poisoned({ why: "not yet" })) : count(event)
            })
          )
        )
        yield* publish(inARow(3))
        expect(yield* allTaken()).toBe(0)
        expect(yield* effects).toEqual([1, 2, 3])
        expect(yield* deadLetters).toEqual([])
      })
    ))

  /** Three events, the second of which one of two groups cannot take until its cause is mended. */
  const withoutTheSecond = Effect.gen(function* () {
    let broken = true
    const other = journal()
    yield* start(other.noted(count), { group: "shop.other" })
    yield* start((event) =>
      Effect.suspend((): Work => (broken && numberOf({ envelope: event }) === 2 ? Effect.die("broken") : count(event)))
    )
    yield* publish(inARow(3))
    yield* allTaken()
    yield* allTaken("shop.other")
    return { other, mend: () => (broken = false) }
  })

  test("comes back when it is requeued, and is taken once the cause is gone; the other groups do not notice", () =>
    inContext(
      Effect.gen(function* () {
        const { other, mend } = yield* withoutTheSecond
        expect(yield* effects).toEqual([1, 1, 2, 3, 3])

        const bus = yield* EventBus
        expect(yield* bus.requeue(yield* deadLetters)).toBe(1)
        yield* eventually(deadLetters, (letters) => letters.length === 1)
        yield* allTaken()
        expect(yield* effects).toEqual([1, 1, 2, 3, 3])

        mend()
        expect(yield* bus.requeue(yield* deadLetters)).toBe(1)
        yield* allTaken()
        yield* allTaken("shop.other")
        expect(yield* effects).toEqual([1, 1, 2, 2, 3, 3])
        expect(yield* deadLetters).toEqual([])
        expect(other.of(2)).toHaveLength(1)
      })
    ))

  test("comes back to who gave up on it alone, when the others have long forgotten that they had it", () =>
    inContext(
      Effect.gen(function* () {
        const { other, mend } = yield* withoutTheSecond
        const inNineDays = clockAt((yield* Clock.currentTimeMillis) + 9 * 24 * 60 * 60_000)
        yield* Effect.provideService(Retention.turn("shop", []), Clock.Clock, inNineDays)
        mend()
        expect(yield* (yield* EventBus).requeue(yield* deadLetters)).toBe(1)
        expect(yield* allTaken()).toBe(0)
        expect(yield* allTaken("shop.other")).toBe(0)
        expect(yield* effects).toEqual([1, 1, 2, 2, 3, 3])
        expect(other.of(2)).toHaveLength(1)
      })
    ))

  test("comes back to everybody when it was its relay that had kept it from its topic", () =>
    inContext(
      Effect.gen(function* () {
        yield* start(count, { group: "shop.one" })
        yield* start(count, { group: "shop.two" })
        yield* publish([letterOf(message(1), { consumerGroup: relayOf("orders"), attempts: 1, reason: "no" })])
        expect(yield* (yield* EventBus).requeue(yield* deadLetters)).toBe(1)
        expect(yield* allTaken("shop.one")).toBe(0)
        expect(yield* allTaken("shop.two")).toBe(0)
        expect(yield* effects).toEqual([1, 1])
      })
    ))

  test("is not lost when the dead letters cannot be written: it comes again", () =>
    inContext(
      Effect.gen(function* () {
        const { noted, of } = journal()
        let refusals = 1
        yield* start(
          noted((event) => (numberOf({ envelope: event }) === 2 ? Effect.die("broken") : count(event)))
        ).pipe(
          withBus((bus) => ({
            publish: (messages) =>
              Effect.suspend(() =>
                refusals-- > 0 ? Effect.fail(new BusUnavailable({ cause: "full" })) : bus.publish(messages)
              )
          }))
        )
        yield* publish(inARow(3))
        expect(yield* allTaken()).toBe(0)
        expect(yield* effects).toEqual([1, 3])
        expect((yield* deadLetters).map(numberOf)).toEqual([2])
        expect(of(2)).toHaveLength(6)
      })
    ))
})

describe("a consumer that does several events at once", () => {
  /** Untraced events may be done together; the others are done one by one, each in its own trace. */
  const traced = (sent: BusMessage): BusMessage => ({ ...sent, traceParent: sent.traceParent.replace(/0.$/, "01") })
  const startBoth = (
    handle: (event: Envelope) => Work,
    handleAll: (events: ReadonlyArray<Envelope>, requests: ReadonlyArray<RequestContextShape>) => Work = (events) =>
      Effect.forEach(events, handle, { discard: true })
  ) =>
    Effect.forkScoped(
      Consumer.run(
        "shop",
        Consumer.make({ group: "shop.count", topic, eventTypes: [wanted], mode: "apply", handle, handleAll })
      )
    )
  const inOrder = Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const rows = yield* sql<{ n: number }>`select n from shop.effects order by line`
    return rows.map(({ n }) => n)
  })

  test("does them in their order, traced ones among them, and each once", () =>
    inContext(
      Effect.gen(function* () {
        const batches: Array<ReadonlyArray<number>> = []
        const named: Array<readonly [string, string]> = []
        const own = (nth: number) => [`of-${nth}`, `00-${String(nth).padStart(32, "0")}-0000000000000001-00`] as const
        const sent = inARow(12).map((message, index) => {
          const [correlationId, traceParent] = own(index + 1)
          const mine = { ...message, traceParent, envelope: { ...message.envelope, correlationId } }
          return index % 5 === 3 ? traced(mine) : mine
        })
        yield* publish([...sent, ...sent.slice(0, 6)])
        yield* startBoth(count, (events, requests) => {
          batches.push(events.map((envelope) => numberOf({ envelope })))
          named.push(...requests.map(({ correlationId, traceParent }) => [correlationId, traceParent] as const))
          return Effect.forEach(events, count, { discard: true })
        })
        expect(yield* allTaken()).toBe(0)
        expect(yield* inOrder).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
        expect(batches).toEqual([
          [1, 2, 3],
          [5, 6, 7, 8],
          [10, 11, 12]
        ])
        expect(named).toEqual(batches.flat().map(own))
        yield* publish(sent)
        expect(yield* allTaken()).toBe(0)
        expect(yield* inOrder).toHaveLength(12)
      })
    ))

  test("finds the one among them that it cannot take; that one is tried 3 times by itself, the others have their effect", () =>
    inContext(
      Effect.gen(function* () {
        const { noted, of } = journal()
        const handle = (event: Envelope): Work =>
          numberOf({ envelope: event }) === 3 ? Effect.fail(new Poisoned({ why: "no" })) : count(event)
        yield* publish(inARow(5))
        yield* startBoth(noted(handle), (events) => Effect.forEach(events, handle, { discard: true }))
        expect(yield* allTaken()).toBe(0)
        expect(yield* inOrder).toEqual([1, 2, 4, 5])
        expect((yield* deadLetters).map(numberOf)).toEqual([3])
        expect([1, 2, 3, 4, 5].map((n) => of(n).length)).toEqual([1, 1, 3, 1, 1])
      })
    ))

  test("does not hold against one event what another of them did", () =>
    inContext(
      Effect.gen(function* () {
        const { noted, of } = journal()
        const [first, second, third] = inARow(3)
        if (first === undefined || second === undefined || third === undefined) throw new Error("three events")
        yield* publish([traced(first), second, third])
        // The first goes well with the others, and by itself only at the third try.
        yield* startBoth(
          noted((event) =>
            Effect.suspend((): Work => {
              const tries = of(1).length
              return numberOf({ envelope: event }) === 1 && (tries === 2 || tries === 3)
                ? Effect.die("not now")
                : count(event)
            })
          ),
          () => Effect.fail(new Poisoned({ why: "no" }))
        )
        expect(yield* allTaken()).toBe(0)
        expect(yield* deadLetters).toEqual([])
        expect(yield* inOrder).toEqual([1, 2, 3])
        expect(of(1)).toHaveLength(4)
      })
    ))
})

/** A way to the database that can be closed: connections through it are cut, and new ones are refused or told to wait. */
class Way {
  #open: "open" | "refused" | "starting" = "open"
  readonly #sockets = new Set<Socket>()
  readonly #server

  constructor(host: string, port: number) {
    this.#server = createServer((client) => {
      this.#sockets.add(client)
      client.on("error", () => {}).on("close", () => this.#sockets.delete(client))
      if (this.#open === "refused") return client.destroy()
      if (this.#open === "starting") return client.once("data", () => client.end(startingUp))
      const server = connect(port, host)
      server.on("error", () => client.destroy()).on("close", () => client.destroy())
      client.on("close", () => server.destroy())
      client.pipe(server)
      server.pipe(client)
    })
  }

  get listening() {
    return new Promise<number>((resolve) =>
      this.#server.listen(0, "127.0.0.1", () => {
        const address = this.#server.address()
        resolve(typeof address === "object" && address !== null ? address.port : 0)
      })
    )
  }

  become(state: "open" | "refused" | "starting") {
    this.#open = state
    if (state !== "open") for (const socket of this.#sockets) socket.destroy()
  }

  end() {
    this.become("refused")
    this.#server.close()
  }
}

/** ErrorResponse of a server that is not up yet (PostgreSQL protocol 3, 57P03 cannot_connect_now). */
const startingUp = (() => {
  const fields = "SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
  const packet = Buffer.alloc(5 + fields.length)
  packet.write("E")
  packet.writeInt32BE(4 + fields.length, 1)
  packet.write(fields, 5)
  return packet
})()

/** The context's way to its database, for the test to close. */
const wayTo = (made: (way: Way) => void) => (url: Redacted.Redacted) =>
  Effect.gen(function* () {
    const real = new URL(Redacted.value(url))
    const way = yield* Effect.acquireRelease(
      Effect.sync(() => new Way(real.hostname, Number(real.port))),
      (way) => Effect.sync(() => way.end())
    )
    real.port = String(yield* Effect.promise(() => way.listening))
    // Not past it, over the server's Unix socket.
    real.search = ""
    made(way)
    return Redacted.make(real.href)
  })

describe("a database that is away is waited for, and nothing is given up on:", () => {
  const whileAway = (
    name: string,
    state: "refused" | "starting",
    handle: (event: Envelope) => Effect.Effect<void, unknown, SqlClient.SqlClient> = count
  ) =>
    test(name, () => {
      let way: Way | undefined
      return inContext(
        Effect.gen(function* () {
          yield* start(handle)
          yield* publish([message(1)])
          yield* allTaken()
          way?.become(state)
          yield* publish(inARow(3).map((sent) => ({ ...sent, envelope: { ...sent.envelope, aggregateVersion: 10 } })))
          // Longer than three tries take.
          yield* Effect.sleep("700 millis")
          expect(yield* lag()).toBe(3)
          expect(yield* deadLetters).toEqual([])
          way?.become("open")
          expect(yield* allTaken()).toBe(0)
          expect(yield* effects).toEqual([1, 10, 10, 10])
          expect(yield* deadLetters).toEqual([])
        }),
        wayTo((made) => {
          way = made
        })
      )
    })

  whileAway("nobody answers", "refused")
  whileAway("it is starting up", "starting")

  /** What use cases make of it (`orUnavailable`). */
  const asUseCases = (event: Envelope) => Database.orUnavailable("shop")(count(event))

  for (const [state, how] of [
    ["53100", "its disk is full"],
    ["53200", "it has no memory left"],
    ["58030", "its disk fails"],
    ["25006", "it only reads, as a standby does"]
  ] as const) {
    test(
      how,
      () =>
        inContext(
          Effect.gen(function* () {
            const refusal = Effect.flatMap(SqlClient.SqlClient, (sql) =>
              Effect.asVoid(sql.unsafe(`do $$ begin raise exception 'not now' using errcode = '${state}'; end $$`))
            )
            // As many as there are tries, of the consumer's own statement; after them one of a use case.
            let refusals = Consumer.attempts + 1
            yield* start((event) =>
              Effect.suspend((): Work => {
                if (refusals-- <= 0) return count(event)
                return refusals > 0 ? refusal : Database.orUnavailable("shop")(refusal)
              })
            )
            yield* publish(inARow(3))
            expect(yield* allTaken()).toBe(0)
            expect(refusals).toBeLessThanOrEqual(0)
            expect(yield* deadLetters).toEqual([])
            expect(yield* effects).toEqual([1, 2, 3])
          })
        ),
      20_000
    )
  }

  for (const [how, cut] of [
    [
      "its connections are ended by an administrator",
      Effect.flatMap(
        SqlClient.SqlClient,
        (sql) =>
          sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'shop' and datname = current_database() and pid <> pg_backend_pid()`
      )
    ],
    ["its connections break", undefined]
  ] as const) {
    const works: ReadonlyArray<readonly [string, (event: Envelope) => Work]> = [
      ["of the consumer's own statement", count],
      ["of a use case", asUseCases]
    ]
    for (const [what, effect] of works) {
      test(`${how} in the middle ${what}`, () => {
        let way: Way | undefined
        return inContext(
          Effect.gen(function* () {
            // As many as there are tries: an event that was merely unlucky would be given up on.
            let cuts = Consumer.attempts
            yield* start((event) =>
              Effect.suspend((): Work => {
                if (cuts-- <= 0) return effect(event)
                if (cut !== undefined) return cutting(cut).pipe(Effect.andThen(effect(event)))
                way?.become("refused")
                way?.become("open")
                return Effect.andThen(Effect.sleep("20 millis"), effect(event))
              })
            )
            yield* publish(inARow(3))
            expect(yield* allTaken()).toBe(0)
            expect(cuts).toBeLessThanOrEqual(0)
            expect(yield* deadLetters).toEqual([])
            expect(yield* effects).toEqual([1, 2, 3])
          }),
          wayTo((made) => {
            way = made
          })
        )
      })
    }
  }

  test("another context that the consumer needs is away", () =>
    inContext(
      Effect.gen(function* () {
        const { noted, of } = journal()
        let away = 3
        yield* start(
          noted((event) =>
            Effect.suspend(
              (): Work =>
                away-- > 0
                  ? Effect.fail(new ServiceUnavailable({ service: "orders", retryAfterSeconds: 1 }))
                  : count(event)
            )
          ),
          { mode: "react" }
        )
        yield* publish([message(1)])
        expect(yield* allTaken()).toBe(0)
        expect(yield* deadLetters).toEqual([])
        expect(yield* effects).toEqual([1])
        expect(of(1)).toHaveLength(4)
      })
    ))
})

/** Runs something on a connection that no transaction of the fiber has. */
const cutting = <A>(cut: Effect.Effect<A, unknown, SqlClient.SqlClient>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.updateContext(Effect.ignore(cut), (context: Context.Context<SqlClient.SqlClient>) =>
      Context.omit(sql.transactionService)(context)
    )
  )
