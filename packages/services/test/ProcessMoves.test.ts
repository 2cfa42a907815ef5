// Moves of order processes that share a statement: each has its own answer, and all that belongs to it or nothing.
import { afterAll, expect, test } from "bun:test"
import { DateTime, Effect, Fiber, Layer, Schedule, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { ReservationExpired } from "@merkato/domain/inventory/InventoryEvents"
import type { Envelope } from "@merkato/domain/kernel/Event"
import * as Ids from "@merkato/domain/kernel/Ids"
import { Principal } from "@merkato/domain/kernel/RequestContext"
import { Order } from "@merkato/domain/orders/Order"
import { created, OrderPaymentFailed, OrderPaymentStarted } from "@merkato/domain/orders/OrderEvents"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import { Encryption } from "@merkato/infra/auth/Encryption"
import { Secrets } from "@merkato/infra/auth/Secrets"
import { Authorizer } from "@merkato/infra/authorizer/Authorizer"
import { EventStore, RelaySignal } from "@merkato/infra/events/EventStore"
import { Idempotency } from "@merkato/infra/idempotency/Idempotency"
import { Policies } from "@merkato/infra/policy/Policies"
import { LockPatience } from "@merkato/infra/postgres/Combined"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { PaymentsRpc } from "@merkato/rpc/payments/PaymentsRpc"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import { RiskRpc } from "@merkato/rpc/risk/RiskRpc"
import { Orders } from "../src/orders/index.ts"
import { OrderProcess } from "../src/orders/OrderProcess.ts"
import { Orders as OrdersUseCases } from "../src/orders/Orders.ts"
import { endExpired } from "../src/orders/OrdersConsumers.ts"
import * as ProcessMoves from "../src/orders/ProcessMoves.ts"
import type { Saga } from "../src/orders/SagaStore.ts"
import { temporaryFolder } from "../../../tests/support/Processes.ts"
import { handedOver } from "./HandedOver.ts"
import { as, quietly } from "./Requests.ts"

const folder = temporaryFolder()
afterAll(() => folder.remove())

type Moves = Effect.Success<typeof ProcessMoves.make>

type Needs = SqlClient.SqlClient | EventStore | Idempotency | Scope.Scope

const withMoves = <A, E>(run: (moves: Moves) => Effect.Effect<A, E, Needs>): Promise<A> =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.freshWithLastingDeadlocks
    const database = Database.layer({ url, maxConnections: 8, applicationName: "test", statementTimeoutMs: 5_000 })
    return yield* Effect.gen(function* () {
      yield* Orders.migrate
      return yield* run(yield* ProcessMoves.make)
    }).pipe(
      // Who waits in a circle is not let out of it after a second.
      Effect.provideService(LockPatience, 0),
      Effect.provide(
        Layer.mergeAll(EventStore.layer("orders"), Idempotency.layer("orders")).pipe(
          Layer.provide(Layer.succeed(RelaySignal, { wake: Effect.void })),
          Layer.provideMerge(database)
        )
      )
    )
  }).pipe(as("ADA", "shopper", "eu"), Effect.scoped, quietly, Effect.runPromise)

const checkout = (who: string, cart = `CART-${who}#0`): ProcessMoves.Checkout => ({
  sagaId: `SAGA-${who}`,
  kind: "checkout",
  orderId: Ids.OrderId.make(`ORDER-${who}`),
  step: "reserve",
  attempt: 1,
  attemptId: Ids.AttemptId.make(`PAY-${who}`),
  owner: "OWNER",
  request: { caller: who, operation: "checkout", key: "key", payloadHash: "hash" },
  work: {
    principal: new Principal({ userId: Ids.UserId.make(who), role: "shopper", region: "eu" }),
    correlationId: "test",
    traceParent: "",
    paymentToken: "cipher",
    rail: "auto",
    reservationId: Ids.ReservationId.make(`RES-${who}`)
  },
  cart
})

const orderOf = ({ orderId, work }: Saga, version: number, paymentAttemptId: Ids.AttemptId | null) => {
  const at = DateTime.makeUnsafe(1_000 * version)
  return new Order({
    orderId,
    userId: work.principal.userId,
    region: "eu",
    status: "PENDING",
    items: [{ productId: Ids.ProductId.make("MILK"), qty: 1, priceMinor: 100 }],
    itemsMinor: 100,
    discountMinor: 0,
    taxMinor: 0,
    shippingMinor: 0,
    totalMinor: 100,
    currency: "EUR",
    reservationId: work.reservationId,
    paymentAttemptId,
    reservationLost: false,
    reviewed: false,
    version,
    createdAt: DateTime.makeUnsafe(1_000),
    updatedAt: at
  })
}

