// What lost a race against another transaction runs again, and as a whole.
import { expect, test } from "bun:test"
import { Effect } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import * as Database from "../src/postgres/Database.ts"
import * as TestDatabase from "../src/postgres/TestDatabase.ts"

const deadlock = new SqlError.SqlError({
  reason: new SqlError.DeadlockError({ cause: new Error("deadlock detected") })
})

/** Loses so many times before it gets through; says when it begins. */
const losing = (times: number, tells: () => void) => {
  let lost = 0
  return Effect.suspend(() => {
    tells()
    return ++lost > times ? Effect.succeed("through") : Effect.fail(deadlock)
  })
}

test("a transaction that lost runs again, and what it wrote before is gone", () =>
  TestDatabase.run(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`create table notes (note text)`
      let begun = 0
      const work = losing(3, () => (begun += 1))
      yield* Database.transaction(Effect.andThen(sql`insert into notes values ('once')`, work))
      expect([begun, yield* sql`select note from notes`]).toEqual([4, [{ note: "once" }]])
    })
  ))

test("a transaction within one that lost is not run again by itself, since that one keeps its locks: all of it is", () =>
  TestDatabase.run(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`create table notes (note text)`
      const begun: Array<string> = []
      const inner = Database.transaction(
        Effect.andThen(
          sql`insert into notes values ('inner')`,
          losing(2, () => begun.push("inner"))
        )
      )
      const outer = Effect.gen(function* () {
        begun.push("outer")
        yield* sql`insert into notes values ('outer')`
        return yield* inner
      })
      expect(yield* Database.transaction(outer)).toBe("through")
      expect(begun).toEqual(["outer", "inner", "outer", "inner", "outer", "inner"])
      expect(yield* sql`select note from notes order by note`).toEqual([{ note: "inner" }, { note: "outer" }])
    })
  ))
