import { expect, test } from "bun:test"
import { Clock, Duration, Effect, Result, Schedule } from "effect"
import { SqlClient } from "effect/sql"
import type { Order } from "@merkato/domain/orders/Order"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { booksBalance, settled } from "./support/Books.ts"
import { cancel, inShopSetUp, onShelf, pay, place } from "./support/Market.ts"

const many = (count: number) => Array.from({ length: count }, (_, nth) => nth)

/** The gateway is given time enough that a busy machine is no reason for doubt. */
const patient = { MERKATO_PAYMENT_TIMEOUT_MS: "8000" }

/** The gateway's silence is noticed soon. */
const brisk = { MERKATO_PAYMENT_TIMEOUT_MS: "200" }

/** How many orders there are of each status. */
const statuses = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ status: string; orders: number }>`
    select status, count(*) as orders from orders.orders group by status`
  return new Map(rows.map(({ status, orders }) => [status, orders]))
})

/** How many attempts the gateways have of each status; one that was called off at both counts once. */
const attempts = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ status: string; attempts: number }>`
    select status, count(distinct attempt_id) as attempts from psp.attempts group by status`
  return new Map(rows.map(({ status, attempts }) => [status, attempts]))
})

interface Refusal {
  readonly _tag: string
  readonly refusal?: { readonly _tag: string }
}

/** The tag of a refusal, given now or again, or the status of the order that was answered. */
const outcome = (result: Result.Result<Order | { readonly answer: Order }, Refusal>): string => {
  if (Result.isFailure(result)) return (result.failure.refusal ?? result.failure)._tag
  return "answer" in result.success ? result.success.answer.status : result.success.status
}

/** Asks again under the same key until the shop has said its last word. */
const persist = <A, E extends { readonly _tag: string }, R>(ask: Effect.Effect<A, E, R>) =>
  Effect.result(ask).pipe(
    Effect.tap((result) => (isFinal(result) ? Effect.void : Effect.sleep("50 millis"))),
    Effect.repeat({ until: isFinal, times: 400 })
  )

const isFinal = <A>(result: Result.Result<A, { readonly _tag: string }>) =>
  Result.isSuccess(result) ||
  !["RequestInProgress", "PaymentInProgress", "PaymentUnavailable"].includes(result.failure._tag)

/** Milliseconds that a payment takes here and now, while `concurrency` shoppers pay. */
const usualPayment = Effect.fnUntraced(function* (concurrency: number) {
  const productId = yield* onShelf(concurrency * 3)
  const taken = yield* Effect.forEach(
    many(concurrency * 3),
    Effect.fnUntraced(function* (nth) {
      const { answer: order } = yield* place(`EARLY-${nth}`, "order", [{ productId, qty: 1 }])
      const [duration] = yield* Effect.timed(pay(`EARLY-${nth}`, "payment", order.orderId))
      return Duration.toMillis(duration)
    }),
    { concurrency }
  )
  return taken.toSorted((a, b) => a - b)[Math.floor(taken.length / 2)] ?? 0
})

test(
  "an order paid and canceled at the same moment is one of both, 500 times",
  () =>
    inShopSetUp(
      patient,
      Effect.gen(function* () {
        const paymentMs = yield* usualPayment(25)
        const productId = yield* onShelf(500)
        const outcomes = yield* Effect.forEach(
          many(500),
          Effect.fnUntraced(function* (nth) {
            const user = `USER-${nth}`
            const { answer: order } = yield* place(user, "order", [{ productId, qty: 1 }])
            // From the same moment up to the middle of the payment.
            const [paid, canceled] = yield* Effect.all(
              [
                Effect.result(pay(user, "payment", order.orderId)),
                Effect.result(Effect.andThen(Effect.sleep((paymentMs * (nth % 10)) / 20), cancel(user, order.orderId)))
              ],
              { concurrency: 2 }
            )
            return `${outcome(paid)} ${outcome(canceled)}`
          }),
          { concurrency: 25 }
        )
        yield* booksBalance
        const possible = ["PAID PaymentInProgress", "PAID NotCancelable", "NotPayable CANCELED"]
        expect(outcomes.filter((both) => !possible.includes(both))).toEqual([])
        const canceled = outcomes.filter((both) => both === "NotPayable CANCELED").length
        // Else nothing raced.
        expect(canceled).toBeGreaterThan(0)
        expect(canceled).toBeLessThan(500)
        expect(yield* statuses).toEqual(
          new Map([
            ["PAID", 575 - canceled],
            ["CANCELED", canceled]
          ])
        )
        expect(yield* attempts).toEqual(new Map([["captured", 575 - canceled]]))
        const { onHand, reserved } = yield* (yield* InventoryRpc).Levels({ productId })
        expect({ onHand, reserved }).toEqual({ onHand: canceled, reserved: 0 })
      })
    ),
  120_000
)

