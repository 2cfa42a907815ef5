import { Clock, Effect, Schema } from "effect"
import { SqlClient } from "effect/sql"
import * as Ids from "@merkato/domain/kernel/Ids"
import { Principal } from "@merkato/domain/kernel/RequestContext"
import { Rail } from "@merkato/domain/payments/Payment"
import { Quote } from "@merkato/domain/pricing/Quote"
import { ProcessKind, ProcessStep } from "@merkato/domain/orders/OrderProcess"
import * as Retention from "@merkato/infra/context/Retention"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

const KeyedRequest = Schema.Struct({
  caller: Schema.String,
  operation: Schema.String,
  key: Schema.String,
  payloadHash: Schema.String
})

/** What a process needs to go on, in whichever hands it is. */
export const Work = Schema.Struct({
  /** Who asked, and under which correlation and trace: whoever goes on does it in their name. */
  principal: Principal,
  correlationId: Schema.String,
  traceParent: Schema.String,
  /** Encrypted; there until the process ends. */
  paymentToken: Schema.NullOr(Schema.String),
  rail: Rail,
  deviceId: Schema.optionalKey(Schema.String),
  reservationId: Ids.ReservationId,
  /** Of a checkout: what is bought, and what the shopper was shown. */
  cartId: Schema.optionalKey(Ids.CartId),
  expectedTotal: Schema.optionalKey(Schema.Finite),
  quote: Schema.optionalKey(Quote),
  /** Why the order is to be held, once that is decided. */
  review: Schema.optionalKey(Schema.Struct({ score: Schema.Int, reasons: Schema.Array(Schema.String) }))
})
export type Work = typeof Work.Type

export const Saga = Schema.Struct({
  sagaId: Schema.String,
  kind: ProcessKind,
  orderId: Ids.OrderId,
  step: ProcessStep,
  /** Which attempt under the same key this is, from 1; a new one begins only after the last certainly took nothing. */
  attempt: Schema.Int,
  attemptId: Ids.AttemptId,
  owner: Schema.String,
  epoch: Schema.Int,
  outcome: Schema.NullOr(Schema.String),
  /** The request whose answer this is; what is kept when the process ends. */
  request: KeyedRequest,
  work: Work,
  begunAt: Schema.DateTimeUtcFromDate,
  updatedAt: Schema.DateTimeUtcFromDate,
  deadline: Schema.DateTimeUtcFromDate
})
export type Saga = typeof Saga.Type

const decode = Schema.decodeUnknownEffect(Schema.Array(Saga))
const encode = Schema.encodeSync(Work)

export const encodeWork = (work: Work): string => JSON.stringify(encode(work))

/** Milliseconds an owner has for a step before another may take the process over. */
export const leaseMs = 10_000

/** The same for steps that wait for a gateway, which has several tries (policy `payment.soap`). */
const moneyLeaseMs = 30_000

const waitForMoney: ReadonlySet<ProcessStep> = new Set(["authorise", "confirm", "capture", "void"])

export const leaseOf = (step: ProcessStep): number => (waitForMoney.has(step) ? moneyLeaseMs : leaseMs)

/**
 * Processes that ended are forgotten a month after their orders: by then no key of theirs is known any more, and the cart
 * that one had is empty or another's. One whose order still waits for money is not.
 */
export const endedProcesses: Retention.Passing = {
  table: "sagas",
  age: Retention.byId("order_id", "ORDER-"),
  days: 30,
  setting: "MERKATO_KEEP_ORDER_PROCESSES_DAYS",
  where: (sql, before) => sql`
    step = 'done' and updated_at < ${before} and not (select exists (
      select from orders.orders o where o.order_id = sagas.order_id and o.status in ('PENDING', 'HELD')))`
}

