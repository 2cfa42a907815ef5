import { Context, DateTime, Effect, Layer, Result, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { Currency } from "@merkato/domain/kernel/Money"
import * as Combined from "@merkato/infra/postgres/Combined"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { AttemptStatus } from "@merkato/rpc/payments/PaymentGatewayRest"
import { decimalOf, minorOf } from "@merkato/rpc/payments/PaymentGatewaySoap"

/** The two test gateways: different providers, each with a book of its own. */
export const GatewayName = Schema.Literals(["soap", "rest"])
export type GatewayName = typeof GatewayName.Type

/** An attempt as its gateway has it. One that was voided before it arrived has no order and no money. */
export interface Attempt {
  readonly attemptId: string
  readonly order: { readonly orderId: string; readonly amountMinor: number; readonly currency: Currency } | undefined
  readonly status: AttemptStatus
  readonly reason: string | null
  readonly refundedMinor: number
}

export interface Authorisation {
  readonly attemptId: string
  readonly orderId: string
  readonly amountMinor: number
  readonly currency: Currency
  /** Why the bank refuses; null when it does not. */
  readonly declined: string | null
}

export interface Refund {
  readonly attemptId: string
  readonly refundId: string
  readonly amountMinor: number
  readonly currency: Currency
}

export class UnknownAttempt extends Schema.TaggedError<UnknownAttempt>()("UnknownAttempt", {}) {
  override get message() {
    return "This gateway has never heard of the attempt"
  }
}

/** The key was used before, for something else: what is asked now is not done. */
export class ConflictingRepeat extends Schema.TaggedError<ConflictingRepeat>()("ConflictingRepeat", {
  what: Schema.String
}) {
  override get message() {
    return `The ${this.what} is known here for something else`
  }
}

export class RefundRefused extends Schema.TaggedError<RefundRefused>()("RefundRefused", { reason: Schema.String }) {
  override get message() {
    return this.reason
  }
}

/** What a gateway says instead of doing what it was asked. */
export type Refusal = UnknownAttempt | ConflictingRepeat | RefundRefused

const Row = Schema.Struct({
  attemptId: Schema.String,
  orderId: Schema.String,
  amount: Schema.String,
  currency: Schema.Union([Currency, Schema.Literal("")]),
  status: AttemptStatus,
  reason: Schema.NullOr(Schema.String),
  refunded: Schema.String
})
const decodeRows = Schema.decodeUnknownEffect(Schema.Array(Row))
const decodeTaken = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ ...Row.fields, gateway: GatewayName })))

const RefundRow = Schema.Struct({ attemptId: Schema.String, amount: Schema.String, currency: Schema.String })
const decodeRefunds = Schema.decodeUnknownEffect(Schema.Array(RefundRow))

const attemptOf = ({ amount, attemptId, currency, orderId, reason, refunded, status }: typeof Row.Type): Attempt => {
  const minor = (decimal: string) => (currency === "" ? 0 : Result.getOrThrow(minorOf(decimal, currency)))
  return {
    attemptId,
    order: currency === "" ? undefined : { orderId, amountMinor: minor(amount), currency },
    status,
    reason,
    refundedMinor: minor(refunded)
  }
}

/** What an attempt is known by, everywhere. */
interface Key {
  readonly gateway: GatewayName
  readonly attemptId: string
}
const keyOf = ({ attemptId, gateway }: Key) => `${gateway} ${attemptId}`

/** An attempt that is about to be entered. */
interface Entry {
  readonly gateway: GatewayName
  readonly request: Authorisation
  readonly at: Date
}

/** How an attempt stands when it has just been entered. */
const entered = ({ declined }: Authorisation) => (declined === null ? ("authorised" as const) : ("declined" as const))

/** The books of the test gateways. Every operation may be repeated; gateway and attempt id (or refund id) are the key. */
export class Psp extends Context.Service<
  Psp,
  {
    readonly authorise: (gateway: GatewayName, request: Authorisation) => Effect.Effect<Attempt, ConflictingRepeat>
    readonly find: (gateway: GatewayName, attemptId: string) => Effect.Effect<Attempt, UnknownAttempt>
    readonly capture: (gateway: GatewayName, attemptId: string) => Effect.Effect<Attempt, UnknownAttempt>
    readonly void: (gateway: GatewayName, attemptId: string) => Effect.Effect<Attempt>
    readonly refund: (
      gateway: GatewayName,
      request: Refund
    ) => Effect.Effect<void, UnknownAttempt | ConflictingRepeat | RefundRefused>
  }
