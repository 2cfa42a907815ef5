import { Console, Effect, Ref } from "effect"
import { Command } from "effect/cli"
import { defaultRegion, regionCurrency } from "@merkato/domain/kernel/Region"
import { LevelsJson, ProductJson } from "@merkato/rpc/rest/Json"
import { shelf, units } from "@merkato/services/seed"
import * as Flags from "../Flags.ts"
import { problemOf, type Request, Shop } from "../Shop.ts"
import { Schema } from "effect"

const concurrency = 4

const decodeProduct = Schema.decodeUnknownEffect(ProductJson)

/** Puts what is missing of the shelf into the shop, with stock. */
const fill = Effect.fn("seed")(function* () {
  const shop = yield* Shop
  const token = yield* shop.token("seed", "admin")
  const added = yield* Ref.make(0)
  const currency = regionCurrency[defaultRegion]

  yield* Effect.forEach(
    shelf,
    Effect.fnUntraced(function* ([sku, name, category, price, description]) {
      const body = { sku, name, category, description, price, currency }
      const request: Request = { method: "POST", path: "/api/v1/products", token, body }
      const answer = yield* shop.persist(request)
      if (problemOf(answer)?.code === "sku_taken") return
      if (answer.status !== 201) return yield* shop.unexpected(request, answer)
      const { productId } = yield* Effect.orDie(decodeProduct(answer.body))
      const path = `/api/v1/inventory/${productId}/adjustments`
      yield* shop.read({ method: "POST", path, token, body: { delta: units, reason: "first stock" } }, 201, LevelsJson)
      yield* Ref.update(added, (count) => count + 1)
    }),
    { concurrency, discard: true }
  )
  const count = yield* Ref.get(added)
  const left = shelf.length - count
  yield* Console.log(
    count === 0
      ? `The shop at ${shop.url} has all ${left} products of the shelf already; nothing was changed.`
      : `${count} products added to the shop at ${shop.url}, ${units} units each; ${left} were there and are as they were.`
  )
})

export const seed = Command.make("seed", { url: Flags.url, dataDir: Flags.dataDir }, (options) =>
  Effect.provide(fill(), Shop.layer(options))
).pipe(
  Command.withDescription(
    "Fill a running shop with a small grocery shelf. Products whose SKU is there already are left alone, so it can run again"
  ),
  Command.withShortDescription("Fill a shop with a small grocery shelf")
)
