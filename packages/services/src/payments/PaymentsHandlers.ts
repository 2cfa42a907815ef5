import { Effect } from "effect"
import { PaymentsGroup } from "@merkato/rpc/payments/PaymentsRpc"
import { Payments } from "./Payments.ts"
import { Refunds } from "./Refunds.ts"
import { Revenue } from "./Revenue.ts"

export const PaymentsHandlers = PaymentsGroup.toLayer(
  Effect.gen(function* () {
    const payments = yield* Payments
    const refunds = yield* Refunds
    const revenue = yield* Revenue
    return PaymentsGroup.of({
      Authorise: (request) => payments.authorise(request),
      Resolve: (attempt) => payments.resolve(attempt),
      Capture: ({ attemptId }) => payments.capture(attemptId),
      Void: (request) => payments.void(request),
      Refund: (request) => refunds.refund(request),
      DailyRevenue: (days) => revenue.daily(days)
    })
  })
)
