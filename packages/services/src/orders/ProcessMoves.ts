import { Clock, DateTime, Effect } from "effect"
import { SqlClient } from "effect/sql"
import type { NewEvent } from "@merkato/domain/kernel/Event"
import * as Ids from "@merkato/domain/kernel/Ids"
import type { Order } from "@merkato/domain/orders/Order"
import type { ProcessStep } from "@merkato/domain/orders/OrderProcess"
import { EventStore, type StampedEvent } from "@merkato/infra/events/EventStore"
import { stamp } from "@merkato/infra/events/Stamp"
import { Idempotency } from "@merkato/infra/idempotency/Idempotency"
import * as Combined from "@merkato/infra/postgres/Combined"
import { isUniqueViolation, retryLostRace } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { reasonOf } from "./OrdersStore.ts"
import { encodeWork, leaseMs, leaseOf, type Saga } from "./SagaStore.ts"

/** An order after each of the events that happen to it. */
export type Steps = ReadonlyArray<{ readonly order: Order; readonly event: NewEvent }>

/** A checkout that has not begun, and the cart that it wants. */
export interface Checkout extends Omit<Saga, "epoch" | "outcome" | "begunAt" | "updatedAt" | "deadline"> {
  readonly cart: string
}

export interface Move {
  readonly saga: Saga
  readonly to: ProcessStep
  /** How the process ends; with `to: "done"`. */
  readonly outcome?: string
  /** What happens to its order, and which version that has until then; 0: there is none yet. */
  readonly change?: { readonly steps: Steps; readonly from: number }
  /** What is kept under the key of its request; null: nothing, and the key is free again. */
  readonly answer?: { readonly kept: unknown }
}

/** `Replaced`: somebody else has taken over. `Overtaken`: the order has another version. Then nothing was written. */
export type Moved = "Moved" | "Replaced" | "Overtaken"

interface Beginning {
  readonly checkout: Checkout
  readonly now: number
}

interface Going extends Move {
  readonly now: number
  readonly events: ReadonlyArray<StampedEvent & { readonly order: Order }>
}

const iso = (millis: number) => new Date(millis).toISOString()

