import { Effect } from "effect"
import * as Graph from "@merkato/infra/graphql/Graph"
import { supergraph } from "@merkato/rpc/graphql/Subgraphs"
import { cartGraph } from "./cartGraph.ts"
import { catalogueGraph } from "./catalogueGraph.ts"
import { inventoryGraph } from "./inventoryGraph.ts"
import { ordersGraph } from "./ordersGraph.ts"
import { extensionsOf, refusalOf } from "./Refusals.ts"

/** Answers queries to the graph of the shop. Loaded when somebody asks for the first time: a shop without such clients does without it. */
export const make = ({ introspection }: { readonly introspection: boolean }) =>
  Effect.map(
    Effect.all({ catalogue: catalogueGraph, inventory: inventoryGraph, orders: ordersGraph, cart: cartGraph }),
    (subgraphs) => Graph.make({ supergraph, subgraphs, introspection, refusalOf, extensionsOf })
  )