>()("merkato/psp/Psp") {
  static readonly layer = Layer.effect(
    Psp,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      /** Two lines for each of `moved` (gateway, booking_id, attempt_id, amount, currency, at), from one account to another. */
      const booking = (from: string, to: string) => sql`
        insert into psp.ledger (gateway, booking_id, line, attempt_id, account, amount, currency, booked_at)
        select gateway, booking_id, line, attempt_id, account, amount * sign, currency, at
        from moved, (values (1, ${from}, -1), (2, ${to}, 1)) as l (line, account, sign)`

      const rowOf = Effect.fnUntraced(function* (gateway: GatewayName, attemptId: string) {
        const rows = yield* sql`
          select attempt_id as "attemptId", order_id as "orderId", amount::text, currency, status, reason,
            (select coalesce(sum(r.amount), 0)::text from psp.refunds r
              where r.gateway = a.gateway and r.attempt_id = a.attempt_id) as refunded
          from psp.attempts a where gateway = ${gateway} and attempt_id = ${attemptId}`
        const [row] = yield* decodeRows(rows)
        return row === undefined ? undefined : attemptOf(row)
      }, Effect.orDie)

      const find = Tracing.fn("Psp.find")(function* (gateway: GatewayName, attemptId: string) {
        return (yield* rowOf(gateway, attemptId)) ?? (yield* new UnknownAttempt())
      })

      /** Enters attempts as their bank decides, as one statement; for each, whether it was not there already. */
      const enterAll = Tracing.fn("Psp.enterAll")(function* (entries: ReadonlyArray<Entry>, lockTimeoutMs: number) {
        const each = <A>(of: (entry: Entry) => A) => entries.map(of)
        const rows = yield* sql<Key>`
          with added as (
            insert into psp.attempts
              (gateway, attempt_id, order_id, amount, currency, status, reason, created_at, updated_at)
            select gateway, attempt_id, order_id, amount, currency, status, nullif(reason, ''), at, at from unnest(
              ${each(({ gateway }) => gateway)}::text[],
              ${each(({ request }) => request.attemptId)}::text[],
              ${each(({ request }) => request.orderId)}::text[],
              ${each(({ request }) => decimalOf(request.amountMinor, request.currency))}::text[]::numeric[],
              ${each(({ request }) => request.currency)}::text[],
              ${each(({ request }) => entered(request))}::text[],
              ${each(({ request }) => request.declined ?? "")}::text[],
              ${each(({ at }) => at.toISOString())}::text[]::timestamptz[]
            ) as a (gateway, attempt_id, order_id, amount, currency, status, reason, at),
              set_config('lock_timeout', ${String(lockTimeoutMs)}, true)
            order by gateway, attempt_id
            on conflict do nothing returning gateway, attempt_id, amount, currency, status, created_at
          ), moved as (
            select gateway, 'authorise-' || attempt_id as booking_id, attempt_id, amount, currency, created_at as at
            from added where status = 'authorised'
          ), booked as (${booking("shopper", "held")})
          select gateway, attempt_id as "attemptId" from added`
        const added = new Set(rows.map(keyOf))
        return each(({ gateway, request: { attemptId } }) => added.has(keyOf({ gateway, attemptId })))
      })

      const enter = yield* Combined.make({
        name: "Psp.enter together",
        together: enterAll,
        keyOf: ({ gateway, request: { attemptId } }) => keyOf({ gateway, attemptId })
      })

      const authorise = Tracing.fn("Psp.authorise")(function* (gateway: GatewayName, request: Authorisation) {
        const { amountMinor, attemptId, currency, declined, orderId } = request
        if (yield* Effect.orDie(enter({ gateway, request, at: yield* DateTime.nowAsDate }))) {
          const order = { orderId, amountMinor, currency }
          return { attemptId, order, status: entered(request), reason: declined, refundedMinor: 0 } satisfies Attempt
        }
        const attempt = yield* rowOf(gateway, attemptId)
        if (attempt === undefined) return yield* Effect.die(new Error(`No attempt ${attemptId}`))
        const { order } = attempt
        // What was voided before it came is refused whatever it asks for; anything else must be the same request.
        const same =
          order === undefined ||
          (order.orderId === orderId && order.amountMinor === amountMinor && order.currency === currency)
        return same ? attempt : yield* new ConflictingRepeat({ what: "attempt" })
      })

      /** Takes the money of attempts where it is held, as one statement; the attempts of which it took it. */
      const takeAll = Tracing.fn("Psp.takeAll")(function* (
        takings: ReadonlyArray<Key & { readonly at: Date }>,
        lockTimeoutMs: number
      ) {
        const each = <A>(of: (taking: Key & { readonly at: Date }) => A) => takings.map(of)
        const rows = yield* sql`
          with wish as materialized (
            select w.* from unnest(
              ${each(({ gateway }) => gateway)}::text[],
              ${each(({ attemptId }) => attemptId)}::text[],
              ${each(({ at }) => at.toISOString())}::text[]::timestamptz[]
            ) as w (gateway, attempt_id, at), set_config('lock_timeout', ${String(lockTimeoutMs)}, true)
            order by gateway, attempt_id
          ), locked as materialized (
            select a.gateway, a.attempt_id, wish.at from wish cross join lateral (
              select * from psp.attempts a where a.gateway = wish.gateway and a.attempt_id = wish.attempt_id
              offset 0 for no key update
            ) as a
          ), taken as (
            update psp.attempts a set status = 'captured', updated_at = locked.at from locked
            where a.gateway = locked.gateway and a.attempt_id = locked.attempt_id and a.status = 'authorised'
            returning a.gateway, a.attempt_id, a.order_id, a.amount, a.currency, a.status, a.reason, a.updated_at as at
          ), moved as (
            select gateway, 'capture-' || attempt_id as booking_id, attempt_id, amount, currency, at from taken
          ), booked as (${booking("held", "merchant")})
          select gateway, attempt_id as "attemptId", order_id as "orderId", amount::text, currency, status, reason,
            '0' as refunded
          from taken`
        const taken = new Map((yield* Effect.orDie(decodeTaken(rows))).map((row) => [keyOf(row), attemptOf(row)]))
        return each((taking) => taken.get(keyOf(taking)))
      })

      const take = yield* Combined.make({ name: "Psp.take together", together: takeAll, keyOf })

      const capture = Tracing.fn("Psp.capture")(function* (gateway: GatewayName, attemptId: string) {
        return (
          (yield* Effect.orDie(take({ gateway, attemptId, at: yield* DateTime.nowAsDate }))) ??
          (yield* find(gateway, attemptId))
        )
      })

      /** An attempt that never came is entered as voided, and a late authorisation finds it so. */
      const voidAttempt = Tracing.fn("Psp.void")(function* (gateway: GatewayName, attemptId: string) {
        const at = yield* DateTime.nowAsDate
        yield* Effect.orDie(sql`
          with voided as (
            insert into psp.attempts as a
              (gateway, attempt_id, order_id, amount, currency, status, reason, created_at, updated_at)
            values (${gateway}, ${attemptId}, '', 0, '', 'voided', 'voided', ${at}, ${at})
            on conflict (gateway, attempt_id) do update
              set status = 'voided', reason = 'voided', updated_at = excluded.updated_at where a.status = 'authorised'
            returning gateway, attempt_id, amount, currency, updated_at
          ), moved as (
            select gateway, 'void-' || attempt_id as booking_id, attempt_id, amount, currency, updated_at as at
            from voided where currency <> ''
          )
          ${booking("held", "shopper")}`)
        const attempt = yield* rowOf(gateway, attemptId)
        return attempt ?? (yield* Effect.die(new Error(`No attempt ${attemptId}`)))
      })

      /** What one refund leaves for the next is only right while no other looks: the attempt's row is locked. */
      const refund = Tracing.fn("Psp.refund")(function* (gateway: GatewayName, request: Refund) {
        const { amountMinor, attemptId, currency, refundId } = request
        const at = yield* DateTime.nowAsDate
        yield* sql`select from psp.attempts where gateway = ${gateway} and attempt_id = ${attemptId} for update`
        const attempt = yield* find(gateway, attemptId)
        const amount = decimalOf(amountMinor, currency)
        const [before] = yield* Effect.orDie(
          Effect.flatMap(
            sql`select attempt_id as "attemptId", amount::text, currency from psp.refunds
              where gateway = ${gateway} and refund_id = ${refundId}`,
            decodeRefunds
          )
        )
        if (before !== undefined) {
          const same =
            before.attemptId === attemptId &&
            before.currency === currency &&
            Result.getOrUndefined(minorOf(before.amount, currency)) === amountMinor
          return same ? undefined : yield* new ConflictingRepeat({ what: "refund" })
        }
        if (attempt.status !== "captured" || attempt.order === undefined) {
          return yield* new RefundRefused({ reason: "Nothing was captured" })
        }
        if (attempt.order.currency !== currency) {
          return yield* new RefundRefused({ reason: `The payment is in ${attempt.order.currency}` })
        }
        if (attempt.refundedMinor + amountMinor > attempt.order.amountMinor) {
          return yield* new RefundRefused({ reason: "More than was captured and is not given back yet" })
        }
        const added = yield* sql`
          with moved as (
            insert into psp.refunds (gateway, refund_id, attempt_id, amount, currency, created_at)
            values (${gateway}, ${refundId}, ${attemptId}, ${amount}::text::numeric, ${currency}, ${at})
            on conflict do nothing
            returning gateway, 'refund-' || refund_id as booking_id, attempt_id, amount, currency, created_at as at
          )
          ${booking("merchant", "shopper")} returning 1`
        // Another attempt's refund took the id meanwhile.
        if (added.length === 0) return yield* new ConflictingRepeat({ what: "refund" })
        return undefined
      })

      return Psp.of({
        authorise,
        find,
        capture,
        void: voidAttempt,
        refund: (gateway, request) =>
          sql.withTransaction(refund(gateway, request)).pipe(Effect.catchTag("SqlError", Effect.die))
      })
    })
  )
}
