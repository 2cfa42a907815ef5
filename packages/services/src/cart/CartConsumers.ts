import { Effect } from "effect"
import type { Envelope } from "@merkato/domain/kernel/Event"
import { OrderHeld, OrderPaid } from "@merkato/domain/orders/OrderEvents"
import * as Consumer from "@merkato/infra/events/Consumer"
import { Carts } from "./Carts.ts"

const decode = ({ eventType, payload }: Envelope) =>
  eventType === OrderPaid.type ? OrderPaid.decode(payload) : OrderHeld.decode(payload)

/** Empties the cart of a checkout, once its order is paid or held: until then the shopper may want it again. */
export const emptyOrdered = Consumer.make({
  group: "cart.empty-ordered",
  topic: "order.events",
  eventTypes: [OrderPaid.type, OrderHeld.type],
  mode: "apply",
  handle: Effect.fn("Carts.emptyOrdered")(function* (event) {
    const { cartId, items } = yield* decode(event)
    if (cartId !== undefined) yield* (yield* Carts).takeOrdered(cartId, items)
  })
})
