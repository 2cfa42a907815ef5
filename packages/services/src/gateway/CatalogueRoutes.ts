import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { Price, type Product } from "@merkato/domain/catalogue/Product"
import type { ProductId } from "@merkato/domain/kernel/Ids"
import { InvalidValue } from "@merkato/domain/kernel/Problem"
import * as SingleFlight from "@merkato/infra/cache/SingleFlight"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { Api } from "@merkato/rpc/rest/Api"
import { jsonWithTag, tagged } from "./Etags.ts"
import { flashSaleJson, KeptFlashPrices, makeSalesOf } from "./FlashPrices.ts"
import { onSale, ProductCache, ProductPages } from "./ProductCache.ts"
import { answering, json, pageJson, pricePeriodJson, priceOf, productJson } from "./Rest.ts"

const defaultLimit = 20
const defaultSuggestions = 10

/** The version that If-Match names: `"7"`, or `"7.SALE-…"` while a sale runs, as GET gave it in ETag. */
const expected = Effect.fnUntraced(function* ({ "if-match": ifMatch }: { readonly "if-match"?: string }) {
  if (ifMatch === undefined || ifMatch.trim() === "*") return {}
  const version = /^"(\d{1,9})(?:\.[A-Za-z0-9_-]{1,64})?"$/.exec(ifMatch.trim())?.[1]
  return version === undefined
    ? yield* new InvalidValue({ path: "If-Match", reason: "not an ETag of a product" })
    : { expectedVersion: Number(version) }
})

type ListQuery = Parameters<typeof CatalogueRpc.Service.ListProducts>[0]

export const CatalogueRoutes = HttpApiBuilder.group(
  Api,
  "catalogue",
  Effect.fn(function* (handlers) {
    const catalogue = yield* CatalogueRpc
    const cache = yield* ProductCache
    const read = Effect.fnUntraced(function* (productId: ProductId) {
      const product = yield* catalogue.GetProduct({ productId })
      const fresh = {
        etag: `"${product.version}"`,
        body: JSON.stringify(productJson(product)),
        shelf: new Price(product)
      }
      yield* cache.put(productId, product.version, fresh)
      return fresh
    })
    const readOnce = yield* SingleFlight.make(read)
    /** A product ready to be sent, read through the cache; a crowd that misses it reads it once. */
    const cachedProduct = (productId: ProductId) =>
      Effect.flatMap(cache.get(productId), (known) =>
        known === undefined ? readOnce(productId) : Effect.succeed(known)
      )
    const kept = yield* KeptFlashPrices
    const salesOf = yield* makeSalesOf
    const pages = yield* ProductPages
    const services = yield* Effect.context<never>()
    /** A page of the list read once for a crowd; who asks after a change does not get what was asked for before it. */
    const readPage = yield* SingleFlight.make(
      Effect.fnUntraced(function* (asked: {
        readonly url: string
        readonly moment: number
        readonly query: ListQuery
      }) {
        const found = yield* catalogue.ListProducts(asked.query)
        const saleOf = yield* salesOf(found.items.map(({ productId }) => productId))
        const page = jsonWithTag(
          pageJson(found, (product) => productJson(product, flashSaleJson(product, saleOf(product.productId))))
        )
        if (found.late !== true) pages.put(asked.url, asked.moment, page, services)
        return page
      })
    )
    /** As `ProductsAtHand` answers, for requests that go the long way. */
    const cachedPage = (url: string, query: ListQuery) =>
      Effect.suspend(() => {
        const known = pages.peek(url, services)
        if (known === undefined) return readPage({ url, moment: pages.moment(), query })
        pages.hit(services)
        return Effect.as(Effect.annotateCurrentSpan("merkato.cache.hit", true), known)
      })
    const withoutPages = <E, R>(change: Effect.Effect<Product, E, R>) =>
      Effect.tap(change, () => Effect.sync(pages.dropAll))
    return handlers.handleAll({
      addProduct: ({ payload: { price, description = "", ...payload } }) =>
        answering(
          Effect.gen(function* () {
            const priceMinor = yield* priceOf(price, payload.currency)
            const product = yield* catalogue.AddProduct({ ...payload, description, priceMinor }).pipe(withoutPages)
            return json(productJson(product), 201, { location: `/api/v1/products/${product.productId}` })
          })
        ),
      listProducts: ({ query: { limit = defaultLimit, ...query }, request }) =>
        answering(
          Effect.map(cachedPage(request.url, { ...query, limit }), ({ body, etag }) => tagged(request, body, etag))
        ),
      suggestNames: ({ query: { q, limit = defaultSuggestions } }) =>
        answering(Effect.map(catalogue.SuggestNames({ q, limit }), (items) => json({ items }))),
      searchFacets: ({ query }) =>
        answering(Effect.map(catalogue.SearchFacets(query), (categories) => json({ categories }))),
      getProduct: ({ params, request }) =>
        answering(
          Effect.zipWith(
            cachedProduct(params.productId),
            salesOf([params.productId]),
            (product, saleOf) => {
              const { body, etag } = onSale(product, saleOf(params.productId))
              return tagged(request, body, etag)
            },
            { concurrent: kept === undefined }
          )
        ),
      changeProduct: ({ params, headers, payload }) =>
        answering(
          Effect.gen(function* () {
            const change = { ...params, ...payload, ...(yield* expected(headers)) }
            const product = yield* catalogue.ChangeProduct(change).pipe(withoutPages)
            return json(productJson(product), 200, { etag: `"${product.version}"` })
          })
        ),
      setPrice: ({ params, headers, payload: { price, currency, reason } }) =>
        answering(
          Effect.gen(function* () {
            const priceMinor = yield* priceOf(price, currency)
            const change = { ...params, priceMinor, currency, reason, ...(yield* expected(headers)) }
            const product = yield* catalogue.SetPrice(change).pipe(withoutPages)
            return json(productJson(product), 200, { etag: `"${product.version}"` })
          })
        ),
      listPrices: ({ params, query: { limit = defaultLimit, ...query } }) =>
        answering(
          Effect.map(catalogue.PriceHistory({ ...params, ...query, limit }), (page) =>
            json(pageJson(page, pricePeriodJson))
          )
        ),
      listCategories: () => answering(Effect.map(catalogue.ListCategories({}), (items) => json({ items })))
    })
  })
)
