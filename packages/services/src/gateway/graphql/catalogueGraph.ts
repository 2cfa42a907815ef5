import { DateTime, Effect, Schema } from "effect"
import { Price, type Product, ProductNotFound } from "@merkato/domain/catalogue/Product"
import { ProductId } from "@merkato/domain/kernel/Ids"
import { toDecimal } from "@merkato/domain/kernel/Money"
import type { FlashPrice } from "@merkato/domain/pricing/FlashSale"
import { priceInSale } from "@merkato/domain/pricing/Quote"
import { type Asking, together } from "@merkato/infra/graphql/Asking"
import { fieldsOf, type Subgraph } from "@merkato/infra/graphql/Supergraph"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { paging } from "@merkato/rpc/contract/Operation"
import { makeSalesOf } from "../FlashPrices.ts"
import { GraphProducts } from "../ProductCache.ts"
import { nullsLeftOut } from "./Arguments.ts"
import { argumentsOf } from "./Refusals.ts"

const Filter = Schema.Struct({
  q: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(200))),
  category: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(100))),
  limit: Schema.optionalKey(paging.limit)
})
const one = argumentsOf(Schema.Struct({ id: ProductId }))
const many = argumentsOf(Schema.Struct({ filter: Schema.optionalKey(Filter), cursor: paging.cursor }))

const defaultLimit = 20

/** What the catalogue has of the graph. */
export const catalogueGraph = Effect.gen(function* () {
  const catalogue = yield* CatalogueRpc
  const kept = yield* GraphProducts
  const salesOf = yield* makeSalesOf

  const productOf = together(
    Effect.fnUntraced(function* (ids: ReadonlyArray<string>) {
      const products = new Map<string, Product>()
      for (const id of ids) {
        const known = yield* kept.get(id)
        if (known !== undefined) products.set(id, known)
      }
      const missing = ids.filter((id) => !products.has(id)).map((id) => ProductId.make(id))
      for (const product of missing.length === 0 ? [] : yield* catalogue.ProductsOf({ productIds: missing })) {
        products.set(product.productId, product)
        yield* kept.put(product.productId, product.version, product)
      }
      return (id: string) => products.get(id)
    })
  )
  const product = async (id: string, asking: Asking) =>
    (await productOf(id, asking)) ?? (await asking.run(Effect.fail(new ProductNotFound({ productIds: [id] }))))

  const saleOf = together((ids) =>
    Effect.map(salesOf(ids.map((id) => ProductId.make(id))), (saleNow) => (id: string) => saleNow(ProductId.make(id)))
  )

  const found = Effect.fnUntraced(function* (args: unknown) {
    const { filter: { limit = defaultLimit, ...filter } = {}, ...cursor } = yield* many(nullsLeftOut(args))
    return yield* catalogue.ListProducts({ ...filter, ...cursor, limit })
  })

  return {
    types: {
      Query: fieldsOf<unknown>({
        product: async (_, args, asking) => product((await asking.run(one(args))).id, asking),
        products: async (_, args, asking) => (await asking.run(found(args))).items,
        productPage: (_, args, asking) => asking.run(found(args))
      }),
      Product: fieldsOf<Product>({
        id: ({ productId }) => productId,
        price: ({ priceMinor, currency }) => toDecimal(priceMinor, currency),
        // A sale that is no bargain any more is none.
        flashSale: async (shelf, _, asking) => {
          const sale = await saleOf(shelf.productId, asking)
          return sale !== undefined && priceInSale(new Price(shelf), sale) === sale ? sale : null
        }
      }),
      FlashSale: fieldsOf<FlashPrice>({
        id: ({ saleId }) => saleId,
        price: ({ priceMinor, currency }) => toDecimal(priceMinor, currency),
        endsAt: ({ endsAt }) => DateTime.formatIso(endsAt)
      })
    },
    entities: { Product: product }
  } satisfies Subgraph
})
