import { Clock, Context, Effect, Layer, References } from "effect"
import { AtHand } from "@merkato/infra/http/AtHand"
import { pathOf } from "@merkato/infra/http/Exchange"
import { Tokens } from "@merkato/infra/auth/Tokens"
import { arrive, bearer, depart, headersOf } from "./Arrival.ts"
import { matches, taggedHeaders, taggedType } from "./Etags.ts"
import { ProductCache } from "./ProductCache.ts"
import { Sampler } from "./Sampling.ts"

const prefix = "/api/v1/products/"

/**
 * Cached products, answered without a handler. What is not in the cache, is traced, or comes with a token that has yet to be
 * verified goes the long way; there the answer is the same.
 */
export const ProductsAtHand = Layer.effectDiscard(
  Effect.gen(function* () {
    const cache = yield* ProductCache
    const tokens = yield* Tokens
    const sampler = yield* Sampler
    const services = yield* Effect.context<never>()
    const tracing = Context.get(services, References.TracerEnabled)
    const clock = Context.get(services, Clock.Clock)

    yield* (yield* AtHand).offer((request) => {
      const path = pathOf(request.url)
      if (!path.startsWith(prefix)) return undefined
      const { headers } = request
      const header = (name: string) => headers.get(name) ?? undefined
      const token = bearer(header("authorization"))
      if (token !== undefined && !tokens.isKnown(token, clock.currentTimeMillisUnsafe())) return undefined
      const product = cache.peek(path.slice(prefix.length), services)
      if (product === undefined) return undefined
      if (tracing && sampler.isTraced(request, path, header("traceparent"))) return undefined
      cache.hit(services)

      const arrival = arrive(services, header)
      const isKnown = matches(header("if-none-match"), product.etag)
      const status = isKnown ? 304 : 200
      depart(services, arrival, status)
      const own = taggedHeaders(product.etag)
      return isKnown
        ? new Response(null, { status, headers: headersOf(arrival, path, own) })
        : new Response(product.body, { headers: headersOf(arrival, path, { ...own, "content-type": taggedType }) })
    })
  })
)
