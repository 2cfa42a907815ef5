// What read models tell: a customer's orders, and what a day brought. That they agree with all the rest, the audit of the races says.
import { test } from "bun:test"
import { Effect, Logger } from "effect"
import { SqlClient } from "effect/sql"
import { settled } from "../../../tests/support/Books.ts"
import { inShop } from "../../../tests/support/InProcess.ts"
import { daysBringRevenue } from "./DailyRevenue.contract.ts"
import { customersSeeTheirOrders } from "./OrderHistory.contract.ts"

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
