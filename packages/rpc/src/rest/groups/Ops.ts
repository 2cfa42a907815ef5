import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import * as Ids from "@merkato/domain/kernel/Ids"
import { Instant } from "@merkato/domain/kernel/Instant"
import { Forbidden } from "@merkato/domain/kernel/Problem"
import { Decision } from "@merkato/domain/risk/Assessment"
import { AnalyticsGroup } from "../../analytics/AnalyticsRpc.ts"
import { OrdersGroup } from "../../orders/OrdersRpc.ts"
import { RiskGroup } from "../../risk/RiskRpc.ts"
import { SignedIn } from "../Access.ts"
import { paging, summary } from "../Endpoint.ts"
import * as Json from "../Json.ts"
import { AssessmentJson, OrderProcessJson, PoliciesJson, RevenueStreamJson } from "../OpsJson.ts"
import { problems, problemsOf } from "../Problems.ts"

/** For those who run the shop; beside the API of the shop, not part of it. */
export class Ops extends HttpApiGroup.make("ops")
  .add(
    HttpApiEndpoint.get("policies", "/policies", {
      success: PoliciesJson,
      error: problemsOf([Forbidden])
    })
      .middleware(SignedIn)
      .annotateMerge(summary("Every guarded operation: limits in force, circuit, counts (admin)")),
    HttpApiEndpoint.get("saga", "/sagas/:id", {
      params: { id: Ids.Id },
      success: OrderProcessJson,
      error: problems(OrdersGroup, "Process")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("Where an order process stands, by its id or its order's (admin)")),
    HttpApiEndpoint.get("assessments", "/risk/assessments", {
      query: { ...paging, decision: Schema.optionalKey(Decision) },
      success: Json.pageOf(AssessmentJson),
      error: problems(RiskGroup, "List")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("Assessments of risk, newest first (admin)")),
    HttpApiEndpoint.get("assessment", "/risk/assessments/:assessmentId", {
      params: { assessmentId: Ids.AssessmentId },
      success: AssessmentJson,
      error: problems(RiskGroup, "Get")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("One assessment of risk, with its reasons (admin)")),
    HttpApiEndpoint.get("revenuePerMinute", "/revenue/minutes", {
      query: { from: Instant, to: Instant },
      success: RevenueStreamJson,
      error: problems(AnalyticsGroup, "RevenuePerMinute")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("What each minute brought, late payments counted in; at most a day (admin)"))
  )
  .prefix("/ops") {}
