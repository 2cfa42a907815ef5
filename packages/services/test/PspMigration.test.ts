import { expect, test } from "bun:test"
import { copyFileSync, mkdirSync } from "node:fs"
import { pathToFileURL } from "node:url"
import { Effect, Logger } from "effect"
import { SqlClient } from "effect/sql"
import * as Database from "@merkato/infra/postgres/Database"
import * as Migrations from "@merkato/infra/postgres/Migrations"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import * as Psp from "../src/psp/index.ts"
import { gatewayRules } from "../../../tests/support/GatewayBooks.ts"
import { temporaryFolder } from "../../../tests/support/Processes.ts"

test("a book from before there were two gateways is REST's, with a ledger that says the same", () =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.fresh
    const folder = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
    yield* Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const first = "0001_attempts.sql"
      mkdirSync(`${folder.path}/migrations`)
      copyFileSync(new URL(`../src/psp/migrations/${first}`, import.meta.url), `${folder.path}/migrations/${first}`)
      yield* Migrations.run({ schema: "psp", folder: pathToFileURL(`${folder.path}/migrations`), common: false })
      const at = new Date(0)
      for (const [attemptId, amount, currency, status] of [
        ["HELD", "12.50", "USD", "authorised"],
        ["TAKEN", "7", "JPY", "captured"],
        ["REFUSED", "1.234", "KWD", "declined"],
        ["VOIDED", "3.00", "EUR", "voided"],
        ["NEVER-CAME", "0", "", "voided"]
      ] as const) {
        yield* sql`
          insert into psp.attempts (attempt_id, order_id, amount, currency, status, created_at, updated_at)
          values (${attemptId}, 'ORDER', ${amount}::text::numeric, ${currency}, ${status}, ${at}, ${at})`
      }

      yield* Psp.migrate
      for (const [what, violations] of gatewayRules(sql)) expect([what, yield* violations]).toEqual([what, []])
      const balances = yield* sql`
        select gateway, account, currency, sum(amount)::float8 as amount from psp.ledger
        group by 1, 2, 3 having sum(amount) <> 0 order by 3, 2`
      expect(balances).toEqual([
        { gateway: "rest", account: "merchant", currency: "JPY", amount: 7 },
        { gateway: "rest", account: "shopper", currency: "JPY", amount: -7 },
        { gateway: "rest", account: "held", currency: "USD", amount: 12.5 },
        { gateway: "rest", account: "shopper", currency: "USD", amount: -12.5 }
      ])
    }).pipe(Effect.provide(Database.layer({ url, maxConnections: 1, applicationName: "test" })))
  }).pipe(Effect.scoped, Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Effect.runPromise))
