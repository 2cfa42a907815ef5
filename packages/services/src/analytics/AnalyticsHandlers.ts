import { Effect } from "effect"
import { AnalyticsGroup } from "@merkato/rpc/analytics/AnalyticsRpc"
import { RevenuePerMinute } from "./RevenuePerMinute.ts"

export const AnalyticsHandlers = AnalyticsGroup.toLayer(
  Effect.gen(function* () {
    const revenue = yield* RevenuePerMinute
    return AnalyticsGroup.of({ RevenuePerMinute: (range) => revenue.read(range) })
  })
)
