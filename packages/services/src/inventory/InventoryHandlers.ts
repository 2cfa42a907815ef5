import { Effect } from "effect"
import { InventoryGroup } from "@merkato/rpc/inventory/InventoryRpc"
import { Inventory } from "./Inventory.ts"
import { StockRead } from "./StockRead.ts"

export const InventoryHandlers = InventoryGroup.toLayer(
  Effect.gen(function* () {
    const inventory = yield* Inventory
    const stock = yield* StockRead
    return InventoryGroup.of({
      Levels: ({ productId }) => stock.levels(productId),
      LevelsOf: ({ productIds }) => inventory.levelsOf(productIds),
      Adjust: (adjustment) => inventory.adjust(adjustment),
      Reserve: (request) => inventory.reserve(request),
      Extend: (request) => inventory.extend(request),
      Commit: ({ reservationId }) => inventory.commit(reservationId),
      Release: (request) => inventory.release(request)
    })
  })
)
