import { Clock, Config, Effect, Schema } from "effect"
import { SqlClient, type Statement } from "effect/sql"
import { AttemptId, OrderId, RefundId, UserId } from "@merkato/domain/kernel/Ids"
import type { NewEvent } from "@merkato/domain/kernel/Event"
import { Currency, Minor } from "@merkato/domain/kernel/Money"
import { Payment, PaymentStatus, Refund, RefundStatus } from "@merkato/domain/payments/Payment"
import { EventStore } from "@merkato/infra/events/EventStore"

const PaymentRow = Schema.Struct({
  attemptId: AttemptId,
  orderId: OrderId,
  userId: UserId,
  amountMinor: Minor,
  currency: Currency,
  status: PaymentStatus,
  reason: Schema.NullOr(Schema.String),
  gateway: Schema.String,
  refundingMinor: Minor,
  refundedMinor: Minor,
  version: Schema.Int,
  createdAt: Schema.DateTimeUtcFromDate,
  updatedAt: Schema.DateTimeUtcFromDate
})
const decodePayments = Schema.decodeUnknownEffect(Schema.Array(PaymentRow))

const RefundRow = Schema.Struct({
  refundId: RefundId,
  attemptId: AttemptId,
  orderId: OrderId,
  amountMinor: Minor,
  currency: Currency,
  status: RefundStatus,
  reason: Schema.String,
  refusal: Schema.NullOr(Schema.String),
  createdAt: Schema.DateTimeUtcFromDate,
  updatedAt: Schema.DateTimeUtcFromDate
})
const decodeRefunds = Schema.decodeUnknownEffect(Schema.Array(RefundRow))

const OpenRow = Schema.Struct({
  state: Schema.Literals(["initiated", "authorised", "refund_requested"]),
  count: Schema.Int,
  oldest: Schema.NullOr(Schema.DateTimeUtcFromDate)
})
const decodeOpen = Schema.decodeUnknownEffect(Schema.Array(OpenRow))

/** One side of a booking. */
export interface Entry {
  /** What providers owe us; what was sold; what of it was given back. */
  readonly account: "psp_receivable" | "sales" | "refunds"
  /** Debit positive, credit negative. */
  readonly amountMinor: number
}

export interface Booking {
  readonly bookingId: string
  readonly entries: ReadonlyArray<Entry>
}

/** The booking of a capture: the provider owes us what was sold. */
export const captureBooking = ({ attemptId, amountMinor }: Payment): Booking | undefined =>
  amountMinor === 0
    ? undefined
    : {
        bookingId: `capture-${attemptId}`,
        entries: [
          { account: "psp_receivable", amountMinor },
          { account: "sales", amountMinor: -amountMinor }
        ]
      }

/** The booking of a refund: the provider owes us less, and less was earned. */
export const refundBooking = ({ refundId, amountMinor }: Refund): Booking => ({
  bookingId: `refund-${refundId}`,
  entries: [
    { account: "refunds", amountMinor },
    { account: "psp_receivable", amountMinor: -amountMinor }
  ]
})

/** Milliseconds after which the reconciler asks about what is open; 30,000 unless `MERKATO_PAYMENT_RECONCILE_AFTER_MS` says otherwise. */
export const reconcileAfterMs = Config.Int("MERKATO_PAYMENT_RECONCILE_AFTER_MS").pipe(Config.withDefault(30_000))

/** The longest pause between two questions of the reconciler, in milliseconds: 10 minutes. */
const longestPauseMs = 600_000

