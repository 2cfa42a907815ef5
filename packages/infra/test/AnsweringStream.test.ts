// A connection to a real Postgres over a link that is slow, silent and cut: what takes its time is waited for, and nothing for ever.
import { afterAll, describe, expect, test } from "bun:test"
import { Effect, Redacted, Schedule } from "effect"
import { SqlClient } from "effect/sql"
import { hostOf, links, through } from "../../../tests/support/Links.ts"
import { freePort } from "../../../tests/support/Processes.ts"
import * as AnsweringStream from "../src/postgres/AnsweringStream.ts"
import * as Database from "../src/postgres/Database.ts"
import * as TestDatabase from "../src/postgres/TestDatabase.ts"

const between = await links("connections to Postgres")
afterAll(() => between?.stop(), 30_000)

test("is one over TCP where the URL says so, as the driver reads it", () => {
  const cases: ReadonlyArray<readonly [string, unknown]> = [
    ["postgres://shop:secret@db.example:5433/shop", { host: "db.example", port: 5433 }],
    ["postgres://db.example/shop", { host: "db.example", port: 5432 }],
    ["postgres://[::1]/shop?port=5434", { host: "::1", port: 5434 }],
    ["postgres://elsewhere/shop?host=db.example", { host: "db.example", port: 5432 }],
    ["postgres://127.0.0.1:5433/shop?host=/run/postgresql", undefined],
    ["postgres://%2Frun%2Fpostgresql/shop", undefined]
  ]
  for (const [url, expected] of cases) expect<unknown>([url, AnsweringStream.tcpOf(url)]).toEqual([url, expected])
})

describe.skipIf(between === undefined)("a connection to Postgres", () => {
  test(
    "is lost when nobody answers on it, and not while somebody does, or when nobody asks",
    () =>
      Effect.gen(function* () {
        const { url } = yield* TestDatabase.fresh
        const link = yield* Effect.promise(async () =>
          between?.to("postgres", hostOf(Redacted.value(url)), await freePort())
        )
        if (link === undefined) throw new Error("there is no link")
        const linked = Redacted.make(through(Redacted.value(url), link))
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const sleep = (seconds: number) => sql`select pg_sleep(${seconds})::text as slept`
          const backend = Effect.map(sql<{ pid: number }>`select pg_backend_pid() as pid`, ([row]) => row?.pid)
          const first = yield* backend
          yield* Effect.sleep("1500 millis")
          yield* Effect.promise(() => link.slow(200))
          yield* sql.withTransaction(Effect.andThen(sleep(0.4), sleep(0.4)))
          yield* Effect.promise(link.mend)
          expect(yield* backend).toBe(first)

          const outages = [
            () => link.silence("downstream"),
            () => link.silence("upstream"),
            () => link.silence(),
            link.cut
          ]
          for (const worsen of outages) {
            const before = yield* backend
            yield* Effect.promise(worsen)
            const begun = Date.now()
            const lost = yield* Effect.flip(sql.withTransaction(sleep(0)))
            // Once for the connection that was there, and at most once for another one that does not come about.
            expect([Database.isUnreachable(lost), Date.now() - begun < 8_000]).toEqual([true, true])
            yield* Effect.promise(link.mend)
            const after = yield* Effect.retry(backend, { times: 50, schedule: Schedule.spaced("100 millis") })
            expect(after).not.toBe(before)
          }
        }).pipe(
          Effect.provide(
            Database.layer({ url: linked, maxConnections: 1, applicationName: "test", answerWithinMs: 1_000 })
          )
        )
      }).pipe(Effect.scoped, Effect.withTracerEnabled(false), Effect.runPromise),
    60_000
  )
})
