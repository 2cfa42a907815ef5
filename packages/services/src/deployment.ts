// Schemas are compiled instead of interpreted: decoding and encoding is on the way of every request.
import "effect/schema/SchemaJITCompiler/enable"
import { Config, Context, Duration, Effect, Layer, Option, Redacted } from "effect"
import { FetchHttpClient, HttpRouter, HttpServer } from "effect/http"
import type { SqlClient, SqlError } from "effect/sql"
import { Authorizer } from "@merkato/infra/authorizer/Authorizer"
import { KeyRing } from "@merkato/infra/auth/KeyRing"
import { Passwords } from "@merkato/infra/auth/Passwords"
import { Secrets } from "@merkato/infra/auth/Secrets"
import { Tokens } from "@merkato/infra/auth/Tokens"
import * as Migrations from "@merkato/infra/postgres/Migrations"
import * as Database from "@merkato/infra/postgres/Database"
import * as PostgresEventBus from "@merkato/infra/events/PostgresEventBus"
import { EventBus } from "@merkato/infra/events/EventBus"
import * as BunHttpServer from "@merkato/infra/http/BunHttpServer"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { ServiceTokens } from "@merkato/rpc/contract/ServiceCall"
import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { IdentityRpc } from "@merkato/rpc/identity/IdentityRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { NotificationsRpc } from "@merkato/rpc/notifications/NotificationsRpc"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import { RiskRpc } from "@merkato/rpc/risk/RiskRpc"
import { type ContextName, contexts } from "./contexts.ts"
import * as Gateway from "./gateway/index.ts"
import * as ProductCache from "./gateway/ProductCache.ts"
import * as RestGateway from "./payments/RestGateway.ts"
import * as Psp from "./psp/index.ts"

/** The contract of each context, by the context's name. */
export const contracts = {
  identity: IdentityRpc,
  catalogue: CatalogueRpc,
  pricing: PricingRpc,
  cart: CartRpc,
  inventory: InventoryRpc,
  orders: OrdersRpc,
  payments: PaymentsRpc,
  risk: RiskRpc,
  notifications: NotificationsRpc
} as const satisfies Record<ContextName, unknown>

/** Connections of the contexts' pool; 16 unless told. */
const defaultConnections = 16

/** The bus has connections of its own: a consumer holds one while a context works on its batch. */
const busConnections = 6

export const security = (dataDir: string) =>
  Layer.mergeAll(Tokens.layer, Secrets.layer, Passwords.layer).pipe(Layer.provideMerge(KeyRing.layer(dataDir)))

/** Services of one shop prove themselves to each other with its own keys. */
const serviceTokens = Layer.effect(
  ServiceTokens,
  Effect.map(Tokens, (tokens) => ({ issue: tokens.issueForServices, verify: tokens.verifyService }))
)

/** The bus keeps events for 7 days (contracts: topics); what is older goes, a bounded number at a time. */
const retention = Layer.effectDiscard(
  Effect.gen(function* () {
    const bus = yield* EventBus
    yield* Effect.forkScoped(
      Effect.forever(
        Effect.sleep("10 minutes").pipe(
          Effect.andThen(bus.expire(Duration.days(7))),
          Effect.catchTag("BusUnavailable", (error) => Effect.logWarning("Retention of the bus pauses", error))
        )
      )
    )
  })
)

type BusLayer = Layer.Layer<EventBus, SqlError.SqlError>
const buses = new Map<string, BusLayer>()

/** The bus at a database. The same URL is the same Layer, so that all who share a process share its connections and wake-ups. */
const eventBus = (url: Redacted.Redacted): BusLayer => {
  const known = buses.get(Redacted.value(url))
  if (known !== undefined) return known
  const made = retention.pipe(
    Layer.provideMerge(PostgresEventBus.layer),
    Layer.provide(Database.layer({ url, maxConnections: busConnections, applicationName: "merkato-bus" }))
  )
  buses.set(Redacted.value(url), made)
  return made
}

/** The caches of the edge, kept right through the bus. */
export const caches = (bus: Redacted.Redacted) => ProductCache.layer.pipe(Layer.provide(eventBus(bus)))

/** Brings the schemas of these contexts up to date, and that of the bus. */
export const migrate = (names: ReadonlyArray<ContextName>, url: Redacted.Redacted) =>
  Effect.forEach(
    [Migrations.run(PostgresEventBus.migrations), ...names.map((name) => contexts[name].migrate)],
    (run) => run,
    {
      concurrency: 4,
      discard: true
    }
  ).pipe(
    Effect.provide(
      Database.layer({ url, maxConnections: 4, applicationName: "merkato-migrations", statementTimeoutMs: 0 })
    )
  )

export interface DatabaseUrls {
  /** Of the contexts; each may have its own instead (its role may see its own schema only). */
  readonly contexts: (name: ContextName) => Redacted.Redacted
  readonly bus: Redacted.Redacted
  readonly maxConnections?: number
}

