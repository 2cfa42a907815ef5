import { Effect, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { AttemptId, OrderId, UserId } from "@merkato/domain/kernel/Ids"
import type { NewEvent } from "@merkato/domain/kernel/Event"
import { Currency, Minor } from "@merkato/domain/kernel/Money"
import { Payment, PaymentStatus } from "@merkato/domain/payments/Payment"
import { EventStore } from "@merkato/infra/events/EventStore"

const Row = Schema.Struct({
  attemptId: AttemptId,
  orderId: OrderId,
  userId: UserId,
  amountMinor: Minor,
  currency: Currency,
  status: PaymentStatus,
  reason: Schema.NullOr(Schema.String),
  version: Schema.Int,
  createdAt: Schema.DateTimeUtcFromDate,
  updatedAt: Schema.DateTimeUtcFromDate
})
const decode = Schema.decodeUnknownEffect(Schema.Array(Row))

/** One side of a booking. */
export interface Entry {
  readonly account: "psp_receivable" | "sales"
  /** Debit positive, credit negative. */
  readonly amountMinor: number
}

/** The SQL of payments. */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const events = yield* EventStore
  const fields = sql.literal(
    `attempt_id as "attemptId", order_id as "orderId", user_id as "userId", amount_minor as "amountMinor", currency,
     status, reason, version, created_at as "createdAt", updated_at as "updatedAt"`
  )
  const first = Effect.fnUntraced(function* (rows: ReadonlyArray<unknown>) {
    const [row] = yield* Effect.orDie(decode(rows))
    return row === undefined ? undefined : new Payment(row)
  })

  const find = Effect.fn("PaymentsStore.find")(function* (attemptId: string) {
    return yield* first(yield* sql`select ${fields} from payments.payments where attempt_id = ${attemptId}`)
  })

  /** Writes a new payment with its first event, as one statement; false when the attempt is there already. */
  const insert = Effect.fn("PaymentsStore.insert")(function* (payment: Payment, event: NewEvent) {
    const at = new Date(payment.createdAt.epochMilliseconds)
    const rows = yield* sql`
      with added as (
        insert into payments.payments
          (attempt_id, order_id, user_id, amount_minor, currency, status, version, created_at, updated_at)
        values (${payment.attemptId}, ${payment.orderId}, ${payment.userId}, ${payment.amountMinor}::bigint,
          ${payment.currency}, ${payment.status}, ${payment.version}, ${at}, ${at})
        on conflict (attempt_id) do nothing returning 1
      ), ${yield* events.appending([event], at, sql`exists (select from added)`)}
      select from added`
    if (rows.length > 0) yield* events.committed
    return rows.length > 0
  })

  /**
   * Writes what events made of a payment of `before`'s version, with the events and the booking, as one statement; false
   * when somebody else has changed it since.
   */
  const save = Effect.fn("PaymentsStore.save")(function* (
    before: Payment,
    payment: Payment,
    changes: ReadonlyArray<NewEvent>,
    entries: ReadonlyArray<Entry>
  ) {
    const at = new Date(payment.updatedAt.epochMilliseconds)
    const rows = yield* sql`
      with changed as (
        update payments.payments set status = ${payment.status}, reason = ${payment.reason},
          version = ${payment.version}, updated_at = ${at}
        where attempt_id = ${payment.attemptId} and version = ${before.version} returning 1
      ), booked as (
        insert into payments.ledger (booking_id, line, attempt_id, order_id, account, amount_minor, currency, booked_at)
        select ${`capture-${payment.attemptId}`}, line, ${payment.attemptId}, ${payment.orderId}, account, amount,
          ${payment.currency}, ${at}
        from changed, unnest(
          ${entries.map((entry) => entry.account)}::text[],
          ${entries.map((entry) => String(entry.amountMinor))}::text[]::bigint[]
        ) with ordinality as e (account, amount, line)
      ), ${yield* events.appending(changes, at, sql`exists (select from changed)`)}
      select from changed`
    if (rows.length > 0) yield* events.committed
    return rows.length > 0
  })

  return { find, insert, save }
})
