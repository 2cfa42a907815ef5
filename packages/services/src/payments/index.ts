import { Layer } from "effect"
import * as BoundedContext from "@merkato/infra/context/BoundedContext"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import { Payments as PaymentsUseCases } from "./Payments.ts"
import { PaymentsHandlers } from "./PaymentsHandlers.ts"
import { reconciliation } from "./Reconciler.ts"
import { Refunds } from "./Refunds.ts"
import { Revenue } from "./Revenue.ts"
import * as RevenueByDay from "./RevenueByDay.ts"
import { dailyRevenue, dailyRevenueCopy } from "./RevenueEntries.ts"

/** Wants `PaymentGateways`; which ones, and in which order they are tried, is the deployment's choice. */
export const Payments = BoundedContext.make("payments", {
  contract: PaymentsRpc,
  handlers: PaymentsHandlers,
  useCases: Layer.mergeAll(
    PaymentsUseCases.layer,
    Refunds.layer,
    Revenue.layer.pipe(Layer.provide(RevenueByDay.layer))
  ),
  topic: "payment.events",
  migrations: new URL("./migrations", import.meta.url),
  needs: [],
  projections: [dailyRevenue],
  copies: [dailyRevenueCopy],
  background: reconciliation
})
