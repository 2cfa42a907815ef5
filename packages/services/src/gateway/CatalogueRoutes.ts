import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import type { Product } from "@merkato/domain/catalogue/Product"
import type { ProductId } from "@merkato/domain/kernel/Ids"
import { InvalidValue } from "@merkato/domain/kernel/Problem"
import { maxPriceMinor } from "@merkato/domain/kernel/Money"
import type { Currency } from "@merkato/domain/kernel/Money"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { Api } from "@merkato/rpc/rest/Api"
import { jsonWithTag, tagged } from "./Etags.ts"
import { ProductCache, ProductPages } from "./ProductCache.ts"
import { amountOf, answering, json, pageJson, pricePeriodJson, productJson } from "./Rest.ts"

const defaultLimit = 20

/** A price for sale: an exact amount, not nothing, and not more than a price may be. */
const priceOf = Effect.fnUntraced(function* (price: number, currency: Currency) {
  const minor = yield* amountOf("price", price, currency)
  if (minor === 0) return yield* new InvalidValue({ path: "price", reason: "a price is more than nothing" })
  if (minor > maxPriceMinor) return yield* new InvalidValue({ path: "price", reason: "too high a price" })
  return minor
})

/** The version that If-Match names: `"7"`, as GET gave it in ETag. */
const versionOf = Effect.fnUntraced(function* (ifMatch: string | undefined) {
  if (ifMatch === undefined || ifMatch.trim() === "*") return undefined
  const version = /^"(\d{1,9})"$/.exec(ifMatch.trim())?.[1]
  return version === undefined
    ? yield* new InvalidValue({ path: "If-Match", reason: "not an ETag of a product" })
    : Number(version)
})

export const CatalogueRoutes = HttpApiBuilder.group(
  Api,
  "catalogue",
  Effect.fn(function* (handlers) {
    const catalogue = yield* CatalogueRpc
    const cache = yield* ProductCache
    /** A product ready to be sent, read through the cache. */
    const cachedProduct = Effect.fnUntraced(function* (productId: ProductId) {
      const known = yield* cache.get(productId)
      if (known !== undefined) return known
      const product = yield* catalogue.GetProduct({ productId })
      const fresh = { etag: `"${product.version}"`, body: JSON.stringify(productJson(product)) }
      yield* cache.put(productId, product.version, fresh)
      return fresh
    })
    const pages = yield* ProductPages
    const services = yield* Effect.context<never>()
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
          Effect.suspend(() => {
            const moment = pages.moment()
            return Effect.map(catalogue.ListProducts({ ...query, limit }), (found) => {
              const page = jsonWithTag(pageJson(found, productJson))
              pages.put(request.url, moment, page, services)
              return tagged(request, page.body, page.etag)
            })
          })
        ),
      getProduct: ({ params, request }) =>
        answering(Effect.map(cachedProduct(params.productId), ({ body, etag }) => tagged(request, body, etag))),
      changeProduct: ({ params, headers, payload }) =>
        answering(
          Effect.gen(function* () {
            const expectedVersion = yield* versionOf(headers["if-match"])
            const product = yield* catalogue
              .ChangeProduct({
                ...params,
                ...payload,
                ...(expectedVersion === undefined ? {} : { expectedVersion })
              })
              .pipe(withoutPages)
            return json(productJson(product), 200, { etag: `"${product.version}"` })
          })
        ),
      setPrice: ({ params, payload: { price, currency, reason } }) =>
        answering(
          Effect.gen(function* () {
            const priceMinor = yield* priceOf(price, currency)
            const product = yield* catalogue.SetPrice({ ...params, priceMinor, currency, reason }).pipe(withoutPages)
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
