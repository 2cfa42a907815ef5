// Schemas are compiled instead of interpreted: decoding and encoding is on the way of every request.
import "effect/schema/SchemaJITCompiler/enable"
import { Config, Context, Duration, Effect, Layer, Option, Redacted, Schema } from "effect"
import { FetchHttpClient, HttpRouter, HttpServer } from "effect/http"
import { SqlClient, type SqlError } from "effect/sql"
import { allEvents } from "@merkato/domain/events"
import { Topic } from "@merkato/domain/kernel/Event"
import { Authorizer } from "@merkato/infra/authorizer/Authorizer"
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
import { type BusUnavailable, EventBus } from "@merkato/infra/events/EventBus"
import * as RedisWhereNamed from "@merkato/infra/cache/RedisWhereNamed"
import * as Lag from "@merkato/infra/events/Lag"
import * as KafkaWhereNamed from "@merkato/infra/events/KafkaWhereNamed"
import * as ConfluentSchemaRegistry from "@merkato/infra/events/registry/ConfluentSchemaRegistry"
import { registerAll } from "@merkato/infra/events/registry/SchemaRegistry"
import * as CassandraWhereNamed from "@merkato/infra/cassandra/CassandraWhereNamed"
import * as OpenSearchWhereNamed from "@merkato/infra/opensearch/OpenSearchWhereNamed"
import * as Capture from "@merkato/infra/events/capture/Capture"
import { CaptureImpossible } from "@merkato/infra/events/capture/CaptureImpossible"
import * as Connector from "@merkato/infra/events/capture/Connector"
import { producerOf } from "@merkato/infra/events/Relay"
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
import { Health } from "./gateway/Health.ts"
import * as Gateway from "./gateway/index.ts"
import * as GatewayPolicies from "./gateway/Policies.ts"
import * as Live from "./gateway/live/Live.ts"
import * as OrderStatuses from "./gateway/OrderStatuses.ts"
import * as ProductCache from "./gateway/ProductCache.ts"
import { PaymentGateways } from "./payments/PaymentGateways.ts"
import * as RestGateway from "./payments/RestGateway.ts"
import * as SoapGateway from "./payments/SoapGateway.ts"
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
  notifications: NotificationsRpc,
  partners: PartnersRpc,
  analytics: AnalyticsRpc
} as const satisfies Record<ContextName, unknown>

/** Connections of the contexts' pool; 16 unless told. */
const defaultConnections = 16

/** The bus has connections of its own: a consumer holds one while a context works on its batch. */
const busConnections = 6

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

