import { Effect, Schema } from "effect"
import { CartId } from "@merkato/domain/kernel/Ids"
import { fieldsOf, type Subgraph } from "@merkato/infra/graphql/Supergraph"
import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import type * as Json from "@merkato/rpc/rest/Json"
import { cartJson } from "../Rest.ts"
import { argumentsOf, signedIn } from "./Refusals.ts"

const one = argumentsOf(Schema.Struct({ id: CartId }))

/** What carts have of the graph, for their owners. */
export const cartGraph = Effect.gen(function* () {
  const carts = yield* CartRpc
  return {
    types: {
      Query: fieldsOf<unknown>({
        cart: (_, args, asking) =>
          asking.run(
            Effect.gen(function* () {
              yield* signedIn
              const { id } = yield* one(args)
              return cartJson(yield* carts.GetCart({ cartId: id }))
            })
          )
      }),
      Cart: fieldsOf<typeof Json.CartJson.Encoded>({ id: ({ cartId }) => cartId }),
      CartItem: fieldsOf<{ readonly productId: string }>({ product: ({ productId }) => ({ id: productId }) })
    }
  } satisfies Subgraph
})
