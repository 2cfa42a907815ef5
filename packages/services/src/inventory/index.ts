import { Layer } from "effect"
import * as BoundedContext from "@merkato/infra/context/BoundedContext"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { expiry, Inventory as InventoryUseCases } from "./Inventory.ts"
import { releaseCanceled } from "./InventoryConsumers.ts"
import { InventoryHandlers } from "./InventoryHandlers.ts"
import { inventorySnapshotCopy, inventorySnapshotInCassandra } from "./InventorySnapshot.ts"
import * as StockRead from "./StockRead.ts"

export const Inventory = BoundedContext.make("inventory", {
  contract: InventoryRpc,
  handlers: InventoryHandlers,
  useCases: StockRead.layer.pipe(Layer.provideMerge(InventoryUseCases.layer)),
  topic: "inventory.events",
  migrations: new URL("./migrations", import.meta.url),
  needs: [CatalogueRpc],
  consumers: [releaseCanceled],
  copies: [inventorySnapshotCopy, inventorySnapshotInCassandra],
  background: expiry
})
