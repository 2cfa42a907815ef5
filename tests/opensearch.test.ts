// Searches in Postgres and in OpenSearch: what both promise, what OpenSearch forgives, and that its being away makes nothing wrong.
import { afterAll, expect, test } from "bun:test"
import { Effect, Logger } from "effect"
import { Sku } from "@merkato/domain/catalogue/Product"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { as, inShop } from "./support/InProcess.ts"
import { realServer } from "./support/RealServer.ts"

const server = await realServer("opensearch", "searches in OpenSearch")
afterAll(() => server?.stop(), 30_000)
const url = server?.settings["OPENSEARCH_URL"] ?? ""

/** Goods to find; the last word of most names is a number. */
const goods = [
  ["Sweet cherries", "Fruit", "From the south"],
  ["Sour cherries", "Fruit", "Not sweet at all"],
  ["Cherry jam", "Pantry", "Very sweet"],
  ["Crème fraîche", "Dairy", "30 % fat"],
  ["Muesli 3000", "Pantry", "With cherries"],
  ...Array.from({ length: 7 }, (_, nth) => [`Plain flour ${nth + 1}`, "Pantry", "Ground fine"] as const)
] as const

const add = (name: string, category: string, description: string, nth: number) =>
  Effect.flatMap(CatalogueRpc, (catalogue) =>
    catalogue.AddProduct({
      sku: Sku.make(`SKU-${nth}`),
      name,
      category,
      description,
      priceMinor: 100 + nth,
      currency: "USD"
    })
  )

const sides = [
  { name: "Postgres", settings: {}, late: undefined },
  ...(server === undefined
    ? []
    : [{ name: "OpenSearch", settings: { OPENSEARCH_URL: url, OPENSEARCH_INDEX_PREFIX: "contract_" }, late: true }])
]

interface Asked {
  readonly category?: string
  readonly limit?: number
  readonly cursor?: string
}

const list = (q: string, { limit = 20, ...asked }: Asked = {}) =>
  Effect.flatMap(CatalogueRpc, (catalogue) => catalogue.ListProducts({ q, limit, ...asked }))

const names = (q: string, asked: Asked = {}) => Effect.map(list(q, asked), ({ items }) => items.map(({ name }) => name))

/** Asks until it is as wanted: an index needs a moment. */
const eventually = <A, E, R>(ask: Effect.Effect<A, E, R>, wanted: (answer: A) => boolean): Effect.Effect<A, E, R> =>
  Effect.gen(function* () {
    for (let tries = 0; tries < 400; tries++) {
      const answer = yield* ask
      if (wanted(answer)) return answer
      yield* Effect.sleep("50 millis")
    }
    return yield* ask
  })

for (const { name: side, settings, late } of sides) {
  test(
    `searches in ${side} keep what searches promise`,
    () =>
      inShop(
        Effect.gen(function* () {
          const catalogue = yield* CatalogueRpc
          const admin = as("ADMIN", "admin")
          const added = yield* admin(
            Effect.forEach(goods, ([name, category, about], nth) => add(name, category, about, nth))
          )
          // Of the side that is meant, and of all of them.
          const all = yield* eventually(list("flour"), (found) => found.late === late && found.items.length === 7)
          expect([all.late, all.items.length]).toEqual([late, 7])

          expect(yield* names("sweet")).toEqual(["Sweet cherries", "Cherry jam", "Sour cherries"])
          const both = yield* names("SWEET cherr")
          expect([both[0], both.toSorted()]).toEqual([
            "Sweet cherries",
            ["Cherry jam", "Sour cherries", "Sweet cherries"]
          ])
          expect(yield* names("sweet", { category: "Pantry" })).toEqual(["Cherry jam"])
          expect(yield* names("cherries 3000")).toEqual(["Muesli 3000"])
          expect(yield* names("fruit")).toEqual(["Sour cherries", "Sweet cherries"])
          for (const nothing of ["qqqqq", "cherries qqqqq", "-- !", "2999"]) expect(yield* names(nothing)).toEqual([])

          const pages: Array<ReadonlyArray<string>> = []
          let cursor: string | null = null
          do {
            const page: { readonly items: ReadonlyArray<{ name: string }>; readonly nextCursor: string | null } =
              yield* list("flour", { limit: 3, ...(cursor === null ? {} : { cursor }) })
            pages.push(page.items.map(({ name }) => name))
            cursor = page.nextCursor
          } while (cursor !== null)
          expect(pages.flat().toSorted()).toEqual(Array.from({ length: 7 }, (_, nth) => `Plain flour ${nth + 1}`))
          expect(pages.map((page) => page.length)).toEqual([3, 3, 1])
          expect(yield* Effect.flip(list("flour", { cursor: "bm90IG91cnM" }))).toMatchObject({ _tag: "InvalidValue" })

          expect(yield* catalogue.SuggestNames({ q: "cher", limit: 2 })).toEqual(["Cherry jam", "Sour cherries"])
          expect(yield* catalogue.SuggestNames({ q: "swe che", limit: 5 })).toEqual(["Sweet cherries"])
          expect(yield* catalogue.SuggestNames({ q: "?", limit: 5 })).toEqual([])
          expect(yield* catalogue.SearchFacets({ q: "cher" })).toEqual([
            { category: "Fruit", products: 2 },
            { category: "Pantry", products: 2 }
          ])
          expect(yield* catalogue.SearchFacets({ q: "?" })).toEqual([])

          const [first, second] = added
          if (first === undefined || second === undefined) throw new Error("there are no goods")
          yield* admin(catalogue.ChangeProduct({ productId: first.productId, name: "Dried figs" }))
          yield* admin(
            catalogue.SetPrice({ productId: second.productId, priceMinor: 777, currency: "USD", reason: "season" })
          )
          // What is told of a product that is found is as it is now, even if the index does not know it yet.
          expect((yield* list("sour")).items.map(({ priceMinor }) => priceMinor)).toEqual([777])
          expect(yield* eventually(names("figs"), (found) => found.length > 0)).toEqual(["Dried figs"])
          expect(yield* eventually(names("sweet cherries"), (found) => found.length === 1)).toEqual(["Sour cherries"])

          if (late === undefined) return
          expect(yield* names("chery jem")).toEqual(["Cherry jam"])
          expect(yield* names("creme fraiche")).toEqual(["Crème fraîche"])
          const forgiven = yield* list("flowr", { limit: 4 })
          const rest = yield* list("flowr", { limit: 4, cursor: forgiven.nextCursor ?? "" })
          expect([...forgiven.items, ...rest.items].map(({ name }) => name).toSorted()).toEqual(pages.flat().toSorted())
        }).pipe(Effect.provide(Logger.layer([]))),
        settings
      ),
    60_000
  )
}
