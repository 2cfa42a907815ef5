import { Schema } from "effect"
import * as Event from "../kernel/Event.ts"
import { CartId, ProductId, UserId } from "../kernel/Ids.ts"

/** A cart as it is after a change. */
export const CartUpdated = Event.define(
  "ecommerce.cart.cart.updated.v1",
  "cart.events",
  Schema.Struct({
    cartId: CartId,
    userId: UserId,
    items: Schema.Array(Schema.Struct({ productId: ProductId, qty: Schema.Int }))
  })
)

export const events = [CartUpdated] as const
