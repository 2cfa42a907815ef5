// Searches in Postgres and in OpenSearch: what both promise, what OpenSearch forgives, and that its being away makes nothing wrong.
import { afterAll, describe, expect, test } from "bun:test"
import { ConfigProvider, Effect, Layer, Logger } from "effect"
import { Sku } from "@merkato/domain/catalogue/Product"
import * as OpenSearchWhereNamed from "@merkato/infra/opensearch/OpenSearchWhereNamed"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { as, inShop } from "./support/InProcess.ts"
import { freePort, runToEnd } from "./support/Processes.ts"
import { realServer } from "./support/RealServer.ts"
import { restShop } from "./support/RestShop.ts"
import { until } from "./support/Until.ts"

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
    for (let tries = 0; tries < 700; tries++) {
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
          const mistyped = late === undefined ? "flour" : "flowr"
          const all = yield* eventually(list(mistyped), ({ items }) => items.length === 7)
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

describe.skipIf(server === undefined)("a shop that searches in OpenSearch", () => {
  const shop = restShop({ OPENSEARCH_URL: url, OPENSEARCH_INDEX_PREFIX: "shop_" })
  const index = `${url}/shop_product_search_index`

  const search = (q: string, rest = "") => shop().anyone.get(`/api/v1/products?q=${encodeURIComponent(q)}${rest}`)
  const found = async (q: string) => {
    const { items } = (await search(q)).body as { readonly items: ReadonlyArray<{ readonly name: string }> }
    return items.map(({ name }) => name)
  }
  const untilFound = (q: string, ...wanted: ReadonlyArray<string>) =>
    until(
      () => found(q),
      (names) => JSON.stringify(names) === JSON.stringify(wanted)
    )
  const rename = async (productId: string, name: string) => {
    const admin = await shop().as("ADMIN", "admin")
    expect((await admin.request("PATCH", `/api/v1/products/${productId}`, { body: { name } })).status).toBe(200)
  }
  const replay = (...args: ReadonlyArray<string>) =>
    runToEnd("merkato", ["replay", "product_search_index", ...args], shop().settings)

  test("finds there what was put on the shelf, by words that are nearly right", async () => {
    const productId = await shop().product({ name: "Raspberries" })
    await untilFound("rasberies", "Raspberries")
    await rename(productId, "Gooseberries")
    await untilFound("goosebrries", "Gooseberries")
    await untilFound("rasberies")
    expect((await shop().anyone.get("/api/v1/search/suggestions?q=goose")).body).toEqual({ items: ["Gooseberries"] })
    expect((await shop().anyone.get("/api/v1/search/facets?q=goose")).body).toEqual({
      categories: [{ category: "Test", products: 1 }]
    })
    expect((await shop().anyone.get("/api/v1/search/suggestions?q=goose&limit=21")).status).toBe(400)
  })

  test("is told by a replay which rows are not what Postgres has, and has them mended", async () => {
    const [wrong, gone] = [await shop().product({ name: "Walnuts" }), await shop().product({ name: "Hazelnuts" })]
    await untilFound("hazlenuts", "Hazelnuts")
    const whole = await replay("--check")
    expect(whole.code).toBe(0)
    expect(whole.stdout).toMatch(
      /^product_search_index: [\d,]+ events read in .*\nrebuilt in OpenSearch: ([\d,]+) rows compared, 0 differences\nlive in OpenSearch: \1 rows compared, 0 differences\n$/
    )
    const json = { "content-type": "application/json" }
    const damage = { script: { source: "ctx._source.name = 'Wallnuts'" }, query: { term: { product_id: wrong } } }
    await fetch(`${index}/_update_by_query?refresh`, { method: "POST", headers: json, body: JSON.stringify(damage) })
    await fetch(`${index}/_doc/${gone}?refresh`, { method: "DELETE" })
    const stranger = { product_id: "PROD-1", name: "Nuts", version: 1 }
    await fetch(`${index}/_doc/PROD-1?refresh`, { method: "PUT", headers: json, body: JSON.stringify(stranger) })
    const mended = await replay()
    expect(mended.code).toBe(1)
    expect(mended.stdout).toContain(" rows compared, 3 differences:\n")
    expect(mended.stdout).toContain(`product_id=${wrong}: name is "Wallnuts", Postgres says "Walnuts"\n`)
    expect(mended.stdout).toContain(`product_id=${gone}: missing, Postgres has it\n`)
    expect(mended.stdout).toContain("product_id=PROD-1: Postgres does not have it\n")
    expect(mended.stdout).toEndWith("product_search_index is the rebuilt one now.\n")
    expect(mended.stderr).toEndWith("product_search_index was not what Postgres has in 3 rows and is mended.\n")
    await untilFound("hazlenuts", "Hazelnuts")
    await rename(wrong, "Pecans")
    await untilFound("pecasn", "Pecans")
  }, 60_000)

  test("searches on in Postgres while OpenSearch hangs, and catches up when it is back", async () => {
    const names = ["Barley 1", "Barley 2", "Barley 3"]
    const first = await shop().product({ name: names[0] })
    for (const name of names.slice(1)) await shop().product({ name })
    await until(
      () => found("barlye"),
      (told) => told.length === 3
    )
    const begun = await search("barley", "&limit=2")
    server?.freeze()
    try {
      expect((await found("barley")).toSorted()).toEqual(names)
      await rename(first, "Oats")
      expect(await found("oats")).toEqual(["Oats"])
      // Its next page is nowhere else.
      const next = await search("barley", `&limit=2&cursor=${String(begun.body["nextCursor"])}`)
      expect([next.status, next.body["code"]]).toEqual([503, "service_unavailable"])
      expect(next.headers.get("retry-after")).not.toBeNull()
    } finally {
      server?.thaw()
    }
    await until(
      () => found("barlye"),
      (told) => told.length === 2
    )
    const next = await search("barley", `&limit=2&cursor=${String(begun.body["nextCursor"])}`)
    expect(next.status).toBe(200)
  }, 60_000)

  test("searches on in Postgres when OpenSearch is dead, tells what waits, and catches up when it is back", async () => {
    await shop().product({ name: "Quinoa" })
    await untilFound("quinao", "Quinoa")
    server?.kill()
    expect(await found("quinoa")).toEqual(["Quinoa"])
    await shop().product({ name: "Quinoa flakes" })
    expect((await found("quinoa")).toSorted()).toEqual(["Quinoa", "Quinoa flakes"])
    expect((await replay("--check")).stderr).toMatch(/^OPENSEARCH_URL cannot be used: 127\.0\.0\.1:\d+: .+\n$/)
    const lag = () => shop().lagOf("catalogue.product_search_index")
    await until(lag, (events) => events > 0)
    await server?.start()
    await until(
      () => found("quinao"),
      (names) => names.length === 2
    )
    await until(lag, (events) => events === 0)
    const whole = await replay("--check")
    expect([whole.code, whole.stdout]).toEqual([
      0,
      expect.stringMatching(/^live in OpenSearch: [\d,]+ rows compared, 0 differences$/m)
    ])
  }, 180_000)

  test("says in a sentence, and without a secret, that nobody answers or that it is no address", async () => {
    const nobody = await freePort()
    for (const [given, reason] of [
      [`http://merkato:geheim@127.0.0.1:${nobody}`, `127\\.0\\.0\\.1:${nobody}: .+`],
      [`geheim:${nobody}`, "expected http://host:port or https://host"],
      [shop().url, `${shop().url.slice("http://".length)}: .+`]
    ] as const) {
      const refused = await Effect.void.pipe(
        Effect.provide(
          OpenSearchWhereNamed.layer.pipe(
            Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ OPENSEARCH_URL: given })))
          )
        ),
        Effect.flip,
        Effect.runPromise
      )
      expect(refused.message).toMatch(new RegExp(`^OPENSEARCH_URL cannot be used: ${reason}$`))
      expect(refused.message).not.toContain("geheim")
    }
  })
})