/** The order is written down, and its payment begins. */
const placing = (saga: Saga): ProcessMoves.Move => {
  const { attemptId, orderId } = saga
  const [first, second] = [orderOf(saga, 1, null), orderOf(saga, 2, attemptId)]
  const started = OrderPaymentStarted.of(orderId, 2, { orderId, userId: first.userId, attemptId })
  return {
    saga,
    to: "authorise",
    change: {
      steps: [
        { order: first, event: created(first) },
        { order: second, event: started }
      ],
      from: 0
    }
  }
}

/** Its payment comes to nothing, and the process ends with an answer, or without. */
const ending = (saga: Saga, kept: unknown): ProcessMoves.Move => {
  const { attemptId, orderId } = saga
  const order = orderOf(saga, 3, null)
  const failed = OrderPaymentFailed.of(orderId, 3, { orderId, userId: order.userId, attemptId, reason: "declined" })
  return {
    saga: { ...saga, step: "authorise" },
    to: "done",
    outcome: "declined",
    change: { steps: [{ order, event: failed }], from: 2 },
    answer: { kept }
  }
}

const together = { concurrency: "unbounded" } as const

const begun = (moves: Moves, who: ReadonlyArray<string>) =>
  Effect.forEach(
    who,
    (name) =>
      Effect.flatMap(moves.begin(checkout(name)), (saga) =>
        saga === undefined ? Effect.die(new Error(`${name} did not begin`)) : Effect.succeed(saga)
      ),
    together
  )

/** Of each order: where its process is, its version, how many lines its story has, and the answer under its key. */
const books = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ saga: string; line: string }>`
    select saga_id as saga, concat_ws(' ', step, outcome, work ->> 'paymentToken', 'v' || version, status,
      (select string_agg(h.version || coalesce(h.reason, ''), ',' order by version) from orders.order_status_history h
        where h.order_id = s.order_id),
      (select count(*) from orders.events where aggregate_id = s.order_id) || ' told',
      (select count(*) from orders.outbox where aggregate_id = s.order_id) || ' to publish',
      (select coalesce(answer::text, 'claimed') from orders.idempotency i where i.caller = s.request ->> 'caller')) as line
    from orders.sagas s left join orders.orders o using (order_id) order by 1`
  return Object.fromEntries(rows.map(({ saga, line }) => [saga.slice("SAGA-".length), line]))
})

/** Waits until a statement waits for somebody else's lock. */
const waiting = (sql: SqlClient.SqlClient, statements = 1) =>
  Effect.repeat(
    // A transaction sees what it saw first, unless it asks for more.
    Effect.andThen(
      sql`select pg_stat_clear_snapshot()::text as cleared`,
      sql`select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`
    ),
    { until: (rows) => rows.length >= statements, schedule: Schedule.spaced("5 millis"), times: 2_000 }
  )

test(
  "checkouts that begin at the same moment have each its key and its cart; of two that want one cart, one begins",
  () =>
    withMoves((moves) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const all = [
          ...["A", "B", "C"].map((who) => checkout(who)),
          checkout("D", "CART-1#0"),
          checkout("E", "CART-1#0")
        ]
        const sagas = yield* Effect.forEach(all, moves.begin, together)
        const names = sagas.flatMap((saga) => (saga === undefined ? [] : [saga.request.caller]))
        expect(names.length).toBe(4)
        expect(names.slice(0, 3)).toEqual(["A", "B", "C"])
        const claims = yield* sql<{ caller: string }>`select caller from orders.idempotency order by 1`
        expect(claims.map(({ caller }) => caller)).toEqual(names)
        // Neither a second time, nor under a key or with a cart that is somebody's.
        expect(yield* Effect.forEach(all, moves.begin, together)).toEqual(all.map(() => undefined))
        expect((yield* sql`select from orders.sagas`).length).toBe(4)
        yield* sql`delete from orders.sagas`
        expect(yield* moves.begin(checkout("A"))).toBeUndefined()
        expect(yield* sql`select from orders.sagas`).toEqual([])
      })
    ),
  60_000
)

test(
  "a checkout begins under a key whose lease is over, or whose answer was kept for a day",
  () =>
    withMoves((moves) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* begun(moves, ["LEASED", "DAY", "MINE"])
        yield* sql`delete from orders.sagas`
        yield* sql`update orders.idempotency set lease_until = created_at - interval '1 s' where caller = 'LEASED'`
        yield* sql`
          update orders.idempotency set answer = '{}', created_at = created_at - interval '25 h' where caller = 'DAY'`
        yield* sql`
          update orders.idempotency set payload_hash = 'another', lease_until = created_at - interval '1 s'
          where caller = 'MINE'`
        const again = yield* Effect.forEach(["LEASED", "DAY", "MINE"], (who) => moves.begin(checkout(who)), together)
        expect(again.map((saga) => saga?.request.caller)).toEqual(["LEASED", "DAY", undefined])
      })
    ),
  60_000
)

