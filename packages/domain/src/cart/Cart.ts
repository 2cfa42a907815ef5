import { Schema } from "effect"
import { CartId, ProductId, UserId } from "../kernel/Ids.ts"
import { Currency } from "../kernel/Money.ts"
import { type Item, maxLines, Quantity } from "../pricing/Quote.ts"

/** The most units on one line. */
export const maxQuantity = 99

/**
 * What somebody means to buy. `ownerId` is a user or a guest. `ordersTaken` is how many orders were taken out of it: with
 * the same number it is the same purchase, whatever came in or went.
 */
export class Cart extends Schema.Class<Cart>("Cart")({
  cartId: CartId,
  ownerId: UserId,
  guest: Schema.Boolean,
  items: Schema.Array(Schema.Struct({ productId: ProductId, qty: Quantity })),
  currency: Currency,
  ordersTaken: Schema.Int,
  version: Schema.Int
}) {}

/** There is no such cart, or it is somebody else's: one may not know which. */
export class CartNotFound extends Schema.TaggedError<CartNotFound>()(
  "CartNotFound",
  { cartId: Schema.String },
  { httpApiStatus: 404 }
) {
  override get message() {
    return "No such cart"
  }
}

/** A cart holds at most `maxLines` different products. */
export class CartFull extends Schema.TaggedError<CartFull>()("CartFull", {}, { httpApiStatus: 409 }) {
  override get message() {
    return `A cart holds at most ${maxLines} different products`
  }
}

/** The token does not prove that the guest's cart is the caller's. */
export class InvalidGuestToken extends Schema.TaggedError<InvalidGuestToken>()(
  "InvalidGuestToken",
  {},
  { httpApiStatus: 422 }
) {
  override get message() {
    return "guestToken is not a valid token of a guest"
  }
}

/** What is left of a cart when some of it was ordered; more may have come in since. */
export const without = (items: ReadonlyArray<Item>, ordered: ReadonlyArray<Item>): ReadonlyArray<Item> => {
  const gone = new Map(ordered.map((item) => [item.productId, item.qty]))
  return items.flatMap(({ productId, qty }) => {
    const left = qty - (gone.get(productId) ?? 0)
    return left > 0 ? [{ productId, qty: left }] : []
  })
}

/**
 * Puts a guest's items into another cart: quantities of the same product add up, at most 99 a line; products that no
 * longer fit among `maxLines` are left out (the guest's first ones go first).
 */
export const merge = (into: ReadonlyArray<Item>, from: ReadonlyArray<Item>): ReadonlyArray<Item> => {
  const merged = new Map(into.map((item) => [item.productId, item.qty]))
  for (const { productId, qty } of from) {
    const present = merged.get(productId)
    if (present === undefined && merged.size >= maxLines) continue
    merged.set(productId, Math.min(maxQuantity, (present ?? 0) + qty))
  }
  return Array.from(merged, ([productId, qty]) => ({ productId, qty }))
}
