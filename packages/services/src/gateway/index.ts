import { Layer } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import * as AuthorizerWhereNamed from "@merkato/infra/authorizer/AuthorizerWhereNamed"
import { AnalyticsRpc } from "@merkato/rpc/analytics/AnalyticsRpc"
import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { IdentityRpc } from "@merkato/rpc/identity/IdentityRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { NotificationsRpc } from "@merkato/rpc/notifications/NotificationsRpc"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { PartnersRpc } from "@merkato/rpc/partners/PartnersRpc"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import { RiskRpc } from "@merkato/rpc/risk/RiskRpc"
import { Api } from "@merkato/rpc/rest/Api"
import { CartRoutes } from "./CartRoutes.ts"
import { CatalogueRoutes } from "./CatalogueRoutes.ts"
import { docs } from "./Docs.ts"
import { Edge } from "./Edge.ts"
import * as FlashPrices from "./FlashPrices.ts"
import { FlashSaleRoutes } from "./FlashSaleRoutes.ts"
import { Health } from "./Health.ts"
import { home } from "./Home.ts"
import { IdentityRoutes } from "./IdentityRoutes.ts"
import { InventoryRoutes } from "./InventoryRoutes.ts"
import { GraphqlRoutes } from "./graphql/GraphqlRoutes.ts"
import * as JsonBody from "./JsonBody.ts"
import { LiveRoutes } from "./live/LiveRoutes.ts"
import { NotificationRoutes } from "./NotificationRoutes.ts"
import { OrderRoutes } from "./OrderRoutes.ts"
import { opsRoutes } from "./OpsRoutes.ts"
import { ProductsAtHand } from "./ProductsAtHand.ts"
import * as SignedIn from "./SignedIn.ts"
import { WebhookRoutes } from "./WebhookRoutes.ts"

export { ownHeaders } from "./Edge.ts"
export { asSampled, Sampling } from "./Sampling.ts"
export { Readiness } from "./Health.ts"
export { PolicyPeers } from "./Policies.ts"

/** The contracts that the edge calls and a shop is not ready without: analytics is for those who look at it. */
export const needs = [
  IdentityRpc,
  CatalogueRpc,
  PricingRpc,
  InventoryRpc,
  CartRpc,
  OrdersRpc,
  NotificationsRpc,
  RiskRpc,
  PartnersRpc
] as const

const clients = Layer.mergeAll(
  AnalyticsRpc.client,
  IdentityRpc.client,
  CatalogueRpc.client,
  PricingRpc.client,
  InventoryRpc.client,
  CartRpc.client,
  OrdersRpc.client,
  NotificationsRpc.client,
  RiskRpc.client,
  PartnersRpc.client
)

/** The edge: REST, its documentation, live connections, health and the front page. */
export const gateway = (contexts: ReadonlyArray<string>) =>
  Layer.mergeAll(
    HttpApiBuilder.layer(Api, { openapiPath: "/openapi.json" }).pipe(
      Layer.provide([
        IdentityRoutes,
        CatalogueRoutes,
        FlashSaleRoutes,
        InventoryRoutes,
        CartRoutes,
        OrderRoutes,
        NotificationRoutes,
        WebhookRoutes
      ]),
      Layer.provide(opsRoutes(contexts).pipe(Layer.provide(AuthorizerWhereNamed.layer))),
      Layer.provide([JsonBody.layer, SignedIn.layer])
    ),
    docs,
    Health,
    home(contexts),
    ProductsAtHand,
    FlashPrices.looking,
    LiveRoutes,
    GraphqlRoutes,
    Edge
  ).pipe(Layer.provide(clients))
