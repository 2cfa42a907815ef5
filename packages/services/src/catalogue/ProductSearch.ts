import { Context, Effect, Layer, Option, Schema } from "effect"
import { ProductId } from "@merkato/domain/kernel/Ids"
import type { Product } from "@merkato/domain/catalogue/Product"
import { InvalidValue, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import * as Cursor from "@merkato/infra/paging/Cursor"
import { orUnavailable } from "@merkato/infra/postgres/Database"
import { OpenSearch } from "@merkato/infra/opensearch/OpenSearch"
import { Policies } from "@merkato/infra/policy/Policies"
import * as OpenSearchProducts from "./OpenSearchProducts.ts"
import * as SearchStore from "./SearchStore.ts"

export interface Found extends Cursor.Page<Product> {
  /** Somebody who asks again may find more at once, without any change: it is not to be kept. */
  readonly late?: true
}

export interface Wanted {
  readonly q: string
  readonly category?: string
  readonly limit: number
  readonly cursor?: string
}

export interface CategorySize {
  readonly category: string
  readonly products: number
}

/**
 * Finds products by words. A product is found by a word if its name, category or description has one that begins so; all of
 * the words have to be found, and what has them in its name comes first. Each is found once, on whatever page.
 */
export class ProductSearch extends Context.Service<
  ProductSearch,
  {
    readonly search: (wanted: Wanted) => Effect.Effect<Found, InvalidValue | ServiceUnavailable>
    /** Different names that have all of the words. */
    readonly suggest: (q: string, limit: number) => Effect.Effect<ReadonlyArray<string>, ServiceUnavailable>
    /** How many of those that are found are in each category, most first. */
    readonly facets: (q: string) => Effect.Effect<ReadonlyArray<CategorySize>, ServiceUnavailable>
  }
>()("merkato/catalogue/ProductSearch") {}

/** Words of a search: letters and digits of any script; at most 10. */
const wordsOf = (q: string): ReadonlyArray<string> => (q.match(/[\p{L}\p{N}]+/gu) ?? []).slice(0, 10)

/** Without words nothing is found. */
const ofWords = <A, E>(q: string, find: (words: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<A>, E>) => {
  const words = wordsOf(q)
  return words.length === 0 ? Effect.succeed([]) : find(words)
}

const PostgresPlace = Schema.Struct({ rank: Schema.Finite, productId: ProductId })
/** A search that began in OpenSearch goes on there: the two do not rank alike. */
const OpenSearchPlace = Schema.Struct({ score: Schema.Finite, productId: ProductId, fuzzy: Schema.Boolean })
const cursors = Cursor.make(Schema.Union([PostgresPlace, OpenSearchPlace]))

type PostgresPlace = typeof PostgresPlace.Type

const nothing: Found = { items: [], nextCursor: null }

const inPostgres = (store: SearchStore.SearchStore) => {
  const orAway = orUnavailable("catalogue")
  return {
    search: Effect.fnUntraced(function* (
      words: ReadonlyArray<string>,
      { category, limit }: Wanted,
      after: PostgresPlace | undefined
    ) {
      const { products, rank } = yield* store.search(words, category, after, limit)
      const last = products.at(-1)
      const more = products.length === limit && last !== undefined
      return { items: products, nextCursor: more ? cursors.encode({ rank, productId: last.productId }) : null }
    }, orAway),
    suggest: (words: ReadonlyArray<string>, limit: number) => orAway(store.namesWith(words, limit)),
    facets: (words: ReadonlyArray<string>) => orAway(store.sizesOf(words))
  }
}

const notAcursor = new InvalidValue({ path: "cursor", reason: "not a cursor of this list" })

/** Products in Postgres: what has changed is found at once. */
const postgres = (store: SearchStore.SearchStore) => {
  const side = inPostgres(store)
  return ProductSearch.of({
    search: Effect.fnUntraced(function* (wanted) {
      const after = yield* cursors.decode(wanted.cursor)
      if (after !== undefined && "score" in after) return yield* notAcursor
      const words = wordsOf(wanted.q)
      return words.length === 0 ? nothing : yield* side.search(words, wanted, after)
    }),
    suggest: (q, limit) => ofWords(q, (words) => side.suggest(words, limit)),
    facets: (q) => ofWords(q, side.facets)
  })
}

/**
 * Products found in OpenSearch, which forgives a mistyped word where nothing else is found, and told as Postgres has them now.
 * While OpenSearch is away, or is not built yet, Postgres finds them: without forgiving, and never wrong. Only a search whose
 * first page came from OpenSearch cannot go on without it.
 */
const openSearch = Effect.fnUntraced(function* (store: SearchStore.SearchStore, server: typeof OpenSearch.Service) {
  const policies = yield* Policies
  const side = inPostgres(store)
  const other = OpenSearchProducts.make(server)
  const orAway = orUnavailable("catalogue")
  const guarded = policies.guard<OpenSearchProducts.SearchUnavailable>("search.products", {
    transient: (error) => !(error instanceof OpenSearchProducts.SearchUnavailable) || OpenSearchProducts.isAway(error)
  })
  const away = new ServiceUnavailable({ service: "search", retryAfterSeconds: 5 })

  return ProductSearch.of({
    search: Effect.fnUntraced(function* (wanted) {
      const after = yield* cursors.decode(wanted.cursor)
      const words = wordsOf(wanted.q)
      if (words.length === 0) return nothing
      if (after !== undefined && !("score" in after)) return yield* side.search(words, wanted, after)
      const found = yield* Effect.option(guarded(other.search(words, wanted, after)))
      if (Option.isNone(found)) {
        if (after !== undefined) return yield* away
        // Not to be kept either: it forgives nothing, and OpenSearch may be back the next moment.
        return { ...(yield* side.search(words, wanted, after)), late: true }
      }
      const { places, last } = found.value
      const products = new Map((yield* orAway(store.findAll(places))).map((product) => [product.productId, product]))
      return {
        items: places.flatMap((productId) => products.get(productId) ?? []),
        nextCursor: last === undefined ? null : cursors.encode(last),
        late: true
      } satisfies Found
    }),
    suggest: (q, limit) =>
      ofWords(q, (words) => Effect.catch(guarded(other.suggest(words, limit)), () => side.suggest(words, limit))),
    facets: (q) => ofWords(q, (words) => Effect.catch(guarded(other.facets(words)), () => side.facets(words)))
  })
})

/** Searches in OpenSearch where there is one, else in Postgres. */
export const layer = Layer.effect(
  ProductSearch,
  Effect.gen(function* () {
    const store = yield* SearchStore.make
    const server = yield* Effect.serviceOption(OpenSearch)
    return Option.isSome(server) ? yield* openSearch(store, server.value) : postgres(store)
  })
)
