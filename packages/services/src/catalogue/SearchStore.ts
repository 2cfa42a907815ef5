import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { decodeProducts, productColumns } from "./CatalogueStore.ts"

/** A place in a list of search results: rank and product of the last one seen. */
export interface SearchPlace {
  readonly rank: number
  readonly productId: string
}

/** Products that a search looks at, of each kind. */
export const mostFound = 200

/** Categories of a search that are told. */
const mostCategories = 50

/** Every word has to occur; each may be only begun. */
const queryOf = (words: ReadonlyArray<string>) =>
  words.map((word) => `'${word.replaceAll("'", "''").replaceAll("\\", "\\\\")}':*`).join(" & ")

/** The SQL of searches. */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const fields = sql.literal(productColumns)
  const none = sql.literal("")

  /** The query once, to be joined: the planner cannot look into it, and would try its luck from row to row. */
  const wanted = (words: ReadonlyArray<string>) =>
    sql`(select to_tsquery('simple', ${queryOf(words)}) as query offset 0) wanted`

  const inNames = `to_tsvector('simple'::regconfig, name)`
  const places = (where: string, category: string | undefined) => sql`(
    select ctid from catalogue.products where ${sql.literal(where)} @@ query
      ${category === undefined ? none : sql`and category = ${category}`}
    limit ${mostFound})`

  /**
   * A word may be in every product there is: no more than `mostFound` of those that have the words in their name, and as many
   * of all, are looked at. Both are found by their index.
   */
  const candidates = (category: string | undefined) => sql`lateral (
      ${places(inNames, category)} union ${places("search", category)}
    ) candidate (place), lateral (
      select * from catalogue.products where ctid = candidate.place offset 0
    ) product`

  /** Best match first. */
  const search = Tracing.fn("SearchStore.search")(function* (
    words: ReadonlyArray<string>,
    category: string | undefined,
    after: SearchPlace | undefined,
    limit: number
  ) {
    const rows = yield* sql<{ rank: number }>`
      select * from (
        select ${fields}, ts_rank(search, query)::float8 as rank from ${wanted(words)}, ${candidates(category)}
      ) found
      ${after === undefined ? none : sql`where (rank, "productId") < (${after.rank}::float8, ${after.productId})`}
      order by rank desc, "productId" desc limit ${limit}`
    const last = rows.at(-1)
    return { products: yield* Effect.orDie(decodeProducts(rows)), rank: last?.rank ?? 0 }
  })

  /** Different names that have the words, of `mostFound` products; in the order of the alphabet. */
  const namesWith = Tracing.fn("SearchStore.namesWith")(function* (words: ReadonlyArray<string>, limit: number) {
    const rows = yield* sql<{ name: string }>`
      select distinct name collate "C" as name
      from ${wanted(words)}, lateral ${places(inNames, undefined)} candidate (place), lateral (
        select name from catalogue.products where ctid = candidate.place offset 0
      ) product
      order by name limit ${limit}`
    return rows.map(({ name }) => name)
  })

  /** How many of the products that a search looks at are in each category, most first. */
  const sizesOf = Tracing.fn("SearchStore.sizesOf")(function* (words: ReadonlyArray<string>) {
    return yield* sql<{ category: string; products: number }>`
      select category, count(*) as products from ${wanted(words)}, ${candidates(undefined)}
      group by category order by products desc, category collate "C" limit ${mostCategories}`
  })

  /** Those of these products that there are. */
  const findAll = Tracing.fn("SearchStore.findAll")(function* (productIds: ReadonlyArray<string>) {
    if (productIds.length === 0) return []
    const rows = yield* sql`select ${fields} from catalogue.products where product_id = any(${productIds}::text[])`
    return yield* Effect.orDie(decodeProducts(rows))
  })

  return { search, namesWith, sizesOf, findAll }
})

export type SearchStore = Effect.Success<typeof make>
