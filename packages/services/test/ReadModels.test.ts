// What read models tell: a customer's orders, and what a day brought, which the warehouse tells as well. That they agree with all the
// rest, the audit of the races says.
import { expect, test } from "bun:test"
import { Effect, Layer, Logger } from "effect"
import { SqlClient } from "effect/sql"
import { AttemptId, RefundId } from "@merkato/domain/kernel/Ids"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import { Archive } from "@merkato/infra/archive/Archive"
import * as DuckDb from "@merkato/infra/duckdb/DuckDb"
import * as PostgresEventBus from "@merkato/infra/events/PostgresEventBus"
import * as Files from "@merkato/infra/objects/Files"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import { settled } from "../../../tests/support/Books.ts"
import { inShop } from "../../../tests/support/InProcess.ts"
import { temporaryFolder } from "../../../tests/support/Processes.ts"
import * as Warehouse from "../src/analytics/warehouse/Warehouse.ts"
import { daysBringRevenue } from "./DailyRevenue.contract.ts"
import { admin, customersSeeTheirOrders, idempotencyKey, product } from "./OrderHistory.contract.ts"
import { as } from "./Requests.ts"

test("customers see their orders newest first, page by page, as far as these have come; nobody else's", () =>
  inShop(customersSeeTheirOrders(settled).pipe(Effect.provide(Logger.layer([])))))

test("a day's revenue is what was taken and given back between the region's own midnights", () =>
  inShop(
    daysBringRevenue(settled, (moment) =>
      SqlClient.SqlClient.use(
        (sql) => sql`update payments.daily_revenue set booked_at = ${moment} where booked_at is not null`
      )
    ).pipe(Effect.provide(Logger.layer([])))
  ))

test("the warehouse counts as taken and given back what payments do, to the minor unit, by region and currency", () =>
  inShop(
    Effect.gen(function* () {
      const [orders, payments, sql] = [yield* OrdersRpc, yield* PaymentsRpc, yield* SqlClient.SqlClient]
      const productId = yield* product("FIG", 333)
      for (const [nth, region] of (["eu", "us", "us", "apac"] as const).entries()) {
        const shopper = as(`SHOPPER-${nth}`, "shopper", region)
        const items = [{ productId, qty: nth + 1 }]
        const { answer } = yield* shopper(orders.Place({ idempotencyKey: idempotencyKey(), items }))
        if (nth === 2) continue
        const { orderId } = answer
        const paymentToken = PaymentToken.make("tok_ok")
        yield* shopper(orders.Pay({ idempotencyKey: idempotencyKey(), orderId, paymentToken, rail: "auto" }))
        const [attempt] = yield* sql<{ attemptId: string }>`
          select attempt_id as "attemptId" from payments.payments where order_id = ${orderId}`
        for (const amountMinor of nth === 0 ? [101, 7] : [50]) {
          const refundId = RefundId.make(`REFUND-${nth}-${amountMinor}`)
          const attemptId = AttemptId.make(attempt?.attemptId ?? "")
          yield* admin(payments.Refund({ attemptId, refundId, amountMinor, reason: "bruised" }))
        }
      }
      yield* settled
      const today = new Date()
      const day = (shift: number) => new Date(today.getTime() + shift * 86_400_000).toISOString().slice(0, 10)
      const days = yield* admin(payments.DailyRevenue({ first: day(-1), last: day(2) }))
      // Nothing was given back on another day than it was ordered on, unless a midnight passed just now: so days are added up.
      const sums = Map.groupBy(days, ({ region, currency }) => `${region} ${currency}`)
      const wanted = [...sums].map(([of, all]) => ({
        of,
        revenue: all.reduce((sum, { revenueMinor }) => sum + revenueMinor, 0),
        refunds: all.reduce((sum, { refundsMinor }) => sum + refundsMinor, 0)
      }))
      expect(wanted.map(({ refunds }) => refunds).toSorted((left, right) => left - right)).toEqual([50, 50, 108])
      const folder = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
      const sold = yield* Effect.gen(function* () {
        yield* Archive.use((archive) => archive.catchUp(["order.events", "payment.events"]))
        yield* Warehouse.build([])
        yield* Warehouse.summarise(undefined)
        const duck = yield* DuckDb.open
        yield* Warehouse.open(duck)
        const of = (table: string, taken: string) =>
          duck.rows(`select concat(region, ' ', currency) as of, sum(${taken})::bigint as revenue,
            sum(refunded_minor)::bigint as refunds from ${table} group by all having revenue > 0 order by all`)
        return [
          yield* of("daily_sales", "paid_minor"),
          yield* of("fact_orders", "case when status in ('PAID', 'FULFILLED') then total_minor else 0 end")
        ]
      }).pipe(
        Effect.scoped,
        Effect.provide(
          Archive.layer("postgres").pipe(
            Layer.provideMerge(Files.layer(folder.path)),
            Layer.provideMerge(PostgresEventBus.layer)
          )
        )
      )
      const expected = wanted.toSorted((left, right) => (left.of < right.of ? -1 : 1))
      expect<unknown>(sold).toEqual([expected, expected])
    }).pipe(Effect.scoped, Effect.provide(Logger.layer([])))
  ))
