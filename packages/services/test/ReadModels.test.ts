// What read models tell: a customer's orders, and what a day brought. That they agree with all the rest, the audit of the races says.
import { expect, test } from "bun:test"
import { Effect, Logger } from "effect"
import { SqlClient } from "effect/sql"
import { AttemptId, RefundId } from "@merkato/domain/kernel/Ids"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import { settled } from "../../../tests/support/Books.ts"
import { inShop } from "../../../tests/support/InProcess.ts"
import { admin, customersSeeTheirOrders, idempotencyKey, product } from "./OrderHistory.contract.ts"
import { as } from "./Requests.ts"

test("customers see their orders newest first, page by page, as far as these have come; nobody else's", () =>
  inShop(customersSeeTheirOrders(settled).pipe(Effect.provide(Logger.layer([])))))

test("a day's revenue is what was taken and given back between the region's own midnights", () =>
  inShop(
    Effect.gen(function* () {
      const [orders, payments, sql] = [yield* OrdersRpc, yield* PaymentsRpc, yield* SqlClient.SqlClient]
      const productId = yield* product("FIG", 500)
      const buy = (who: ReturnType<typeof as>, qty: number, token = "tok_ok") =>
        who(
          Effect.gen(function* () {
            const { answer } = yield* orders.Place({ idempotencyKey: idempotencyKey(), items: [{ productId, qty }] })
            const paymentToken = PaymentToken.make(token)
            const paying = orders.Pay({
              idempotencyKey: idempotencyKey(),
              orderId: answer.orderId,
              paymentToken,
              rail: "auto"
            })
            yield* token === "tok_ok" ? Effect.asVoid(paying) : Effect.asVoid(Effect.flip(paying))
            const [attempt] = yield* sql<{ attemptId: string }>`
              select attempt_id as "attemptId" from payments.payments where order_id = ${answer.orderId}`
            return { attemptId: attempt?.attemptId ?? "", total: answer.totalMinor }
          })
        )
      const ada = as("ADA", "shopper", "eu")
      const bob = as("BOB", "shopper", "us")
      const [inEurope, more, inAmerica] = [yield* buy(ada, 1), yield* buy(ada, 3), yield* buy(bob, 2)]
      yield* buy(bob, 1, "tok_declined")
      yield* admin(
        payments.Refund({
          attemptId: AttemptId.make(more.attemptId),
          refundId: RefundId.make("REFUND-1"),
          amountMinor: 250,
          reason: "bruised"
        })
      )
      yield* settled
      // Three in the morning of New Year's Day in Greenwich, New Year's Eve in New York.
      yield* sql`update payments.daily_revenue set booked_at = '2026-01-01T03:00:00Z' where booked_at is not null`

      const days = (first: string, last: string) => payments.DailyRevenue({ first, last })
      expect<unknown>(yield* admin(days("2025-12-01", "2026-01-31"))).toEqual([
        expect.objectContaining({
          day: "2025-12-31",
          region: "us",
          currency: "USD",
          orders: 1,
          revenueMinor: inAmerica.total,
          refundsMinor: 0
        }),
        expect.objectContaining({
          day: "2026-01-01",
          region: "eu",
          currency: "USD",
          orders: 2,
          revenueMinor: inEurope.total + more.total,
          refundsMinor: 250
        })
      ])
      expect((yield* admin(days("2026-01-01", "2026-01-01"))).map(({ region }) => region)).toEqual(["eu"])
      expect((yield* admin(days("2025-12-31", "2025-12-31"))).map(({ region }) => region)).toEqual(["us"])
      expect(yield* admin(days("2026-01-02", "2026-01-02"))).toEqual([])
      expect(yield* ada(Effect.flip(days("2026-01-01", "2026-01-01")))).toMatchObject({ _tag: "Forbidden" })
      expect(yield* admin(Effect.flip(days("2024-01-01", "2026-01-01")))).toMatchObject({ _tag: "InvalidValue" })
    }).pipe(Effect.provide(Logger.layer([])))
  ))
