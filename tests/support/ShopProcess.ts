import { Effect, Layer, Redacted } from "effect"
import type { SqlClient } from "effect/sql"
import { UserId } from "@merkato/domain/kernel/Ids"
import { Principal } from "@merkato/domain/kernel/RequestContext"
import { KeyRing } from "@merkato/infra/auth/KeyRing"
import { Tokens } from "@merkato/infra/auth/Tokens"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { patientCircuits } from "./Circuits.ts"
import { Client, text } from "./Client.ts"
import { type Running, startApp, temporaryFolder } from "./Processes.ts"

/** A shop in a process of its own, on a database that the test can look into. */
export interface ShopProcess {
  /** Where it answers now. */
  readonly url: () => string
  readonly running: () => Running
  /** The way of somebody into the shop; still good after a restart, unless the port has changed. */
  readonly as: (userId: string, role?: "shopper" | "admin") => Promise<Client>
  /** A new product with so many units on the shelf, for 1.00 USD each. */
  readonly onShelf: (units: number) => Promise<string>
  readonly database: Redacted.Redacted
  /** Looks into the shop's database. */
  readonly sql: <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>) => Promise<A>
  /** Ends the process as told, and starts it again on the same data. */
  readonly restart: (signal: NodeJS.Signals) => Promise<void>
}

let products = 0

/** Runs a test against a real process of the shop; the gateways of its shoppers may fail as often as they like. */
export const withShop = (
  test: (shop: ShopProcess) => Promise<void>,
  environment: Readonly<Record<string, string>> = {}
): Promise<void> =>
  Effect.gen(function* () {
    const database = yield* TestDatabase.fresh
    const folder = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
    patientCircuits(folder.path)
    const start = () =>
      startApp("shop", ["--no-seed", "--data-dir", folder.path], {
        DATABASE_URL: Redacted.value(database.url),
        MERKATO_TRACE_SAMPLING: "0",
        ...environment
      })
    let running: Running = yield* Effect.promise(start)
    yield* Effect.addFinalizer(() => Effect.promise(() => running.end("SIGTERM")))
    const services = yield* Layer.build(
      Layer.mergeAll(
        Database.layer({ url: database.url, maxConnections: 4, applicationName: "test" }),
        Tokens.layer.pipe(Layer.provide(KeyRing.layer(folder.path)))
      )
    )
    const run = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient | Tokens>) =>
      Effect.runPromise(Effect.provideContext(effect, services))
    const shop: ShopProcess = {
      url: () => running.url,
      running: () => running,
      as: async (userId, role = "shopper") => {
        const principal = new Principal({ userId: UserId.make(userId), role, region: "us" })
        return new Client(running.url, await run(Effect.flatMap(Tokens, (tokens) => tokens.issue(principal, 3_600))))
      },
      onShelf: async (units) => {
        const admin = await shop.as("ADMIN", "admin")
        const nth = ++products
        const product = { sku: `SKU-${nth}`, name: `Product ${nth}`, category: "Test", price: 1, currency: "USD" }
        const productId = text(await admin.post("/api/v1/products", product), "productId")
        await admin.post(`/api/v1/inventory/${productId}/adjustments`, { delta: units, reason: "delivery" })
        return productId
      },
      database: database.url,
      sql: run,
      restart: async (signal) => {
        await running.end(signal)
        running = await start()
      }
    }
    yield* Effect.promise(() => test(shop))
  }).pipe(Effect.scoped, Effect.runPromise)
