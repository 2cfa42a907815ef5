import { Effect, Layer } from "effect"
import { FetchHttpClient, type HttpClient } from "effect/http"
import { emptyTraceParent, type Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"
import { Switchboard } from "../contract/Contract.ts"
import type { ServiceTokens } from "../contract/ServiceCall.ts"

/** What `contract/Contract.ts` makes, as far as a client needs it. */
interface Contract<Client> {
  readonly client: Layer.Layer<Client, never, Switchboard>
  readonly remote: (baseUrl: string) => Layer.Layer<never, never, Switchboard | ServiceTokens | HttpClient.HttpClient>
}

/**
 * A context of the shop over RPC, for programs that are part of it: they have its keys, from which their `ServiceTokens` are
 * made, and say for whom they ask (`onBehalfOf`). Errors are those of the domain. A process that does not answer is
 * `ServiceUnavailable`; what it did is unknown, and is asked again under the same key.
 *
 *     const orders = yield* OrdersRpc
 *     yield* ServiceClient.onBehalfOf(principal)(orders.Cancel({ orderId }))
 *     // provided with ServiceClient.layer(OrdersRpc, "http://127.0.0.1:8100")
 */
export const layer = <Client>(contract: Contract<Client>, baseUrl: string): Layer.Layer<Client, never, ServiceTokens> =>
  contract.client.pipe(
    Layer.provide(contract.remote(baseUrl)),
    Layer.provide(Switchboard.layer),
    Layer.provide(FetchHttpClient.layer)
  )

/** Asks for somebody: what they may not do is refused, as at every other door. */
export const onBehalfOf = (principal: Principal, correlationId = "") =>
  Effect.provideService(RequestContext, { principal, correlationId, traceParent: emptyTraceParent })
