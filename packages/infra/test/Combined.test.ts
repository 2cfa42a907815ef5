// What callers of a combined statement rely on: their own answer, in order, whatever happens to their neighbours.
import { describe, expect, test } from "bun:test"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Result, Schedule, Scope, Tracer } from "effect"
import { SqlError } from "effect/sql"
import * as Combined from "../src/postgres/Combined.ts"

const refused = (message: string) =>
  new SqlError.SqlError({ reason: new SqlError.ConstraintError({ cause: undefined, message }) })
const lost = new SqlError.SqlError({ reason: new SqlError.ConnectionError({ cause: undefined, message: "lost" }) })
const locked = new SqlError.SqlError({ reason: new SqlError.LockTimeoutError({ cause: undefined, message: "locked" }) })

type Options = Partial<Omit<Combined.Options<string, string, SqlError.SqlError, never>, "together" | "name">>

/** A database of which the test decides when it answers: every batch that reaches it, with how it ends. */
const database = (options: Options, answer = (request: string) => `did ${request}`) =>
  Effect.gen(function* () {
    const batches: Array<{
      readonly requests: ReadonlyArray<string>
      readonly lockTimeoutMs: number
      readonly ends: Deferred.Deferred<void, SqlError.SqlError>
    }> = []
    const call = yield* Combined.make({
      name: "together",
      together: (requests: ReadonlyArray<string>, lockTimeoutMs) =>
        Effect.suspend(() => {
          const ends = Deferred.makeUnsafe<void, SqlError.SqlError>()
          batches.push({ requests, lockTimeoutMs, ends })
          return Effect.as(Deferred.await(ends), requests.map(answer))
        }),
      ...options
    })
    const reached = (count: number) =>
      Effect.repeat(
        Effect.suspend(() => (batches.length >= count ? Effect.void : Effect.fail("not yet" as const))).pipe(
          Effect.andThen(Effect.yieldNow)
        ),
        Schedule.recurs(0)
      ).pipe(Effect.retry({ schedule: Schedule.spaced("1 millis"), times: 2_000 }), Effect.orDie)
    /** Ends the nth batch (from 0) when it has come. */
    const end = (nth: number, exit: Exit.Exit<void, SqlError.SqlError> = Exit.void) =>
      Effect.andThen(
        reached(nth + 1),
        Effect.sync(() => {
          const batch = batches[nth]
          if (batch !== undefined) Deferred.doneUnsafe(batch.ends, exit)
        })
      )
    const asked = () => batches.map(({ requests }) => requests)
    const patience = () => batches.map(({ lockTimeoutMs }) => lockTimeoutMs)
    /** Somebody calls and has been heard. */
    const fork = (request: string) => Effect.forkChild(call(request), { startImmediately: true })
    return { call, fork, end, reached, asked, patience }
  })

const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Effect.scoped(effect))
const all = (...fibers: ReadonlyArray<Fiber.Fiber<string, SqlError.SqlError>>) =>
  Effect.forEach(fibers, (fiber) => Effect.result(Fiber.join(fiber)))
const answers = (...requests: ReadonlyArray<string>) => requests.map((request) => Result.succeed(`did ${request}`))

