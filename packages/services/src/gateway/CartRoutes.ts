import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import { Api } from "@merkato/rpc/rest/Api"
import { answering, cartJson, json } from "./Rest.ts"

export const CartRoutes = HttpApiBuilder.group(
  Api,
  "carts",
  Effect.fn(function* (handlers) {
    const carts = yield* CartRpc
    return handlers.handleAll({
      createCart: () =>
        answering(
          Effect.map(carts.CreateCart({}), ({ cart, guestToken }) =>
            json({ ...cartJson(cart), ...(guestToken === undefined ? {} : { guestToken }) }, 201, {
              location: `/api/v1/carts/${cart.cartId}`,
              "cache-control": "no-store"
            })
          )
        ),
      getCart: ({ params }) => answering(Effect.map(carts.GetCart(params), (cart) => json(cartJson(cart)))),
      setItem: ({ params, payload }) =>
        answering(Effect.map(carts.SetItem({ ...params, ...payload }), (cart) => json(cartJson(cart)))),
      removeItem: ({ params }) => answering(Effect.map(carts.RemoveItem(params), (cart) => json(cartJson(cart)))),
      mergeCart: ({ params, payload }) =>
        answering(Effect.map(carts.MergeCart({ ...params, ...payload }), (cart) => json(cartJson(cart))))
    })
  })
)
