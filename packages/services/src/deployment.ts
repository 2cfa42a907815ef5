// Schemas are compiled instead of interpreted: decoding and encoding is on the way of every request.
import "effect/schema/SchemaJITCompiler/enable"
import { type Config, Context, type Duration, Effect, Layer, Redacted } from "effect"
import { FetchHttpClient, HttpRouter } from "effect/http"
import type { SqlClient } from "effect/sql"
import * as AuthorizerWhereNamed from "@merkato/infra/authorizer/AuthorizerWhereNamed"
import { KeyRing } from "@merkato/infra/auth/KeyRing"
import { Encryption } from "@merkato/infra/auth/Encryption"
import { Passwords } from "@merkato/infra/auth/Passwords"
import { Secrets } from "@merkato/infra/auth/Secrets"
import { Tokens } from "@merkato/infra/auth/Tokens"
import { KeepsHouse } from "@merkato/infra/context/BoundedContext"
import { unending } from "@merkato/infra/context/Unending"
import * as Migrations from "@merkato/infra/postgres/Migrations"
import * as Database from "@merkato/infra/postgres/Database"
import type { ServerUnreachable } from "@merkato/infra/config/ServerUnreachable"
import * as PostgresEventBus from "@merkato/infra/events/PostgresEventBus"
import * as RedisWhereNamed from "@merkato/infra/cache/RedisWhereNamed"
import * as Lag from "@merkato/infra/events/Lag"
import * as AlarmsWhereNamed from "@merkato/infra/delay/AlarmsWhereNamed"
import * as MqttWhereNamed from "@merkato/infra/mqtt/MqttWhereNamed"
import * as CassandraWhereNamed from "@merkato/infra/cassandra/CassandraWhereNamed"
import * as ClickHouseWhereNamed from "@merkato/infra/clickhouse/ClickHouseWhereNamed"
import * as OpenSearchWhereNamed from "@merkato/infra/opensearch/OpenSearchWhereNamed"
import * as BunHttpServer from "@merkato/infra/http/BunHttpServer"
import { Policies } from "@merkato/infra/policy/Policies"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { ServiceTokens } from "@merkato/rpc/contract/ServiceCall"
import { AnalyticsRpc } from "@merkato/rpc/analytics/AnalyticsRpc"
import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { IdentityRpc } from "@merkato/rpc/identity/IdentityRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { NotificationsRpc } from "@merkato/rpc/notifications/NotificationsRpc"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { PartnersRpc } from "@merkato/rpc/partners/PartnersRpc"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import { RiskRpc } from "@merkato/rpc/risk/RiskRpc"
import { type ContextName, contexts } from "./contexts.ts"
import { type BusFailure, chooseRelay, connectors, eventBus, schemasRegistered } from "./eventBackbone.ts"
import * as RemoteReserve from "./gateway/grpc/RemoteReserve.ts"
import * as GrpcServing from "./gateway/grpc/Serving.ts"
import * as Gateway from "./gateway/index.ts"
import * as GatewayPolicies from "./gateway/Policies.ts"
import * as Live from "./gateway/live/Live.ts"
import * as OrderStatuses from "./gateway/OrderStatuses.ts"
import * as ProductCache from "./gateway/ProductCache.ts"

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
  notifications: NotificationsRpc,
  partners: PartnersRpc,
  analytics: AnalyticsRpc
} as const satisfies Record<ContextName, unknown>

/** Connections of the contexts' pool; 16 unless told. */
const defaultConnections = 16

export const security = (dataDir: string) =>
  Layer.mergeAll(Tokens.layer, Encryption.layer(dataDir), Passwords.layer).pipe(
    Layer.provideMerge(Secrets.layer),
    Layer.provideMerge(KeyRing.layer(dataDir))
  )

/** Services of one shop prove themselves to each other with its own keys. */
const serviceTokens = Layer.effect(
  ServiceTokens,
  Effect.map(Tokens, (tokens) => ({ issue: tokens.issueForServices, verify: tokens.verifyService }))
)

/** The policies of a process: one for all its contexts, so that they share circuits. Put it under everything else. */
export const policies = (dataDir: string) => Policies.layer(dataDir)

/** The caches of the edge, kept right through the bus. */
export const caches = (bus: Redacted.Redacted) =>
  Layer.merge(ProductCache.layer, OrderStatuses.layer).pipe(
    Layer.provide(RedisWhereNamed.sharedCache),
    Layer.provide(eventBus(bus))
  )

/** What live connections are told, off the bus. */
export const live = (bus: Redacted.Redacted) => Live.layer.pipe(Layer.provide(eventBus(bus)))

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
    Effect.andThen(chooseRelay(names)),
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

