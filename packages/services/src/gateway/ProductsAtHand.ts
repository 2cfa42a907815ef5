import { Clock, Context, Effect, Layer, References } from "effect"
import { AtHand } from "@merkato/infra/http/AtHand"
import { pathOf } from "@merkato/infra/http/Exchange"
import { Tokens } from "@merkato/infra/auth/Tokens"
import { arrive, bearer, depart, headersOf } from "./Arrival.ts"
import { matches, taggedHeaders, taggedType } from "./Etags.ts"
import { KeptFlashPrices } from "./FlashPrices.ts"
import { onSale, ProductCache, ProductPages } from "./ProductCache.ts"
import { Sampler } from "./Sampling.ts"

const list = "/api/v1/products"

/**
 * Cached products and pages of them, answered without a handler. What is not in the cache, is traced, or comes with a token that has yet to be
 * verified goes the long way; there the answer is the same.
 */
export const ProductsAtHand = Layer.effectDiscard(
  Effect.gen(function* () {
    const products = yield* ProductCache
    const pages = yield* ProductPages
    const flashPrices = yield* KeptFlashPrices
    const tokens = yield* Tokens
    const sampler = yield* Sampler
    const services = yield* Effect.context<never>()
    const tracing = Context.get(services, References.TracerEnabled)
    const clock = Context.get(services, Clock.Clock)

    const product = (productId: string) => {
      const known = products.peek(productId, services)
      return known && onSale(known, flashPrices?.at(productId, clock.currentTimeMillisUnsafe()))
    }
    const page = (path: string) => pages.peek(path, services)

    /** The cache that may have what is at a path, and what it has. */
    const keptAt = (path: string) => {
      if (!path.startsWith(list)) return undefined
      if (path[list.length] === "/") return { cache: products, json: product(path.slice(list.length + 1)) }
      return path.length === list.length || path[list.length] === "?" ? { cache: pages, json: page(path) } : undefined
    }

    yield* (yield* AtHand).offer((request) => {
      const path = pathOf(request.url)
      const kept = keptAt(path)
      if (kept?.json === undefined) return undefined
      const { json } = kept
      const { headers } = request
      const header = (name: string) => headers.get(name) ?? undefined
      const token = bearer(header("authorization"))
      if (token !== undefined && !tokens.isKnown(token, clock.currentTimeMillisUnsafe())) return undefined
      if (tracing && sampler.isTraced(request, path, header("traceparent"))) return undefined
      kept.cache.hit(services)

      const arrival = arrive(services, header)
      const isKnown = matches(header("if-none-match"), json.etag)
      const status = isKnown ? 304 : 200
      depart(services, arrival, status)
      const own = taggedHeaders(json.etag)
      return isKnown
        ? new Response(null, { status, headers: headersOf(arrival, path, own) })
        : new Response(json.body, { headers: headersOf(arrival, path, { ...own, "content-type": taggedType }) })
    })
  })
)
