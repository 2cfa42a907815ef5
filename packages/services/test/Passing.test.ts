// What contexts forget of their own: it is old, nobody needs it any more, and nothing else goes with it.
import { expect, test } from "bun:test"
import { Clock, Effect } from "effect"
import { SqlClient } from "effect/sql"
import { uuidV7 } from "@merkato/domain/kernel/Ids"
import * as Retention from "@merkato/infra/context/Retention"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { Cart } from "../src/cart/index.ts"
import { Identity } from "../src/identity/index.ts"
import { Notifications } from "../src/notifications/index.ts"
import { Orders } from "../src/orders/index.ts"

const dayMs = 24 * 60 * 60_000

/** A process: the age of its order and when it last moved, in days, and what that order is like by now. */
type Process = readonly [name: string, ordered: number, moved: number, step: string, order: string | undefined]

const processes: ReadonlyArray<Process> = [
  ["old and paid", 40, 40, "done", "PAID"],
  ["old and came to no order", 40, 40, "done", undefined],
  ["old and canceled", 40, 40, "done", "CANCELED"],
  ["old, and its order still waits", 40, 40, "done", "PENDING"],
  ["old, and its order is held", 40, 40, "done", "HELD"],
  ["old, and it has not ended", 40, 40, "capture", "PENDING"],
  ["old, and it ended lately", 40, 29, "done", "PAID"],
  ["young", 29, 29, "done", "PAID"]
]

test("a process is forgotten a month after its order and its end, unless it or its order is still open", () =>
  TestDatabase.run(
    Effect.gen(function* () {
      yield* Orders.migrate
      const sql = yield* SqlClient.SqlClient
      const now = yield* Clock.currentTimeMillis
      yield* Effect.forEach(processes, ([name, ordered, moved, step, status], index) => {
        const orderId = `ORDER-${uuidV7(now - ordered * dayMs, () => index / 100)}`
        const at = new Date(now - moved * dayMs)
        const order = sql`
          insert into orders.orders (order_id, user_id, region, status, items_minor, discount_minor, tax_minor, shipping_minor,
            total_minor, currency, reservation_id, reservation_lost, version, created_at, updated_at)
          values (${orderId}, 'ADA', 'us', ${status ?? ""}, 1, 0, 0, 0, 1, 'USD', ${`RES-${index}`}, false, 1, ${at}, ${at})`
        const process = sql`
          insert into orders.sagas (saga_id, order_id, step, attempt, attempt_id, owner, epoch, deadline, outcome, request,
            updated_at, kind, work, begun_at, cart)
          values (${name}, ${orderId}, ${step}, 1, ${`PAY-${index}`}, 'me', 1, ${at}, 'paid', '{}', ${at}, 'checkout', '{}',
            ${at}, ${`CART-${index}#0`})`
        return status === undefined ? process : Effect.andThen(order, process)
      })
      yield* Retention.turn("orders", Orders.passing)
      const left = yield* sql<{ name: string }>`select saga_id as name from orders.sagas order by attempt_id`
      expect(left.map(({ name }) => name)).toEqual([
        "old, and its order still waits",
        "old, and its order is held",
        "old, and it has not ended",
        "old, and it ended lately",
        "young"
      ])
      const [orders] = yield* sql<{ count: number }>`select count(*) as count from orders.orders`
      expect(orders?.count).toBe(7)
    })
  ))

test("notifications are forgotten after 90 days, sessions a day after they ended by themselves", () =>
  TestDatabase.run(
    Effect.gen(function* () {
      yield* Notifications.migrate
      yield* Identity.migrate
      const sql = yield* SqlClient.SqlClient
      const now = yield* Clock.currentTimeMillis
      yield* sql`
        insert into identity.users (user_id, email, password_hash, name, region, created_at)
        values ('ADA', 'ada@example.com', 'hash', 'Ada', 'us', ${new Date(now - 200 * dayMs)})`
      yield* Effect.forEach([91, 89], (days) => {
        const at = now - days * dayMs
        return sql`
          insert into notifications.notifications (notification_id, user_id, kind, order_id, text, created_at)
          values (${uuidV7(at, () => 0.5)}, 'ADA', 'order.paid', 'ORDER-1', ${`${days} days`}, ${new Date(at)})`
      })
      yield* Effect.forEach([-2, -0.5, 1], (days) => {
        const ends = new Date(now + days * dayMs)
        return sql`
          insert into identity.sessions (session_id, user_id, refresh_hash, expires_at, created_at)
          values (${`${days} days`}, 'ADA', ${`hash ${days}`}, ${ends}, ${new Date(now - 30 * dayMs)})`
      })
      yield* Retention.turn("notifications", Notifications.passing)
      yield* Retention.turn("identity", Identity.passing)
      expect(yield* sql`select text from notifications.notifications`).toEqual([{ text: "89 days" }])
      expect(yield* sql`select session_id from identity.sessions order by expires_at`).toEqual([
        { session_id: "-0.5 days" },
        { session_id: "1 days" }
      ])
    })
  ))

/** A cart: its age and when it was touched last, in days, whose it is, and whether anything is in it. */
type Kept = readonly [age: number, touched: number, of: "guest" | "user", full: boolean]

test("a guest's cart is emptied when its token has expired, and an empty cart forgotten 90 days after it was touched", () =>
  TestDatabase.run(
    Effect.gen(function* () {
      yield* Cart.migrate
      const sql = yield* SqlClient.SqlClient
      const now = yield* Clock.currentTimeMillis
      const carts: ReadonlyArray<Kept> = [
        [100, 100, "user", true],
        [100, 100, "user", false],
        [100, 89, "user", false],
        [100, 91, "user", false],
        [89, 89, "user", false],
        [100, 100, "guest", true],
        [100, 80, "guest", true],
        [32, 32, "guest", true],
        [30, 30, "guest", true],
        [30, 30, "user", true]
      ]
      yield* Effect.forEach(carts, ([age, touched, of, full], index) => {
        const cartId = `CART-${uuidV7(now - age * dayMs, () => index / 100)}`
        const cart = sql`
          insert into cart.carts (cart_id, owner_id, guest, currency, orders_taken, version, created_at, updated_at)
          values (${cartId}, ${`${age} ${touched} ${of}`}, ${of === "guest"}, 'USD', 0, 2, ${new Date(now - age * dayMs)},
            ${new Date(now - touched * dayMs)})`
        const items = sql`
          insert into cart.cart_items (cart_id, product_id, qty, line) values (${cartId}, 'P1', 1, 1), (${cartId}, 'P2', 3, 2)`
        return full ? Effect.andThen(cart, items) : cart
      })
      yield* Retention.turn("cart", Cart.passing)
      const left = yield* sql<{ of: string; lines: number }>`
        select owner_id as of, (select count(*)::int from cart.cart_items i where i.cart_id = c.cart_id) as lines
        from cart.carts c order by created_at, updated_at`
      expect(left.map(({ lines, of }) => `${of} ${lines}`)).toEqual([
        "100 100 user 2",
        "100 89 user 0",
        "100 80 guest 0",
        "89 89 user 0",
        "32 32 guest 0",
        "30 30 guest 2",
        "30 30 user 2"
      ])
    })
  ))
