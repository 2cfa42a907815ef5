/** Products for the names in a file of baskets, and stock enough to sell all of them. */
import { Effect, Schema } from "effect"
import { OrderJson, LevelsJson, ProductJson } from "@merkato/rpc/rest/Json"
import * as Baskets from "./Baskets.ts"
import { CommandFailed } from "./Failure.ts"
import { problemOf, type Request, Shop } from "./Shop.ts"

const category = "Groceries"
const currency = "USD"

/** The most units that one adjustment may add. */
const maxDelta = 1_000_000

/** Who adds products and stock. */
const importer = "basket-import"

type Product = typeof ProductJson.Type

const decodeProduct = Schema.decodeUnknownEffect(ProductJson)

export interface Put {
  readonly productIds: ReadonlyMap<string, string>
  /** Names of those that were not there before. */
  readonly added: ReadonlySet<string>
}

/** One product per name: those that are there by their SKU, the others made. Fails when a SKU is another thing's. */
export const put = Effect.fn("Shelf.put")(function* (names: ReadonlyArray<string>, concurrency: number) {
  const shop = yield* Shop
  const token = yield* shop.token(importer, "admin")
  const bySku = (products: ReadonlyArray<Product>) =>
    new Map<string, Product>(products.map((product) => [product.sku, product]))
  const known = bySku(yield* shop.all(`/api/v1/products?category=${category}`, ProductJson))
  // A product of ours that somebody moved to another category; asked for only then, since a shop may have many.
  const everything = yield* Effect.cached(Effect.map(shop.all("/api/v1/products", ProductJson), bySku))
  const added = new Set<string>()

  const productOf = Effect.fnUntraced(function* (name: string, sku: string) {
    const there = known.get(sku)
    if (there !== undefined) return there
    const body = { sku, name, category, price: Baskets.priceOf(name), currency }
    const request: Request = { method: "POST", path: "/api/v1/products", token, body }
    const answer = yield* shop.persist(request)
    if (answer.status === 201) {
      added.add(name)
      return yield* Effect.orDie(decodeProduct(answer.body))
    }
    const moved = problemOf(answer)?.code === "sku_taken" ? (yield* everything).get(sku) : undefined
    return moved ?? (yield* shop.unexpected(request, answer))
  })

  const products = yield* Effect.forEach(
    Baskets.skusOf(names),
    Effect.fnUntraced(function* ([name, sku]) {
      const product = yield* productOf(name, sku)
      if (product.name !== name) {
        return yield* new CommandFailed({
          reason: `The SKU ${sku} of ${name} is taken by another product: ${product.name}.`
        })
      }
      return [name, product.productId] as const
    }),
    { concurrency }
  )
  return { productIds: new Map<string, string>(products), added } satisfies Put
})

/** Units by product in those orders of these shoppers that are open or paid: their stock is held or gone already. */
const taken = Effect.fnUntraced(function* (shoppers: ReadonlyArray<string>, concurrency: number) {
  const shop = yield* Shop
  const units = new Map<string, number>()
  yield* Effect.forEach(
    shoppers,
    Effect.fnUntraced(function* (shopper) {
      const orders = yield* shop.all("/api/v1/orders", OrderJson, yield* shop.token(shopper, "shopper"))
      for (const { status, items } of orders) {
        if (status === "CANCELED") continue
        for (const { productId, qty } of items) units.set(productId, (units.get(productId) ?? 0) + qty)
      }
    }),
    { concurrency, discard: true }
  )
  return units
})

/**
 * Adds what is missing of each product for the baskets that these shoppers have not yet got; nothing when they have got
 * all. Orders are looked at before stock: one that is placed in between then counts as still to come, and a few units
 * too many do no harm where one too few would. How many units were added.
 */
export const stock = Effect.fn("Shelf.stock")(function* (
  { productIds, added }: Put,
  units: ReadonlyMap<string, number>,
  shoppers: ReadonlyArray<string>,
  concurrency: number
) {
  const shop = yield* Shop
  const token = yield* shop.token(importer, "admin")
  const sold = added.size === productIds.size ? new Map<string, number>() : yield* taken(shoppers, concurrency)

  const fill = Effect.fnUntraced(function* ([name, productId]: readonly [string, string]) {
    const toCome = (units.get(name) ?? 0) - (sold.get(productId) ?? 0)
    const path = `/api/v1/inventory/${productId}`
    let total = 0
    while (true) {
      const { available } = yield* shop.read({ method: "GET", path }, 200, LevelsJson)
      const delta = Math.min(maxDelta, toCome - available)
      if (delta <= 0) return total
      const body = { delta, reason: "stock for baskets" }
      const request: Request = { method: "POST", path: `${path}/adjustments`, token, body }
      // Adjustments have no key: after a failure the levels say whether it happened.
      const answer = yield* Effect.option(shop.ask(request))
      if (answer._tag === "Some" && answer.value.status === 201) total += delta
      else if (answer._tag === "Some" && answer.value.status !== 503)
        return yield* shop.unexpected(request, answer.value)
      else yield* Effect.sleep("500 millis")
    }
  })
  const topUps = yield* Effect.forEach(productIds, fill, { concurrency })
  return topUps.reduce((sum, delta) => sum + delta, 0)
})
