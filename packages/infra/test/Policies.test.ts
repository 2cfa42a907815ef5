import { describe, expect, test } from "bun:test"
import { Clock, Deferred, Effect, Exit, Fiber, Layer, Logger, Metric, Random, type Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Deadline from "../src/policy/Deadline.ts"
import { type OperationName, operationNames, operations } from "../src/policy/operations.ts"
import { type Overrides, Policies } from "../src/policy/Policies.ts"
import {
  AttemptInterrupted,
  BulkheadFull,
  CircuitOpen,
  DeadlineExceeded,
  RateLimited,
  RetryBudgetSpent,
  TimedOut
} from "../src/policy/PolicyError.ts"

/** Runs a test on the virtual clock, with limits of its own where it needs them. */
const policed = <A, E>(test: Effect.Effect<A, E, Policies | Scope.Scope>, overrides: Overrides = {}): Promise<A> =>
  test.pipe(
    Effect.provide(
      Policies.layerWith(overrides).pipe(Layer.provideMerge(Layer.merge(TestClock.layer(), Logger.layer([]))))
    ),
    Effect.provideService(Metric.MetricRegistry, new Map()),
    Effect.scoped,
    Effect.runPromise
  )

/** The other side of the calls: what comes of each attempt is said by the test, and when it was made is remembered. */
const otherSide = (outcome: (nth: number) => Effect.Effect<string, string>) => {
  const times: Array<number> = []
  const call = Effect.gen(function* () {
    times.push(yield* Clock.currentTimeMillis)
    return yield* outcome(times.length)
  })
  return { times, call }
}

const down = () => otherSide(() => Effect.fail("down"))
const well = () => otherSide(() => Effect.succeed("well"))

const transient = (error: string) => error === "down"

/** Calls under the guard of an operation and lets so much time pass. */
const calling = <E = never>(
  operation: OperationName,
  call: Effect.Effect<string, string | E>,
  during: Parameters<typeof TestClock.adjust>[0] = 0
) =>
  Effect.gen(function* () {
    const { guard } = yield* Policies
    const fiber = yield* Effect.forkChild(
      Effect.exit(guard(operation, { transient: (error: string | E) => error === "down" })(call)),
      { startImmediately: true }
    )
    yield* TestClock.adjust(during)
    return fiber
  })

const ended = <E = never>(operation: OperationName, call: Effect.Effect<string, string | E>) =>
  Effect.flatMap(calling(operation, call, "2 hours"), Fiber.join)

const stateOf = (operation: OperationName) =>
  Effect.gen(function* () {
    const { states } = yield* Policies
    const found = (yield* states).find((state) => state.operation === operation)
    return found === undefined ? yield* Effect.die(`no ${operation}`) : found
  })

const circuit = (operation: OperationName) => Effect.map(stateOf(operation), ({ breaker }) => breaker?.state)

const steady = (name: OperationName) => {
  const { backoff } = operations[name]
  return backoff?.kind === "exponential" ? { backoff: { jitter: false } } : {}
}

describe("the limits in the code", () => {
  test("are those of the contracts", () => {
    const { "payment.soap": soap, "stock.reserve": stock, "webhook.dispatch": webhook } = operations
    expect([soap.attempts, soap.backoff.kind, soap.backoff.jitter, soap.backoff.firstMs]).toEqual([
      5,
      "exponential",
      true,
      100
    ])
    expect([soap.breaker.failuresInARow, soap.breaker.openMs]).toEqual([5, 30_000])
    expect(soap.breaker.failingRate.share).toBeGreaterThan(0)
    expect([stock.attempts, stock.backoff.kind]).toEqual([3, "exponential"])
    expect(stock.deadlineMs).toBeLessThanOrEqual(10_000)
    expect(webhook.backoff.delaysMs.map((delay) => delay / 1_000)).toEqual([30, 120, 300, 900, 1_800])
    expect(webhook.attempts).toBe(6)
    expect(operations["event.publish"].attempts).toBeNull()
    expect([operations["flash_sale.price"].attempts, operations["flash_sale.price"].backoff]).toEqual([1, null])
    expect(operations["mqtt.ingest"].bulkhead.waiting).toBe(10_000)
  })

  test("bound everything that waits", () => {
    for (const name of operationNames) {
      const { bulkhead, deadlineMs } = operations[name]
      if (bulkhead !== null && bulkhead.waiting > 0) expect([name, deadlineMs !== null]).toEqual([name, true])
    }
  })
})

describe("retry", () => {
  /** When the attempts of an operation are made, from its start, if all fail at once; without jitter and breaker. */
  const written: ReadonlyArray<readonly [OperationName, ReadonlyArray<number>]> = [
    ["payment.soap", [0, 100, 300, 700, 1_500]],
    ["payment.rest", [0, 100, 300]],
    ["stock.reserve", [0, 50, 150]],
    ["risk.assess", [0, 50]],
    ["webhook.dispatch", [0, 30_000, 150_000, 450_000, 1_350_000, 3_150_000]],
    ["webhook.alarm", [0, 50]],
    ["flash_sale.price", [0]],
    ["authorizer.decide", [0, 20]],
    ["cache.shared", [0]],
    ["search.products", [0]],
    ["orders.history", [0]],
    ["revenue.daily", [0]],
    ["inventory.snapshot", [0]],
    ["pricing.map", [0]],
    ["object.store", [0, 200, 600, 1_400, 3_000]],
    ["schema.registry", [0, 200, 600]],
    ["relay.configure", [0, 500, 1_500, 3_500, 7_500]],
    ["mqtt.ingest", [0, 200, 600, 1_400, 3_000]]
  ]
  for (const [name, times] of written) {
    test(`${name} is tried ${times.length} times, at the times written down, and fails with the last error`, () =>
      policed(
        Effect.gen(function* () {
          const side = otherSide((nth) => Effect.fail(nth === times.length ? "last" : "down"))
          expect(yield* ended(name, side.call)).toEqual(Exit.fail("last"))
          expect(side.times).toEqual([...times])
          expect((yield* stateOf(name)).counts).toMatchObject({ calls: 1, retries: times.length - 1 })
        }),
        { [name]: { ...steady(name), breaker: null } }
      ))
  }

  test("every operation but event.publish is in that list", () => {
    expect([...written.map(([name]) => name), "event.publish"].toSorted()).toEqual([...operationNames].toSorted())
  })

  test("event.publish is tried until it succeeds, at most 5 s apart", () =>
    policed(
      Effect.gen(function* () {
        const side = otherSide((nth) => (nth < 12 ? Effect.fail("down") : Effect.succeed("out")))
        expect(yield* ended("event.publish", side.call)).toEqual(Exit.succeed("out"))
        const delays = side.times.slice(1).map((time, nth) => time - (side.times[nth] ?? 0))
        expect(delays).toEqual([100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000, 5_000, 5_000])
      })
    ))

  test("stops at the first success", () =>
    policed(
      Effect.gen(function* () {
        const side = otherSide((nth) => (nth < 3 ? Effect.fail("down") : Effect.succeed("well")))
        expect(yield* ended("payment.soap", side.call)).toEqual(Exit.succeed("well"))
        expect(side.times.length).toBe(3)
      })
    ))

  test("is not for answers: a refusal of the other side is told as it is, and is no failure to the circuit", () =>
    policed(
      Effect.gen(function* () {
        const side = otherSide(() => Effect.fail("declined"))
        for (let nth = 1; nth <= 60; nth++) {
          expect(yield* ended("payment.soap", side.call)).toEqual(Exit.fail("declined"))
          expect(side.times.length).toBe(nth)
        }
        expect(yield* circuit("payment.soap")).toBe("closed")
        expect((yield* stateOf("payment.soap")).counts.attempts).toMatchObject({ answer: 60, failure: 0 })
      })
    ))

  test("jitter keeps each delay within 80 % and 120 %, differs by seed, and is the same for the same seed", () =>
    policed(
      Effect.gen(function* () {
        const delaysOf = (seed: string) =>
          Effect.gen(function* () {
            const side = down()
            yield* Effect.provideService(ended("payment.soap", side.call), Random.Random, yield* seeded(seed))
            return side.times.slice(1).map((time, nth) => time - (side.times[nth] ?? 0))
          })
        const seen = new Set<number>()
        for (let seed = 0; seed < 40; seed++) {
          const delays = yield* delaysOf(`seed-${seed}`)
          expect(delays.length).toBe(4)
          for (const [nth, delay] of delays.entries()) {
            const plain = 100 * 2 ** nth
            expect(delay).toBeGreaterThanOrEqual(plain * 0.8 - 0.001)
            expect(delay).toBeLessThanOrEqual(plain * 1.2 + 0.001)
          }
          seen.add(Math.round(delays[0] ?? 0))
        }
        expect(seen.size).toBeGreaterThan(10)
        const once = yield* delaysOf("the same")
        const again = yield* delaysOf("the same")
        expect(again.map(Math.round)).toEqual(once.map(Math.round))
      }),
      { "payment.soap": { breaker: null, retryBudget: null } }
    ))

  const seeded = (seed: string) => Random.withSeed(Effect.service(Random.Random), seed)

  test("tells of every attempt that did not succeed, in order", () =>
    policed(
      Effect.gen(function* () {
        const { guard } = yield* Policies
        const told: Array<unknown> = []
        const side = otherSide((nth) =>
          nth === 1 ? Effect.fail("down") : nth === 2 ? Effect.never : Effect.fail("declined")
        )
        const fiber = yield* Effect.forkChild(
          Effect.exit(
            guard("payment.soap", { transient, onAttemptFailed: (error) => Effect.sync(() => told.push(error)) })(
              side.call
            )
          )
        )
        yield* TestClock.adjust("1 minute")
        expect(yield* Fiber.join(fiber)).toEqual(Exit.fail("declined"))
        expect(told).toEqual([
          "down",
          new TimedOut({ operation: "payment.soap", timeoutMs: 2_000, retryAfterSeconds: 1 }),
          "declined"
        ])
      })
    ))
})

describe("attempt timeout", () => {
  test("ends each attempt after its time, counts as a failure and is retried", () =>
    policed(
      Effect.gen(function* () {
        const side = otherSide(() => Effect.never)
        expect(yield* ended("payment.rest", side.call)).toEqual(
          Exit.fail(new TimedOut({ operation: "payment.rest", timeoutMs: 2_000, retryAfterSeconds: 1 }))
        )
        expect(side.times).toEqual([0, 2_100, 4_300])
        const { counts, breaker } = yield* stateOf("payment.rest")
        expect(counts.attempts).toMatchObject({ timed_out: 3 })
        expect(breaker?.failuresInARow).toBe(3)
      }),
      { "payment.rest": { backoff: { jitter: false } } }
    ))
})

describe("deadline", () => {
  test("ends the call, wherever it is, and tells that an attempt was cut off", () =>
    policed(
      Effect.gen(function* () {
        const { guard } = yield* Policies
        const told: Array<unknown> = []
        const fiber = yield* Effect.forkChild(
          Effect.exit(
            guard("risk.assess", {
              transient,
              onAttemptFailed: (error) => Effect.sync(() => told.push(error))
            })(Effect.never)
          )
        )
        yield* TestClock.adjust(499)
        expect(fiber.pollUnsafe()).toBeUndefined()
        yield* TestClock.adjust(1)
        expect(yield* Fiber.join(fiber)).toEqual(
          Exit.fail(new DeadlineExceeded({ operation: "risk.assess", deadlineMs: 500, retryAfterSeconds: 1 }))
        )
        expect(told).toEqual([new AttemptInterrupted({ operation: "risk.assess" })])
        const { counts, breaker } = yield* stateOf("risk.assess")
        expect(counts.refusals).toEqual({ deadline_exceeded: 1 })
        // Who was cut off says nothing about the other side.
        expect(breaker?.failuresInARow).toBe(0)
      }),
      { "risk.assess": { deadlineMs: 500 } }
    ))

  test("is passed down: a guard inside has what is left of it, and never more than its own", () =>
    policed(
      Effect.gen(function* () {
        const { guard } = yield* Policies
        const seen: Array<number> = []
        const inner = (operation: OperationName) =>
          guard(operation, { transient })(
            Effect.flatMap(Deadline.remainingMs, (left) => Effect.sync(() => seen.push(left)))
          )
        const fiber = yield* Effect.forkChild(
          guard("payment.rest", { transient })(
            Effect.gen(function* () {
              yield* Effect.sleep(600)
              yield* Effect.orDie(inner("payment.soap"))
              yield* Effect.orDie(inner("flash_sale.price"))
            })
          )
        )
        yield* TestClock.adjust("10 seconds")
        yield* Fiber.join(fiber)
        // 7,000 ms of payment.rest, 600 of them gone; payment.soap would have 12,000; flash_sale.price has 1,000.
        expect(seen).toEqual([6_400, 1_000])
        expect(yield* Deadline.remainingMs).toBe(Infinity)
      })
    ))

  test("a guard inside is not begun when nothing is left", () =>
    policed(
      Effect.gen(function* () {
        const { guard } = yield* Policies
        const side = well()
        yield* TestClock.adjust(1_000)
        const refused = yield* Effect.flip(
          Effect.provideService(guard("payment.rest", { transient })(side.call), Deadline.Deadline, 1_000)
        )
        expect(refused).toEqual(
          new DeadlineExceeded({ operation: "payment.rest", deadlineMs: 0, retryAfterSeconds: 1 })
        )
        expect(side.times).toEqual([])
      })
    ))

  test("no retry is waited for that it would cut off", () =>
    policed(
      Effect.gen(function* () {
        const side = down()
        const fiber = yield* calling("payment.soap", side.call, 701)
        expect(yield* Fiber.join(fiber)).toEqual(Exit.fail("down"))
        expect(side.times).toEqual([0, 100, 300, 700])
        expect((yield* stateOf("payment.soap")).counts.refusals).toEqual({ no_time_for_a_retry: 1 })
      }),
      { "payment.soap": { backoff: { jitter: false }, deadlineMs: 1_500 } }
    ))

  test("bounds the time in the line of a bulkhead", () =>
    policed(
      Effect.gen(function* () {
        yield* calling("flash_sale.price", Effect.never)
        const side = well()
        const second = yield* Effect.provideService(calling("flash_sale.price", side.call, 400), Deadline.Deadline, 400)
        expect(yield* Fiber.join(second)).toEqual(
          Exit.fail(new DeadlineExceeded({ operation: "flash_sale.price", deadlineMs: 400, retryAfterSeconds: 1 }))
        )
        expect(side.times).toEqual([])
        expect(yield* stateOf("flash_sale.price")).toMatchObject({ inFlight: 1, waiting: 0 })
      }),
      { "flash_sale.price": { bulkhead: { concurrent: 1, waiting: 1 } } }
    ))
})

describe("circuit breaker", () => {
  /** Makes so many calls that fail at their one attempt. */
  const failing = (count: number) =>
    Effect.forEach(Array.from({ length: count }), () => ended1("payment.soap", down().call), { discard: true })
  /** A call that ends at once. */
  const ended1 = (operation: OperationName, call: Effect.Effect<string, string>) =>
    Effect.flatMap(calling(operation, call), Fiber.join)
  const single = { "payment.soap": { attempts: 1 } }

  test("opens at the fifth failed attempt in a row, of one call as of many, and then nothing is tried", () =>
    policed(
      Effect.gen(function* () {
        const side = down()
        const fiber = yield* calling("payment.soap", side.call, 5_000)
        expect(yield* Fiber.join(fiber)).toEqual(Exit.fail("down"))
        expect(side.times.length).toBe(5)
        expect(yield* circuit("payment.soap")).toBe("open")
        const refused = yield* ended1("payment.soap", side.call)
        // Opened after 1.2 to 1.8 s, and 5 s have passed.
        expect(refused).toEqual(
          Exit.fail(
            new CircuitOpen({
              operation: "payment.soap",
              state: "open",
              retryAfterSeconds: Math.ceil((30_000 - 5_000 + (side.times[4] ?? 0)) / 1_000)
            })
          )
        )
        expect(side.times.length).toBe(5)
        expect((yield* stateOf("payment.soap")).counts.refusals).toEqual({ circuit_open: 1 })
        // The other rail has a circuit of its own.
        expect(yield* ended1("payment.rest", well().call)).toEqual(Exit.succeed("well"))
      })
    ))

  test("a success in between begins the count again", () =>
    policed(
      Effect.gen(function* () {
        yield* failing(4)
        yield* ended1("payment.soap", well().call)
        yield* failing(4)
        expect(yield* circuit("payment.soap")).toBe("closed")
        yield* failing(1)
        expect(yield* circuit("payment.soap")).toBe("open")
      }),
      single
    ))

  test("opens at half of the last attempts failing, once there were 20, never five in a row", () =>
    policed(
      Effect.gen(function* () {
        for (let nth = 1; nth <= 19; nth++) yield* ended1("payment.soap", nth % 2 === 0 ? down().call : well().call)
        expect(yield* circuit("payment.soap")).toBe("closed")
        yield* failing(1)
        expect(yield* circuit("payment.soap")).toBe("open")
      }),
      single
    ))

  test("less than half failing keeps it closed, and what is older than the last 50 is forgotten", () =>
    policed(
      Effect.gen(function* () {
        for (let nth = 1; nth <= 200; nth++) yield* ended1("payment.soap", nth % 3 === 0 ? down().call : well().call)
        expect(yield* circuit("payment.soap")).toBe("closed")
        for (let nth = 1; nth <= 50; nth++) yield* ended1("payment.soap", well().call)
        // Of the last 50 none failed: 24 more failures, apart, are not half yet.
        for (let nth = 1; nth <= 48; nth++) yield* ended1("payment.soap", nth % 2 === 0 ? down().call : well().call)
        expect(yield* circuit("payment.soap")).toBe("closed")
        yield* failing(2)
        expect(yield* circuit("payment.soap")).toBe("open")
      }),
      single
    ))

  test("is open for 30 s to the millisecond, then lets one through, and closes when that goes well", () =>
    policed(
      Effect.gen(function* () {
        yield* failing(5)
        yield* TestClock.adjust(29_999)
        expect(yield* ended1("payment.soap", well().call)).toEqual(
          Exit.fail(new CircuitOpen({ operation: "payment.soap", state: "open", retryAfterSeconds: 1 }))
        )
        yield* TestClock.adjust(1)
        const gate = yield* Deferred.make<string>()
        const probe = yield* calling("payment.soap", Deferred.await(gate))
        expect(yield* circuit("payment.soap")).toBe("half_open")
        const side = well()
        expect(yield* ended1("payment.soap", side.call)).toEqual(
          Exit.fail(new CircuitOpen({ operation: "payment.soap", state: "half_open", retryAfterSeconds: 1 }))
        )
        expect(side.times).toEqual([])
        yield* Deferred.succeed(gate, "well")
        expect(yield* Fiber.join(probe)).toEqual(Exit.succeed("well"))
        expect(yield* circuit("payment.soap")).toBe("closed")
        yield* failing(4)
        expect(yield* circuit("payment.soap")).toBe("closed")
      }),
      single
    ))

  test("opens again for 30 s when the one it let through fails, without retrying it", () =>
    policed(
      Effect.gen(function* () {
        const first = down()
        const fiber = yield* calling("payment.soap", first.call, 30_300)
        expect(yield* Fiber.join(fiber)).toEqual(Exit.fail("down"))
        expect(first.times).toEqual([0, 100, 300])
        const side = down()
        expect(yield* ended1("payment.soap", side.call)).toEqual(Exit.fail("down"))
        expect(side.times.length).toBe(1)
        expect(yield* stateOf("payment.soap")).toMatchObject({
          breaker: { state: "open", sinceMs: 30_300, retryAfterMs: 30_000 }
        })
        yield* TestClock.adjust(29_999)
        expect(Exit.isFailure(yield* ended1("payment.soap", well().call))).toBe(true)
        yield* TestClock.adjust(1)
        expect(yield* ended1("payment.soap", well().call)).toEqual(Exit.succeed("well"))
      }),
      { "payment.soap": { attempts: 4, backoff: { jitter: false }, breaker: { failuresInARow: 3 } } }
    ))

  test("a call that was let in before it opened changes nothing when it ends", () =>
    policed(
      Effect.gen(function* () {
        const gate = yield* Deferred.make<string>()
        const slow = yield* calling("payment.soap", Deferred.await(gate))
        yield* failing(5)
        yield* Deferred.succeed(gate, "late")
        expect(yield* Fiber.join(slow)).toEqual(Exit.succeed("late"))
        expect(yield* circuit("payment.soap")).toBe("open")
      }),
      single
    ))

  test("nor does its failure, long after, disturb the count of the calls since", () =>
    policed(
      Effect.gen(function* () {
        const gate = yield* Deferred.make<string, string>()
        const slow = yield* calling("payment.soap", Deferred.await(gate))
        yield* failing(5)
        yield* TestClock.adjust(30_000)
        yield* ended1("payment.soap", well().call)
        yield* failing(4)
        yield* Deferred.fail(gate, "down")
        expect(yield* Fiber.join(slow)).toEqual(Exit.fail("down"))
        expect(yield* circuit("payment.soap")).toBe("closed")
        yield* failing(1)
        expect(yield* circuit("payment.soap")).toBe("open")
      }),
      { "payment.soap": { attempts: 1, attemptTimeoutMs: null, deadlineMs: 100_000 } }
    ))

  test("who is interrupted is not counted, and frees the place of the one that tries", () =>
    policed(
      Effect.gen(function* () {
        yield* failing(5)
        yield* TestClock.adjust(30_000)
        const probe = yield* calling("payment.soap", Effect.never)
        yield* Fiber.interrupt(probe)
        expect(yield* circuit("payment.soap")).toBe("half_open")
        expect(yield* ended1("payment.soap", well().call)).toEqual(Exit.succeed("well"))
        expect(yield* circuit("payment.soap")).toBe("closed")
      }),
      single
    ))
})

describe("bulkhead", () => {
  const small = {
    "payment.soap": { bulkhead: { concurrent: 2, waiting: 3 }, deadlineMs: 60_000, attemptTimeoutMs: null }
  }

  test("runs so many, lets so many wait in line, and refuses the rest at once", () =>
    policed(
      Effect.gen(function* () {
        const gates = yield* Effect.forEach([0, 1, 2, 3, 4], () => Deferred.make<string>())
        const order: Array<number> = []
        const fibers = yield* Effect.forEach(gates, (gate, nth) =>
          calling(
            "payment.soap",
            Effect.andThen(
              Effect.sync(() => order.push(nth)),
              Deferred.await(gate)
            )
          )
        )
        expect(order).toEqual([0, 1])
        expect(yield* stateOf("payment.soap")).toMatchObject({ inFlight: 2, waiting: 3 })
        const side = well()
        const refused = yield* Effect.flatMap(calling("payment.soap", side.call), Fiber.join)
        expect(refused).toEqual(
          Exit.fail(new BulkheadFull({ operation: "payment.soap", concurrent: 2, waiting: 3, retryAfterSeconds: 1 }))
        )
        expect(side.times).toEqual([])
        for (const gate of gates) yield* Deferred.succeed(gate, "done")
        yield* TestClock.adjust(0)
        expect(yield* Effect.forEach(fibers, Fiber.join)).toEqual(gates.map(() => Exit.succeed("done")))
        expect(order).toEqual([0, 1, 2, 3, 4])
        expect(yield* stateOf("payment.soap")).toMatchObject({ inFlight: 0, waiting: 0 })
        expect((yield* stateOf("payment.soap")).counts.refusals).toEqual({ bulkhead_full: 1 })
      }),
      small
    ))

  test("who is interrupted leaves its place, running as well as waiting", () =>
    policed(
      Effect.gen(function* () {
        const fibers = yield* Effect.forEach([0, 1, 2, 3, 4], () => calling("payment.soap", Effect.never))
        expect(yield* stateOf("payment.soap")).toMatchObject({ inFlight: 2, waiting: 3 })
        for (const nth of [4, 0]) {
          const fiber = fibers[nth]
          if (fiber !== undefined) yield* Fiber.interrupt(fiber)
          yield* TestClock.adjust(0)
        }
        expect(yield* stateOf("payment.soap")).toMatchObject({ inFlight: 2, waiting: 1 })
        yield* Effect.forEach(fibers, Fiber.interrupt)
        expect(yield* stateOf("payment.soap")).toMatchObject({ inFlight: 0, waiting: 0 })
        expect(yield* ended("payment.soap", well().call)).toEqual(Exit.succeed("well"))
      }),
      small
    ))

  test("is held over retries: a call has one place, not one each attempt", () =>
    policed(
      Effect.gen(function* () {
        const retrying = yield* calling("payment.soap", down().call, 150)
        expect(yield* stateOf("payment.soap")).toMatchObject({ inFlight: 1, waiting: 0 })
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(retrying)
        expect(yield* stateOf("payment.soap")).toMatchObject({ inFlight: 0, waiting: 0 })
      }),
      small
    ))

  test("a defect leaves its place, too", () =>
    policed(
      Effect.gen(function* () {
        for (let nth = 0; nth < 4; nth++) {
          expect(Exit.hasDies(yield* ended("flash_sale.price", Effect.die("bug")))).toBe(true)
        }
        expect(yield* stateOf("flash_sale.price")).toMatchObject({ inFlight: 0, waiting: 0 })
        expect(yield* ended("flash_sale.price", well().call)).toEqual(Exit.succeed("well"))
      }),
      { "flash_sale.price": { bulkhead: { concurrent: 1, waiting: 0 } } }
    ))
})

describe("rate limit", () => {
  test("refuses what is more than so many calls, tells when to come again, and counts calls, not attempts", () =>
    policed(
      Effect.gen(function* () {
        const once = otherSide((nth) => (nth === 1 ? Effect.fail("down") : Effect.succeed("well")))
        expect(yield* Effect.flatMap(calling("mqtt.ingest", once.call, 300), Fiber.join)).toEqual(Exit.succeed("well"))
        expect(once.times.length).toBe(2)
        const now = Effect.flatMap(calling("mqtt.ingest", well().call), Fiber.join)
        expect(yield* now).toEqual(Exit.succeed("well"))
        expect(yield* now).toEqual(Exit.succeed("well"))
        const side = well()
        expect(yield* Effect.flatMap(calling("mqtt.ingest", side.call), Fiber.join)).toEqual(
          Exit.fail(new RateLimited({ operation: "mqtt.ingest", calls: 3, perMs: 6_000, retryAfterSeconds: 2 }))
        )
        expect(side.times).toEqual([])
        yield* TestClock.adjust(2_000)
        expect(yield* now).toEqual(Exit.succeed("well"))
        expect((yield* stateOf("mqtt.ingest")).counts.refusals).toEqual({ rate_limited: 1 })
      }),
      { "mqtt.ingest": { rateLimit: { calls: 3, perMs: 6_000 }, backoff: { jitter: false } } }
    ))
})

describe("retry budget", () => {
  const poor = {
    "payment.soap": { breaker: null, retryBudget: { tokens: 6, refund: 0.5 }, backoff: { jitter: false } }
  }

  test("when it is spent a failure is told without a retry; what ends well gives some of it back", () =>
    policed(
      Effect.gen(function* () {
        expect(yield* ended("payment.soap", down().call)).toEqual(Exit.fail("down"))
        const second = down()
        expect(yield* ended("payment.soap", second.call)).toEqual(
          Exit.fail(new RetryBudgetSpent({ operation: "payment.soap", attempts: 3, retryAfterSeconds: 1 }))
        )
        expect(second.times.length).toBe(3)
        const third = down()
        expect(yield* ended("payment.soap", third.call)).toEqual(
          Exit.fail(new RetryBudgetSpent({ operation: "payment.soap", attempts: 1, retryAfterSeconds: 1 }))
        )
        expect(third.times.length).toBe(1)
        // A first attempt is never refused, and an answer is as good as a success.
        expect(yield* ended("payment.soap", well().call)).toEqual(Exit.succeed("well"))
        yield* ended("payment.soap", Effect.fail("declined"))
        expect((yield* stateOf("payment.soap")).retryTokens).toBe(1)
        const fourth = otherSide((nth) => (nth === 1 ? Effect.fail("down") : Effect.succeed("well")))
        expect(yield* ended("payment.soap", fourth.call)).toEqual(Exit.succeed("well"))
        expect((yield* stateOf("payment.soap")).counts.refusals).toEqual({ retry_budget_spent: 2 })
      }),
      poor
    ))
})

describe("limits changed at run time", () => {
  test("hold from the next call on; an open circuit stays open for as long as it was told, then the new time holds", () =>
    policed(
      Effect.gen(function* () {
        const { change, limits } = yield* Policies
        yield* Effect.flatMap(calling("payment.soap", down().call, 5_000), Fiber.join)
        const { breaker } = yield* stateOf("payment.soap")
        expect(breaker?.state).toBe("open")
        yield* change({ "payment.soap": { attempts: 2, breaker: { failuresInARow: 2, openMs: 1_000 } } })
        expect(yield* limits("payment.soap")).toMatchObject({
          attempts: 2,
          breaker: { failuresInARow: 2, openMs: 1_000, failingRate: { share: 0.5 } }
        })
        expect(yield* stateOf("payment.soap")).toMatchObject({ breaker, configured: ["attempts", "breaker"] })
        yield* TestClock.adjust(breaker?.retryAfterMs ?? 0)
        yield* Effect.flatMap(calling("payment.soap", down().call), Fiber.join)
        expect(yield* stateOf("payment.soap")).toMatchObject({ breaker: { state: "open", retryAfterMs: 1_000 } })
        yield* TestClock.adjust(1_000)
        expect(yield* ended("payment.soap", well().call)).toEqual(Exit.succeed("well"))
        yield* change({})
        expect(yield* limits("payment.soap")).toMatchObject({ attempts: 5, breaker: { openMs: 30_000 } })
        expect((yield* stateOf("payment.soap")).configured).toEqual([])
      })
    ))

  test("a wider bulkhead lets in who waits", () =>
    policed(
      Effect.gen(function* () {
        const { change } = yield* Policies
        yield* Effect.forEach([1, 2, 3], () => calling("payment.soap", Effect.never))
        expect(yield* stateOf("payment.soap")).toMatchObject({ inFlight: 1, waiting: 2 })
        yield* change({ "payment.soap": { bulkhead: { concurrent: 2, waiting: 1 } } })
        yield* TestClock.adjust(0)
        expect(yield* stateOf("payment.soap")).toMatchObject({ inFlight: 2, waiting: 1 })
        const refused = yield* Effect.flatMap(calling("payment.soap", well().call), Fiber.join)
        expect(refused).toEqual(
          Exit.fail(new BulkheadFull({ operation: "payment.soap", concurrent: 2, waiting: 1, retryAfterSeconds: 1 }))
        )
      }),
      { "payment.soap": { bulkhead: { concurrent: 1, waiting: 2 } } }
    ))

  const senseless: ReadonlyArray<readonly [string, unknown]> = [
    ["no object", []],
    ["an operation that there is not", { "payment.sop": {} }],
    ["a limit that there is not", { "payment.soap": { attemps: 3 } }],
    ["no attempt", { "payment.soap": { attempts: 0 } }],
    ["a number as a text", { "payment.soap": { attempts: "3" } }],
    ["retries without a backoff", { "payment.soap": { backoff: null } }],
    ["delays that are not as many as retries", { "webhook.dispatch": { attempts: 3 } }],
    ["waiting without an end", { "payment.soap": { deadlineMs: null } }],
    ["a rate that nobody can reach", { "payment.soap": { breaker: { failingRate: { atLeast: 51 } } } }],
    ["one that is right and one that is not", { "payment.rest": { attempts: 2 }, "payment.soap": { attempts: -1 } }]
  ]
  for (const [what, overrides] of senseless) {
    test(`${what}: refused, and nothing is changed`, () =>
      policed(
        Effect.gen(function* () {
          const { change, states } = yield* Policies
          yield* change({ "stock.reserve": { attempts: 2 } })
          const before = yield* states
          const refused = yield* Effect.flip(change(overrides))
          expect(refused._tag).toBe("LimitsRefused")
          expect(refused.message.length).toBeGreaterThan(10)
          expect(yield* states).toEqual(before)
        })
      ))
  }
})

describe("what is told", () => {
  test("metrics, with the operation as label", () =>
    policed(
      Effect.gen(function* () {
        yield* Effect.flatMap(calling("payment.soap", down().call, 5_000), Fiber.join)
        yield* Effect.flatMap(calling("payment.soap", well().call), Fiber.join)
        const found = (yield* Metric.snapshot)
          .filter(({ id, attributes }) => id.startsWith("policy_") && attributes?.["operation"] === "payment.soap")
          .map(({ id, attributes, state }) => {
            const { operation: _operation, ...labels } = attributes ?? {}
            return [id, labels, "count" in state ? Number(state.count) : "value" in state ? Number(state.value) : -1]
          })
        expect(found).toEqual(
          expect.arrayContaining([
            ["policy_calls_total", {}, 2],
            ["policy_attempts_total", { outcome: "failure" }, 5],
            ["policy_retries_total", {}, 4],
            ["policy_refusals_total", { reason: "circuit_open" }, 1],
            ["policy_breaker_state", {}, 2],
            ["policy_breaker_transitions_total", { from: "closed", to: "open" }, 1],
            ["policy_in_flight", {}, 0],
            ["policy_waiting", {}, 0],
            ["policy_call_duration_ms", {}, 2]
          ])
        )
      })
    ))

  test("events on the caller's span", () =>
    policed(
      Effect.gen(function* () {
        const events: Array<readonly [string, unknown]> = []
        const span = yield* Effect.makeSpan("pay")
        span.event = (name, _time, attributes) => void events.push([name, attributes])
        yield* Effect.flatMap(Effect.withParentSpan(calling("payment.soap", down().call, 5_000), span), Fiber.join)
        yield* Effect.flatMap(Effect.withParentSpan(calling("payment.soap", down().call), span), Fiber.join)
        const own = { "policy.operation": "payment.soap" }
        const failed = (attempt: number) => ["policy.attempt_failed", { ...own, attempt, outcome: "failure" }] as const
        const retry = (attempt: number, delayMs: number) => ["policy.retry", { ...own, attempt, delayMs }] as const
        expect(events).toEqual([
          failed(1),
          retry(2, 100),
          failed(2),
          retry(3, 200),
          failed(3),
          retry(4, 400),
          failed(4),
          retry(5, 800),
          failed(5),
          ["policy.breaker", { ...own, from: "closed", to: "open" }],
          ["policy.refused", { ...own, reason: "circuit_open" }]
        ])
      }),
      { "payment.soap": { backoff: { jitter: false } } }
    ))
})
