import { Effect, Layer, Redacted } from "effect"
import { UserId } from "@merkato/domain/kernel/Ids"
import { Principal } from "@merkato/domain/kernel/RequestContext"
import { KeyRing } from "@merkato/infra/auth/KeyRing"
import { Tokens } from "@merkato/infra/auth/Tokens"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import * as ServiceClient from "@merkato/rpc/client/ServiceClient"
import { ServiceTokens } from "@merkato/rpc/contract/ServiceCall"
import { contextNames } from "@merkato/services/contexts"
import { Client, text, tokenFor } from "./Client.ts"
import { heldOpen } from "./HeldOpen.ts"
import { freePort, startApp, temporaryFolder } from "./Processes.ts"

type Role = "shopper" | "admin"

const principalOf = (userId: string, role: Role) => new Principal({ userId: UserId.make(userId), role, region: "us" })

/** The edge, and one service with every context behind it: a shop that is called over REST and GraphQL, and over RPC. */
export class ServedShop {
  #products = 0

  constructor(
    readonly url: string,
    readonly rpcUrl: string,
    readonly dataDir: string
  ) {}

  /** Somebody who has not signed in. */
  get anyone(): Client {
    return new Client(this.url)
  }

  token(userId: string, role: Role = "shopper"): Promise<string> {
    return tokenFor(this.dataDir, userId, role)
  }

  async as(userId: string, role: Role = "shopper"): Promise<Client> {
    return new Client(this.url, await this.token(userId, role))
  }

  /** A new product for 1.00 USD, with so many units on the shelf. */
  async product(units: number): Promise<string> {
    const admin = await this.as("ADMIN", "admin")
    const product = { sku: `SKU-${++this.#products}`, name: "Tea", category: "Test", price: 1, currency: "USD" }
    const productId = text(await admin.post("/api/v1/products", product), "productId")
    await admin.post(`/api/v1/inventory/${productId}/adjustments`, { delta: units, reason: "delivery" })
    return productId
  }

  /** What comes of asking the orders over RPC, on behalf of somebody. */
  rpc<A, E>(userId: string, role: Role, ask: (orders: OrdersRpc["Service"]) => Effect.Effect<A, E>): Promise<A | E> {
    const tokens = Layer.effect(
      ServiceTokens,
      Effect.map(Tokens, ({ issueForServices: issue, verifyService: verify }) => ({ issue, verify }))
    ).pipe(Layer.provide(Tokens.layer.pipe(Layer.provide(KeyRing.layer(this.dataDir)))), Layer.orDie)
    return Effect.flatMap(OrdersRpc, ask).pipe(
      ServiceClient.onBehalfOf(principalOf(userId, role)),
      Effect.provide(ServiceClient.layer(OrdersRpc, this.rpcUrl).pipe(Layer.provide(tokens))),
      Effect.catch((error) => Effect.succeed(error)),
      Effect.runPromise
    )
  }
}

/** Opens such a shop for the tests of a file, and closes it after them. */
export const servedShop = (environment: () => Readonly<Record<string, string>>): (() => ServedShop) =>
  heldOpen(
    Effect.gen(function* () {
      const { url } = yield* TestDatabase.fresh
      const folder = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
      const [port, rpcPort] = yield* Effect.promise(() => Promise.all([freePort(), freePort()]))
      const rpcUrl = `http://127.0.0.1:${rpcPort}`
      const all = contextNames.join(",")
      const starting = (app: "service" | "gateway", args: ReadonlyArray<string>) =>
        Effect.acquireRelease(
          Effect.promise(() =>
            startApp(app, ["--data-dir", folder.path, ...args], { DATABASE_URL: Redacted.value(url), ...environment() })
          ),
          (app) => Effect.promise(() => app.end("SIGTERM"))
        )
      yield* starting("service", ["--port", String(rpcPort), "--contexts", all])
      const edge = yield* starting("gateway", ["--port", String(port), "--peer", `${all}=${rpcUrl}`])
      return new ServedShop(edge.url, rpcUrl, folder.path)
    }),
    90_000
  )
