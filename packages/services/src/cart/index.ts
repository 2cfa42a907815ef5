import * as BoundedContext from "@merkato/infra/context/BoundedContext"
import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { emptyOrdered } from "./CartConsumers.ts"
import { CartHandlers } from "./CartHandlers.ts"
import { Carts } from "./Carts.ts"
import { emptyCarts, lostItems } from "./CartStore.ts"

export const Cart = BoundedContext.make("cart", {
  contract: CartRpc,
  handlers: CartHandlers,
  useCases: Carts.layer,
  topic: "cart.events",
  migrations: new URL("./migrations", import.meta.url),
  needs: [CatalogueRpc],
  consumers: [emptyOrdered],
  passing: [lostItems, emptyCarts]
})