test(
  "processes go on and end together: order, story, events and answer with each, and a key without an answer is free",
  () =>
    withMoves((moves) =>
      Effect.gen(function* () {
        const [a, b, c] = yield* begun(moves, ["A", "B", "C"])
        if (a === undefined || b === undefined || c === undefined) throw new Error("unreachable")
        expect(yield* Effect.forEach([a, b, c].map(placing), moves.go, together)).toEqual(["Moved", "Moved", "Moved"])
        const placed = "authorise cipher v2 PENDING 1,2 2 told 2 to publish claimed"
        expect(yield* books).toEqual({ A: placed, B: placed, C: placed })
        const plain = { saga: { ...c, step: "authorise" as const }, to: "confirm" as const }
        expect(yield* Effect.forEach([ending(a, { is: "kept" }), ending(b, null), plain], moves.go, together)).toEqual([
          "Moved",
          "Moved",
          "Moved"
        ])
        const ended = "done declined v3 PENDING 1,2,3declined 3 told 3 to publish"
        expect(yield* books).toEqual({
          A: `${ended} {"is": "kept"}`,
          B: ended,
          C: placed.replace("authorise", "confirm")
        })
        // What has ended is nobody's any more.
        expect(yield* Effect.forEach([ending(a, null), ending(b, null)], moves.go, together)).toEqual([
          "Replaced",
          "Replaced"
        ])
      })
    ),
  60_000
)

test(
  "an owner that is replaced while it waits moves nothing and learns so; its neighbours move",
  () =>
    withMoves((moves) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const [a, b] = yield* begun(moves, ["A", "B"])
        if (a === undefined || b === undefined) throw new Error("unreachable")
        const going = yield* sql.withTransaction(
          Effect.gen(function* () {
            yield* sql`update orders.sagas set epoch = epoch + 1, owner = 'ANOTHER' where saga_id = 'SAGA-A'`
            const going = yield* Effect.forkScoped(Effect.forEach([a, b].map(placing), moves.go, together))
            yield* waiting(sql)
            return going
          })
        )
        expect(yield* Fiber.join(going)).toEqual(["Replaced", "Moved"])
        expect(yield* books).toEqual({
          A: "reserve cipher 0 told 0 to publish claimed",
          B: "authorise cipher v2 PENDING 1,2 2 told 2 to publish claimed"
        })
        // Who replaced it goes on; a step that is over is not done again.
        expect(yield* Effect.forEach([placing({ ...a, epoch: 2 }), placing(b)], moves.go, together)).toEqual([
          "Moved",
          "Replaced"
        ])
      })
    ),
  60_000
)

test(
  "an order that changes while its process ends is not overwritten: the process stands where it was, and its neighbours end",
  () =>
    withMoves((moves) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const [a, b] = yield* begun(moves, ["A", "B"])
        if (a === undefined || b === undefined) throw new Error("unreachable")
        yield* Effect.forEach([a, b].map(placing), moves.go, together)
        const going = yield* sql.withTransaction(
          Effect.gen(function* () {
            yield* sql`update orders.orders set reservation_lost = true, version = 3 where order_id = 'ORDER-A'`
            const going = yield* Effect.forkScoped(Effect.forEach([ending(a, {}), ending(b, {})], moves.go, together))
            yield* waiting(sql)
            return going
          })
        )
        expect(yield* Fiber.join(going)).toEqual(["Overtaken", "Moved"])
        expect(yield* books).toEqual({
          A: "authorise cipher v3 PENDING 1,2 2 told 2 to publish claimed",
          B: "done declined v3 PENDING 1,2,3declined 3 told 3 to publish {}"
        })
      })
    ),
  60_000
)

