import { Clock, Effect, Schema } from "effect"
import { SqlClient } from "effect/sql"
import * as Ids from "@merkato/domain/kernel/Ids"

/** Where a payment of an order stands. Each step is safe to do again. */
export const Step = Schema.Literals(["hold", "authorise", "confirm", "capture", "void", "done"])
export type Step = typeof Step.Type

const KeyedRequest = Schema.Struct({
  caller: Schema.String,
  operation: Schema.String,
  key: Schema.String,
  payloadHash: Schema.String
})

export const Saga = Schema.Struct({
  sagaId: Schema.String,
  orderId: Ids.OrderId,
  step: Step,
  /** Which attempt of the same payment this is, from 1; a new one begins only after the last certainly took nothing. */
  attempt: Schema.Int,
  attemptId: Ids.AttemptId,
  owner: Schema.String,
  epoch: Schema.Int,
  /** The request whose answer this is; what is kept when the process ends. */
  request: KeyedRequest
})
export type Saga = typeof Saga.Type

const decode = Schema.decodeUnknownEffect(Schema.Array(Saga))

/** Milliseconds an owner has for one step before another may take the process over. */
export const leaseMs = 10_000

/** The SQL of the order process. A move is conditional on (saga, epoch, step): an owner that was replaced moves nothing. */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const fields = sql.literal(
    `saga_id as "sagaId", order_id as "orderId", step, attempt, attempt_id as "attemptId", owner, epoch, request`
  )
  const first = (rows: ReadonlyArray<unknown>) => Effect.map(Effect.orDie(decode(rows)), (sagas) => sagas[0])
  const deadline = Effect.map(Clock.currentTimeMillis, (now) => ({
    now: new Date(now),
    until: new Date(now + leaseMs)
  }))

  const find = Effect.fn("SagaStore.find")(function* (sagaId: string) {
    return yield* first(yield* sql`select ${fields} from orders.sagas where saga_id = ${sagaId}`)
  })

  /** Begins a process, or a finished one anew. */
  const begin = Effect.fn("SagaStore.begin")(function* (saga: Omit<Saga, "epoch" | "step">) {
    const { now, until } = yield* deadline
    return yield* first(
      yield* sql`
        insert into orders.sagas as s
          (saga_id, order_id, step, attempt, attempt_id, owner, epoch, deadline, request, updated_at)
        values (${saga.sagaId}, ${saga.orderId}, 'hold', ${saga.attempt}, ${saga.attemptId}, ${saga.owner}, 1, ${until},
          ${JSON.stringify(saga.request)}::jsonb, ${now})
        on conflict (saga_id) do update set step = 'hold', attempt = excluded.attempt, attempt_id = excluded.attempt_id,
          owner = excluded.owner, epoch = s.epoch + 1, deadline = excluded.deadline, outcome = null,
          request = excluded.request, updated_at = excluded.updated_at
        where s.step = 'done'
        returning ${fields}`
    )
  })

  /** Moves on; undefined when somebody else has taken over. */
  const move = Effect.fn("SagaStore.move")(function* (saga: Saga, to: Step, outcome: string | null = null) {
    const { now, until } = yield* deadline
    return yield* first(
      yield* sql`
        update orders.sagas set step = ${to}, deadline = ${until}, outcome = ${outcome}, updated_at = ${now}
        where saga_id = ${saga.sagaId} and epoch = ${saga.epoch} and step = ${saga.step}
        returning ${fields}`
    )
  })

  /** Gives the process back, to be taken over after `afterMs`. */
  const postpone = Effect.fn("SagaStore.postpone")(function* (saga: Saga, afterMs: number) {
    const now = yield* Clock.currentTimeMillis
    yield* sql`
      update orders.sagas set deadline = ${new Date(now + afterMs)}
      where saga_id = ${saga.sagaId} and epoch = ${saga.epoch} and step = ${saga.step}`
  })

  /** Takes over processes that are past their deadline, at most `limit`. */
  const takeOver = Effect.fn("SagaStore.takeOver")(function* (owner: string, limit: number) {
    const { now, until } = yield* deadline
    const rows = yield* sql`
      update orders.sagas set owner = ${owner}, epoch = epoch + 1, deadline = ${until}, updated_at = ${now}
      where saga_id in (
        select saga_id from orders.sagas where step <> 'done' and deadline < ${now}
        order by deadline limit ${limit} for update skip locked)
      returning ${fields}`
    return yield* Effect.orDie(decode(rows))
  })

  return { find, begin, move, postpone, takeOver }
})
