import { Effect, Layer } from "effect"
import * as BoundedContext from "@merkato/infra/context/BoundedContext"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import type { Consumer } from "@merkato/infra/events/Consumer"
import { unending } from "@merkato/infra/context/Unending"
import * as DeltaIngest from "./DeltaIngest.ts"
import { Deltas, oldMessages } from "./Deltas.ts"
import { expiry, Inventory as InventoryUseCases } from "./Inventory.ts"
import { releaseCanceled } from "./InventoryConsumers.ts"
import { InventoryHandlers } from "./InventoryHandlers.ts"
import { inventorySnapshotCopy, inventorySnapshotInCassandra } from "./InventorySnapshot.ts"
import * as StockRead from "./StockRead.ts"

const consumers: ReadonlyArray<Consumer<InventoryUseCases | Deltas>> = [releaseCanceled, DeltaIngest.refused]

export const Inventory = BoundedContext.make("inventory", {
  contract: InventoryRpc,
  handlers: InventoryHandlers,
  useCases: Layer.merge(StockRead.layer.pipe(Layer.provideMerge(InventoryUseCases.layer)), Deltas.layer),
  topic: "inventory.events",
  migrations: new URL("./migrations", import.meta.url),
  needs: [CatalogueRpc],
  consumers,
  copies: [inventorySnapshotCopy, inventorySnapshotInCassandra],
  passing: [oldMessages],
  background: Effect.all([unending("inventory", expiry), unending("inventory", DeltaIngest.listening)], {
    concurrency: "unbounded"
  })
})
