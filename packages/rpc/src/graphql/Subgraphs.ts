import cart from "../cart/cart.graphql" with { type: "text" }
import catalogue from "../catalogue/catalogue.graphql" with { type: "text" }
import inventory from "../inventory/inventory.graphql" with { type: "text" }
import orders from "../orders/orders.graphql" with { type: "text" }
import supergraph from "./supergraph.graphql" with { type: "text" }

/** What each context has of the graph, in the language of Apollo Federation 2. */
export const subgraphs = { catalogue, inventory, orders, cart } as const

/** The subgraphs composed: which type and field is whose. Written by packages/rpc/test/Supergraph.test.ts, which holds it against them. */
export { supergraph }
