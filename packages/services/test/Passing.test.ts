// What contexts forget of their own: it is old, nobody needs it any more, and nothing else goes with it.
import { expect, test } from "bun:test"
import { Clock, Effect } from "effect"
import { SqlClient } from "effect/sql"
import { uuidV7 } from "@merkato/domain/kernel/Ids"
import * as Retention from "@merkato/infra/context/Retention"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
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