/** Contexts that answer in this process. Those with the same database share a pool. */
export const running = (names: ReadonlyArray<ContextName>, databases: DatabaseUrls) => {
  const pools = new Map<string, ReturnType<typeof Database.layer>>()
  const pool = (name: ContextName) => {
    const url = databases.contexts(name)
    const known = pools.get(Redacted.value(url))
    if (known !== undefined) return known
    const made = Database.layer({
      url,
      maxConnections: databases.maxConnections ?? defaultConnections,
      applicationName: "merkato"
    })
    pools.set(Redacted.value(url), made)
    return made
  }
  return names
    .map((name) => layerOf(name).pipe(Layer.provide(pool(name))))
    .reduce<Layer.Layer<never, ContextFailure | SqlError.SqlError, Exclude<ContextNeeds, SqlClient.SqlClient>>>(
      (all, layer) => Layer.merge(all, layer),
      Layer.empty
    )
    .pipe(Layer.provide(eventBus(databases.bus)), Layer.provide(Authorizer.layerRules))
}

type AnyContextLayer = (typeof contexts)[ContextName]["layer"]
type ContextFailure = Layer.Error<AnyContextLayer>
type ContextNeeds = Layer.Services<AnyContextLayer>

/** One context's Layer, as wide as the widest of them. */
const layerOf = (name: ContextName): Layer.Layer<never, ContextFailure, ContextNeeds> => contexts[name].layer

/** Where contexts that are not here answer: names, and the base URL of their process. */
export interface Peer {
  readonly names: ReadonlyArray<ContextName>
  readonly baseUrl: string
}

/** Contexts that answer elsewhere. */
export const remote = (peers: ReadonlyArray<Peer>) =>
  peers
    .flatMap(({ names, baseUrl }) => names.map((name) => contracts[name].remote(baseUrl)))
    .reduce((all, layer) => Layer.merge(all, layer), Layer.empty as ReturnType<typeof IdentityRpc.remote>)
    .pipe(Layer.provide(serviceTokens), Layer.provide(FetchHttpClient.layer))

/** Lets other processes call these contexts, under `/rpc`. */
export const rpcRoutes = (names: ReadonlyArray<ContextName>) =>
  Layer.mergeAll(Layer.empty, ...names.map((name) => contracts[name].http)).pipe(Layer.provide(serviceTokens))

/** Readiness: everybody who is needed answers. */
export const readiness = (needs: ReadonlyArray<string>) =>
  Layer.effectContext(
    Effect.map(Switchboard, (switchboard) =>
      Context.make(
        Gateway.Readiness,
        Effect.map(switchboard.connected, (connected) => needs.filter((need) => !connected.includes(need)))
      )
    )
  )

/** The needs of contexts, and of the edge when it is here. */
export const needsOf = (names: ReadonlyArray<ContextName>, edge: boolean): ReadonlyArray<string> => [
  ...new Set([
    ...names.flatMap((name) => contexts[name].needs),
    ...(edge ? Gateway.needs.map((need) => need.contract) : [])
  ])
]

/** Everything a process serves over HTTP, on one port. */
export const http = <E, R>(routes: Layer.Layer<never, E, R>, options: BunHttpServer.Options) =>
  HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provideMerge(
      Layer.unwrap(
        Effect.map(Gateway.ownHeaders, (problemHeaders) => BunHttpServer.layer({ ...options, problemHeaders }))
      )
    ),
    Layer.provideMerge(Gateway.Sampling)
  )

/** The built-in test gateway on a port of its own, and payments' way to it. Only for shops that have no real provider. */
const builtInGateway = (url: Redacted.Redacted) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const { address } = yield* HttpServer.HttpServer
      return RestGateway.layer(`http://127.0.0.1:${"port" in address ? address.port : 0}`)
    })
  ).pipe(
    Layer.provide(FetchHttpClient.layer),
    Layer.provideMerge(
      HttpRouter.serve(Psp.PspRoutes, { disableLogger: true, disableListenLog: true }).pipe(
        Layer.provide(Database.layer({ url, maxConnections: 4, applicationName: "merkato-psp" })),
        Layer.provideMerge(BunHttpServer.layer({ port: 0, drainTimeout: Duration.millis(200) }))
      )
    ),
    Layer.fresh
  )

/** Where money is moved: at `MERKATO_PAYMENT_GATEWAY_URL`, else at the built-in test gateway. */
export const paymentGateway = (url: Redacted.Redacted) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const elsewhere = yield* Config.option(Config.String("MERKATO_PAYMENT_GATEWAY_URL"))
      if (Option.isSome(elsewhere)) return RestGateway.layer(elsewhere.value).pipe(Layer.provide(FetchHttpClient.layer))
      yield* Psp.migrate.pipe(
        Effect.provide(Database.layer({ url, maxConnections: 1, applicationName: "merkato-migrations" }))
      )
      return builtInGateway(url)
    })
  )
