import { Array, Effect } from "effect"
import type { Envelope } from "@merkato/domain/kernel/Event"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import { OrderHeld, OrderPaid } from "@merkato/domain/orders/OrderEvents"
import * as Consumer from "@merkato/infra/events/Consumer"
import { stamp } from "@merkato/infra/events/Stamp"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { Carts, type Ordered } from "./Carts.ts"

const decode = ({ eventType, payload }: Envelope) =>
  eventType === OrderPaid.type ? OrderPaid.decode(payload) : OrderHeld.decode(payload)

/** The cart of what was ordered, if there was one. */
const cartOf = Effect.fnUntraced(function* (event: Envelope) {
  const { cartId } = yield* decode(event)
  return cartId ?? []
})

/** What was ordered from a cart, in the name of the event at hand; nothing when there was no cart. */
const orderedBy = Effect.fnUntraced(function* (event: Envelope) {
  const { cartId, items } = yield* decode(event)
  return cartId === undefined ? [] : [{ cartId, items, stamp: yield* stamp } satisfies Ordered]
})

/** Empties the cart of a checkout, once its order is paid or held: until then the shopper may want it again. */
export const emptyOrdered = Consumer.make({
  group: "cart.empty-ordered",
  topic: "order.events",
  eventTypes: [OrderPaid.type, OrderHeld.type],
  mode: "apply",
  handle: Tracing.fn("Carts.emptyOrdered")(function* (event) {
    yield* (yield* Carts).takeOrdered(yield* orderedBy(event))
  }),
  handleAll: Tracing.fn("Carts.emptyAllOrdered")(function* (events, requests) {
    const ordered = yield* Effect.forEach(Array.zip(events, requests), ([event, request]) =>
      Effect.provideService(orderedBy(event), RequestContext, request)
    )
    yield* (yield* Carts).takeOrdered(ordered.flat())
  }),
  lock: Effect.fnUntraced(function* (events: ReadonlyArray<Envelope>) {
    const cartIds = yield* Effect.forEach(events, cartOf)
    yield* (yield* Carts).lock(cartIds.flat())
  })
})
