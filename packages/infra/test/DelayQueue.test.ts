// The queue of what is looked at later: what every side of the port must do.
import { expect, test } from "bun:test"
import { Effect, Fiber, Layer, Schedule } from "effect"
import { SqlClient } from "effect/sql"
import { DelayQueue, type Taken } from "../src/delay/DelayQueue.ts"
import * as Database from "../src/postgres/Database.ts"
import * as TestDatabase from "../src/postgres/TestDatabase.ts"

const at = (seconds: number) => new Date(Date.UTC(2026, 0, 1) + seconds * 1_000)
const lane = (group: string, key: string) => ({ group, key })

const table = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`
    create table delays (group_id text, key text, due_at timestamptz not null, holder text, arrivals integer not null,
      primary key (group_id, key))`
)

const using = (test: (queue: DelayQueue["Service"]) => Effect.Effect<void, unknown>): Promise<void> =>
  TestDatabase.run(
    Effect.gen(function* () {
      yield* table
      yield* Effect.flatMap(DelayQueue, test).pipe(Effect.provide(DelayQueue.layerPostgres("delays")))
    })
  )

const takeAt = (
  queue: DelayQueue["Service"],
  seconds: number,
  options: { perGroup?: number; of?: ReadonlyArray<string>; except?: ReadonlyArray<string> } = {}
) => queue.take({ now: at(seconds), leaseMs: 30_000, limit: 100, perGroup: 10, of: "all", except: [], ...options })
const names = (taken: ReadonlyArray<Taken>) => taken.map(({ group, key }) => `${group}/${key}`).toSorted()
const only = (taken: ReadonlyArray<Taken>) => {
  const [first] = taken
  if (first === undefined || taken.length > 1) throw new Error(`expected one, not ${names(taken).join(", ")}`)
  return first
}

test("what is due is taken once, each group's share of it", () =>
  using((queue) =>
    Effect.gen(function* () {
      yield* queue.put([lane("A", "1"), lane("A", "2"), lane("A", "3"), lane("B", "1"), lane("C", "1")], {
        at: at(0),
        hurry: false
      })
      yield* queue.put([lane("D", "1")], { at: at(10), hurry: false })
      const first = yield* takeAt(queue, 0, { perGroup: 2, except: ["C"] })
      expect(names(first).map((name) => name[0])).toEqual(["A", "A", "B"])
      expect((yield* takeAt(queue, 0)).length).toBe(2)
      expect(yield* takeAt(queue, 9)).toEqual([])
      expect(names(yield* takeAt(queue, 10))).toEqual(["D/1"])
    })
  ))

test("of groups that are named, only theirs is taken", () =>
  using((queue) =>
    Effect.gen(function* () {
      yield* queue.put([lane("A", "1"), lane("B", "1"), lane("B", "2"), lane("C", "1")], { at: at(0), hurry: false })
      expect(yield* takeAt(queue, 0, { of: [] })).toEqual([])
      expect(names(yield* takeAt(queue, 0, { of: ["B", "C", "B", "D"], except: ["C"], perGroup: 1 }))).toEqual([
        expect.stringMatching(/^B\/[12]$/)
      ])
      expect(names(yield* takeAt(queue, 0, { of: ["A"] }))).toEqual(["A/1"])
      expect((yield* takeAt(queue, 0)).length).toBe(2)
    })
  ))

test("what came while somebody was at work is looked at afterwards; else the end is the end", () =>
  using((queue) =>
    Effect.gen(function* () {
      yield* queue.put([lane("A", "1")], { at: at(0), hurry: false })
      const first = only(yield* takeAt(queue, 0))
      yield* queue.put([lane("A", "1")], { at: at(1), hurry: true })
      // Nobody else, however much it hurries.
      expect(yield* takeAt(queue, 1)).toEqual([])
      yield* queue.done(first, at(2))
      const second = only(yield* takeAt(queue, 2))
      yield* queue.done(second, at(3))
      expect(yield* takeAt(queue, 1_000)).toEqual([])
    })
  ))

test("what waits keeps its time, unless it hurries", () =>
  using((queue) =>
    Effect.gen(function* () {
      yield* queue.put([lane("A", "1")], { at: at(0), hurry: false })
      yield* queue.again(only(yield* takeAt(queue, 0)), at(100))
      yield* queue.put([lane("A", "1")], { at: at(1), hurry: false })
      expect(yield* takeAt(queue, 99)).toEqual([])
      yield* queue.put([lane("A", "1")], { at: at(50), hurry: true })
      expect(names(yield* takeAt(queue, 50))).toEqual(["A/1"])
    })
  ))

test("who is silent until the lease ends is replaced, and does not count any more", () =>
  using((queue) =>
    Effect.gen(function* () {
      yield* queue.put([lane("A", "1")], { at: at(0), hurry: false })
      const dead = only(yield* takeAt(queue, 0))
      expect(yield* queue.holds(dead)).toBe(true)
      const next = only(yield* takeAt(queue, 30))
      expect([yield* queue.holds(dead), yield* queue.holds(next)]).toEqual([false, true])
      yield* queue.done(dead, at(30))
      yield* queue.again(dead, at(30))
      expect(yield* takeAt(queue, 31)).toEqual([])
      yield* queue.drop("A")
      expect(yield* takeAt(queue, 1_000)).toEqual([])
    })
  ))

test("a group that is forgotten while its keys are put waits for who puts them, and not in a circle", () =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.freshWithLastingDeadlocks
    const database = Database.layer({ url, maxConnections: 4, applicationName: "test", statementTimeoutMs: 5_000 })
    yield* Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* table
      const queue = yield* DelayQueue
      const lanes = ["1", "2", "3", "4", "5"].map((key) => lane("A", key))
      const putting = queue.put(lanes, { at: at(0), hurry: true })
      yield* putting
      // By their place in the table the keys come in another order; and who knows that it is small reads it so.
      yield* sql`update delays set arrivals = 1 where key in ('1', '2')`
      yield* sql`analyze delays`
      // Somebody has the last one, and gives it back: until then both stand, with what they have by then.
      const other = yield* sql.reserve
      const waiting = (statements: number) =>
        Effect.repeat(
          sql`select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`,
          { until: (rows) => rows.length >= statements, schedule: Schedule.spaced("5 millis"), times: 2_000 }
        )
      yield* other.execute("begin", [], undefined)
      yield* other.execute("select from delays where key = '5' for update", [], undefined)
      const dropping = yield* Effect.forkScoped(queue.drop("A"))
      yield* waiting(1)
      const again = yield* Effect.forkScoped(putting)
      yield* waiting(2)
      yield* other.execute("rollback", [], undefined)
      yield* Fiber.join(dropping)
      yield* Fiber.join(again)
      expect(names(yield* takeAt(queue, 0))).toEqual(lanes.map(({ key }) => `A/${key}`))
    }).pipe(Effect.scoped, Effect.provide(DelayQueue.layerPostgres("delays").pipe(Layer.provideMerge(database))))
  }).pipe(Effect.scoped, Effect.withTracerEnabled(false), Effect.runPromise))
