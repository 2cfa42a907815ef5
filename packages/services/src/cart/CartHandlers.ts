import { Effect } from "effect"
import { CartGroup } from "@merkato/rpc/cart/CartRpc"
import { Carts } from "./Carts.ts"

export const CartHandlers = CartGroup.toLayer(
  Effect.gen(function* () {
    const carts = yield* Carts
    return CartGroup.of({
      CreateCart: () => carts.create,
      GetCart: ({ cartId }) => carts.get(cartId),
      SetItem: (item) => carts.setItem(item),
      RemoveItem: (item) => carts.removeItem(item),
      MergeCart: (request) => carts.merge(request)
    })
  })
)
