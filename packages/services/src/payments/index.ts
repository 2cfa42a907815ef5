import * as BoundedContext from "@merkato/infra/context/BoundedContext"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import { Payments as PaymentsUseCases } from "./Payments.ts"
import { PaymentsHandlers } from "./PaymentsHandlers.ts"

/** Wants `PaymentGateways`; which ones is the deployment's choice. */
export const Payments = BoundedContext.make("payments", {
  contract: PaymentsRpc,
  handlers: PaymentsHandlers,
  useCases: PaymentsUseCases.layer,
  topic: "payment.events",
  migrations: new URL("./migrations", import.meta.url),
  needs: []
})