/** The SQL of payments. */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const events = yield* EventStore
  const firstPauseMs = yield* Effect.orDie(reconcileAfterMs)
  const paymentFields = sql.literal(
    `attempt_id as "attemptId", order_id as "orderId", user_id as "userId", amount_minor as "amountMinor", currency,
     status, reason, gateway, refunding_minor as "refundingMinor", refunded_minor as "refundedMinor", version,
     created_at as "createdAt", updated_at as "updatedAt"`
  )
  const refundFields = sql.literal(
    `refund_id as "refundId", attempt_id as "attemptId", order_id as "orderId", amount_minor as "amountMinor", currency,
     status, reason, refusal, created_at as "createdAt", updated_at as "updatedAt"`
  )
  const payments = (rows: ReadonlyArray<unknown>) =>
    Effect.map(Effect.orDie(decodePayments(rows)), (all) => all.map((row) => new Payment(row)))
  const refunds = (rows: ReadonlyArray<unknown>) =>
    Effect.map(Effect.orDie(decodeRefunds(rows)), (all) => all.map((row) => new Refund(row)))
  const askAgainAt = Effect.map(Clock.currentTimeMillis, (now) => new Date(now + firstPauseMs))

  const find = Effect.fn("PaymentsStore.find")(function* (attemptId: string) {
    const rows = yield* sql`select ${paymentFields} from payments.payments where attempt_id = ${attemptId}`
    return (yield* payments(rows))[0]
  })

  const findRefund = Effect.fn("PaymentsStore.findRefund")(function* (refundId: string) {
    const rows = yield* sql`select ${refundFields} from payments.refunds where refund_id = ${refundId}`
    return (yield* refunds(rows))[0]
  })

  /** Writes a new payment with its first event, as one statement; false when the attempt is there already. */
  const insert = Effect.fn("PaymentsStore.insert")(function* (payment: Payment, event: NewEvent) {
    const at = new Date(payment.createdAt.epochMilliseconds)
    const rows = yield* sql`
      with added as (
        insert into payments.payments (attempt_id, order_id, user_id, amount_minor, currency, status, gateway, version,
          created_at, updated_at, asked, ask_again_at)
        values (${payment.attemptId}, ${payment.orderId}, ${payment.userId}, ${payment.amountMinor}::bigint,
          ${payment.currency}, ${payment.status}, ${payment.gateway}, ${payment.version}, ${at}, ${at}, 1,
          ${yield* askAgainAt})
        on conflict (attempt_id) do nothing returning 1
      ), ${yield* events.appending([event], at, sql`exists (select from added)`)}
      select from added`
    if (rows.length > 0) yield* events.committed
    return rows.length > 0
  })

  /**
   * Registers one more who sets out to have the money of an open attempt held; how many there have been now. Undefined
   * when the attempt has changed since.
   */
  const askToo = Effect.fn("PaymentsStore.askToo")(function* (payment: Payment) {
    const rows = yield* sql<{ asked: number }>`
      update payments.payments set asked = asked + 1, ask_again_at = ${yield* askAgainAt}
      where attempt_id = ${payment.attemptId} and version = ${payment.version} and status = 'INITIATED'
      returning asked`
    return rows[0]?.asked
  })

  /**
   * Marks an open attempt as being called off at its gateway, before the gateway is told: from then on nobody records that
   * the money is held there. False when the attempt has changed since.
   */
  const fence = Effect.fn("PaymentsStore.fence")(function* (payment: Payment) {
    const rows = yield* sql`
      update payments.payments set called_off = true
      where attempt_id = ${payment.attemptId} and version = ${payment.version} and status = 'INITIATED'
      returning 1`
    return rows.length > 0
  })

  /**
   * Writes what events made of a payment of `before`'s version, with the events and what belongs to them, as one
   * statement. With `alone`, only while nobody else has set out to ask since; with `lasting`, only while nobody calls the
   * attempt off at its gateway. Whoever reroutes an attempt asks next, and
   * is registered with it. Undefined when it was not written; else how often was set out to ask.
   */
  const save = Effect.fn("PaymentsStore.save")(function* (
    before: Payment,
    payment: Payment,
    changes: ReadonlyArray<NewEvent>,
    also: {
      readonly alone?: number | undefined
      readonly lasting?: boolean
      readonly booking?: Booking | undefined
      readonly refund?: Statement.Fragment | undefined
    } = {}
  ) {
    const at = new Date(payment.updatedAt.epochMilliseconds)
    const rerouted = payment.gateway === before.gateway ? 0 : 1
    const entries = also.booking?.entries ?? []
    const rows = yield* sql<{ asked: number }>`
      with changed as (
        update payments.payments set status = ${payment.status}, reason = ${payment.reason},
          gateway = ${payment.gateway}, refunding_minor = ${payment.refundingMinor}::bigint,
          refunded_minor = ${payment.refundedMinor}::bigint, version = ${payment.version}, updated_at = ${at},
          asked = asked + ${rerouted}::int, called_off = called_off and ${rerouted}::int = 0, ask_again_at = ${yield* askAgainAt}, asked_again = 0
        where attempt_id = ${payment.attemptId} and version = ${before.version}
          ${also.alone === undefined ? sql.literal("") : sql`and asked = ${also.alone}`}
          ${also.lasting === true ? sql`and not called_off` : sql.literal("")}
        returning asked
      ), booked as (
        insert into payments.ledger (booking_id, line, attempt_id, order_id, account, amount_minor, currency, booked_at)
        select ${also.booking?.bookingId ?? ""}, line, ${payment.attemptId}, ${payment.orderId}, account, amount,
          ${payment.currency}, ${at}
        from changed, unnest(
          ${entries.map((entry) => entry.account)}::text[],
          ${entries.map((entry) => String(entry.amountMinor))}::text[]::bigint[]
        ) with ordinality as e (account, amount, line)
      ), ${also.refund === undefined ? sql.literal("") : sql`refund_rows as (${also.refund}), `}
      ${yield* events.appending(changes, at, sql`exists (select from changed)`)}
      select asked from changed`
    if (rows.length > 0) yield* events.committed
    return rows[0]?.asked
  })

  /** Writes a refund that was promised, within `save`. A refund id that is there is a `UniqueViolation`. */
  const adding = (refund: Refund) =>
    Effect.map(askAgainAt, (soon) => {
      const at = new Date(refund.createdAt.epochMilliseconds)
      return sql`
        insert into payments.refunds (refund_id, attempt_id, order_id, amount_minor, currency, status, reason,
          created_at, updated_at, ask_again_at)
        select ${refund.refundId}, ${refund.attemptId}, ${refund.orderId}, ${refund.amountMinor}::bigint,
          ${refund.currency}, ${refund.status}, ${refund.reason}, ${at}, ${at}, ${soon}
        from changed`
    })

  /** Writes how a refund ended, within `save`. */
  const ending = (refund: Refund) => sql`
    update payments.refunds set status = ${refund.status}, refusal = ${refund.refusal},
      updated_at = ${new Date(refund.updatedAt.epochMilliseconds)}
    where refund_id = ${refund.refundId} and exists (select from changed)`

  /** When the reconciler asks again after it has asked `asked_again` times: each time twice as long, at most 10 minutes. */
  const nextPause = (now: Date) => sql`
    ${now}::timestamptz + interval '1 millisecond' * least(${longestPauseMs}::bigint,
      ${firstPauseMs}::bigint * power(2, least(asked_again, 20)))`

  /** Open attempts whose time has come. Each is given to one caller, and then to nobody until its pause is over. */
  const takeOpen = Effect.fn("PaymentsStore.takeOpen")(function* (limit: number) {
    const now = new Date(yield* Clock.currentTimeMillis)
    return yield* payments(
      yield* sql`
        update payments.payments set asked_again = asked_again + 1, ask_again_at = ${nextPause(now)}
        where attempt_id in (
          select attempt_id from payments.payments where status = 'INITIATED' and ask_again_at <= ${now}
          order by ask_again_at limit ${limit} for update skip locked)
        returning ${paymentFields}`
    )
  })

  /** Open refunds whose time has come, likewise. */
  const takeOpenRefunds = Effect.fn("PaymentsStore.takeOpenRefunds")(function* (limit: number) {
    const now = new Date(yield* Clock.currentTimeMillis)
    return yield* refunds(
      yield* sql`
        update payments.refunds set asked_again = asked_again + 1, ask_again_at = ${nextPause(now)}
        where refund_id in (
          select refund_id from payments.refunds where status = 'REQUESTED' and ask_again_at <= ${now}
          order by ask_again_at limit ${limit} for update skip locked)
        returning ${refundFields}`
    )
  })

  /** How many are not settled, and since when the oldest. */
  const open = Effect.gen(function* () {
    const rows = yield* sql`
      select 'initiated' as state, count(*) as count, min(created_at) as oldest
        from payments.payments where status = 'INITIATED'
      union all select 'authorised', count(*), min(created_at) from payments.payments where status = 'AUTHORISED'
      union all select 'refund_requested', count(*), min(created_at) from payments.refunds where status = 'REQUESTED'`
    return yield* Effect.orDie(decodeOpen(rows))
  })

  return { find, findRefund, insert, askToo, fence, save, adding, ending, takeOpen, takeOpenRefunds, open }
})
export type PaymentsStore = Effect.Success<typeof make>