/** The bus keeps events for 7 days (contracts: topics); what is older goes, a bounded number at a time. */
const retention = Layer.effectDiscard(
  Effect.gen(function* () {
    const bus = yield* EventBus
    if (!(yield* KeepsHouse)) return
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

/** The bus as a log at a database. */
const postgresBus = (url: Redacted.Redacted) =>
  PostgresEventBus.layer.pipe(
    Layer.provide(Database.layer({ url, maxConnections: busConnections, applicationName: "merkato-bus" }))
  )

type BusFailure = SqlError.SqlError | BusUnavailable | ServerUnreachable | Config.ConfigError
type BusLayer = Layer.Layer<EventBus, BusFailure>
const buses = new Map<string, BusLayer>()

/**
 * The bus: Kafka where `KAFKA_BROKERS` names one, else a log at this database. The same URL is the same Layer, so that all
 * who share a process share its connections and wake-ups.
 */
const eventBus = (url: Redacted.Redacted): BusLayer => {
  const known = buses.get(Redacted.value(url))
  if (known !== undefined) return known
  const chosen = Layer.unwrap(
    Effect.gen(function* (): Effect.fn.Return<BusLayer, BusFailure> {
      const given = yield* Config.option(Config.String("KAFKA_BROKERS"))
      return Option.match(given, {
        onNone: () => postgresBus(url),
        // With the topics of all contexts from the start.
        onSome: (brokers) => KafkaWhereNamed.layer({ brokers, topics: Topic.literals })
      })
    })
  )
  const made = retention.pipe(Layer.provideMerge(chosen))
  buses.set(Redacted.value(url), made)
  return made
}

/** The registry of schemas that `SCHEMA_REGISTRY_URL` names has those of all events, before the first of them is published. */
const schemasRegistered = Layer.unwrap(
  Effect.gen(function* () {
    const url = yield* Config.option(Config.String("SCHEMA_REGISTRY_URL"))
    if (Option.isNone(url) || !(yield* KeepsHouse)) return Layer.empty
    return Layer.effectDiscard(registerAll(allEvents)).pipe(Layer.provide(ConfluentSchemaRegistry.layer(url.value)))
  })
)

/** The caches of the edge, kept right through the bus. */
export const caches = (bus: Redacted.Redacted) =>
  Layer.merge(ProductCache.layer, OrderStatuses.layer).pipe(
    Layer.provide(RedisWhereNamed.sharedCache),
    Layer.provide(eventBus(bus))
  )

/** What live connections are told, off the bus. */
export const live = (bus: Redacted.Redacted) => Live.layer.pipe(Layer.provide(eventBus(bus)))

/** Who takes events from the outboxes to the bus: the relays of the contexts, or (here: where its Kafka Connect is) Debezium. */
const debezium = Effect.gen(function* () {
  const kind = yield* Config.Literals(["own", "debezium"], "MERKATO_RELAY").pipe(Config.withDefault("own" as const))
  if (kind === "own") return undefined
  const [brokers, connectUrl] = yield* Effect.all([
    Config.option(Config.String("KAFKA_BROKERS")),
    Config.option(Config.String("CONNECT_URL"))
  ])
  if (Option.isNone(brokers) || Option.isNone(connectUrl)) {
    return yield* new CaptureImpossible({ reason: "it wants KAFKA_BROKERS and CONNECT_URL" })
  }
  return { connectUrl: connectUrl.value }
})

/** Lets Debezium take the events of these contexts from their database, or lets their relays do it again. */
const chooseRelay = Effect.fnUntraced(function* (names: ReadonlyArray<ContextName>) {
  const captured = names.flatMap((name) => {
    const { topic } = contexts[name]
    return topic === undefined ? [] : [{ schema: name, topic, producer: producerOf(name) }]
  })
  if ((yield* debezium) === undefined) return yield* Capture.end(captured.map(({ schema }) => schema))
  yield* Capture.begin(captured)
})

/** Debezium has a connector for each of these databases, where it is wanted. */
const connectors = (databases: ReadonlyArray<Redacted.Redacted>) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const wanted = yield* debezium
      if (wanted === undefined || !(yield* KeepsHouse)) return Layer.empty
      const distinct = new Map(databases.map((url) => [Redacted.value(url), url]))
      return Connector.layer(wanted.connectUrl, [...distinct.values()])
    })
  )

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
  RedisWhereNamed.connection
)

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
      Layer.provide(Authorizer.layerRules)
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
export const remote = (peers: ReadonlyArray<Peer>) =>
  peers
    .flatMap(({ names, baseUrl }) => names.map((name) => contracts[name].remote(baseUrl)))
    .reduce((all, layer) => Layer.merge(all, layer), Layer.empty as ReturnType<typeof IdentityRpc.remote>)
    .pipe(Layer.provide(serviceTokens), Layer.provide(FetchHttpClient.layer))

/** Lets other processes call these contexts, under `/rpc`. */
export const rpcRoutes = (names: ReadonlyArray<ContextName>) =>
  Layer.mergeAll(Layer.empty, ...names.map((name) => contracts[name].http)).pipe(Layer.provide(serviceTokens))

/** Lets the edge ask this process for its policies. */
export const policyRoutes = (names: ReadonlyArray<ContextName>) =>
  GatewayPolicies.route(names).pipe(Layer.provide(serviceTokens), Layer.provide(Authorizer.layerRules))

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

/** A variable that should say where a payment gateway is does not hold a URL. Does not repeat it: it may hold a secret. */
export class BadGatewayUrl extends Schema.TaggedError<BadGatewayUrl>()("BadGatewayUrl", { variable: Schema.String }) {
  override get message() {
    return `${this.variable} cannot be used: expected http://host:port or https://host`
  }
}

