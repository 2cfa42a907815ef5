import { Context, DateTime, Effect, Layer } from "effect"
import { HttpClient, HttpClientRequest, HttpClientResponse, HttpRouter, HttpServerRequest } from "effect/http"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import { Authorizer, authorize } from "@merkato/infra/authorizer/Authorizer"
import { Policies, type PolicyState } from "@merkato/infra/policy/Policies"
import { fromHeaders, ServiceTokens, toHeaders } from "@merkato/rpc/contract/ServiceCall"
import { PoliciesOfProcess, type PolicyJson } from "@merkato/rpc/rest/OpsJson"
import { answering, json } from "./Rest.ts"

type Json = typeof PolicyJson.Type

const policyJson = (policy: PolicyState, contexts: ReadonlyArray<string>): Json => ({
  operation: policy.operation,
  about: policy.about,
  usedBy: policy.usedBy,
  later: policy.later,
  limits: policy.limits,
  origins: Object.fromEntries([
    ...policy.fromEnvironment.map((limit) => [limit, "environment"] as const),
    ...policy.configured.map((limit) => [limit, "configured"] as const)
  ]),
  breaker:
    policy.breaker === null
      ? null
      : {
          state: policy.breaker.state,
          since: DateTime.formatIso(DateTime.makeUnsafe(policy.breaker.sinceMs)),
          retryAfterSeconds: Math.ceil(policy.breaker.retryAfterMs / 1_000),
          failuresInARow: policy.breaker.failuresInARow
        },
  inFlight: policy.inFlight,
  waiting: policy.waiting,
  retryTokens: policy.retryTokens,
  counts: policy.counts,
  contexts
})

/** Who uses policies besides contexts: the process that is the edge. */
export const edge = "the edge"

/** The policies of this process that its contexts use, and what else it is. */
export const here = (contexts: ReadonlyArray<string>, also?: typeof edge) =>
  Effect.map(
    Effect.flatMap(Policies, ({ states }) => states),
    (states) => {
      const isUser = (name: string) =>
        name === "every context" ? contexts.length > 0 : name === also || contexts.includes(name)
      return states.filter(({ later, usedBy }) => !later && isUser(usedBy)).map((state) => policyJson(state, contexts))
    }
  )

/** Those that nobody uses yet: the same everywhere, so the edge tells them once. */
export const later = Effect.map(
  Effect.flatMap(Policies, ({ states }) => states),
  (states) => states.filter(({ later }) => later).map((state) => policyJson(state, []))
)

const path = "/ops/policies"

type Own = Authorizer | Policies | ServiceTokens

/** `/ops/policies` of a process behind the edge: for the edge, which proves itself as services do and says who asks. */
export const route = (contexts: ReadonlyArray<string>) =>
  HttpRouter.use(
    Effect.fn(function* (router) {
      const own = Context.pick(Authorizer, Policies, ServiceTokens)(yield* Effect.context<Own>())
      yield* router.add(
        "GET",
        path,
        Effect.gen(function* () {
          const { headers } = yield* HttpServerRequest.HttpServerRequest
          return yield* answering(
            Effect.gen(function* () {
              const { request } = yield* fromHeaders(headers)
              yield* Effect.provideService(authorize("ops.read"), RequestContext, request)
              return json({ items: yield* here(contexts) })
            })
          )
        }).pipe(Effect.provideContext(own))
      )
    })
  )

/** Another process of the shop, and what it tells; undefined when it does not answer. */
export interface PolicyPeer {
  readonly contexts: ReadonlyArray<string>
  readonly policies: Effect.Effect<ReadonlyArray<Json> | undefined>
}

/** The other processes of the shop; none in the shop that is one process. */
export const PolicyPeers = Context.Reference<ReadonlyArray<PolicyPeer>>("merkato/gateway/PolicyPeers", {
  defaultValue: () => []
})

/** How long the edge waits for another process to tell. */
const answerWithin = "2 seconds"

export const peers = (all: ReadonlyArray<{ readonly names: ReadonlyArray<string>; readonly baseUrl: string }>) =>
  Layer.effectContext(
    Effect.gen(function* () {
      const http = yield* HttpClient.HttpClient
      const tokens = yield* ServiceTokens
      const ask = (baseUrl: string) =>
        Effect.gen(function* () {
          const headers = toHeaders(yield* RequestContext, yield* tokens.issue)
          const response = yield* http.execute(HttpClientRequest.get(`${baseUrl}${path}`, { headers }))
          const { items } = yield* HttpClientResponse.schemaBodyJson(PoliciesOfProcess)(
            yield* HttpClientResponse.filterStatusOk(response)
          )
          return items
        }).pipe(
          Effect.timeout(answerWithin),
          Effect.tapError((error) => Effect.logWarning(`No policies from ${baseUrl}`, error)),
          Effect.orElseSucceed(() => undefined)
        )
      return Context.make(
        PolicyPeers,
        all.map(({ names, baseUrl }) => ({ contexts: names, policies: ask(baseUrl) }))
      )
    })
  )
