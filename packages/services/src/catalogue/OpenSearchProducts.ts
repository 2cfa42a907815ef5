import { Effect, Schema } from "effect"
import { ProductId } from "@merkato/domain/kernel/Ids"
import { type OpenSearch, OpenSearchRefused, OpenSearchUnavailable } from "@merkato/infra/opensearch/OpenSearch"
import * as OpenSearchRows from "@merkato/infra/opensearch/OpenSearchRows"
import { productSearchIndex } from "./ProductSearchIndex.ts"

/** OpenSearch is away, has no index yet, or answers what cannot be read: somebody else has to find the products. */
export class SearchUnavailable extends Schema.TaggedError<SearchUnavailable>()("SearchUnavailable", {
  cause: Schema.Defect()
}) {}

/** Whether it is OpenSearch that is not well, rather than that there is no index yet, or that we ask what cannot be. */
export const isAway = ({ cause }: SearchUnavailable): boolean => cause instanceof OpenSearchUnavailable

const isExpected = (cause: unknown) =>
  cause instanceof OpenSearchUnavailable || (cause instanceof OpenSearchRefused && cause.status === 404)

/** Where a page ended. */
export interface Place {
  readonly score: number
  readonly productId: ProductId
  /** Whether the words were forgiven: the next page has to be, too. */
  readonly fuzzy: boolean
}

interface Page {
  readonly places: ReadonlyArray<ProductId>
  /** Where it ended, if there is more. */
  readonly last: Place | undefined
}

interface Wanted {
  readonly category?: string
  readonly limit: number
}

const Hits = Schema.Struct({
  hits: Schema.Struct({
    hits: Schema.Array(Schema.Struct({ _id: ProductId, sort: Schema.Tuple([Schema.Finite, Schema.String]) }))
  })
})
const Names = Schema.Struct({
  hits: Schema.Struct({
    hits: Schema.Array(Schema.Struct({ _source: Schema.Struct({ name: Schema.String }) }))
  })
})
const Sizes = Schema.Struct({
  aggregations: Schema.Struct({
    categories: Schema.Struct({ buckets: Schema.Array(Schema.Struct({ key: Schema.String, doc_count: Schema.Int })) })
  })
})
const decodeHits = Schema.decodeUnknownEffect(Hits)
const decodeNames = Schema.decodeUnknownEffect(Names)
const decodeSizes = Schema.decodeUnknownEffect(Sizes)

/** What a word is worth where it is found; one that is only like it is found where no other is, and is worth least. */
const worth = { name: 8, category: 4, description: 2, whole: 1 } as const

const always = (boost: number, filter: object) => ({ constant_score: { boost, filter } })

const begins = (field: "name" | "category" | "description", word: string) =>
  always(worth[field], { match_bool_prefix: { [field]: word } })

const isWord = (word: string) => !/\p{N}/u.test(word)

/** A number is either right or not; a word may have a letter or two wrong, not the first one. */
const resembles = (field: "name" | "category", word: string) =>
  always(1, { match: { [field]: { query: word, fuzziness: "AUTO", prefix_length: 1, max_expansions: 50 } } })

const found = (word: string, fuzzy: boolean) => ({
  dis_max: {
    // Exactly in binary: scores are compared with those that a cursor brings back.
    tie_breaker: 0.25,
    queries: [
      begins("name", word),
      begins("category", word),
      begins("description", word),
      always(worth.name + worth.whole, { match: { name: word } }),
      ...(fuzzy && isWord(word) ? [resembles("name", word), resembles("category", word)] : [])
    ]
  }
})

const queryOf = (words: ReadonlyArray<string>, category: string | undefined, fuzzy: boolean) => ({
  bool: {
    must: words.map((word) => found(word, fuzzy)),
    ...(category === undefined ? {} : { filter: [{ term: { "category.whole": category } }] })
  }
})

/** Categories of a search that are told. */
const mostCategories = 50

/** Searches in the index of products. */
export const make = ({ ask, prefix }: typeof OpenSearch.Service) => {
  const { live } = OpenSearchRows.aliasesOf(prefix, productSearchIndex)
  const request = <A, E>(body: object, decode: (answer: unknown) => Effect.Effect<A, E>) =>
    ask({ method: "POST", path: `${live}/_search`, body }).pipe(
      Effect.flatMap(decode),
      Effect.mapError((cause) => new SearchUnavailable({ cause })),
      Effect.tapError(({ cause }) => (isExpected(cause) ? Effect.void : Effect.logError("A search cannot be", cause)))
    )

  const page = (
    words: ReadonlyArray<string>,
    { category, limit }: Wanted,
    fuzzy: boolean,
    after: Place | undefined
  ): Effect.Effect<Page, SearchUnavailable> =>
    Effect.map(
      request(
        {
          size: limit,
          _source: false,
          track_total_hits: false,
          query: queryOf(words, category, fuzzy),
          sort: [{ _score: "desc" }, { product_id: "desc" }],
          ...(after === undefined ? {} : { search_after: [after.score, after.productId] })
        },
        decodeHits
      ),
      ({ hits: { hits } }) => {
        const last = hits.length < limit ? undefined : hits.at(-1)
        return {
          places: hits.map(({ _id }) => _id),
          last: last === undefined ? undefined : { score: last.sort[0], productId: last._id, fuzzy }
        }
      }
    )

  return {
    /** Forgives where nothing is found otherwise. */
    search: Effect.fnUntraced(function* (words: ReadonlyArray<string>, wanted: Wanted, after: Place | undefined) {
      const found = yield* page(words, wanted, after?.fuzzy ?? false, after)
      return found.places.length > 0 || after !== undefined ? found : yield* page(words, wanted, true, after)
    }),

    suggest: (words: ReadonlyArray<string>, limit: number) =>
      Effect.map(
        request(
          {
            size: limit,
            _source: ["name"],
            track_total_hits: false,
            query: { bool: { filter: words.map((word) => ({ match_bool_prefix: { name: word } })) } },
            collapse: { field: "name.whole" },
            sort: [{ "name.whole": "asc" }]
          },
          decodeNames
        ),
        ({ hits: { hits } }) => hits.map(({ _source }) => _source.name)
      ),

    facets: (words: ReadonlyArray<string>) =>
      Effect.map(
        request(
          {
            size: 0,
            query: queryOf(words, undefined, false),
            aggs: { categories: { terms: { field: "category.whole", size: mostCategories } } }
          },
          decodeSizes
        ),
        ({ aggregations: { categories } }) =>
          categories.buckets.map(({ key, doc_count }) => ({ category: key, products: doc_count }))
      )
  }
}
