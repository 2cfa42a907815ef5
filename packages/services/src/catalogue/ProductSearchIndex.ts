import { Effect, Option, Result } from "effect"
import { ProductUpdated } from "@merkato/domain/catalogue/CatalogueEvents"
import { fromDecimal } from "@merkato/domain/kernel/Money"
import { OpenSearch } from "@merkato/infra/opensearch/OpenSearch"
import * as OpenSearchRows from "@merkato/infra/opensearch/OpenSearchRows"
import * as Copy from "@merkato/infra/projection/Copy"
import * as Projection from "@merkato/infra/projection/Projection"

/** Products as searches want them. */
export const productSearchIndex = Projection.make({
  name: "product_search_index",
  context: "catalogue",
  topic: "catalogue.events",
  key: { product_id: "text" },
  once: {},
  latest: {
    sku: "text",
    name: "text",
    description: "text",
    category: "text",
    price_minor: "bigint",
    currency: "text"
  },
  events: [
    Projection.on(ProductUpdated, ({ productId, price, currency, ...product }, { aggregateVersion }) => [
      {
        product_id: productId,
        sku: product.sku,
        name: product.name,
        description: product.description,
        category: product.category,
        price_minor: Result.getOrThrow(fromDecimal(price, currency)),
        currency,
        version: aggregateVersion
      }
    ])
  ]
})

/**
 * Text as it is searched: words are letters and digits of any script, as in Postgres; accents do not matter. Whoever matches
 * is told from who does not, and no more: how often a word occurs, here or in other products, would move the places of pages
 * with every change of the catalogue.
 */
const words = {
  type: "text",
  analyzer: "words",
  similarity: "boolean",
  index_prefixes: { min_chars: 1, max_chars: 15 }
}

/** How it is indexed. */
const shape: OpenSearchRows.Shape = {
  properties: {
    product_id: { type: "keyword" },
    sku: { type: "keyword" },
    name: { ...words, fields: { whole: { type: "keyword" } } },
    description: words,
    category: { ...words, fields: { whole: { type: "keyword" } } },
    price_minor: { type: "long" },
    currency: { type: "keyword" },
    version: { type: "integer" }
  },
  analysis: {
    tokenizer: { words: { type: "pattern", pattern: "[^\\p{L}\\p{N}]+" } },
    analyzer: { words: { type: "custom", tokenizer: "words", filter: ["lowercase", "asciifolding"] } }
  }
}

/** It lies in OpenSearch, where there is one; Postgres searches the products themselves. */
export const productSearchCopy = Copy.make({
  name: "product_search_index",
  projection: productSearchIndex,
  truth: "catalogue.products",
  variable: "OPENSEARCH_URL",
  store: Effect.flatMap(Effect.serviceOption(OpenSearch), (server) =>
    Option.isSome(server)
      ? Effect.provideService(OpenSearchRows.make(productSearchIndex, shape), OpenSearch, server.value)
      : Effect.undefined
  )
})
