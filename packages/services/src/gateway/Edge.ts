import { Clock, Config, Context, Effect, Layer, Metric, Random, References, type Types } from "effect"
import { HttpMiddleware, HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { anonymous, type Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"
import * as Ids from "@merkato/domain/kernel/Ids"
import { Tokens } from "@merkato/infra/auth/Tokens"
import { ofCause } from "./Problems.ts"

const requests = Metric.counter("http_requests_total", { description: "Requests answered", incremental: true })
const latency = Metric.histogram("http_request_duration_ms", {
  description: "Milliseconds from request to answer",
  boundaries: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000]
})
const classes = [1, 2, 3, 4, 5].map((hundred) => Metric.withAttributes(requests, { status: `${hundred}xx` }))

/** What a Correlation-Id may be; another is replaced, since it goes into logs and headers. */
const correlationIdPattern = /^[\x21-\x7e]{1,128}$/

const hex = (random: Random.Random, digits: number) => {
  let text = ""
  while (text.length < digits)
    text += Math.floor(random.nextDoubleUnsafe() * 2 ** 32)
      .toString(16)
      .padStart(8, "0")
  return text.slice(0, digits)
}

const bearer = (authorization: string | undefined): string | undefined =>
  authorization === undefined ? undefined : (/^Bearer +(\S+)$/i.exec(authorization)?.[1] ?? "")

/**
 * What every answer says to browsers (OWASP REST Security): believe the content type, do not frame, load nothing. The
 * pages for people say themselves what they load. Answers of the API are not stored, unless they say otherwise (products
 * do, with their entity tags).
 */
const protection: Readonly<Record<string, string>> = {
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'"
}

/** What of this the answer does not say itself already. */
const protect = (request: HttpServerRequest.HttpServerRequest, { headers }: HttpServerResponse.HttpServerResponse) => {
  const missing: Record<string, string> = {}
  for (const name in protection) if (headers[name] === undefined) missing[name] = protection[name] ?? ""
  if (request.url.startsWith("/api/") && headers["cache-control"] === undefined) missing["cache-control"] = "no-store"
  return missing
}

/** Registering, signing in and refreshing are for those without a valid token: one that has expired is no obstacle. */
const isEntry = ({ method, url }: HttpServerRequest.HttpServerRequest) =>
  method === "POST" && /^\/api\/v1\/(?:customers|sessions|sessions\/refresh)(?:$|\?)/.test(url)

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
          const clock = fiber.getRef(Clock.Clock)
          const random = fiber.getRef(Random.Random)
          const begun = clock.currentTimeMillisUnsafe()
          const correlationId = correlationIdOf(request.headers["correlation-id"], begun, random)
          const span = fiber.cache.tracerEnabled && fiber.cache.span?.sampled === true ? fiber.cache.span : undefined
          const traceParent =
            span === undefined
              ? unsampled(request.headers["traceparent"], random)
              : `00-${span.traceId}-${span.spanId}-01`

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
          const token = isEntry(request) ? undefined : bearer(request.headers["authorization"])
          const answer =
            token === undefined
              ? handler
              : Effect.flatMap(tokens.verify(token), (principal) => Effect.updateContext(handler, known(principal)))
          return answer.pipe(
            Effect.catchCause((cause) => ofCause(cause)),
            Effect.updateContext(strangers),
            Effect.map((response) => {
              latency.updateUnsafe(clock.currentTimeMillisUnsafe() - begun, fiber.context)
              classes[Math.floor(response.status / 100) - 1]?.updateUnsafe(1, fiber.context)
              return HttpServerResponse.setHeaders(response, {
                ...protect(request, response),
                "correlation-id": correlationId,
                traceparent: traceParent
              })
            })
          )
        })
  ),
  { global: true }
)

/** The same headers for what the server answers itself, before there is a request to handle (413, and 503 while it stops). */
export const ownHeaders = Effect.map(
  Effect.all([Clock.Clock, Random.Random]),
  ([clock, random]) =>
    (request: Request) => ({
      ...protection,
      "correlation-id": correlationIdOf(
        request.headers.get("correlation-id") ?? undefined,
        clock.currentTimeMillisUnsafe(),
        random
      ),
      traceparent: unsampled(request.headers.get("traceparent") ?? undefined, random)
    })
)

const correlationIdOf = (given: string | undefined, now: number, random: Random.Random): string =>
  given !== undefined && correlationIdPattern.test(given) ? given : Ids.uuidV7(now, () => random.nextDoubleUnsafe())

/** A trace that is not recorded: the caller's, or a fresh one. */
const unsampled = (given: string | undefined, random: Random.Random): string => {
  const id = given === undefined ? undefined : /^00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$/.exec(given)?.[1]
  const traceId = id !== undefined && !/^0+$/.test(id) ? id : hex(random, 32)
  return `00-${traceId}-${hex(random, 16)}-00`
}

/** The share of requests that are traced when their caller has not decided: 1 unless `MERKATO_TRACE_SAMPLING` says less. */
const sampling = Config.Finite("MERKATO_TRACE_SAMPLING").pipe(Config.withDefault(1))

/** Which requests get spans at all: those whose caller samples, and a share of the others. Probes never do. */
export const Sampling = Layer.effectContext(
  Effect.gen(function* () {
    const ratio = yield* Effect.orDie(sampling)
    const random = yield* Random.Random
    return Context.make(HttpMiddleware.TracerDisabledWhen, (request) => {
      if (/^\/(healthz|readyz|metrics)/.test(request.url)) return true
      const flag = /-([0-9a-f]{2})$/.exec(request.headers["traceparent"] ?? "")?.[1]
      return flag === undefined ? random.nextDoubleUnsafe() >= ratio : (Number.parseInt(flag, 16) & 1) === 0
    })
  })
)