describe("combined calls", () => {
  test("a caller on an idle lane goes at once and alone; those of the same moment go together", () =>
    run(
      Effect.gen(function* () {
        const { fork, end, reached, asked } = yield* database({ lanes: 2 })
        const a = yield* fork("a")
        yield* reached(1)
        const b = yield* fork("b")
        const c = yield* fork("c")
        yield* reached(2)
        expect(asked()).toEqual([["a"], ["b", "c"]])
        yield* end(1)
        yield* end(0)
        expect(yield* all(a, b, c)).toEqual(answers("a", "b", "c"))
      })
    ))

  test("those who come while all lanes are busy are the next batch, in their order and bounded", () =>
    run(
      Effect.gen(function* () {
        const { fork, end, reached, asked } = yield* database({ lanes: 1, most: 3 })
        const first = yield* fork("first")
        yield* reached(1)
        const fibers = yield* Effect.forEach(["a", "b", "c", "d"], fork)
        // Whoever may go has gone after that many turns.
        yield* Effect.repeat(Effect.yieldNow, { times: 20 })
        expect(asked()).toEqual([["first"]])
        for (const nth of [0, 1, 2]) yield* end(nth)
        expect(yield* all(first, ...fibers)).toEqual(answers("first", "a", "b", "c", "d"))
        expect(asked()).toEqual([["first"], ["a", "b", "c"], ["d"]])
      })
    ))

  test("requests of one key never share a batch, and keep their order", () =>
    run(
      Effect.gen(function* () {
        const { fork, end, reached, asked } = yield* database({
          lanes: 1,
          most: 3,
          keyOf: (request) => request.slice(0, 1)
        })
        const first = yield* fork("x")
        yield* reached(1)
        const fibers = yield* Effect.forEach(["a1", "b1", "a2", "c1", "d1", "a3", "b2"], fork)
        for (const nth of [0, 1, 2, 3]) yield* end(nth)
        yield* all(first, ...fibers)
        expect(asked()).toEqual([["x"], ["a1", "b1", "c1"], ["a2", "d1", "b2"], ["a3"]])
      })
    ))

  test("a poisoned request does not fail its neighbours: a refused batch is asked one by one", () =>
    run(
      Effect.gen(function* () {
        const { fork, end, reached, asked } = yield* database({ lanes: 1 })
        const first = yield* fork("first")
        yield* reached(1)
        const fibers = yield* Effect.forEach(["a", "poison", "b"], fork)
        yield* end(0)
        yield* end(1, Exit.fail(refused("somebody")))
        yield* end(2)
        yield* end(3, Exit.fail(refused("poison")))
        yield* end(4)
        expect(yield* all(first, ...fibers)).toEqual([
          ...answers("first", "a"),
          Result.fail(refused("poison")),
          ...answers("b")
        ])
        expect(asked()).toEqual([["first"], ["a", "poison", "b"], ["a"], ["poison"], ["b"]])
      })
    ))

  test("a defect is tried apart too, and is its own caller's alone", () =>
    run(
      Effect.gen(function* () {
        const { fork, end, reached } = yield* database({ lanes: 1 })
        const first = yield* fork("first")
        yield* reached(1)
        const [a, b] = yield* Effect.forEach(["a", "b"] as const, fork)
        yield* end(0)
        yield* end(1, Exit.die("broken"))
        yield* end(2, Exit.die("broken"))
        yield* end(3)
        yield* Fiber.join(first)
        expect(a && (yield* Fiber.await(a))).toEqual(Exit.die("broken"))
        expect(b && (yield* Fiber.await(b))).toEqual(Exit.succeed("did b"))
      })
    ))

  test("what leaves unknown what was written fails everybody, and nothing is tried again", () =>
    run(
      Effect.gen(function* () {
        const { call, fork, end, reached, asked } = yield* database({ lanes: 1 })
        const first = yield* fork("first")
        yield* reached(1)
        const fibers = yield* Effect.forEach(["a", "b"], fork)
        yield* end(0)
        yield* end(1, Exit.fail(lost))
        expect(yield* all(first, ...fibers)).toEqual([...answers("first"), Result.fail(lost), Result.fail(lost)])
        // The lane lives on.
        const next = yield* Effect.forkChild(call("next"))
        yield* end(2)
        expect(yield* Fiber.join(next)).toBe("did next")
        expect(asked()).toEqual([["first"], ["a", "b"], ["next"]])
      })
    ))

  test("who meets a lock that others keep waits for it outside the lanes, each by itself, and holds up nobody", () =>
    run(
      Effect.gen(function* () {
        const { fork, end, reached, asked, patience } = yield* database({ lanes: 1 })
        const lone = yield* fork("lone")
        yield* end(0, Exit.fail(locked))
        yield* reached(2)
        const [a, b] = yield* Effect.forEach(["a", "b"] as const, fork)
        yield* end(2, Exit.fail(locked))
        yield* reached(5)
        const next = yield* fork("next")
        yield* end(5)
        expect(yield* all(next)).toEqual(answers("next"))
        expect(asked()).toEqual([["lone"], ["lone"], ["a", "b"], ["a"], ["b"], ["next"]])
        expect(patience()).toEqual([1_000, 0, 1_000, 0, 0, 1_000])
        yield* end(4)
        yield* end(3, Exit.fail(locked))
        yield* end(1)
        expect(lone && a && b && (yield* all(lone, a, b))).toEqual([
          ...answers("lone"),
          Result.fail(locked),
          ...answers("b")
        ])
      })
    ))

  test("a batch with too few answers leaves nobody waiting", () =>
    run(
      Effect.gen(function* () {
        const call = yield* Combined.make({
          name: "together",
          together: () => Effect.succeed([])
        })
        expect(Exit.hasDies(yield* Effect.exit(call("a")))).toBe(true)
      })
    ))

  test("a caller that goes away while it waits is not asked for; its neighbours are", () =>
    run(
      Effect.gen(function* () {
        const { fork, end, reached, asked } = yield* database({ lanes: 1 })
        const first = yield* fork("first")
        yield* reached(1)
        const gone = yield* fork("gone")
        const stays = yield* fork("stays")
        yield* Fiber.interrupt(gone)
        yield* end(0)
        yield* end(1)
        expect(yield* all(first, stays)).toEqual(answers("first", "stays"))
        expect(asked()).toEqual([["first"], ["stays"]])
      })
    ))

  test("a caller that goes away while it is worked for does not stop the work for its neighbours", () =>
    run(
      Effect.gen(function* () {
        const { fork, end, reached, asked } = yield* database({ lanes: 1 })
        const gone = yield* fork("gone")
        const stays = yield* fork("stays")
        yield* reached(1)
        yield* Fiber.interrupt(gone)
        yield* end(0)
        expect(yield* all(stays)).toEqual(answers("stays"))
        expect(asked()).toEqual([["gone", "stays"]])
      })
    ))

  test("the end of the scope leaves nobody waiting, neither those at work nor those behind nor those who come later", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { call, fork, reached } = yield* Scope.provide(database({ lanes: 1 }), scope)
      const working = yield* fork("working")
      yield* reached(1)
      const behind = yield* fork("behind")
      yield* Scope.close(scope, Exit.void)
      for (const exit of [yield* Fiber.await(working), yield* Fiber.await(behind), yield* Effect.exit(call("late"))]) {
        expect(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)).toBe(true)
      }
    }).pipe(Effect.runPromise))

  test("a batch sees the services of where it was made, and nothing of its callers", () =>
    run(
      Effect.gen(function* () {
        const Whose = Context.Reference<string>("test/Whose", { defaultValue: () => "nobody's" })
        const call = yield* Effect.provideService(
          Combined.make({
            name: "together",
            together: (requests: ReadonlyArray<string>) => Effect.map(Whose, (whose) => requests.map(() => whose))
          }),
          Whose,
          "the maker's"
        )
        expect(yield* Effect.provideService(call("a"), Whose, "the caller's")).toBe("the maker's")
      })
    ))

  test("a batch is part of the trace of its first traced caller, and of none without one", () =>
    run(
      Effect.gen(function* () {
        const spans: Array<Tracer.NativeSpan> = []
        const tracer = Tracer.make({
          span: (options) => {
            const span = new Tracer.NativeSpan(options)
            spans.push(span)
            return span
          }
        })
        const call = yield* Effect.provideService(
          Combined.make({
            name: "together",
            together: (requests: ReadonlyArray<string>) =>
              Effect.as(Effect.withSpan(Effect.void, "statement"), requests)
          }),
          Tracer.Tracer,
          tracer
        )
        yield* call("untraced")
        expect(spans).toEqual([])
        yield* Effect.withSpan(call("traced"), "caller").pipe(Effect.provideService(Tracer.Tracer, tracer))
        expect(spans.map(({ name }) => name)).toEqual(["caller", "together", "statement"])
        expect(new Set(spans.map(({ traceId }) => traceId)).size).toBe(1)
      })
    ))
})
