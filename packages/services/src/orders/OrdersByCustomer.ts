import { Context, Effect, Layer, Result, Schema } from "effect"
import { SqlClient } from "effect/sql"
import type { EventDefinition } from "@merkato/domain/kernel/Event"
import * as Ids from "@merkato/domain/kernel/Ids"
import { Currency, fromDecimal, Minor } from "@merkato/domain/kernel/Money"
import type { Forbidden, InvalidValue, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { Region } from "@merkato/domain/kernel/Region"
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
import * as Cursor from "@merkato/infra/paging/Cursor"
import { orUnavailable } from "@merkato/infra/postgres/Database"
import * as Projection from "@merkato/infra/projection/Projection"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

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

const Row = Schema.Struct({
  orderId: Ids.OrderId,
  userId: Ids.UserId,
  region: Region,
  status: OrderStatus,
  items: Schema.Int,
  totalMinor: Minor,
  currency: Currency,
  placedAt: Schema.DateTimeUtcFromDate,
  updatedAt: Schema.DateTimeUtcFromDate,
  version: Schema.Int
})
const decode = Schema.decodeUnknownEffect(Schema.Array(Row))

const listCursor = Cursor.make(Schema.Struct({ orderId: Ids.OrderId }))

/** Reads the lists of orders that customers have; what was ordered a moment ago may not be in them yet. */
export class OrdersByCustomer extends Context.Service<
  OrdersByCustomer,
  {
    readonly list: (options: {
      readonly userId: Ids.UserId
      readonly limit: number
      readonly cursor?: string
    }) => Effect.Effect<
      { readonly items: ReadonlyArray<CustomerOrder>; readonly nextCursor: string | null },
      Forbidden | InvalidValue | ServiceUnavailable
    >
  }
>()("merkato/orders/OrdersByCustomer") {
  static readonly layer = Layer.effect(
    OrdersByCustomer,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const provided = yield* Provided.provided

      const list = Tracing.fn("OrdersByCustomer.list")(
        function* ({ userId, limit, cursor }: Parameters<OrdersByCustomer["Service"]["list"]>[0]) {
          yield* authorize("order.read", { ownerId: userId })
          const after = yield* listCursor.decode(cursor)
          const beyond = after === undefined ? sql.literal("") : sql`and order_id < ${after.orderId}`
          const rows = yield* sql`
            select order_id as "orderId", user_id as "userId", region, status, items, total_minor as "totalMinor", currency,
              placed_at as "placedAt", updated_at as "updatedAt", version
            from orders.orders_by_customer where user_id = ${userId} and placed_at is not null ${beyond}
            order by order_id desc limit ${limit + 1}`
          const items = (yield* Effect.orDie(decode(rows))).map((row) => new CustomerOrder(row))
          return Cursor.page(items, limit, ({ orderId }) => listCursor.encode({ orderId }))
        },
        orUnavailable("orders"),
        provided
      )

      return OrdersByCustomer.of({ list })
    })
  )
}