test("checkouts of the same carts that begin in two processes wait for each other, and not in a circle", () =>
  withMoves((moves) =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const others = yield* ProcessMoves.make
      const carts = ["CART-1", "CART-2", "CART-3"]
      const begin = (process: Moves, who: string, wanted: ReadonlyArray<string>) =>
        Effect.forEach(wanted, (cart, nth) => process.begin(checkout(`${who}-${nth}`, cart)), together)
      // Somebody has one of the carts, and gives it back: until then both stand before it, with what they have by then.
      const beginning = yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* sql`
            insert into orders.sagas (saga_id, kind, order_id, step, attempt, attempt_id, owner, epoch, deadline, request,
              work, cart, begun_at, updated_at)
            values ('SAGA-X', 'checkout', 'ORDER-X', 'reserve', 1, 'PAY-X', 'OWNER', 1, ${new Date(0)}, '{}', '{}',
              'CART-2', ${new Date(0)}, ${new Date(0)})`
          const one = yield* Effect.forkScoped(begin(moves, "ONE", carts))
          const other = yield* Effect.forkScoped(begin(others, "OTHER", carts.toReversed()))
          yield* waiting(sql, 2)
          yield* sql`delete from orders.sagas where saga_id = 'SAGA-X'`
          return [one, other]
        })
      )
      const begun = (yield* Effect.forEach(beginning, Fiber.join)).flat()
      expect(begun.filter((saga) => saga !== undefined)).toHaveLength(3)
    })
  ))

/** The use cases of orders, as far as they need nobody else. */
const useCases = Layer.merge(OrdersUseCases.layer, OrderProcess.layer).pipe(
  Layer.provide([
    Authorizer.layerRules,
    Policies.layerWith(),
    Encryption.layer(folder.path).pipe(Layer.provideMerge(Secrets.layer)),
    Layer.mergeAll(CartRpc.client, PricingRpc.client, RiskRpc.client, InventoryRpc.client, PaymentsRpc.client).pipe(
      Layer.provide(Switchboard.layer)
    )
  ])
)

/** A reservation has ended by itself. */
const expired = ({ orderId, work: { reservationId } }: Saga) => {
  const { eventType, payload } = ReservationExpired.of(reservationId, 1, { reservationId, orderId })
  return {
    eventId: Ids.EventId.make(`EVENT-${reservationId}`),
    eventType,
    occurredAt: "2025-06-01T12:00:00.000Z",
    producer: "inventory-service",
    traceId: "",
    correlationId: "test",
    schemaVersion: "1.0",
    partitionKey: reservationId,
    region: "eu",
    aggregateVersion: 1,
    payload
  } satisfies Envelope
}

test(
  "payments of many orders that end while all their reservations do wait for them, and not in a circle",
  () =>
    withMoves((moves) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        for (let round = 1; round <= 8; round++) {
          const names = Array.from({ length: 24 }, (_, nth) => `${round}-${nth + 10}`)
          const all = yield* begun(moves, names)
          yield* Effect.forEach(all, (saga) => moves.go(placing(saga)), together)
          const lastFirst = all.toSorted((one, other) => (one.orderId < other.orderId ? 1 : -1))
          yield* Effect.all(
            [
              handedOver("orders", endExpired, lastFirst.map(expired)),
              Effect.forEach(all, (saga) => moves.go(ending(saga, null)), together).pipe(
                Effect.delay(`${round} millis`)
              )
            ],
            together
          )
          const lost = yield* sql`
            select from orders.orders where reservation_lost and order_id = any(${all.map(({ orderId }) => orderId)}::text[])`
          const ended = yield* sql`
            select from orders.inbox where event_id = any(${all.map((saga) => expired(saga).eventId)}::text[])`
          expect([ended.length, lost.length <= 24]).toEqual([24, true])
        }
      }).pipe(Effect.provide(useCases))
    ),
  60_000
)

test(
  "a payment that is asked for again while it ends, after its lease, waits for its end and not in a circle",
  () =>
    withMoves((moves) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const process = yield* OrderProcess
        const orderId = Ids.OrderId.make("ORDER-ADA")
        const payment = { orderId, paymentToken: PaymentToken.make("tok_ok"), rail: "auto" } as const
        const keyed = yield* (yield* Idempotency).keyed("pay", "KEY", payment)
        const saga = yield* moves.begin({ ...checkout("ADA"), request: keyed })
        if (saga === undefined) throw new Error("unreachable")
        yield* moves.go(placing(saga))
        yield* sql`update orders.idempotency set lease_until = created_at - interval '1 s'`
        // Somebody has the order, and gives it back: first the end of the payment waits for it, and then who asks again.
        const other = yield* sql.reserve
        yield* other.execute("begin", [], undefined)
        yield* other.execute("select from orders.orders for update", [], undefined)
        const ended = yield* Effect.forkScoped(moves.go(ending(saga, {})))
        yield* waiting(sql)
        const again = yield* Effect.forkScoped(
          Effect.exit(process.pay({ ...payment, idempotencyKey: Ids.IdempotencyKey.make("KEY") }))
        )
        yield* waiting(sql, 2)
        yield* other.execute("rollback", [], undefined)
        expect(yield* Fiber.join(ended)).toBe("Moved")
        yield* Fiber.join(again)
      }).pipe(Effect.scoped, Effect.provide(useCases))
    ),
  60_000
)
