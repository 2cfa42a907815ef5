import { Schema } from "effect"
import { RpcGroup } from "effect/rpc"
import { RevenueStream } from "@merkato/domain/analytics/RevenueMinute"
import { Forbidden, InvalidValue } from "@merkato/domain/kernel/Problem"
import { Contract } from "../contract/Contract.ts"
import { query } from "../contract/Operation.ts"

export const AnalyticsGroup = RpcGroup.make(
  /** What each minute brought, from one that holds `from` to before `to`; minutes without any are left out. */
  query("RevenuePerMinute", {
    payload: { from: Schema.DateTimeUtcFromString, to: Schema.DateTimeUtcFromString },
    success: RevenueStream,
    errors: [Forbidden, InvalidValue]
  })
)

export class AnalyticsRpc extends Contract<AnalyticsRpc>()("analytics", AnalyticsGroup) {}
