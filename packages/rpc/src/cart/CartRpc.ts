import { Schema } from "effect"
import { RpcGroup } from "effect/rpc"
import { Cart, CartFull, CartNotFound, InvalidGuestToken } from "@merkato/domain/cart/Cart"
import { ProductNotFound } from "@merkato/domain/catalogue/Product"
import { CartId, ProductId } from "@merkato/domain/kernel/Ids"
import { Forbidden } from "@merkato/domain/kernel/Problem"
import { Quantity } from "@merkato/domain/pricing/Quote"
import { Contract } from "../contract/Contract.ts"
import { command, query } from "../contract/Operation.ts"

export const CartGroup = RpcGroup.make(
  command("CreateCart", {
    payload: {},
    success: Schema.Struct({ cart: Cart, guestToken: Schema.optionalKey(Schema.String) }),
    errors: [Forbidden]
  }),
  query("GetCart", { payload: { cartId: CartId }, success: Cart, errors: [Forbidden, CartNotFound] }),
  command("SetItem", {
    payload: { cartId: CartId, productId: ProductId, qty: Quantity },
    success: Cart,
    errors: [Forbidden, CartNotFound, CartFull, ProductNotFound]
  }),
  command("RemoveItem", {
    payload: { cartId: CartId, productId: ProductId },
    success: Cart,
    errors: [Forbidden, CartNotFound]
  }),
  /** Adds a guest's cart to the caller's. A repeat finds the guest's cart empty and changes nothing. */
  command("MergeCart", {
    payload: { cartId: CartId, guestToken: Schema.String },
    success: Cart,
    errors: [Forbidden, CartNotFound, InvalidGuestToken]
  })
)

export class CartRpc extends Contract<CartRpc>()("cart", CartGroup) {}
