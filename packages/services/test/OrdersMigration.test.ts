import { expect, test } from "bun:test"
import { copyFileSync, mkdirSync } from "node:fs"
import { pathToFileURL } from "node:url"
import { Effect, Logger } from "effect"
import { SqlClient } from "effect/sql"
import * as Database from "@merkato/infra/postgres/Database"
import * as Migrations from "@merkato/infra/postgres/Migrations"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import * as SagaStore from "../src/orders/SagaStore.ts"
import { temporaryFolder } from "../../../tests/support/Processes.ts"

const migrations = new URL("../src/orders/migrations/", import.meta.url)

test(
  "a process from before there was checkout can be shown and taken over, though its token is not known",
  () =>
    Effect.gen(function* () {
      const { url } = yield* TestDatabase.fresh
      const folder = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const first = "0001_orders.sql"
        mkdirSync(`${folder.path}/migrations`)
        copyFileSync(new URL(first, migrations), `${folder.path}/migrations/${first}`)
        yield* Migrations.run({ schema: "orders", folder: pathToFileURL(`${folder.path}/migrations`), common: false })
        const at = new Date(1_000)
        const request = { caller: "ADA", operation: "pay", key: "key", payloadHash: "hash" }
        yield* sql`
        insert into orders.orders values ('ORDER-1', 'ADA', 'eu', 'PENDING', 100, 0, 0, 0, 100, 'EUR', 'RES-1', 'PAY-1',
          false, 2, ${at}, ${at})`
        for (const [sagaId, step] of [
          ["SAGA-DONE", "done"],
          ["SAGA-OPEN", "authorise"]
        ]) {
          yield* sql`
          insert into orders.sagas values (${sagaId}, 'ORDER-1', ${step}, 1, 'PAY-1', 'OWNER', 1, ${at}, null,
            ${JSON.stringify(request)}::jsonb, ${at})`
        }

        yield* Migrations.run({ schema: "orders", folder: migrations, common: false })
        const sagas = yield* SagaStore.make
        const told = { kind: "pay", orderId: "ORDER-1", attemptId: "PAY-1", request }
        const work = {
          principal: { userId: "ADA", role: "shopper", region: "eu" },
          reservationId: "RES-1",
          paymentToken: null
        }
        expect(yield* sagas.find("SAGA-DONE")).toMatchObject({ ...told, step: "done", work })
        expect(yield* sagas.takeOver("ANOTHER", 20)).toMatchObject([
          { ...told, sagaId: "SAGA-OPEN", step: "authorise", owner: "ANOTHER", epoch: 2, work }
        ])
      }).pipe(Effect.provide(Database.layer({ url, maxConnections: 1, applicationName: "test" })))
    }).pipe(Effect.scoped, Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Effect.runPromise),
  60_000
)
