import { Context, Effect, Layer, Option, Result, Schema } from "effect"
import type { EventDefinition } from "@merkato/domain/kernel/Event"
import * as Ids from "@merkato/domain/kernel/Ids"
import { fromDecimal } from "@merkato/domain/kernel/Money"
import type { Forbidden, InvalidValue, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { CustomerOrder } from "@merkato/domain/orders/CustomerOrder"
import { OrderStatus } from "@merkato/domain/orders/Order"
import {
  OrderCanceled,
  OrderCreated,
  OrderFulfilled,
  OrderHeld,
  OrderPaid,
  OrderReleased
} from "@merkato/domain/orders/OrderEvents"
import { authorize } from "@merkato/infra/authorizer/Authorizer"
import * as Provided from "@merkato/infra/context/Provided"
import { Cassandra } from "@merkato/infra/cassandra/Cassandra"
import * as CassandraRows from "@merkato/infra/cassandra/CassandraRows"
import * as Cursor from "@merkato/infra/paging/Cursor"
import * as Copy from "@merkato/infra/projection/Copy"
import * as Projection from "@merkato/infra/projection/Projection"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { OrderHistory } from "./OrderHistory.ts"

interface OfOrder {
  readonly orderId: Ids.OrderId
  readonly userId: Ids.UserId
}

/** What every event of an order knows. */
const line = ({ orderId, userId }: OfOrder, event: Projection.ProjectedEvent, status: OrderStatus): Projection.Row => ({
  user_id: userId,
  order_id: orderId,
  region: null,
  items: null,
  total_minor: null,
  currency: null,
  placed_at: null,
  status,
  updated_at: event.occurredAt,
  version: event.aggregateVersion
})

const becomes = <A extends OfOrder>(definition: EventDefinition<A>, status: OrderStatus) =>
  Projection.on(definition, (order, event) => [line(order, event, status)])

/** A customer's orders, newest first. */
export const ordersByCustomer = Projection.make({
  name: "orders_by_customer",
  context: "orders",
  topic: "order.events",
  key: { user_id: "text", order_id: "text" },
  once: { region: "text", items: "integer", total_minor: "bigint", currency: "text", placed_at: "timestamptz" },
  latest: { status: "text", updated_at: "timestamptz" },
  events: [
    Projection.on(OrderCreated, (order, event) => [
      {
        ...line(order, event, "PENDING"),
        region: event.region,
        items: order.items.length,
        total_minor: Result.getOrThrow(fromDecimal(order.totalAmount, order.currency)),
        currency: order.currency,
        placed_at: event.occurredAt
      }
    ]),
    becomes(OrderPaid, "PAID"),
    becomes(OrderHeld, "HELD"),
    becomes(OrderReleased, "PENDING"),
    becomes(OrderCanceled, "CANCELED"),
    becomes(OrderFulfilled, "FULFILLED")
  ]
})

/** It lies in Cassandra as well, where there is one. */
export const ordersByCustomerCopy = Copy.make({
  name: "orders_by_customer_cassandra",
  projection: ordersByCustomer,
  truth: "orders.orders_by_customer",
  variable: "CASSANDRA_CONTACT_POINTS",
  store: Effect.map(Effect.serviceOption(Cassandra), (server) =>
    Option.isSome(server) ? CassandraRows.make(ordersByCustomer, server.value) : undefined
  )
})

const listCursor = Cursor.make(Schema.Struct({ orderId: Ids.OrderId }))

/** Reads the lists of orders that customers have; what was ordered a moment ago may not be in them yet. */
export class OrdersByCustomer extends Context.Service<
  OrdersByCustomer,
  {
    readonly list: (options: {
      readonly userId: Ids.UserId
      readonly limit: number
      readonly cursor?: string
    }) => Effect.Effect<Cursor.Page<CustomerOrder>, Forbidden | InvalidValue | ServiceUnavailable>
  }
>()("merkato/orders/OrdersByCustomer") {
  static readonly layer = Layer.effect(
    OrdersByCustomer,
    Effect.gen(function* () {
      const history = yield* OrderHistory
      const provided = yield* Provided.provided

      const list = Tracing.fn("OrdersByCustomer.list")(function* ({
        userId,
        limit,
        cursor
      }: Parameters<OrdersByCustomer["Service"]["list"]>[0]) {
        yield* authorize("order.read", { ownerId: userId })
        const before = yield* listCursor.decode(cursor)
        const orders = yield* history.ordersOf(userId, before?.orderId, limit + 1)
        return Cursor.page(orders, limit, ({ orderId }) => listCursor.encode({ orderId }))
      }, provided)

      return OrdersByCustomer.of({ list })
    })
  )
}
