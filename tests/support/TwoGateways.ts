import { Effect, Redacted } from "effect"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { contextNames } from "@merkato/services/contexts"
import { Client, text, tokenFor } from "./Client.ts"
import { heldOpen } from "./HeldOpen.ts"
import { type Running, startApp, temporaryFolder } from "./Processes.ts"

/** The shop as one service with all contexts behind two gateways. */
export interface TwoGateways {
  readonly gateways: readonly [Running, Running]
  readonly dataDir: string
  readonly token: (userId: string, role?: "shopper" | "admin") => Promise<string>
  /** A way in through the first gateway. */
  readonly as: (userId: string, role?: "shopper" | "admin") => Promise<Client>
  /** A product with so many units on the shelf, for 1.00 USD each. */
  readonly onShelf: (units: number) => Promise<string>
}

const open = Effect.gen(function* () {
  const { url } = yield* TestDatabase.fresh
  const { path: dataDir } = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) =>
    Effect.sync(remove)
  )
  const database = { DATABASE_URL: Redacted.value(url), MERKATO_TRACE_SAMPLING: "0" }
  const start = (app: "service" | "gateway", args: ReadonlyArray<string>) =>
    Effect.acquireRelease(
      Effect.promise(() => startApp(app, ["--data-dir", dataDir, ...args], database)),
      (running) => Effect.promise(() => running.end("SIGTERM"))
    )
  const service = yield* start("service", ["--contexts", contextNames.join(",")])
  const gateway = start("gateway", ["--peer", `${contextNames.join(",")}=${service.url}`])
  const gateways = yield* Effect.all([gateway, gateway], { concurrency: 2 })
  const token: TwoGateways["token"] = (userId, role = "shopper") => tokenFor(dataDir, userId, role)
  const as: TwoGateways["as"] = async (userId, role) => new Client(gateways[0].url, await token(userId, role))
  let products = 0
  return {
    gateways,
    dataDir,
    token,
    as,
    onShelf: async (units) => {
      const admin = await as("ADMIN", "admin")
      const nth = ++products
      const product = { sku: `LIVE-${nth}`, name: `Product ${nth}`, category: "Test", price: 1, currency: "USD" }
      const productId = text(await admin.post("/api/v1/products", product), "productId")
      await admin.post(`/api/v1/inventory/${productId}/adjustments`, { delta: units, reason: "delivery" })
      return productId
    }
  } satisfies TwoGateways
})

/** Opens it for the tests of a file, and closes it after them. */
export const twoGateways = (): (() => TwoGateways) => heldOpen(open, 90_000)
