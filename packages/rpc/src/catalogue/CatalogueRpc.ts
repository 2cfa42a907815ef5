import { Schema } from "effect"
import { RpcGroup } from "effect/rpc"
import {
  Category,
  Price,
  PriceMinor,
  PricePeriod,
  PriceReason,
  Product,
  ProductDescription,
  ProductName,
  ProductNotFound,
  Sku,
  SkuTaken,
  VersionConflict
} from "@merkato/domain/catalogue/Product"
import { ProductId } from "@merkato/domain/kernel/Ids"
import { Currency } from "@merkato/domain/kernel/Money"
import { Forbidden, InvalidValue } from "@merkato/domain/kernel/Problem"
import { optionalText, text } from "@merkato/domain/kernel/Text"
import { Contract } from "../contract/Contract.ts"
import { command, idsOf, page, paging, query } from "../contract/Operation.ts"

const CategorySize = Schema.Struct({ category: Schema.String, products: Schema.Int })

/** SKUs that are looked up at once, at most. */
const mostSkus = 500

export const CatalogueGroup = RpcGroup.make(
  command("AddProduct", {
    payload: {
      sku: Sku,
      name: ProductName,
      description: ProductDescription,
      category: Category,
      priceMinor: PriceMinor,
      currency: Currency
    },
    success: Product,
    errors: [Forbidden, SkuTaken]
  }),
  command("ChangeProduct", {
    payload: {
      productId: ProductId,
      name: Schema.optionalKey(ProductName),
      description: Schema.optionalKey(ProductDescription),
      category: Schema.optionalKey(Category),
      expectedVersion: Schema.optionalKey(Schema.Int)
    },
    success: Product,
    errors: [Forbidden, ProductNotFound, VersionConflict]
  }),
  command("SetPrice", {
    payload: {
      productId: ProductId,
      priceMinor: PriceMinor,
      currency: Currency,
      reason: PriceReason,
      expectedVersion: Schema.optionalKey(Schema.Int)
    },
    success: Product,
    errors: [Forbidden, ProductNotFound, VersionConflict]
  }),
  query("GetProduct", { payload: { productId: ProductId }, success: Product, errors: [ProductNotFound] }),
  /** Those of the products that exist, at once. */
  query("ProductsOf", { payload: { productIds: idsOf(ProductId) }, success: Schema.Array(Product), errors: [] }),
  /** Whose SKUs these are, of those that are somebody's; a product keeps its SKU. */
  query("ProductsOfSkus", {
    payload: { skus: Schema.Array(Sku).check(Schema.isMaxLength(mostSkus)) },
    success: Schema.Array(Schema.Struct({ sku: Sku, productId: ProductId })),
    errors: []
  }),
  query("ListProducts", {
    payload: { ...paging, q: Schema.optionalKey(optionalText(200)), category: Schema.optionalKey(optionalText(100)) },
    /** `late`: of a read model that may not know yet what has changed, or in place of one that is away; not to be kept. */
    success: Schema.Struct({ ...page(Product).fields, late: Schema.optionalKey(Schema.Boolean) }),
    errors: [InvalidValue]
  }),
  /** Names of products, for whoever is still typing. */
  query("SuggestNames", {
    payload: { q: text(200), limit: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 20 })) },
    success: Schema.Array(Schema.String),
    errors: []
  }),
  /** How many of the products that are found are in each category, most first. */
  query("SearchFacets", {
    payload: { q: text(200) },
    success: Schema.Array(CategorySize),
    errors: []
  }),
  query("ListCategories", {
    payload: {},
    success: Schema.Array(CategorySize),
    errors: []
  }),
  query("PriceHistory", {
    payload: { ...paging, productId: ProductId },
    success: page(PricePeriod),
    errors: [ProductNotFound, InvalidValue]
  }),
  /** The prices that hold now, of those products that exist; never from a cache. */
  query("PricesOf", { payload: { productIds: Schema.Array(ProductId) }, success: Schema.Array(Price), errors: [] })
)

export class CatalogueRpc extends Contract<CatalogueRpc>()("catalogue", CatalogueGroup) {}
