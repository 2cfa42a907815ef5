import * as BoundedContext from "@merkato/infra/context/BoundedContext"
import { AnalyticsRpc } from "@merkato/rpc/analytics/AnalyticsRpc"
import { addUpRevenue } from "./AnalyticsConsumers.ts"
import { AnalyticsHandlers } from "./AnalyticsHandlers.ts"
import { oldMinutes, RevenuePerMinute } from "./RevenuePerMinute.ts"

export const Analytics = BoundedContext.make("analytics", {
  contract: AnalyticsRpc,
  handlers: AnalyticsHandlers,
  useCases: RevenuePerMinute.layer,
  topic: "analytics.events",
  migrations: new URL("./migrations", import.meta.url),
  needs: [],
  consumers: [addUpRevenue],
  passing: [oldMinutes]
})
