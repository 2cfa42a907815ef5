import { ConfigProvider, Context, Effect, Layer, type Redacted, type Scope } from "effect"
import { PgClient } from "@effect/sql-pg"
import { SqlClient } from "effect/sql"
import { Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"
import { UserId } from "@merkato/domain/kernel/Ids"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { AnalyticsRpc } from "@merkato/rpc/analytics/AnalyticsRpc"
import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { IdentityRpc } from "@merkato/rpc/identity/IdentityRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { NotificationsRpc } from "@merkato/rpc/notifications/NotificationsRpc"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { PartnersRpc } from "@merkato/rpc/partners/PartnersRpc"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import { RiskRpc } from "@merkato/rpc/risk/RiskRpc"
import { contextNames } from "@merkato/services/contexts"
import * as Deployment from "@merkato/services/deployment"
import * as PaymentProviders from "@merkato/services/paymentProviders"
import { temporaryFolder } from "./Processes.ts"

/** Typed clients of every context. */
export const clients = Layer.mergeAll(
  AnalyticsRpc.client,
  CartRpc.client,
  CatalogueRpc.client,
  IdentityRpc.client,
  InventoryRpc.client,
  NotificationsRpc.client,
  OrdersRpc.client,
  PartnersRpc.client,
  PaymentsRpc.client,
  PricingRpc.client,
  RiskRpc.client
)

/** Every context in this process, on a fresh database of a real Postgres; with the clients and a connection of the test's own. */
export const contextsOn = (url: Redacted.Redacted, dataDir: string) =>
  Layer.unwrap(
    Effect.as(
      Deployment.migrate(contextNames, url),
      clients.pipe(
        Layer.provideMerge(
          Deployment.running(contextNames, { contexts: () => url, bus: url }).pipe(
            Layer.provide(PaymentProviders.paymentGateway(url)),
            Layer.provide(Deployment.policies(dataDir)),
            Layer.provide(Deployment.security(dataDir))
          )
        ),
        Layer.provideMerge(Switchboard.layer),
        Layer.provideMerge(Database.layer({ url, maxConnections: 4, applicationName: "test" }))
      )
    )
  )

type Clients = Layer.Success<typeof clients>

/** Runs a test against all contexts in this process, in an environment with these variables. */
export const inShop = <A, E>(
  test: Effect.Effect<A, E, Clients | SqlClient.SqlClient | PgClient.PgClient | Switchboard | Scope.Scope>,
  environment: Readonly<Record<string, string>> = {}
): Promise<A> =>
  Effect.gen(function* () {
    const database = yield* TestDatabase.fresh
    const folder = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
    const context = yield* Layer.build(contextsOn(database.url, folder.path))
    return yield* Effect.provideContext(test, Context.merge(yield* Effect.context<Scope.Scope>(), context))
  }).pipe(
    Effect.scoped,
    Effect.provide(ConfigProvider.layerAdd(ConfigProvider.fromUnknown(environment), { asPrimary: true })),
    Effect.withTracerEnabled(false),
    Effect.runPromise
  )

/** Does something as somebody. */
export const as =
  (userId: string, role: Principal["role"]) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.provideService(effect, RequestContext, {
      principal: new Principal({ userId: UserId.make(userId), role, region: "us" }),
      correlationId: `test-${userId}`,
      traceParent: "00-00000000000000000000000000000001-0000000000000001-00"
    })
