import { Context, DateTime, Effect, Schema } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import type { Flow, RevenueStream } from "@merkato/domain/analytics/RevenueMinute"
import { type Currency, toDecimal } from "@merkato/domain/kernel/Money"
import { OrderProcessState } from "@merkato/domain/orders/OrderProcess"
import { Assessment } from "@merkato/domain/risk/Assessment"
import { Authorizer, authorize } from "@merkato/infra/authorizer/Authorizer"
import { Policies } from "@merkato/infra/policy/Policies"
import { AnalyticsRpc } from "@merkato/rpc/analytics/AnalyticsRpc"
import { Api } from "@merkato/rpc/rest/Api"
import type { PoliciesJson, RevenueStreamJson } from "@merkato/rpc/rest/OpsJson"
import * as OpsPolicies from "./Policies.ts"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { RiskRpc } from "@merkato/rpc/risk/RiskRpc"
import { answering, json, pageJson } from "./Rest.ts"

const encodeProcess = Schema.encodeSync(OrderProcessState)
const encodeAssessment = Schema.encodeSync(Assessment)

const flowJson = (flow: Flow, currency: Currency) => ({
  payments: flow.payments,
  revenue: toDecimal(flow.revenueMinor, currency),
  refunds: flow.refunds,
  refunded: toDecimal(flow.refundsMinor, currency)
})

const revenueJson = ({ newest, items }: RevenueStream): typeof RevenueStreamJson.Encoded => ({
  newest: newest === null ? null : DateTime.formatIso(newest),
  items: items.map(({ minute, currency, state, corrections, correctedAt, tooLate, ...flow }) => ({
    minute: DateTime.formatIso(minute),
    currency,
    state,
    ...flowJson(flow, currency),
    corrections,
    correctedAt: correctedAt === null ? null : DateTime.formatIso(correctedAt),
    tooLate: flowJson(tooLate, currency)
  }))
})

const unstored = { "cache-control": "no-store" }

/** What operators look at, under `/ops`; `contexts` are those of the whole shop. */
export const opsRoutes = (contexts: ReadonlyArray<string>) =>
  HttpApiBuilder.group(
    Api,
    "ops",
    Effect.fn(function* (handlers) {
      const own = Context.pick(Authorizer, Policies)(yield* Effect.context<Authorizer | Policies>())
      const peers = yield* OpsPolicies.PolicyPeers
      const elsewhere = new Set(peers.flatMap((peer) => peer.contexts))
      const local = contexts.filter((name) => !elsewhere.has(name))

      const policies = Effect.gen(function* () {
        const told = yield* Effect.forEach(
          peers,
          ({ contexts, policies }) => Effect.map(policies, (items) => ({ contexts, items })),
          { concurrency: 8 }
        )
        return {
          items: [
            ...(yield* OpsPolicies.here(local, OpsPolicies.edge)),
            ...told.flatMap(({ items }) => items ?? []),
            ...(yield* OpsPolicies.later)
          ],
          unreachable: told.filter(({ items }) => items === undefined).map(({ contexts }) => ({ contexts }))
        } satisfies typeof PoliciesJson.Encoded
      })

      const orders = yield* OrdersRpc
      const risk = yield* RiskRpc
      const analytics = yield* AnalyticsRpc

      return handlers.handleAll({
        saga: ({ params }) =>
          answering(Effect.map(orders.Process(params), (process) => json(encodeProcess(process), 200, unstored))),
        assessments: ({ query: { limit = 20, ...query } }) =>
          answering(
            Effect.map(risk.List({ ...query, limit }), (page) => json(pageJson(page, encodeAssessment), 200, unstored))
          ),
        assessment: ({ params }) =>
          answering(Effect.map(risk.Get(params), (assessment) => json(encodeAssessment(assessment), 200, unstored))),
        revenuePerMinute: ({ query }) =>
          answering(
            Effect.map(analytics.RevenuePerMinute(query), (stream) => json(revenueJson(stream), 200, unstored))
          ),
        policies: () =>
          answering(
            Effect.andThen(
              authorize("ops.read"),
              Effect.map(policies, (all) => json(all, 200, unstored))
            )
          ).pipe(Effect.provideContext(own))
      })
    })
  )
