import { Effect, Layer, Result } from "effect"
import { Sku } from "@merkato/domain/catalogue/Product"
import { UserId } from "@merkato/domain/kernel/Ids"
import { fromDecimal } from "@merkato/domain/kernel/Money"
import { defaultRegion, regionCurrency } from "@merkato/domain/kernel/Region"
import { Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"

/** A small grocery shelf: sku, name, category, price in the default region's currency, description. */
export const shelf: ReadonlyArray<
  readonly [sku: string, name: string, category: string, price: number, description: string]
> = [
  ["APPLE-1KG", "Apples, 1 kg", "Fruit", 2.99, "Crisp red apples."],
  ["BANANA-1KG", "Bananas, 1 kg", "Fruit", 1.89, "Ripe, from fair trade."],
  ["ORANGE-2KG", "Oranges, 2 kg", "Fruit", 4.49, "For eating or juice."],
  ["BERRIES-250G", "Blueberries, 250 g", "Fruit", 3.29, "Sweet and firm."],
  ["POTATO-2KG", "Potatoes, 2 kg", "Vegetables", 3.19, "All-rounders."],
  ["CARROT-1KG", "Carrots, 1 kg", "Vegetables", 1.49, "Washed."],
  ["TOMATO-500G", "Tomatoes, 500 g", "Vegetables", 2.79, "On the vine."],
  ["SPINACH-200G", "Spinach, 200 g", "Vegetables", 1.99, "Young leaves."],
  ["ONION-1KG", "Onions, 1 kg", "Vegetables", 1.29, "Yellow onions."],
  ["MILK-1L", "Whole milk, 1 l", "Dairy", 1.19, "3.5 % fat."],
  ["OATMILK-1L", "Oat drink, 1 l", "Dairy", 1.99, "Without milk."],
  ["YOGURT-500G", "Yogurt, 500 g", "Dairy", 1.59, "Plain."],
  ["BUTTER-250G", "Butter, 250 g", "Dairy", 2.89, "Unsalted."],
  ["CHEESE-400G", "Gouda, 400 g", "Dairy", 4.29, "Young, sliced."],
  ["EGGS-10", "Eggs, 10", "Dairy", 3.49, "Free range."],
  ["BREAD-750G", "Rye bread, 750 g", "Bakery", 3.39, "Sourdough."],
  ["ROLLS-6", "Rolls, 6", "Bakery", 1.79, "To bake at home."],
  ["PASTA-500G", "Spaghetti, 500 g", "Pantry", 1.39, "Durum wheat."],
  ["RICE-1KG", "Basmati rice, 1 kg", "Pantry", 3.79, "Long grain."],
  ["OIL-750ML", "Olive oil, 750 ml", "Pantry", 9.99, "Extra virgin."],
  ["BEANS-400G", "Kidney beans, 400 g", "Pantry", 0.99, "In water."],
  ["COFFEE-500G", "Coffee, 500 g", "Drinks", 7.49, "Whole beans."],
  ["TEA-20", "Green tea, 20 bags", "Drinks", 2.49, "From Assam."],
  ["WATER-6X1L", "Still water, 6 × 1 l", "Drinks", 3.99, "From a spring."]
]

/** Units of each product on the shelf. */
export const units = 500

const administrator = new Principal({ userId: UserId.make("seed"), role: "admin", region: defaultRegion })

/** Fills an empty shop with the shelf; a shop that has products is left alone. How many were added. */
const fill = Effect.fn("seed")(
  function* () {
    const catalogue = yield* CatalogueRpc
    const inventory = yield* InventoryRpc
    const present = yield* catalogue.ListProducts({ limit: 1 })
    if (present.items.length > 0) return 0
    const currency = regionCurrency[defaultRegion]
    yield* Effect.forEach(
      shelf,
      Effect.fnUntraced(function* ([sku, name, category, price, description]) {
        const product = yield* catalogue.AddProduct({
          sku: Sku.make(sku),
          name,
          category,
          description,
          currency,
          priceMinor: Result.getOrThrow(fromDecimal(price, currency))
        })
        yield* inventory.Adjust({ productId: product.productId, delta: units, reason: "first stock" })
      }),
      { concurrency: 4, discard: true }
    )
    return shelf.length
  },
  Effect.updateService(RequestContext, (request) => ({ ...request, principal: administrator, correlationId: "seed" }))
)

/** Seeds while the layer is built, once the contexts answer. */
export const seeding = Layer.effectDiscard(
  Effect.flatMap(fill(), (added) =>
    added === 0 ? Effect.void : Effect.logInfo(`The shelf is filled: ${added} products`)
  )
).pipe(Layer.provide([CatalogueRpc.client, InventoryRpc.client]))
