import { Clock, Config, type DateTime, Effect, Schema } from "effect"
import { SqlClient, type Statement } from "effect/sql"
import { AttemptId, OrderId, RefundId, UserId } from "@merkato/domain/kernel/Ids"
import type { NewEvent } from "@merkato/domain/kernel/Event"
import { Currency, Minor } from "@merkato/domain/kernel/Money"
import { Payment, PaymentStatus, Refund, RefundStatus } from "@merkato/domain/payments/Payment"
import { milliseconds } from "@merkato/infra/config/Milliseconds"
import { EventStore, type StampedEvent } from "@merkato/infra/events/EventStore"
import { eventIds, stamp } from "@merkato/infra/events/Stamp"
import * as Combined from "@merkato/infra/postgres/Combined"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

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

/** A payment that begins, and its first event. */
interface Beginning {
  readonly payment: Payment
  readonly initiated: StampedEvent
  readonly askAgainAt: Date
}

/** What events made of a payment, and on which conditions it is written. */
interface Change {
  readonly before: Payment
  readonly payment: Payment
  readonly events: ReadonlyArray<StampedEvent>
  readonly alone: number | undefined
  readonly lasting: boolean
  readonly booking: Booking | undefined
  readonly askAgainAt: Date
}

/** In place of how many have set out to ask, where that does not matter. */
const anyCount = -1