/**
 * The moves of order processes: each is one statement, with the claim, the order, the events and the answer that belong to
 * it, and those of one moment share it. An owner that was replaced moves nothing, and learns so.
 */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const events = yield* EventStore
  const idempotency = yield* Idempotency

  /**
   * Claims keys and carts, and begins the checkouts; the ids of those that were begun. Not those that have begun before, whose
   * key is taken, or whose cart is. No two may have the same caller, to whom both belong. Claims keys and then carts, each in
   * their order: two processes that want the same ones would else wait for each other.
   */
  const beginAll = Tracing.fn("ProcessMoves.beginAll")(function* (
    beginnings: ReadonlyArray<Beginning>,
    lockTimeoutMs: number
  ) {
    const each = <A>(of: (checkout: Checkout, now: number) => A) =>
      beginnings.map(({ checkout, now }) => of(checkout, now))
    const rows = yield* sql<{ sagaId: string }>`
      with given as materialized (
        select g.* from unnest(
          ${each(({ sagaId }) => sagaId)}::text[],
          ${each(({ kind }) => kind)}::text[],
          ${each(({ orderId }) => orderId)}::text[],
          ${each(({ step }) => step)}::text[],
          ${each(({ attempt }) => attempt)}::int[],
          ${each(({ attemptId }) => attemptId)}::text[],
          ${each(({ owner }) => owner)}::text[],
          ${each(({ request }) => JSON.stringify(request))}::text[]::jsonb[],
          ${each(({ work }) => encodeWork(work))}::text[]::jsonb[],
          ${each(({ cart }) => cart)}::text[],
          ${each(({ request }) => request.caller)}::text[],
          ${each(({ request }) => request.operation)}::text[],
          ${each(({ request }) => request.key)}::text[],
          ${each(({ request }) => request.payloadHash)}::text[],
          ${each((_, now) => iso(now))}::text[]::timestamptz[],
          ${each((_, now) => iso(now + leaseMs))}::text[]::timestamptz[],
          ${each(({ step }, now) => iso(now + leaseOf(step)))}::text[]::timestamptz[]
        ) as g (saga_id, kind, order_id, step, attempt, attempt_id, owner, request, work, cart, caller, operation, key,
          payload_hash, claimed_at, lease_until, deadline), set_config('lock_timeout', ${String(lockTimeoutMs)}, true)
        where not (select exists (select from orders.sagas s where s.saga_id = g.saga_id))
          and not (select exists (select from orders.sagas s where s.cart = g.cart))
      ), ${idempotency.claiming(sql`given`)}
      insert into orders.sagas (saga_id, kind, order_id, step, attempt, attempt_id, owner, epoch, deadline, request, work,
        cart, begun_at, updated_at)
      select saga_id, kind, order_id, step, attempt, attempt_id, owner, 1, deadline, request, work, cart, claimed_at,
        claimed_at
      from given join claimed using (caller, operation, key) order by cart
      returning saga_id as "sagaId"`
    const begun = new Set(rows.map(({ sagaId }) => sagaId))
    return each(({ sagaId }) => begun.has(sagaId))
  })

  const offerBeginning = yield* Combined.make({
    name: "ProcessMoves.begin together",
    together: (beginnings: ReadonlyArray<Beginning>, lockTimeoutMs) =>
      beginAll(beginnings, lockTimeoutMs).pipe(retryLostRace),
    keyOf: ({ checkout: { request } }) => request.caller
  })

  /** Begins a checkout whose key, process and cart nobody has; undefined when somebody has, and nothing was written. */
  const begin = Tracing.fn("ProcessMoves.begin")(function* (checkout: Checkout) {
    const now = yield* Clock.currentTimeMillis
    // Another one takes the cart at this moment.
    const begun = yield* Effect.catchIf(offerBeginning({ checkout, now }), isUniqueViolation, () =>
      Effect.succeed(false)
    )
    if (!begun) return undefined
    const { cart: _, ...saga } = checkout
    const at = DateTime.makeUnsafe(now)
    const deadline = DateTime.makeUnsafe(now + leaseOf(saga.step))
    return { ...saga, epoch: 1, outcome: null, begunAt: at, updatedAt: at, deadline } satisfies Saga
  })

  /**
   * Makes the moves whose process is where its owner left it and whose order has the version that is told; locks processes,
   * orders and keys in this order, and each kind in that of its ids. No two may have the same order.
   */
  const goAll = Tracing.fn("ProcessMoves.goAll")(function* (moves: ReadonlyArray<Going>, lockTimeoutMs: number) {
    const each = <A>(of: (move: Going) => A) => moves.map(of)
    const changes = moves.flatMap(({ change }) => {
      const order = change?.steps.at(-1)?.order
      return order === undefined ? [] : [{ order, isNew: change?.from === 0 }]
    })
    const changed = <A>(of: (order: Order) => A) => changes.map(({ order }) => of(order))
    const lines = changes.flatMap(({ order, isNew }) =>
      isNew ? order.items.map((item, index) => ({ ...item, orderId: order.orderId, line: index + 1 })) : []
    )
    const history = moves.flatMap(({ events }) => events)
    const answers = moves.flatMap(({ saga: { sagaId, request }, answer }) =>
      answer === undefined
        ? []
        : [{ sagaId, ...request, kept: answer.kept === null ? "" : JSON.stringify(answer.kept) }]
    )
    // What no move of the batch wants is left out of it.
    const none = sql.literal("")
    const story = sql`, change as materialized (
        select c.*, moving.version as before from moving join unnest(
          ${changed(({ orderId }) => orderId)}::text[],
          ${changed(({ userId }) => userId)}::text[],
          ${changed(({ region }) => region)}::text[],
          ${changed(({ status }) => status)}::text[],
          ${changed(({ itemsMinor }) => String(itemsMinor))}::text[]::bigint[],
          ${changed(({ discountMinor }) => String(discountMinor))}::text[]::bigint[],
          ${changed(({ taxMinor }) => String(taxMinor))}::text[]::bigint[],
          ${changed(({ shippingMinor }) => String(shippingMinor))}::text[]::bigint[],
          ${changed(({ totalMinor }) => String(totalMinor))}::text[]::bigint[],
          ${changed(({ currency }) => currency)}::text[],
          ${changed(({ reservationId }) => reservationId)}::text[],
          ${changed(({ paymentAttemptId }) => paymentAttemptId ?? "")}::text[],
          ${changed(({ reservationLost }) => reservationLost)}::boolean[],
          ${changed(({ reviewed }) => reviewed)}::boolean[],
          ${changed(({ version }) => version)}::int[],
          ${changed(({ createdAt }) => iso(createdAt.epochMilliseconds))}::text[]::timestamptz[],
          ${changed(({ updatedAt }) => iso(updatedAt.epochMilliseconds))}::text[]::timestamptz[]
        ) as c (order_id, user_id, region, status, items_minor, discount_minor, tax_minor, shipping_minor, total_minor,
          currency, reservation_id, payment_attempt_id, reservation_lost, reviewed, version, created_at, updated_at)
          using (order_id)
      ), placed as (
        insert into orders.orders (order_id, user_id, region, status, items_minor, discount_minor, tax_minor,
          shipping_minor, total_minor, currency, reservation_id, payment_attempt_id, reservation_lost, reviewed, version,
          created_at, updated_at)
        select order_id, user_id, region, status, items_minor, discount_minor, tax_minor, shipping_minor, total_minor,
          currency, reservation_id, nullif(payment_attempt_id, ''), reservation_lost, reviewed, version, created_at,
          updated_at
        from change where before = 0 order by order_id
      ), item_rows as (
        insert into orders.order_items (order_id, line, product_id, qty, price_minor)
        select order_id, line, product_id, qty, price_minor from moving join unnest(
          ${lines.map(({ orderId }) => orderId)}::text[],
          ${lines.map(({ line }) => line)}::int[],
          ${lines.map(({ productId }) => productId)}::text[],
          ${lines.map(({ qty }) => qty)}::int[],
          ${lines.map(({ priceMinor }) => String(priceMinor))}::text[]::bigint[]
        ) as i (order_id, line, product_id, qty, price_minor) using (order_id)
      ), changed as (
        update orders.orders o set status = change.status, payment_attempt_id = nullif(change.payment_attempt_id, ''),
          reservation_lost = change.reservation_lost, reviewed = change.reviewed, version = change.version,
          updated_at = change.updated_at
        from change where o.order_id = change.order_id and change.before > 0
      ), history_rows as (
        insert into orders.order_status_history (order_id, version, status, event, reason, occurred_at)
        select order_id, h.version, status, event, nullif(reason, ''), occurred_at from moving join unnest(
          ${history.map(({ order }) => order.orderId)}::text[],
          ${history.map(({ order }) => order.version)}::int[],
          ${history.map(({ order }) => order.status)}::text[],
          ${history.map(({ event }) => event.eventType)}::text[],
          ${history.map(({ event }) => reasonOf(event) ?? "")}::text[],
          ${history.map(({ stamp }) => stamp.occurredAt.toISOString())}::text[]::timestamptz[]
        ) as h (order_id, version, status, event, reason, occurred_at) using (order_id)
      ), ${events.appendingEach(history, sql`(select order_id as id from moving) as moving`)}`
    const answering = sql`, ending as materialized (
        select caller, operation, key, payload_hash, nullif(kept, '')::jsonb as answer from moving join unnest(
          ${answers.map(({ sagaId }) => sagaId)}::text[],
          ${answers.map(({ caller }) => caller)}::text[],
          ${answers.map(({ operation }) => operation)}::text[],
          ${answers.map(({ key }) => key)}::text[],
          ${answers.map(({ payloadHash }) => payloadHash)}::text[],
          ${answers.map(({ kept }) => kept)}::text[]
        ) as a (saga_id, caller, operation, key, payload_hash, kept) using (saga_id)
      ), ${idempotency.answering(sql`ending`)}`
    const rows = yield* sql<{ sagaId: string; moved: boolean }>`
      with given as materialized (
        select * from unnest(
          ${each(({ saga }) => saga.sagaId)}::text[],
          ${each(({ saga }) => saga.epoch)}::int[],
          ${each(({ saga }) => saga.step)}::text[],
          ${each(({ saga }) => saga.orderId)}::text[],
          ${each(({ change }) => change?.from ?? 0)}::int[],
          ${each(({ to }) => to)}::text[],
          ${each(({ outcome }) => outcome ?? "")}::text[],
          ${each(({ now }) => iso(now))}::text[]::timestamptz[],
          ${each(({ to, now }) => iso(to === "done" ? now : now + leaseOf(to)))}::text[]::timestamptz[]
        ) as g (saga_id, epoch, step, order_id, version, to_step, outcome, at, deadline),
          set_config('lock_timeout', ${String(lockTimeoutMs)}, true)
        order by saga_id
      ), owned as materialized (
        -- A lateral "offset 0" stays a look-up by key; as a join it may become a scan of the table.
        select given.* from given cross join lateral (
          select from orders.sagas s where s.saga_id = given.saga_id and s.epoch = given.epoch and s.step = given.step
          offset 0 for update
        ) s
      ), moving as materialized (
        select owned.* from (select * from owned order by order_id) owned left join lateral (
          select o.version from orders.orders o where o.order_id = owned.order_id and owned.version > 0
          offset 0 for update
        ) o on true
        -- Looks like one row to the planner, which then takes indexes where the tables are small still, too.
        where owned.version = coalesce(o.version, 0)
      ), moved as (
        update orders.sagas s set step = to_step, outcome = nullif(moving.outcome, ''), deadline = moving.deadline,
          updated_at = at,
          work = case to_step when 'done' then jsonb_set(s.work, '{paymentToken}', 'null') else s.work end
        from moving where s.saga_id = moving.saga_id
      )${changes.length === 0 ? none : story}${answers.length === 0 ? none : answering}
      select saga_id as "sagaId", saga_id in (select saga_id from moving) as moved from owned`
    const found = new Map(rows.map(({ sagaId, moved }) => [sagaId, moved]))
    const answered = each(({ saga: { sagaId } }): Moved => {
      const moved = found.get(sagaId)
      return moved === undefined ? "Replaced" : moved ? "Moved" : "Overtaken"
    })
    if (moves.some((move, nth) => move.events.length > 0 && answered[nth] === "Moved")) yield* events.committed
    return answered
  })

  const offerMove = yield* Combined.make({
    name: "ProcessMoves.go together",
    together: (moves: ReadonlyArray<Going>, lockTimeoutMs) => goAll(moves, lockTimeoutMs).pipe(retryLostRace),
    keyOf: ({ saga }) => saga.orderId
  })

  /** Moves a process on, or ends it; the payment token is forgotten at the end. */
  const go = Tracing.fn("ProcessMoves.go")(function* (move: Move) {
    const now = yield* Clock.currentTimeMillis
    const common = yield* stamp
    // The events belong where the order does, wherever its shopper is by now.
    const events = yield* Effect.forEach(move.change?.steps ?? [], ({ order, event }) =>
      Effect.map(Ids.next, (eventId) => ({
        order,
        event,
        eventId,
        stamp: { ...common, region: order.region, occurredAt: new Date(order.updatedAt.epochMilliseconds) }
      }))
    )
    return yield* offerMove({ ...move, now, events })
  })

  return { begin, go }
})
