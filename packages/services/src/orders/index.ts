import { Layer } from "effect"
import * as BoundedContext from "@merkato/infra/context/BoundedContext"
import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import { RiskRpc } from "@merkato/rpc/risk/RiskRpc"
import * as OrderHistory from "./OrderHistory.ts"
import { OrderProcess, recovery } from "./OrderProcess.ts"
import { Orders as OrdersUseCases } from "./Orders.ts"
import { OrdersByCustomer, ordersByCustomer, ordersByCustomerCopy } from "./OrdersByCustomer.ts"
import { endExpired } from "./OrdersConsumers.ts"
import { OrdersHandlers } from "./OrdersHandlers.ts"
import { endedProcesses } from "./SagaStore.ts"

export const Orders = BoundedContext.make("orders", {
  contract: OrdersRpc,
  handlers: OrdersHandlers,
  useCases: Layer.mergeAll(
    OrdersUseCases.layer,
    OrderProcess.layer,
    OrdersByCustomer.layer.pipe(Layer.provide(OrderHistory.layer))
  ),
  topic: "order.events",
  migrations: new URL("./migrations", import.meta.url),
  needs: [CartRpc, PricingRpc, RiskRpc, InventoryRpc, PaymentsRpc],
  consumers: [endExpired],
  projections: [ordersByCustomer],
  copies: [ordersByCustomerCopy],
  passing: [endedProcesses],
  background: recovery
})