/** Milliseconds after which the reconciler asks about what is open; 30,000 unless `MERKATO_PAYMENT_RECONCILE_AFTER_MS` says otherwise. */
export const reconcileAfterMs = milliseconds("MERKATO_PAYMENT_RECONCILE_AFTER_MS").pipe(Config.withDefault(30_000))

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

  /** Events of one command, with all that is their own: they are written with those of others. */
  const stamped = Effect.fnUntraced(function* (changes: ReadonlyArray<NewEvent>, at: DateTime.Utc) {
    const own = { ...(yield* stamp), occurredAt: new Date(at.epochMilliseconds) }
    const ids = yield* eventIds(changes.length)
    return changes.map((event, index): StampedEvent => ({ event, eventId: ids[index] ?? "", stamp: own }))
  })

  const find = Tracing.fn("PaymentsStore.find")(function* (attemptId: string) {
    const rows = yield* sql`select ${paymentFields} from payments.payments where attempt_id = ${attemptId}`
    return (yield* payments(rows))[0]
  })

  const findRefund = Tracing.fn("PaymentsStore.findRefund")(function* (refundId: string) {
    const rows = yield* sql`select ${refundFields} from payments.refunds where refund_id = ${refundId}`
    return (yield* refunds(rows))[0]
  })

  /** Writes new payments with their first events, as one statement; for each, whether it was not there already. */
  const insertAll = Tracing.fn("PaymentsStore.insertAll")(function* (
    begun: ReadonlyArray<Beginning>,
    lockTimeoutMs: number
  ) {
    const each = <A>(of: (beginning: Beginning) => A) => begun.map(of)
    const rows = yield* sql<{ attemptId: string }>`
      with added as (
        insert into payments.payments (attempt_id, order_id, user_id, amount_minor, currency, status, gateway, version,
          created_at, updated_at, asked, ask_again_at)
        select attempt_id, order_id, user_id, amount_minor, currency, status, gateway, version, at, at, 1, ask_again_at
        from unnest(
          ${each(({ payment }) => payment.attemptId)}::text[],
          ${each(({ payment }) => payment.orderId)}::text[],
          ${each(({ payment }) => payment.userId)}::text[],
          ${each(({ payment }) => String(payment.amountMinor))}::text[]::bigint[],
          ${each(({ payment }) => payment.currency)}::text[],
          ${each(({ payment }) => payment.status)}::text[],
          ${each(({ payment }) => payment.gateway)}::text[],
          ${each(({ payment }) => payment.version)}::int[],
          ${each(({ initiated }) => initiated.stamp.occurredAt.toISOString())}::text[]::timestamptz[],
          ${each(({ askAgainAt }) => askAgainAt.toISOString())}::text[]::timestamptz[]
        ) as p (attempt_id, order_id, user_id, amount_minor, currency, status, gateway, version, at, ask_again_at),
          set_config('lock_timeout', ${String(lockTimeoutMs)}, true)
        order by attempt_id
        on conflict (attempt_id) do nothing returning attempt_id
      ), ${events.appendingEach(
        each(({ initiated }) => initiated),
        sql`(select attempt_id as id from added) as added`
      )}
      select attempt_id as "attemptId" from added`
    const added = new Set(rows.map(({ attemptId }) => attemptId))
    if (added.size > 0) yield* events.committed
    return each(({ payment }) => added.has(payment.attemptId))
  })

  const offerNew = yield* Combined.make({
    name: "PaymentsStore.insert together",
    together: insertAll,
    keyOf: ({ payment }) => payment.attemptId
  })

  /** Writes a new payment with its first event, with those of the same moment; false when the attempt is there already. */
  const insert = Tracing.fn("PaymentsStore.insert")(function* (payment: Payment, event: NewEvent) {
    const [initiated] = yield* stamped([event], payment.createdAt)
    return initiated === undefined ? false : yield* offerNew({ payment, initiated, askAgainAt: yield* askAgainAt })
  })

  /**
   * Registers one more who sets out to have the money of an open attempt held; how many there have been now, and whether it
   * is being called off. Undefined when the attempt has changed since.
   */
  const askToo = Tracing.fn("PaymentsStore.askToo")(function* (payment: Payment) {
    const rows = yield* sql<{ asked: number; calledOff: boolean }>`
      update payments.payments set asked = asked + 1, ask_again_at = ${yield* askAgainAt}
      where attempt_id = ${payment.attemptId} and version = ${payment.version} and status = 'INITIATED'
      returning asked, called_off as "calledOff"`
    return rows[0]
  })

  /**
   * Marks an open attempt as being called off at its gateway, before the gateway is told: from then on nobody records that
   * the money is held there. False when the attempt has changed since.
   */
  const fence = Tracing.fn("PaymentsStore.fence")(function* (payment: Payment) {
    const rows = yield* sql`
      update payments.payments set called_off = true
      where attempt_id = ${payment.attemptId} and version = ${payment.version} and status = 'INITIATED'
      returning 1`
    return rows.length > 0
  })

  /**
   * Writes what events made of payments, each only if it is of `before`'s version, with the events and what belongs to
   * them, as one statement: locks in the order of attempt ids, then the decision on what was locked. For each, how often
   * was set out to ask; undefined when it was not written. `refund` belongs to a payment that comes alone.
   */
  const saveAll = Tracing.fn("PaymentsStore.saveAll")(function* (
    changes: ReadonlyArray<Change>,
    lockTimeoutMs: number,
    refund?: Statement.Fragment
  ) {
    const each = <A>(of: (change: Change) => A) => changes.map(of)
    const entries = changes.flatMap(({ payment, booking }) =>
      (booking?.entries ?? []).map((entry, index) => ({
        ...entry,
        line: index + 1,
        bookingId: booking?.bookingId ?? "",
        attemptId: payment.attemptId
      }))
    )
    const booked =
      entries.length === 0
        ? sql.literal("")
        : sql`booked as (
            insert into payments.ledger (booking_id, line, attempt_id, order_id, account, amount_minor, currency, booked_at)
            select booking_id, line, attempt_id, order_id, account, amount_minor, currency, updated_at
            from changed join unnest(
              ${entries.map((entry) => entry.attemptId)}::text[],
              ${entries.map((entry) => entry.bookingId)}::text[],
              ${entries.map((entry) => entry.line)}::int[],
              ${entries.map((entry) => entry.account)}::text[],
              ${entries.map((entry) => String(entry.amountMinor))}::text[]::bigint[]
            ) as e (attempt_id, booking_id, line, account, amount_minor) using (attempt_id)
          ), `
    const rows = yield* sql<{ attemptId: string; asked: number }>`
      with wish as materialized (
        select w.* from unnest(
          ${each(({ payment }) => payment.attemptId)}::text[],
          ${each(({ before }) => before.version)}::int[],
          ${each(({ alone }) => alone ?? anyCount)}::int[],
          ${each(({ lasting }) => lasting)}::bool[],
          ${each(({ payment }) => payment.status)}::text[],
          ${each(({ payment }) => JSON.stringify(payment.reason))}::text[]::jsonb[],
          ${each(({ payment }) => payment.gateway)}::text[],
          ${each(({ before, payment }) => payment.gateway !== before.gateway)}::bool[],
          ${each(({ payment }) => String(payment.refundingMinor))}::text[]::bigint[],
          ${each(({ payment }) => String(payment.refundedMinor))}::text[]::bigint[],
          ${each(({ payment }) => payment.version)}::int[],
          ${each(({ payment }) => new Date(payment.updatedAt.epochMilliseconds).toISOString())}::text[]::timestamptz[],
          ${each(({ askAgainAt }) => askAgainAt.toISOString())}::text[]::timestamptz[]
        ) as w (attempt_id, before, alone, lasting, status, reason, gateway, rerouted, refunding_minor, refunded_minor,
            version, at, ask_again_at),
          set_config('lock_timeout', ${String(lockTimeoutMs)}, true)
        order by attempt_id
      ), locked as materialized (
        select p.attempt_id from wish cross join lateral (
          select * from payments.payments p where p.attempt_id = wish.attempt_id offset 0 for no key update
        ) as p
      ), changed as (
        update payments.payments p set status = w.status, reason = w.reason #>> '{}', gateway = w.gateway,
          refunding_minor = w.refunding_minor, refunded_minor = w.refunded_minor, version = w.version,
          updated_at = w.at, asked = asked + w.rerouted::int, called_off = called_off and not w.rerouted,
          ask_again_at = w.ask_again_at, asked_again = 0
        from wish w join locked using (attempt_id)
        where p.attempt_id = w.attempt_id and p.version = w.before
          and w.alone in (p.asked, ${anyCount}) and not (w.lasting and p.called_off)
        returning p.attempt_id, p.order_id, p.currency, p.updated_at, p.asked
      ), ${booked}${refund === undefined ? sql.literal("") : sql`refund_rows as (${refund}), `}
      ${events.appendingEach(
        changes.flatMap((change) => change.events),
        sql`(select attempt_id as id from changed) as changed`
      )}
      select attempt_id as "attemptId", asked from changed`
    if (rows.length > 0) yield* events.committed
    const asked = new Map(rows.map((row) => [row.attemptId, row.asked]))
    return each(({ payment }) => asked.get(payment.attemptId))
  })

  const offerChange = yield* Combined.make({
    name: "PaymentsStore.save together",
    together: (changes: ReadonlyArray<Change>, lockTimeoutMs) => saveAll(changes, lockTimeoutMs),
    keyOf: ({ payment }) => payment.attemptId
  })

  /**
   * Writes what events made of a payment of `before`'s version, with the events and what belongs to them, and with the
   * payments of the same moment. With `alone`, only while nobody else has set out to ask since; with `lasting`, only while
   * nobody calls the attempt off at its gateway. Whoever reroutes an attempt asks next, and is registered with it.
   * Undefined when it was not written; else how often was set out to ask.
   */
  const save = Tracing.fn("PaymentsStore.save")(function* (
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
    const { alone, booking, lasting = false, refund } = also
    const change: Change = {
      before,
      payment,
      events: yield* stamped(changes, payment.updatedAt),
      alone,
      lasting,
      booking,
      askAgainAt: yield* askAgainAt
    }
    return refund === undefined ? yield* offerChange(change) : (yield* saveAll([change], 0, refund))[0]
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
  const takeOpen = Tracing.fn("PaymentsStore.takeOpen")(function* (limit: number) {
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
  const takeOpenRefunds = Tracing.fn("PaymentsStore.takeOpenRefunds")(function* (limit: number) {
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
