import { Context, DateTime, Effect, Layer } from "effect"
import { applyDeltas, type DeviceDelta, type Outcome } from "@merkato/domain/inventory/DeviceDelta"
import type { ProductId } from "@merkato/domain/kernel/Ids"
import type { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { byTime, type Passing } from "@merkato/infra/context/Retention"
import * as Provided from "@merkato/infra/context/Provided"
import type { Stamp } from "@merkato/infra/events/Stamp"
import { orUnavailable, transaction } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import * as DeltasStore from "./DeltasStore.ts"

/**
 * How long the messages of devices are remembered, in days: far longer than a broker keeps them for us. One that comes again
 * after that counts again.
 */
export const oldMessages: Passing = {
  table: "device_messages",
  age: byTime("received_at"),
  days: 30,
  setting: "MERKATO_KEEP_DEVICE_MESSAGES_DAYS"
}

/** SKUs whose products are remembered, at most: a product keeps its SKU for good. */
const mostRemembered = 50_000

/** A delta, and what its event is stamped with. */
export interface Arrived {
  readonly delta: DeviceDelta
  readonly stamp: Stamp
}

/** Stock as devices see it change. */
export class Deltas extends Context.Service<
  Deltas,
  {
    /**
     * Applies deltas in their order, those that name themselves once however often they come; what became of each, in one
     * transaction. At most 500.
     */
    readonly apply: (arrived: ReadonlyArray<Arrived>) => Effect.Effect<ReadonlyArray<Outcome>, ServiceUnavailable>
  }
>()("merkato/inventory/Deltas") {
  static readonly layer = Layer.effect(
    Deltas,
    Effect.gen(function* () {
      const store = yield* DeltasStore.make
      const catalogue = yield* CatalogueRpc
      const provided = yield* Provided.provided
      const products = new Map<string, ProductId>()

      /** The products of SKUs, of those that there are. */
      const productsOf = Effect.fnUntraced(function* (deltas: ReadonlyArray<DeviceDelta>) {
        const skus = [...new Set(deltas.map(({ sku }) => sku))]
        const unknown = skus.filter((sku) => !products.has(sku))
        if (unknown.length > 0) {
          if (products.size + unknown.length > mostRemembered) products.clear()
          const found = yield* catalogue.ProductsOfSkus({ skus: unknown })
          for (const { sku, productId } of found) products.set(sku, productId)
        }
        return skus.flatMap((sku) => {
          const productId = products.get(sku)
          return productId === undefined ? [] : [{ sku, productId }]
        })
      })

      const apply = Tracing.fn("Deltas.apply")(
        function* (arrived: ReadonlyArray<Arrived>) {
          const deltas = arrived.map(({ delta }) => delta)
          const named = yield* productsOf(deltas)
          return yield* transaction(
            Effect.gen(function* () {
              const locked = new Map(
                (yield* store.lock(named.map(({ productId }) => productId))).map((shelf) => [shelf.productId, shelf])
              )
              const shelves = new Map(
                named.flatMap(({ sku, productId }) => {
                  const shelf = locked.get(productId)
                  return shelf === undefined ? [] : [[sku, shelf] as const]
                })
              )
              // Behind the locks: whoever applies a message of the same SKU has to wait for them.
              const outcomes = applyDeltas(shelves, yield* store.known(deltas), deltas)
              const counting = outcomes.flatMap((outcome, index) => {
                const stamp = arrived[index]?.stamp
                return outcome._tag === "Applied" && stamp !== undefined ? [{ ...outcome, stamp }] : []
              })
              if (counting.length > 0) {
                yield* store.write(counting, yield* DateTime.nowAsDate)
              }
              return outcomes
            })
          )
        },
        orUnavailable("inventory"),
        provided
      )

      return Deltas.of({ apply })
    })
  )
}
