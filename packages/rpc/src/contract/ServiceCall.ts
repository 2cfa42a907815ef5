import { Context, Effect, Option, Schema } from "effect"
import { Headers, HttpTraceContext } from "effect/http"
import type { Tracer } from "effect"
import { Unauthenticated } from "@merkato/domain/kernel/Problem"
import { Principal, type RequestContextShape } from "@merkato/domain/kernel/RequestContext"

/** How the services of one shop prove themselves to each other: short-lived tokens of their own. */
export class ServiceTokens extends Context.Service<
  ServiceTokens,
  {
    readonly issue: Effect.Effect<string>
    readonly verify: (token: string) => Effect.Effect<void, Unauthenticated>
  }
>()("merkato/rpc/ServiceTokens") {}

const encodePrincipal = Schema.encodeSync(Schema.fromJsonString(Principal))
const decodePrincipal = Schema.decodeUnknownEffect(Schema.fromJsonString(Principal))

const principalHeader = "merkato-principal"

/** A request context as HTTP headers of a call between services. */
export const toHeaders = (request: RequestContextShape, token: string): Record<string, string> => ({
  authorization: `Bearer ${token}`,
  [principalHeader]: encodePrincipal(request.principal),
  "correlation-id": request.correlationId,
  traceparent: request.traceParent
})

/** Whether a call says that it is made by a service, for somebody; that it is true its token has to show. */
export const isFromService = (headers: Readonly<Record<string, string | undefined>>): boolean =>
  headers[principalHeader] !== undefined

/** The request context of a call from another service, once its token has been checked. */
export const requestOf = Effect.fnUntraced(function* (headers: Readonly<Record<string, string | undefined>>) {
  const token = headers["authorization"]?.replace(/^Bearer /i, "")
  if (token === undefined) return yield* new Unauthenticated({ reason: "A service token is required" })
  yield* (yield* ServiceTokens).verify(token)
  const principal = yield* decodePrincipal(headers[principalHeader]).pipe(
    Effect.mapError(() => new Unauthenticated({ reason: "The call does not say for whom it is made" }))
  )
  return {
    principal,
    correlationId: headers["correlation-id"] ?? "",
    traceParent: headers["traceparent"] ?? ""
  } satisfies RequestContextShape
})

/** The same, with the trace that it goes on with. */
export const fromHeaders = Effect.fnUntraced(function* (headers: Headers.Headers) {
  const request = yield* requestOf(headers)
  const parent: Option.Option<Tracer.ExternalSpan> = HttpTraceContext.fromHeaders(headers)
  return { request, parent }
})
