// Searches in a big catalogue: the best are found, page by page, and a word that is everywhere does not make them look everywhere.
import { expect, test } from "bun:test"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import * as SearchStore from "../src/catalogue/SearchStore.ts"
import { Catalogue } from "../src/catalogue/index.ts"

const goods = 1_500

/** Goods that are all sweet as their descriptions have it; the last three by name as well, the last one twice. */
const fill = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`
    insert into catalogue.products
      (product_id, sku, name, description, category, price_minor, currency, version, created_at, updated_at)
    select 'PROD-' || lpad(n::text, 4, '0'), 'SKU-' || n,
      case when n = ${goods} then 'Sweet sweet' when n > ${goods - 3} then 'Sweet' else 'Plain' end || ' thing ' || n, 'How sweet it is',
      case when n % 300 = 0 then 'Rare' else 'Common' end, 100, 'USD', 1, to_timestamp(0), to_timestamp(0)
    from generate_series(1, ${goods}::int) as n`
)

test("the best of many are found, each once on whatever page, and no more than so many are looked at", () =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.fresh
    yield* Effect.gen(function* () {
      yield* Catalogue.migrate
      yield* fill
      const { search } = yield* SearchStore.make
      const found: Array<string> = []
      let after: SearchStore.SearchPlace | undefined
      for (;;) {
        const { products, rank } = yield* search(["sweet"], undefined, after, 100)
        found.push(...products.map(({ productId }) => String(productId)))
        const last = products.at(-1)
        if (last === undefined) break
        after = { rank, productId: last.productId }
      }
      expect(found.slice(0, 3)).toEqual(["PROD-1500", "PROD-1499", "PROD-1498"])
      expect(found.length).toBe(SearchStore.mostFound + 3)
      expect(new Set(found).size).toBe(found.length)

      const rare = yield* search(["swe"], "Rare", undefined, 100)
      expect(rare.products.map(({ productId }) => String(productId))).toEqual([
        "PROD-1500",
        "PROD-1200",
        "PROD-0900",
        "PROD-0600",
        "PROD-0300"
      ])
      expect(
        (yield* search(["sweet", "1200"], undefined, undefined, 100)).products.map(({ productId }) => String(productId))
      ).toEqual(["PROD-1200"])
      expect((yield* search(["bitter"], undefined, undefined, 100)).products).toEqual([])
    }).pipe(Effect.provide(Database.layer({ url, maxConnections: 1, applicationName: "test" })))
  }).pipe(Effect.scoped, Effect.withTracerEnabled(false), Effect.runPromise))