/**
 * The SQL of the order process, but for its common moves (`ProcessMoves`). Whatever changes a process is conditional on
 * (saga, epoch, step): an owner that was replaced changes nothing.
 */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const fields = sql.literal(
    `saga_id as "sagaId", kind, order_id as "orderId", step, attempt, attempt_id as "attemptId", owner, epoch, outcome,
     request, work, begun_at as "begunAt", updated_at as "updatedAt", deadline`
  )
  const first = (rows: ReadonlyArray<unknown>) => Effect.map(Effect.orDie(decode(rows)), (sagas) => sagas[0])
  const times = (step: ProcessStep) =>
    Effect.map(Clock.currentTimeMillis, (now) => ({ now: new Date(now), until: new Date(now + leaseOf(step)) }))

  const find = Tracing.fn("SagaStore.find")(function* (sagaId: string) {
    return yield* first(yield* sql`select ${fields} from orders.sagas where saga_id = ${sagaId}`)
  })

  /** The latest process of an order. */
  const ofOrder = Tracing.fn("SagaStore.ofOrder")(function* (orderId: string) {
    return yield* first(
      yield* sql`
        select ${fields} from orders.sagas where order_id = ${orderId} order by begun_at desc, saga_id desc limit 1`
    )
  })

  /** Begins a process, or a finished one anew. */
  const begin = Tracing.fn("SagaStore.begin")(function* (
    saga: Omit<Saga, "epoch" | "outcome" | "begunAt" | "updatedAt" | "deadline">
  ) {
    const { now, until } = yield* times(saga.step)
    return yield* first(
      yield* sql`
        insert into orders.sagas as s
          (saga_id, kind, order_id, step, attempt, attempt_id, owner, epoch, deadline, request, work, begun_at, updated_at)
        values (${saga.sagaId}, ${saga.kind}, ${saga.orderId}, ${saga.step}, ${saga.attempt}, ${saga.attemptId},
          ${saga.owner}, 1, ${until}, ${JSON.stringify(saga.request)}::jsonb,
          ${encodeWork(saga.work)}::jsonb, ${now}, ${now})
        on conflict (saga_id) do update set order_id = excluded.order_id, step = excluded.step,
          attempt = excluded.attempt, attempt_id = excluded.attempt_id, owner = excluded.owner, epoch = s.epoch + 1,
          deadline = excluded.deadline, outcome = null, request = excluded.request, work = excluded.work,
          begun_at = excluded.begun_at, updated_at = excluded.updated_at
        where s.step = 'done'
        returning ${fields}`
    )
  })

  /**
   * Moves from the quote on to the reservation, with a cart that this process takes; undefined when somebody else has taken
   * over, a `UniqueViolation` while another process has the cart.
   */
  const take = Tracing.fn("SagaStore.take")(function* (saga: Saga, cart: string, quote: Quote) {
    const { now, until } = yield* times("reserve")
    return yield* first(
      yield* sql`
        update orders.sagas set step = 'reserve', deadline = ${until}, cart = ${cart}, updated_at = ${now},
          work = ${encodeWork({ ...saga.work, quote })}::jsonb
        where saga_id = ${saga.sagaId} and epoch = ${saga.epoch} and step = ${saga.step}
        returning ${fields}`
    )
  })

  /** Who has a cart: a process that runs, or one whose order lives. A claim that came to nothing is taken away. */
  const holderOf = Tracing.fn("SagaStore.holderOf")(function* (cart: string) {
    yield* sql`
      update orders.sagas s set cart = null where cart = ${cart} and step = 'done'
        and not exists (select from orders.orders where order_id = s.order_id and status <> 'CANCELED')`
    return yield* first(yield* sql`select ${fields} from orders.sagas where cart = ${cart}`)
  })

  /** Gives the process back, to be taken over after `afterMs`. */
  const postpone = Tracing.fn("SagaStore.postpone")(function* (saga: Saga, afterMs: number) {
    const now = yield* Clock.currentTimeMillis
    yield* sql`
      update orders.sagas set deadline = ${new Date(now + afterMs)}
      where saga_id = ${saga.sagaId} and epoch = ${saga.epoch} and step = ${saga.step}`
  })

  /** Takes over processes that are past their deadline, at most `limit`. */
  const takeOver = Tracing.fn("SagaStore.takeOver")(function* (owner: string, limit: number) {
    const { now, until } = yield* times("authorise")
    const rows = yield* sql`
      update orders.sagas set owner = ${owner}, epoch = epoch + 1, deadline = ${until}, updated_at = ${now}
      where saga_id in (
        select saga_id from orders.sagas where step <> 'done' and deadline < ${now}
        order by deadline limit ${limit} for update skip locked)
      returning ${fields}`
    return yield* Effect.orDie(decode(rows))
  })

  return { find, ofOrder, begin, take, holderOf, postpone, takeOver }
})