/** Lets an order's reservation end so many milliseconds from now, if it is still held. */
const expireIn = Effect.fnUntraced(function* (order: Order, millis: number) {
  const sql = yield* SqlClient.SqlClient
  const at = new Date((yield* Clock.currentTimeMillis) + millis)
  yield* sql`update inventory.reservations set expires_at = ${at} where reservation_id = ${order.reservationId} and status = 'held'`
})

test(
  "an order paid as its reservation ends has its goods and is charged, or neither, 200 times",
  () =>
    inShopSetUp(
      { ...patient, MERKATO_RESERVATION_SWEEP_MS: "1" },
      Effect.gen(function* () {
        const paymentMs = yield* usualPayment(10)
        const productId = yield* onShelf(210)
        // Some are never paid at all.
        for (const nth of many(10)) {
          const { answer: order } = yield* place(`FORGETFUL-${nth}`, "order", [{ productId, qty: 1 }])
          yield* expireIn(order, nth)
        }
        const outcomes = yield* Effect.forEach(
          many(200),
          Effect.fnUntraced(function* (nth) {
            const user = `USER-${nth}`
            const { answer: order } = yield* place(user, "order", [{ productId, qty: 1 }])
            if (nth % 2 === 0) {
              // It ends around the moment at which the payment would extend it.
              yield* expireIn(order, (paymentMs * (nth % 20)) / 20 - 1)
              return outcome(yield* Effect.result(pay(user, "payment", order.orderId)))
            }
            // It ends somewhere between the payment's beginning and its end.
            const [paid] = yield* Effect.all(
              [
                Effect.result(pay(user, "payment", order.orderId)),
                Effect.andThen(Effect.sleep((paymentMs * (nth % 40)) / 40), expireIn(order, 0))
              ],
              { concurrency: 2 }
            )
            return outcome(paid)
          }),
          { concurrency: 10 }
        )
        yield* booksBalance
        expect(outcomes.filter((how) => how !== "PAID" && how !== "NotPayable")).toEqual([])
        const paid = outcomes.filter((how) => how === "PAID").length
        // Else nothing raced.
        expect(paid).toBeGreaterThan(0)
        expect(paid).toBeLessThan(200)
        expect(yield* statuses).toEqual(
          new Map([
            ["PAID", 30 + paid],
            ["CANCELED", 210 - paid]
          ])
        )
        const { captured, voided = 0, ...others } = Object.fromEntries(yield* attempts)
        expect(captured).toBe(30 + paid)
        expect(voided).toBeLessThanOrEqual(200 - paid)
        expect(others).toEqual({})
        const { onHand, reserved } = yield* (yield* InventoryRpc).Levels({ productId })
        expect({ onHand, reserved }).toEqual({ onHand: 210 - paid, reserved: 0 })
      })
    ),
  120_000
)

/** Waits until the gateway has heard of a payment of the order. */
const charged = Effect.fnUntraced(function* (order: Order) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`select 1 from psp.attempts where order_id = ${order.orderId}`.pipe(
    Effect.repeat({ until: (rows) => rows.length > 0, schedule: Schedule.spaced("5 millis") })
  )
})

test(
  "money held for an order whose reservation ends before that is known is given back, and the order ends",
  () =>
    inShopSetUp(
      { MERKATO_PAYMENT_TIMEOUT_MS: "1000" },
      Effect.gen(function* () {
        const productId = yield* onShelf(20)
        const outcomes = yield* Effect.forEach(
          many(20),
          Effect.fnUntraced(function* (nth) {
            const user = `USER-${nth}`
            const { answer: order } = yield* place(user, "order", [{ productId, qty: 1 }])
            // The gateway holds the money at once; that it does becomes known after a second.
            const [paid] = yield* Effect.all(
              [
                persist(pay(user, "payment", order.orderId, "tok_lost")),
                Effect.andThen(charged(order), expireIn(order, 0))
              ],
              { concurrency: 2 }
            )
            return outcome(paid)
          }),
          { concurrency: 20 }
        )
        yield* booksBalance
        expect(outcomes).toEqual(many(20).map(() => "NotPayable"))
        expect(yield* statuses).toEqual(new Map([["CANCELED", 20]]))
        expect(yield* attempts).toEqual(new Map([["voided", 20]]))
        expect(yield* (yield* InventoryRpc).Levels({ productId })).toMatchObject({ onHand: 20, reserved: 0 })
      })
    ),
  180_000
)

