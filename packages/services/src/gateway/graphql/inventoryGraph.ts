import { Effect, Schema } from "effect"
import type { StockLevels } from "@merkato/domain/inventory/Stock"
import { ProductId } from "@merkato/domain/kernel/Ids"
import { together } from "@merkato/infra/graphql/Asking"
import { fieldsOf, type Subgraph } from "@merkato/infra/graphql/Supergraph"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { argumentsOf } from "./Refusals.ts"

const one = argumentsOf(Schema.Struct({ id: ProductId }))

/** What inventory has of the graph. */
export const inventoryGraph = Effect.gen(function* () {
  const inventory = yield* InventoryRpc

  const levelsOf = together((ids) =>
    Effect.map(inventory.LevelsOf({ productIds: ids.map((id) => ProductId.make(id)) }), (levels) => {
      const byProduct = new Map<string, StockLevels>(levels.map((each) => [each.productId, each]))
      return (id: string) => byProduct.get(id)
    })
  )

  return {
    types: {
      Query: fieldsOf<unknown>({
        productInventory: async (_, args, asking) => levelsOf((await asking.run(one(args))).id, asking)
      }),
      Product: fieldsOf<{ readonly id: string }>({ inventory: ({ id }, _, asking) => levelsOf(id, asking) })
    },
    entities: { Product: (id) => Promise.resolve({ id }) }
  } satisfies Subgraph
})
