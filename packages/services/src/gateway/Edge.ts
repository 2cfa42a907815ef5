import { Context, Effect, References, type Types } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { anonymous, type Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"
import { Tokens } from "@merkato/infra/auth/Tokens"
import { arrive, bearer, depart, headersOf } from "./Arrival.ts"
import { ofCause } from "./Problems.ts"

/**
 * Where nobody needs a token, and one that has expired is no obstacle: registering, signing in and refreshing; the pages;
 * health and metrics, whatever a probe sends along.
 */
const isForAnybody = ({ method, url }: HttpServerRequest.HttpServerRequest) =>
  method === "POST"
    ? /^\/api\/v1\/(?:customers|sessions|sessions\/refresh)(?:$|\?)/.test(url)
    : /^\/(?:docs|openapi\.json|healthz|readyz|metrics)?(?:$|\?)/.test(url)

type Handler = Effect.Effect<HttpServerResponse.HttpServerResponse, Types.unhandled>
type Answered = Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  Types.unhandled,
  HttpServerRequest.HttpServerRequest
>

/**
 * What happens to every request: it gets a correlation id, a trace and a principal, and whatever goes wrong becomes a
 * problem. A token that is there has to be valid; without one the request is anonymous. Written without generators, and
 * with one change of context, since it is part of every request.
 */
export const Edge = HttpRouter.middleware(
  Effect.map(
    Tokens,
    (tokens) =>
      (handler: Handler): Answered =>
        Effect.withFiber((fiber) => {
          const request = Context.getUnsafe(fiber.context, HttpServerRequest.HttpServerRequest)
          const span = fiber.cache.tracerEnabled && fiber.cache.span?.sampled === true ? fiber.cache.span : undefined
          const arrival = arrive(fiber.context, (name) => request.headers[name], span)
          const { correlationId, traceParent } = arrival

          // Put on top one by one: `Context.merge` would copy all the services there are.
          const annotations = { traceId: traceParent.slice(3, 35), correlationId }
          const known =
            (principal: Principal) =>
            (context: Context.Context<never>): Context.Context<never> =>
              Context.add(context, RequestContext, { principal, correlationId, traceParent })
          const strangers = (context: Context.Context<never>): Context.Context<never> => {
            const named = Context.add(known(anonymous)(context), References.CurrentLogAnnotations, annotations)
            return span === undefined ? Context.add(named, References.TracerEnabled, false) : named
          }
          const token = isForAnybody(request) ? undefined : bearer(request.headers["authorization"])
          const answer =
            token === undefined
              ? handler
              : Effect.flatMap(tokens.verify(token), (principal) => Effect.updateContext(handler, known(principal)))
          return answer.pipe(
            Effect.catchCause((cause) => ofCause(cause)),
            Effect.updateContext(strangers),
            Effect.map((response) => {
              depart(fiber.context, arrival, response.status)
              return HttpServerResponse.setHeaders(response, headersOf(arrival, request.url, response.headers))
            })
          )
        })
  ),
  { global: true }
)

/** The same headers for what the server answers itself, before there is a request to handle (413, and 503 while it stops). */
export const ownHeaders = Effect.map(
  Effect.context<never>(),
  (services) => (request: Request) =>
    headersOf(
      arrive(services, (name) => request.headers.get(name) ?? undefined),
      "",
      {}
    )
)
