import { Schema, SchemaTransformation } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema } from "effect/http-api"
import { Category, PriceReason, ProductDescription, ProductName, Sku } from "@merkato/domain/catalogue/Product"
import * as Ids from "@merkato/domain/kernel/Ids"
import { optionalText, text } from "@merkato/domain/kernel/Text"
import { CatalogueGroup } from "../../catalogue/CatalogueRpc.ts"
import { SignedIn } from "../Access.ts"
import { created, paging, priceFields, summary } from "../Endpoint.ts"
import * as Json from "../Json.ts"
import { problems } from "../Problems.ts"

const notModified = HttpApiSchema.Empty(304).annotate({ description: "You have it already (If-None-Match)" })
const conditional = { "if-none-match": Schema.optionalKey(Schema.String) }
const ifMatch = { "if-match": Schema.optionalKey(Schema.String) }

const SuggestionLimit = Schema.String.check(
  Schema.isPattern(/^(?:1?[1-9]|10|20)$/u, { expected: "a whole number from 1 to 20" })
).pipe(Schema.decodeTo(Schema.Int, SchemaTransformation.numberFromString))

export class Catalogue extends HttpApiGroup.make("catalogue").add(
  HttpApiEndpoint.post("addProduct", "/products", {
    payload: Schema.Struct({
      sku: Sku,
      name: ProductName,
      description: Schema.optionalKey(ProductDescription),
      category: Category,
      ...priceFields
    }),
    success: Json.ProductJson.pipe(created),
    error: problems(CatalogueGroup, "AddProduct")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Put a product on the shelf (admin)")),
  HttpApiEndpoint.get("listProducts", "/products", {
    query: {
      ...paging,
      q: Schema.optionalKey(optionalText(200)),
      category: Schema.optionalKey(optionalText(100))
    },
    headers: conditional,
    success: [Json.pageOf(Json.ProductJson), notModified],
    error: problems(CatalogueGroup, "ListProducts")
  }).annotateMerge(summary("Products, newest first; with q the best match first")),
  HttpApiEndpoint.get("suggestNames", "/search/suggestions", {
    query: { q: text(200), limit: Schema.optionalKey(SuggestionLimit) },
    success: Schema.Struct({ items: Schema.Array(Schema.String) }),
    error: problems(CatalogueGroup, "SuggestNames")
  }).annotateMerge(summary("Names of products that have all the words of q, each word perhaps only begun")),
  HttpApiEndpoint.get("searchFacets", "/search/facets", {
    query: { q: text(200) },
    success: Schema.Struct({ categories: Schema.Array(Json.CategoryJson) }),
    error: problems(CatalogueGroup, "SearchFacets")
  }).annotateMerge(
    summary("How many of the products that a search finds are in each category; on Postgres of some hundreds of them")
  ),
  HttpApiEndpoint.get("getProduct", "/products/:productId", {
    params: { productId: Ids.ProductId },
    headers: conditional,
    success: [Json.ProductJson, notModified],
    error: problems(CatalogueGroup, "GetProduct")
  }).annotateMerge(summary("One product")),
  HttpApiEndpoint.patch("changeProduct", "/products/:productId", {
    params: { productId: Ids.ProductId },
    headers: ifMatch,
    payload: Schema.Struct({
      name: Schema.optionalKey(ProductName),
      description: Schema.optionalKey(ProductDescription),
      category: Schema.optionalKey(Category)
    }),
    success: Json.ProductJson,
    error: problems(CatalogueGroup, "ChangeProduct")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Change what a product is called and where it stands (admin)")),
  HttpApiEndpoint.put("setPrice", "/products/:productId/price", {
    params: { productId: Ids.ProductId },
    headers: ifMatch,
    payload: Schema.Struct({ ...priceFields, reason: PriceReason }),
    success: Json.ProductJson,
    error: problems(CatalogueGroup, "SetPrice")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Set a price from now on (admin)")),
  HttpApiEndpoint.get("listPrices", "/products/:productId/prices", {
    params: { productId: Ids.ProductId },
    query: paging,
    success: Json.pageOf(Json.PricePeriodJson),
    error: problems(CatalogueGroup, "PriceHistory")
  }).annotateMerge(summary("The prices a product had, newest first; validTo is null for the one that holds")),
  HttpApiEndpoint.get("listCategories", "/categories", {
    success: Schema.Struct({ items: Schema.Array(Json.CategoryJson) }),
    error: problems(CatalogueGroup, "ListCategories")
  }).annotateMerge(summary("Categories, and how many products each has"))
) {}
