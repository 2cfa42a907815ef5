import * as BoundedContext from "@merkato/infra/context/BoundedContext"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { expiry, Inventory as InventoryUseCases } from "./Inventory.ts"
import { releaseCanceled } from "./InventoryConsumers.ts"
import { InventoryHandlers } from "./InventoryHandlers.ts"

export const Inventory = BoundedContext.make("inventory", {
  contract: InventoryRpc,
  handlers: InventoryHandlers,
  useCases: InventoryUseCases.layer,
  topic: "inventory.events",
  migrations: new URL("./migrations", import.meta.url),
  needs: [CatalogueRpc],
  consumers: [releaseCanceled],
  background: expiry
})
