import { Context, DateTime, Effect, Layer, Schema } from "effect"
import type { SqlError } from "effect/sql"
import { ProductUpdated } from "@merkato/domain/catalogue/CatalogueEvents"
import {
  type Price,
  PricePeriod,
  Product,
  ProductNotFound,
  type Sku,
  SkuTaken,
  VersionConflict
} from "@merkato/domain/catalogue/Product"
import * as Ids from "@merkato/domain/kernel/Ids"
import { toDecimal } from "@merkato/domain/kernel/Money"
import type { Forbidden, InvalidValue, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { authorize } from "@merkato/infra/authorizer/Authorizer"
import * as Provided from "@merkato/infra/context/Provided"
import { EventStore } from "@merkato/infra/events/EventStore"
import * as Cursor from "@merkato/infra/paging/Cursor"
import { isUniqueViolation, orUnavailable, transaction } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import * as CatalogueStore from "./CatalogueStore.ts"
import { type CategorySize, type Found, ProductSearch } from "./ProductSearch.ts"

type NewProduct = Pick<Product, "sku" | "name" | "description" | "category" | "priceMinor" | "currency">

interface Change {
  readonly productId: Ids.ProductId
  readonly name?: string
  readonly description?: string
  readonly category?: string
  readonly expectedVersion?: number
}

interface NewPrice extends Pick<Product, "productId" | "priceMinor" | "currency"> {
  readonly reason: string
  readonly expectedVersion?: number
}

const listCursor = Cursor.make(Schema.Struct({ productId: Ids.ProductId }))
const periodCursor = Cursor.make(Schema.Struct({ revision: Schema.Int }))

const updated = (product: Product) =>
  ProductUpdated.of(product.productId, product.version, {
    productId: product.productId,
    sku: product.sku,
    name: product.name,
    description: product.description,
    category: product.category,
    price: toDecimal(product.priceMinor, product.currency),
    currency: product.currency,
    version: product.version
  })

/** The use cases of the catalogue: what is for sale, and for how much. */
export class Catalogue extends Context.Service<
  Catalogue,
  {
    add(product: NewProduct): Effect.Effect<Product, Forbidden | SkuTaken | ServiceUnavailable>
    change(change: Change): Effect.Effect<Product, Forbidden | ProductNotFound | VersionConflict | ServiceUnavailable>
    setPrice(
      price: NewPrice
    ): Effect.Effect<Product, Forbidden | ProductNotFound | VersionConflict | ServiceUnavailable>
    get(productId: Ids.ProductId): Effect.Effect<Product, ProductNotFound | ServiceUnavailable>
    productsOf(productIds: ReadonlyArray<Ids.ProductId>): Effect.Effect<ReadonlyArray<Product>, ServiceUnavailable>
    productsOfSkus(
      skus: ReadonlyArray<Sku>
    ): Effect.Effect<ReadonlyArray<{ readonly sku: Sku; readonly productId: Ids.ProductId }>, ServiceUnavailable>
    list(
      options: Cursor.Paging & { readonly q?: string; readonly category?: string }
    ): Effect.Effect<Found, InvalidValue | ServiceUnavailable>
    readonly suggestNames: (
      options: Pick<Cursor.Paging, "limit"> & { readonly q: string }
    ) => Effect.Effect<ReadonlyArray<string>, ServiceUnavailable>
    readonly searchFacets: (options: {
      readonly q: string
    }) => Effect.Effect<ReadonlyArray<CategorySize>, ServiceUnavailable>
    readonly categories: Effect.Effect<ReadonlyArray<CategorySize>, ServiceUnavailable>
    priceHistory(
      options: Cursor.Paging & { readonly productId: Ids.ProductId }
    ): Effect.Effect<Cursor.Page<PricePeriod>, ProductNotFound | InvalidValue | ServiceUnavailable>
    pricesOf(productIds: ReadonlyArray<Ids.ProductId>): Effect.Effect<ReadonlyArray<Price>, ServiceUnavailable>
  }
>()("merkato/catalogue/Catalogue") {
  static readonly layer = Layer.effect(
    Catalogue,
    Effect.gen(function* () {
      const store = yield* CatalogueStore.make
      const events = yield* EventStore
      const provided = yield* Provided.provided
      const search = yield* ProductSearch
      const orAway = orUnavailable("catalogue")

      const add = Tracing.fn("Catalogue.add")(
        function* (draft: NewProduct) {
          yield* authorize("product.write")
          const product = new Product({ ...draft, productId: yield* Ids.nextProductId, version: 1 })
          const now = yield* DateTime.nowAsDate
          yield* transaction(Effect.andThen(store.insert(product, now), events.append([updated(product)], now))).pipe(
            Effect.catchIf(isUniqueViolation, () => Effect.fail(new SkuTaken({ sku: draft.sku })))
          )
          return product
        },
        orAway,
        provided
      )

      /** Applies a change to the product as it is now, and as the caller knows it, with its event, as one transaction. */
      const changing = (
        {
          productId,
          expectedVersion
        }: { readonly productId: Ids.ProductId; readonly expectedVersion: number | undefined },
        decide: (product: Product) => Product,
        alongside: (product: Product, now: Date) => Effect.Effect<void, SqlError.SqlError> = () => Effect.void
      ) =>
        transaction(
          Effect.gen(function* () {
            const before = yield* store.lock(productId)
            if (before === undefined) return yield* new ProductNotFound({ productIds: [productId] })
            if (expectedVersion !== undefined && expectedVersion !== before.version) {
              return yield* new VersionConflict({ current: before.version })
            }
            const after = decide(before)
            if (after === before) return before
            const now = yield* DateTime.nowAsDate
            yield* store.update(after, now)
            yield* alongside(after, now)
            yield* events.append([updated(after)], now)
            return after
          })
        )

      const change = Tracing.fn("Catalogue.change")(
        function* ({ productId, expectedVersion, ...changes }: Change) {
          yield* authorize("product.write")
          return yield* changing({ productId, expectedVersion }, (product) =>
            Object.keys(changes).length === 0
              ? product
              : new Product({ ...product, ...changes, version: product.version + 1 })
          )
        },
        orAway,
        provided
      )

      const setPrice = Tracing.fn("Catalogue.setPrice")(
        function* ({ productId, expectedVersion, priceMinor, currency, reason }: NewPrice) {
          yield* authorize("price.override")
          return yield* changing(
            { productId, expectedVersion },
            (product) => new Product({ ...product, priceMinor, currency, version: product.version + 1 }),
            (product, now) => store.changePrice(product, reason, now)
          )
        },
        orAway,
        provided
      )

      const get = Tracing.fn("Catalogue.get")(function* (productId: Ids.ProductId) {
        const product = yield* store.find(productId)
        return product ?? (yield* new ProductNotFound({ productIds: [productId] }))
      }, orAway)

      const productsOf = (productIds: ReadonlyArray<Ids.ProductId>) =>
        store.findAll(productIds).pipe(orAway, Tracing.withSpan("Catalogue.productsOf"))

      const productsOfSkus = (skus: ReadonlyArray<Sku>) =>
        store.ofSkus(skus).pipe(orAway, Tracing.withSpan("Catalogue.productsOfSkus"))

      const list = Tracing.fn("Catalogue.list")(function* ({
        limit,
        cursor,
        q,
        category
      }: Cursor.Paging & { readonly q?: string; readonly category?: string }) {
        if (q === undefined || q.trim() === "") {
          const after = yield* listCursor.decode(cursor)
          const rows = yield* store.list(category, after?.productId, limit + 1)
          return Cursor.page(rows, limit, ({ productId }) => listCursor.encode({ productId }))
        }
        return yield* search.search({
          q,
          limit,
          ...(category === undefined ? {} : { category }),
          ...(cursor === undefined ? {} : { cursor })
        })
      }, orAway)

      const suggestNames = ({ q, limit }: { readonly q: string; readonly limit: number }) =>
        search.suggest(q, limit).pipe(Tracing.withSpan("Catalogue.suggestNames"))

      const searchFacets = ({ q }: { readonly q: string }) =>
        search.facets(q).pipe(Tracing.withSpan("Catalogue.searchFacets"))

      const categories = store.categories().pipe(orAway, Tracing.withSpan("Catalogue.categories"))

      const priceHistory = Tracing.fn("Catalogue.priceHistory")(function* ({
        limit,
        cursor,
        productId
      }: Cursor.Paging & { readonly productId: Ids.ProductId }) {
        const before = yield* periodCursor.decode(cursor)
        const rows = yield* store.periods(productId, before?.revision, limit + 1)
        if (rows.length === 0 && before === undefined) return yield* new ProductNotFound({ productIds: [productId] })
        const { items, nextCursor } = Cursor.page(rows, limit, ({ revision }) => periodCursor.encode({ revision }))
        return { items: items.map(({ revision: _, ...period }) => new PricePeriod(period)), nextCursor }
      }, orAway)

      const pricesOf = (productIds: ReadonlyArray<Ids.ProductId>) =>
        store.pricesOf(productIds).pipe(orAway, Tracing.withSpan("Catalogue.pricesOf"))

      return Catalogue.of({
        add,
        change,
        setPrice,
        get,
        productsOf,
        productsOfSkus,
        list,
        suggestNames,
        searchFacets,
        categories,
        priceHistory,
        pricesOf
      })
    })
  )
}
