import { Context, Effect, Layer, Option, Schema } from "effect"
import { SqlClient } from "effect/sql"
import * as Ids from "@merkato/domain/kernel/Ids"
import { Currency, Minor } from "@merkato/domain/kernel/Money"
import type { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { Region } from "@merkato/domain/kernel/Region"
import { CustomerOrder } from "@merkato/domain/orders/CustomerOrder"
import { OrderStatus } from "@merkato/domain/orders/Order"
import { Cassandra, CassandraUnavailable } from "@merkato/infra/cassandra/Cassandra"
import * as CassandraRows from "@merkato/infra/cassandra/CassandraRows"
import { Policies } from "@merkato/infra/policy/Policies"
import { orUnavailable } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

/** The orders of a customer, newest first; as far as the read model has come. */
export class OrderHistory extends Context.Service<
  OrderHistory,
  {
    /** At most so many, those that were placed before `before`. */
    readonly ordersOf: (
      userId: Ids.UserId,
      before: Ids.OrderId | undefined,
      most: number
    ) => Effect.Effect<ReadonlyArray<CustomerOrder>, ServiceUnavailable>
  }
>()("merkato/orders/OrderHistory") {}

type Side = typeof OrderHistory.Service

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

const ordersIn = (rows: ReadonlyArray<unknown>) =>
  Effect.map(Effect.orDie(decode(rows)), (orders) => orders.map((order) => new CustomerOrder(order)))

const inPostgres = (sql: SqlClient.SqlClient): Side =>
  OrderHistory.of({
    ordersOf: Tracing.fn("OrderHistory.ordersOf")(function* (userId, before, most) {
      const older = before === undefined ? sql.literal("") : sql`and order_id < ${before}`
      const rows = yield* sql`
        select order_id as "orderId", user_id as "userId", region, status, items, total_minor as "totalMinor", currency,
          placed_at as "placedAt", updated_at as "updatedAt", version
        from orders.orders_by_customer where user_id = ${userId} and placed_at is not null ${older}
        order by order_id desc limit ${most}`
      return yield* ordersIn(rows)
    }, orUnavailable("orders"))
  })

const notBuilt = new CassandraUnavailable({ cause: new Error("there are no live rows") })

/** In Cassandra; while it is away, or not built yet, in Postgres, which has the same. */
const inCassandra = Effect.fnUntraced(function* (cassandra: typeof Cassandra.Service, postgres: Side) {
  const policies = yield* Policies
  const guarded = policies.guard<CassandraUnavailable>("orders.history", { transient: (error) => error !== notBuilt })

  const ordersOf = Effect.fnUntraced(function* (userId: Ids.UserId, before: Ids.OrderId | undefined, most: number) {
    const table = yield* CassandraRows.liveTable(cassandra, "orders_by_customer")
    if (table === undefined) return yield* notBuilt
    const rows = yield* cassandra.run({
      cql: `select * from ${table} where user_id = ? ${before === undefined ? "" : "and order_id < ?"} limit ?`,
      values: before === undefined ? [userId, most] : [userId, before, most]
    })
    // Their cells may come one by one.
    return rows.filter((row) => row["placed_at"] !== null && row["status"] !== null)
  })

  return OrderHistory.of({
    ordersOf: (userId, before, most) =>
      guarded(ordersOf(userId, before, most)).pipe(
        Tracing.withSpan("OrderHistory.ordersOf"),
        Effect.flatMap((rows) =>
          ordersIn(
            rows.map((row) => ({
              orderId: row["order_id"],
              userId: row["user_id"],
              region: row["region"],
              status: row["status"],
              items: row["items"],
              totalMinor: Number(row["total_minor"]),
              currency: row["currency"],
              placedAt: row["placed_at"],
              updatedAt: row["updated_at"],
              version: row["version"]
            }))
          )
        ),
        Effect.catch(() => postgres.ordersOf(userId, before, most))
      )
  })
})

/** In Cassandra where there is one, else in Postgres. */
export const layer = Layer.effect(
  OrderHistory,
  Effect.gen(function* () {
    const postgres = inPostgres(yield* SqlClient.SqlClient)
    const cassandra = yield* Effect.serviceOption(Cassandra)
    return Option.isSome(cassandra) ? yield* inCassandra(cassandra.value, postgres) : postgres
  })
)
