// What whoever adds up the money of days promises, in Postgres or elsewhere.
import { expect } from "bun:test"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { AttemptId, RefundId } from "@merkato/domain/kernel/Ids"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import { admin, idempotencyKey, product } from "./OrderHistory.contract.ts"
import { as } from "./Requests.ts"

/**
 * A day's revenue is what was taken and given back between the region's own midnights; once it is known, and all of it was
 * booked at another moment.
 */
export const daysBringRevenue = <E, R, E2, R2>(
  untilKnown: Effect.Effect<unknown, E, R>,
  bookAllAt: (moment: string) => Effect.Effect<unknown, E2, R2>
) =>
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
    yield* untilKnown
    // Three in the morning of New Year's Day in Greenwich, New Year's Eve in New York.
    yield* bookAllAt("2026-01-01T03:00:00Z")

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
  })