const gatewayUrl = Effect.fnUntraced(function* (variable: string) {
  const given = yield* Config.option(Config.String(variable))
  if (Option.isNone(given)) return undefined
  const url = URL.canParse(given.value) ? new URL(given.value) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol)) return yield* new BadGatewayUrl({ variable })
  return given.value.replace(/\/+$/, "")
})

/** Payments' way to gateways: SOAP at its endpoint first, then REST at its base URL. */
const gatewaysAt = (soapEndpoint: string, restBaseUrl: string) =>
  Layer.effect(
    PaymentGateways,
    Effect.gen(function* () {
      return { inOrder: [yield* SoapGateway.make(soapEndpoint), yield* RestGateway.make(restBaseUrl)] as const }
    })
  ).pipe(Layer.provide(FetchHttpClient.layer))

/** Readiness: the database answers. */
const withDatabase = Layer.effectContext(
  Effect.map(SqlClient.SqlClient, (sql) =>
    Context.make(
      Gateway.Readiness,
      sql`select 1`.pipe(
        Effect.as([]),
        Effect.orElseSucceed(() => ["database"])
      )
    )
  )
)

/**
 * Both test gateways and the door that tells them how to behave, on one port, with their books in a database. Their
 * router is their own: `HttpRouter.serve` would take that of the shop around it, and put their doors on the shop's port.
 */
export const testGateways = (url: Redacted.Redacted, options: BunHttpServer.Options) =>
  Layer.unwrap(
    Effect.map(HttpRouter.HttpRouter, (router) => HttpServer.serve(Gateway.asSampled(router.asHttpEffect())))
  ).pipe(
    Layer.provide(Layer.merge(Psp.routes, Layer.provide(Health, withDatabase))),
    Layer.provide(HttpRouter.layer),
    Layer.provide(Database.layer({ url, maxConnections: 4, applicationName: "merkato-psp" })),
    Layer.provideMerge(BunHttpServer.layer(options)),
    Layer.provide(Gateway.Sampling),
    Layer.provide(
      Layer.effectDiscard(
        Effect.provide(Psp.migrate, Database.layer({ url, maxConnections: 1, applicationName: "merkato-migrations" }))
      )
    ),
    Layer.fresh
  )

/**
 * The test gateways on a port of their own, and payments' way to them. Only for shops that have no real provider. Their
 * server is theirs alone: what the shop offers at hand is for the shop's.
 */
const builtInGateways = (url: Redacted.Redacted) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const { address } = yield* HttpServer.HttpServer
      const baseUrl = `http://127.0.0.1:${"port" in address ? address.port : 0}`
      return gatewaysAt(`${baseUrl}/soap/payments`, baseUrl)
    })
  ).pipe(Layer.provide(testGateways(url, { port: 0, drainTimeout: Duration.millis(200) })))

/**
 * Where money is moved: at `MERKATO_PAYMENT_GATEWAY_URL`, under which both gateways are; either may be elsewhere, at
 * `MERKATO_PAYMENT_SOAP_URL` (its endpoint) or `MERKATO_PAYMENT_REST_URL` (its base). Without any of them: at the
 * built-in test gateways.
 */
export const paymentGateway = (url: Redacted.Redacted) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const both = yield* gatewayUrl("MERKATO_PAYMENT_GATEWAY_URL")
      const soap = (yield* gatewayUrl("MERKATO_PAYMENT_SOAP_URL")) ?? (both && `${both}/soap/payments`)
      const rest = (yield* gatewayUrl("MERKATO_PAYMENT_REST_URL")) ?? both
      if (soap === undefined && rest === undefined) return builtInGateways(url)
      // One of two providers alone is no deployment: money held at the one that is missing could not be asked for.
      if (soap === undefined) return yield* new BadGatewayUrl({ variable: "MERKATO_PAYMENT_SOAP_URL" })
      if (rest === undefined) return yield* new BadGatewayUrl({ variable: "MERKATO_PAYMENT_REST_URL" })
      return gatewaysAt(soap, rest)
    })
  )
