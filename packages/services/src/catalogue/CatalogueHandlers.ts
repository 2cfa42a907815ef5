import { Effect } from "effect"
import { CatalogueGroup } from "@merkato/rpc/catalogue/CatalogueRpc"
import { Catalogue } from "./Catalogue.ts"

export const CatalogueHandlers = CatalogueGroup.toLayer(
  Effect.gen(function* () {
    const catalogue = yield* Catalogue
    return CatalogueGroup.of({
      AddProduct: (product) => catalogue.add(product),
      ChangeProduct: (change) => catalogue.change(change),
      SetPrice: (price) => catalogue.setPrice(price),
      GetProduct: ({ productId }) => catalogue.get(productId),
      ProductsOf: ({ productIds }) => catalogue.productsOf(productIds),
      ProductsOfSkus: ({ skus }) => catalogue.productsOfSkus(skus),
      ListProducts: (options) => catalogue.list(options),
      SuggestNames: (options) => catalogue.suggestNames(options),
      SearchFacets: (options) => catalogue.searchFacets(options),
      ListCategories: () => catalogue.categories,
      PriceHistory: (options) => catalogue.priceHistory(options),
      PricesOf: ({ productIds }) => catalogue.pricesOf(productIds)
    })
  })
)
