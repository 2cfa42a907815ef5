import { Effect, Schema } from "effect"
import { OrderId } from "@merkato/domain/kernel/Ids"
import { fieldsOf, type Subgraph } from "@merkato/infra/graphql/Supergraph"
import { paging } from "@merkato/rpc/contract/Operation"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import type * as Json from "@merkato/rpc/rest/Json"
import { orderJson, pageJson } from "../Rest.ts"
import { nullsLeftOut } from "./Arguments.ts"
import { argumentsOf, signedIn } from "./Refusals.ts"

const one = argumentsOf(Schema.Struct({ id: OrderId }))
const many = argumentsOf(Schema.Struct({ limit: Schema.optionalKey(paging.limit), cursor: paging.cursor }))

const defaultLimit = 20

/** What orders has of the graph, for whoever is signed in. */
export const ordersGraph = Effect.gen(function* () {
  const orders = yield* OrdersRpc
  return {
    types: {
      Query: fieldsOf<unknown>({
        order: (_, args, asking) =>
          asking.run(
            Effect.gen(function* () {
              yield* signedIn
              const { id } = yield* one(args)
              return orderJson(yield* orders.Get({ orderId: id }))
            })
          ),
        orders: (_, args, asking) =>
          asking.run(
            Effect.gen(function* () {
              yield* signedIn
              const asked = yield* many(nullsLeftOut(args))
              return pageJson(yield* orders.List({ limit: defaultLimit, ...asked }), orderJson)
            })
          )
      }),
      Order: fieldsOf<typeof Json.OrderJson.Encoded>({ id: ({ orderId }) => orderId }),
      OrderItem: fieldsOf<{ readonly productId: string }>({ product: ({ productId }) => ({ id: productId }) })
    }
  } satisfies Subgraph
})
