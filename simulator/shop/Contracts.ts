import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { NotificationsRpc } from "@merkato/rpc/notifications/NotificationsRpc"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import { RiskRpc } from "@merkato/rpc/risk/RiskRpc"
import { Layer } from "effect"
import type { Described } from "./Network.ts"

/** The contracts of the simulated contexts, as the network reads them. */
export const contracts: ReadonlyArray<Described> = [
  CatalogueRpc,
  PricingRpc,
  CartRpc,
  InventoryRpc,
  OrdersRpc,
  PaymentsRpc,
  NotificationsRpc,
  RiskRpc
] as unknown as ReadonlyArray<Described>

/** What the edge of the shop calls. */
export const clients = Layer.mergeAll(
  CartRpc.client,
  CatalogueRpc.client,
  InventoryRpc.client,
  NotificationsRpc.client,
  OrdersRpc.client,
  PaymentsRpc.client,
  PricingRpc.client
)

export type Clients = Layer.Success<typeof clients>