test(
  "an order whose reservation ends while its gateway is silent, or as its payment is declined, is canceled without a charge",
  () =>
    inShopSetUp(
      brisk,
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const productId = yield* onShelf(40)
        const outcomes = yield* Effect.forEach(
          many(40),
          Effect.fnUntraced(function* (nth) {
            const user = `USER-${nth}`
            const { answer: order } = yield* place(user, "order", [{ productId, qty: 1 }])
            const initiated = sql`select 1 from payments.payments where order_id = ${order.orderId}`.pipe(
              Effect.repeat({ until: (rows) => rows.length > 0, schedule: Schedule.spaced("2 millis") })
            )
            const [paid] = yield* Effect.all(
              [
                Effect.result(pay(user, "payment", order.orderId, nth % 2 === 0 ? "tok_timeout" : "tok_declined")),
                Effect.andThen(initiated, expireIn(order, 0))
              ],
              { concurrency: 2 }
            )
            return outcome(paid)
          }),
          { concurrency: 10 }
        )
        yield* booksBalance
        const told = ["PaymentUnavailable", "NotPayable", "PaymentDeclined"]
        expect(outcomes.filter((how) => !told.includes(how))).toEqual([])
        expect(yield* statuses).toEqual(new Map([["CANCELED", 40]]))
        const { voided = 0, declined = 0, ...others } = Object.fromEntries(yield* attempts)
        expect(voided + declined).toBe(40)
        expect(others).toEqual({})
        expect(yield* (yield* InventoryRpc).Levels({ productId })).toMatchObject({ onHand: 40, reserved: 0 })
      })
    ),
  180_000
)

test(
  "whose charge was made and its answer lost is charged once, however often and by whatever key they pay",
  () =>
    inShopSetUp(
      brisk,
      Effect.gen(function* () {
        const productId = yield* onShelf(30)
        const outcomes = yield* Effect.forEach(
          many(30),
          Effect.fnUntraced(function* (nth) {
            const user = `USER-${nth}`
            const { answer: order } = yield* place(user, "order", [{ productId, qty: 1 }])
            const results = yield* Effect.all(
              [
                persist(pay(user, "payment", order.orderId, "tok_lost")),
                persist(pay(user, "payment", order.orderId, "tok_lost")),
                persist(pay(user, "another-payment", order.orderId, "tok_lost")),
                persist(pay(user, "third-payment", order.orderId))
              ],
              { concurrency: "unbounded" }
            )
            return results.map(outcome)
          }),
          { concurrency: 10 }
        )
        yield* booksBalance
        // One key paid; whoever used it reads so, and the other keys come too late.
        for (const answers of outcomes) {
          expect(answers.filter((answer) => answer !== "PAID" && answer !== "NotPayable")).toEqual([])
          expect(answers[0]).toBe(answers[1] ?? "")
          expect(new Set(answers.slice(1)).size).toBe(2)
        }
        expect(yield* statuses).toEqual(new Map([["PAID", 30]]))
        expect((yield* attempts).get("captured")).toBe(30)
      })
    ),
  180_000
)

test(
  "whose gateway stays silent is not charged, may try again under the same key, and is charged once in the end",
  () =>
    inShopSetUp(
      brisk,
      Effect.gen(function* () {
        const productId = yield* onShelf(20)
        const orders = yield* Effect.forEach(
          many(20),
          Effect.fnUntraced(function* (nth) {
            const user = `USER-${nth}`
            const { answer: order } = yield* place(user, "order", [{ productId, qty: 1 }])
            const silent = Effect.map(Effect.result(pay(user, "payment", order.orderId, "tok_timeout")), outcome)
            // Two at once, and another one when they are through.
            const both = yield* Effect.all([silent, silent], { concurrency: 2 })
            expect(both.toSorted()).toEqual(["PaymentUnavailable", "RequestInProgress"])
            const again = Effect.repeat(silent, {
              until: (how) => how !== "RequestInProgress",
              schedule: Schedule.spaced("100 millis")
            })
            expect(yield* again).toBe("PaymentUnavailable")
            return { user, order }
          }),
          { concurrency: 10 }
        )
        yield* settled
        expect(yield* statuses).toEqual(new Map([["PENDING", 20]]))
        expect((yield* attempts).keys().toArray()).toEqual(["voided"])
        const paid = yield* Effect.forEach(
          orders,
          ({ user, order }) => persist(pay(user, "payment", order.orderId, "tok_ok")),
          { concurrency: 10 }
        )
        expect(paid.map(outcome)).toEqual(many(20).map(() => "PAID"))
        yield* booksBalance
        expect(yield* statuses).toEqual(new Map([["PAID", 20]]))
        expect((yield* attempts).get("captured")).toBe(20)
      })
    ),
  180_000
)