/** The process that keeps house tells how far behind consumer groups are. */
const lagOf = (groups: ReadonlyArray<Lag.Reading>) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      if (yield* KeepsHouse) yield* Effect.forkScoped(unending("the bus", Lag.watch(groups)))
    })
  )

/** Servers on which read models lie, where they are named. */
export const readModelServers = Layer.mergeAll(
  OpenSearchWhereNamed.layer,
  CassandraWhereNamed.layer,
  ClickHouseWhereNamed.layer,
  RedisWhereNamed.connection
)

/** Devices tell of stock, to the process that keeps house. */
const devices = (names: ReadonlyArray<ContextName>) =>
  Layer.unwrap(
    Effect.map(KeepsHouse, (keepsHouse) =>
      keepsHouse && names.includes("inventory") ? MqttWhereNamed.layer : Layer.empty
    )
  )

/** Webhooks that wait are brought to mind by RabbitMQ, where it is named. */
const alarms = (names: ReadonlyArray<ContextName>) =>
  names.includes("partners") ? AlarmsWhereNamed.layer("merkato.webhooks") : Layer.empty

type ReadModelFailure = ServerUnreachable | Config.ConfigError

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
    .reduce<
      Layer.Layer<never, ContextFailure | BusFailure | ReadModelFailure, Exclude<ContextNeeds, SqlClient.SqlClient>>
    >((all, layer) => Layer.merge(all, layer), lagOf(names.flatMap((name) => contexts[name].reads)))
    .pipe(
      Layer.provide(schemasRegistered),
      Layer.provide(connectors(names.map(databases.contexts))),
      Layer.provide(eventBus(databases.bus)),
      Layer.provide(readModelServers),
      Layer.provide(devices(names)),
      Layer.provide(alarms(names)),
      Layer.provide(AuthorizerWhereNamed.layer)
    )
}

type AnyContextLayer = (typeof contexts)[ContextName]["layer"]
type ContextFailure =
  | Layer.Error<AnyContextLayer>
  | Layer.Error<typeof schemasRegistered>
  | Layer.Error<ReturnType<typeof connectors>>
type ContextNeeds = Layer.Services<AnyContextLayer>

/** One context's Layer, as wide as the widest of them. */
const layerOf = (name: ContextName): Layer.Layer<never, ContextFailure, ContextNeeds> => contexts[name].layer

/** Where contexts that are not here answer: names, and the base URL of their process. */
export interface Peer {
  readonly names: ReadonlyArray<ContextName>
  readonly baseUrl: string
}

/** Contexts that answer elsewhere. */
export const remote = (peers: ReadonlyArray<Peer>) => {
  const overRpc = peers
    .flatMap(({ names, baseUrl }) => names.map((name) => contracts[name].remote(baseUrl)))
    .reduce((all, layer) => Layer.merge(all, layer), Layer.empty as ReturnType<typeof IdentityRpc.remote>)
  const known = peers.some(({ names }) => names.includes("inventory"))
    ? RemoteReserve.layer.pipe(Layer.provide(overRpc))
    : overRpc
  return known.pipe(Layer.provide(serviceTokens), Layer.provide(FetchHttpClient.layer))
}

/** Lets other processes call these contexts, under `/rpc`. */
export const rpcRoutes = (names: ReadonlyArray<ContextName>) =>
  Layer.mergeAll(Layer.empty, ...names.map((name) => contracts[name].http)).pipe(Layer.provide(serviceTokens))

/** Answers gRPC for the stock, where a port for it is named and this process knows the stock. */
export const grpc = (
  names: ReadonlyArray<ContextName>,
  { hostname, drainTimeout }: { readonly hostname: string; readonly drainTimeout: Duration.Duration }
) =>
  names.includes("inventory")
    ? GrpcServing.serving({ host: hostname, drainTimeout }).pipe(
        Layer.provide(InventoryRpc.client),
        Layer.provide(Gateway.Sampling),
        Layer.provide(serviceTokens)
      )
    : Layer.empty

/** Lets the edge ask this process for its policies. */
export const policyRoutes = (names: ReadonlyArray<ContextName>) =>
  GatewayPolicies.route(names).pipe(Layer.provide(serviceTokens), Layer.provide(AuthorizerWhereNamed.layer))

/** Whom the edge asks for the policies of other processes. */
export const policyPeers = (peers: ReadonlyArray<Peer>) =>
  GatewayPolicies.peers(peers).pipe(Layer.provide(serviceTokens), Layer.provide(FetchHttpClient.layer))

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
