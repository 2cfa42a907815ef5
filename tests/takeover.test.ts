// Order processes whose owner died, was too slow, or found nobody to pay: another one goes on with them, or undoes them.
import { expect, test } from "bun:test"
import {
  Clock,
  ConfigProvider,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Result,
  Schedule,
  Schema,
  Scope
} from "effect"
import type { PgClient } from "@effect/sql-pg"
import { HttpServer } from "effect/http"
import { SqlClient } from "effect/sql"
import { type CartId, IdempotencyKey, OrderId, type ProductId, ReservationId } from "@merkato/domain/kernel/Ids"
import { reservationTtlMs } from "@merkato/domain/inventory/Stock"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import * as PaymentProviders from "@merkato/services/paymentProviders"
import type { Conduct } from "@merkato/services/psp/Conduct"
import { booksBalance } from "./support/Books.ts"
import { patientCircuits } from "./support/Circuits.ts"
import { type clients, contextsOn } from "./support/InProcess.ts"
import { admin, onShelf, place, shopper } from "./support/Market.ts"
import { temporaryFolder } from "./support/Processes.ts"

type Shop = Layer.Success<typeof clients> | SqlClient.SqlClient | PgClient.PgClient | Switchboard

/** Test gateways that do as they are told, and shops on one database that pay through them. */
interface World {
  readonly gateways: (conduct: Conduct) => Effect.Effect<void>
  /** Does something in a shop that is opened for it, and goes down without finishing what it has begun. */
  readonly inAnother: <A, E>(
    effect: Effect.Effect<A, E, Shop | Scope.Scope>
  ) => Effect.Effect<{ readonly result: A; readonly die: Effect.Effect<void> }, unknown>
}

/** Somebody has to look at what costs more than 50 USD. */
const rules = { review: 60, block: 90, amount: { high: { USD: [{ over: 5_000, points: 60 }] } } }

const inWorld = <A, E>(test: (world: World) => Effect.Effect<A, E, Shop | Scope.Scope>): Promise<A> =>
  Effect.gen(function* () {
    const database = yield* TestDatabase.fresh
    const folder = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
    patientCircuits(folder.path)
    const { address } = Context.get(
      yield* Layer.build(PaymentProviders.testGateways(database.url, { port: 0, drainTimeout: Duration.millis(50) })),
      HttpServer.HttpServer
    )
    const url = `http://127.0.0.1:${"port" in address ? address.port : 0}`
    const environment = {
      MERKATO_PAYMENT_GATEWAY_URL: url,
      MERKATO_PAYMENT_TIMEOUT_MS: "60000",
      MERKATO_RISK_RULES: JSON.stringify(rules)
    }
    const open = Layer.fresh(
      contextsOn(database.url, folder.path).pipe(
        Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env: environment })))
      )
    )
    const world: World = {
      gateways: Effect.fnUntraced(function* (conduct) {
        for (const gateway of ["soap", "rest"]) {
          const told = yield* Effect.promise(() =>
            fetch(`${url}/control/${gateway}`, { method: "PUT", body: JSON.stringify(conduct) })
          )
          expect(told.status).toBe(200)
        }
      }),
      inAnother: Effect.fnUntraced(function* (effect) {
        const scope = yield* Scope.make()
        const services = yield* Layer.buildWithScope(open, scope)
        const result = yield* effect.pipe(Effect.provideContext(services), Effect.provideService(Scope.Scope, scope))
        return { result, die: Scope.close(scope, Exit.void) }
      })
    }
    const services = yield* Layer.build(open)
    return yield* Effect.provideContext(test(world), Context.merge(yield* Effect.context<Scope.Scope>(), services))
  }).pipe(Effect.scoped, Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Effect.runPromise)

const ada = shopper("ADA")

/** A cart of Ada's with so many of something in it, and ten on the shelf. */
const filledCart = Effect.fnUntraced(function* (qty: number) {
  const productId = yield* onShelf(10)
  const cart = yield* CartRpc
  const { cartId } = (yield* ada(cart.CreateCart({}))).cart
  yield* ada(cart.SetItem({ cartId, productId, qty }))
  return { cartId, productId }
})

const checkout = Effect.fnUntraced(function* (cartId: CartId, key = "checkout") {
  const request = {
    idempotencyKey: IdempotencyKey.make(key),
    cartId,
    paymentToken: PaymentToken.make("tok_ok"),
    rail: "auto" as const
  }
  return yield* ada((yield* OrdersRpc).Checkout(request))
})

const Row = Schema.Struct({
  sagaId: Schema.String,
  orderId: OrderId,
  step: Schema.String,
  outcome: Schema.NullOr(Schema.String),
  attempt: Schema.Int,
  attemptId: Schema.String,
  owner: Schema.String,
  epoch: Schema.Int,
  work: Schema.Struct({ reservationId: ReservationId, paymentToken: Schema.NullOr(Schema.String) })
})

/** The one process that there is. */
const process = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql`
    select saga_id as "sagaId", order_id as "orderId", step, outcome, attempt, attempt_id as "attemptId", owner, epoch,
      work from orders.sagas`
  const [row] = yield* Schema.decodeUnknownEffect(Schema.Array(Row))(rows)
  return row
})

/** Waits until the process is as wanted. */
const processThat = (wanted: (process: typeof Row.Type) => boolean) =>
  Effect.gen(function* () {
    const found = yield* Effect.repeat(process, {
      until: (row) => row !== undefined && wanted(row),
      schedule: Schedule.spaced("20 millis"),
      times: 1_500
    })
    if (found === undefined || !wanted(found)) throw new Error(`The process stays ${JSON.stringify(found)}`)
    return found
  })

/** Lets the process look as if its owner had not moved for too long; and as if it had begun so long ago. */
const overdue = Effect.fnUntraced(function* (begunSecondsAgo = 0) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`
    update orders.sagas set deadline = deadline - interval '1 hour',
      begun_at = begun_at - make_interval(secs => ${begunSecondsAgo})`
})

/** Asks again under the same key until there is a final answer. */
const persistently = <A, E extends { readonly _tag: string }, R>(ask: Effect.Effect<A, E, R>) =>
  Effect.retry(ask, {
    while: ({ _tag }) => ["RequestInProgress", "PaymentUnavailable", "ServiceUnavailable"].includes(_tag),
    schedule: Schedule.spaced("100 millis"),
    times: 300
  })

/** Nobody gets past this statement until `release`. */
const locked = Effect.fnUntraced(function* (statement: string) {
  const sql = yield* SqlClient.SqlClient
  const scope = yield* Scope.make()
  const locks = yield* Effect.forkIn(
    sql.withTransaction(Effect.andThen(sql.unsafe(statement), Effect.never)).pipe(Effect.ignore),
    scope
  )
  yield* Effect.repeat(
    sql`select from pg_locks join pg_class c on c.oid = relation where mode = 'AccessExclusiveLock' and granted and c.relname in ('assessments', 'reservations')`,
    {
      until: (rows) => rows.length > 0,
      schedule: Schedule.spaced("10 millis"),
      times: 500
    }
  )
  return { release: Fiber.interrupt(locks) }
})

const charges = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  return yield* sql`select attempt_id as "attemptId", order_id as "orderId" from psp.attempts where status = 'captured'`
})

const levelsOf = Effect.fnUntraced(function* (productId: ProductId) {
  const { onHand, reserved } = yield* (yield* InventoryRpc).Levels({ productId })
  return { onHand, reserved }
})

const count = Effect.fnUntraced(function* (table: "orders.orders" | "inventory.reservations") {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql.unsafe<{ count: number }>(`select count(*)::int as count from ${table}`)
  return row?.count
})

test(
  "a checkout that no gateway took is paid under its key when one is back: the same order, another attempt",
  () =>
    inWorld(({ gateways }) =>
      Effect.gen(function* () {
        const { cartId, productId } = yield* filledCart(2)
        yield* gateways({ mode: "down" })
        const away = yield* Effect.flip(checkout(cartId))
        const first = yield* process
        expect(away).toMatchObject({ _tag: "PaymentUnavailable", orderId: first?.orderId })
        expect(first).toMatchObject({ step: "done", outcome: "unavailable", attempt: 1, work: { paymentToken: null } })
        expect(yield* levelsOf(productId)).toEqual({ onHand: 10, reserved: 2 })
        yield* gateways({ mode: "ok" })
        const { answer, replayed } = yield* checkout(cartId)
        expect({ orderId: answer.orderId, status: answer.status, replayed }).toMatchObject({
          orderId: first?.orderId,
          status: "PAID",
          replayed: false
        })
        const second = yield* process
        expect(second).toMatchObject({ sagaId: first?.sagaId, outcome: "paid", attempt: 2 })
        expect(yield* charges).toEqual([{ attemptId: second?.attemptId, orderId: answer.orderId }])
        expect(second?.attemptId).not.toBe(first?.attemptId)
        expect(yield* count("orders.orders")).toBe(1)
        expect(yield* levelsOf(productId)).toEqual({ onHand: 8, reserved: 0 })
        expect((yield* checkout(cartId)).replayed).toBe(true)
        yield* booksBalance
        expect((yield* ada((yield* CartRpc).GetCart({ cartId }))).items).toEqual([])
      })
    ),
  60_000
)

test(
  "a checkout whose owner dies while the gateway is silent is completed by another, with the token it left, under its attempt",
  () =>
    inWorld(({ gateways, inAnother }) =>
      Effect.gen(function* () {
        const { cartId, productId } = yield* filledCart(3)
        yield* gateways({ mode: "silent" })
        const doomed = yield* inAnother(
          Effect.gen(function* () {
            const caller = yield* Effect.forkScoped(checkout(cartId))
            const saga = yield* processThat(({ step }) => step === "authorise")
            const sql = yield* SqlClient.SqlClient
            // The gateway is being asked.
            yield* Effect.repeat(sql`select from payments.payments`, {
              until: (rows) => rows.length > 0,
              schedule: Schedule.spaced("10 millis"),
              times: 500
            })
            return { caller, saga }
          })
        )
        const { saga } = doomed.result
        expect(saga.work.paymentToken).not.toBeNull()
        yield* doomed.die
        expect(yield* process).toMatchObject({ step: "authorise", epoch: 1, owner: saga.owner })
        yield* gateways({ mode: "ok" })
        yield* overdue()
        const done = yield* processThat(({ step }) => step === "done")
        expect(done).toMatchObject({
          outcome: "paid",
          attempt: 1,
          attemptId: saga.attemptId,
          work: { paymentToken: null }
        })
        expect(done.epoch).toBeGreaterThan(1)
        expect(done.owner).not.toBe(saga.owner)
        expect(yield* charges).toEqual([{ attemptId: saga.attemptId, orderId: saga.orderId }])
        // Whoever asked finds the answer under the key.
        const { answer, replayed } = yield* checkout(cartId)
        expect([answer.orderId, answer.status, replayed]).toEqual([saga.orderId, "PAID", true])
        expect(yield* levelsOf(productId)).toEqual({ onHand: 7, reserved: 0 })
        yield* booksBalance
      })
    ),
  60_000
)

test(
  "an owner that is only slow finds itself replaced and does no harm: one order, one charge",
  () =>
    inWorld(({ gateways }) =>
      Effect.gen(function* () {
        const { cartId, productId } = yield* filledCart(1)
        yield* gateways({ mode: "slow", delayMs: 8_000, operations: ["process", "authorise"] })
        const slow = yield* Effect.forkScoped(Effect.result(checkout(cartId)))
        const saga = yield* processThat(({ step }) => step === "authorise")
        yield* overdue()
        yield* processThat(({ epoch }) => epoch > 1)
        const told = yield* Fiber.join(slow)
        const { answer } = yield* persistently(checkout(cartId))
        expect([answer.orderId, answer.status]).toEqual([saga.orderId, "PAID"])
        // Either it is told where its order stands, or it is the one whose step came first.
        if (Result.isFailure(told))
          expect(told.failure).toMatchObject({ _tag: "PaymentUnavailable", orderId: saga.orderId })
        expect(yield* charges).toEqual([{ attemptId: saga.attemptId, orderId: saga.orderId }])
        expect(yield* levelsOf(productId)).toEqual({ onHand: 9, reserved: 0 })
        yield* booksBalance
      })
    ),
  60_000
)

test(
  "a checkout that is taken over in time goes on to its order",
  () =>
    inWorld(() =>
      Effect.gen(function* () {
        const { cartId, productId } = yield* filledCart(2)
        const lock = yield* locked("lock table inventory.reservations in access exclusive mode")
        const first = yield* Effect.forkScoped(Effect.result(checkout(cartId)))
        const saga = yield* processThat(({ step }) => step === "reserve")
        yield* overdue()
        yield* processThat(({ epoch }) => epoch > 1)
        yield* lock.release
        const told = yield* Fiber.join(first)
        const { answer } = yield* persistently(checkout(cartId))
        expect([answer.orderId, answer.status]).toEqual([saga.orderId, "PAID"])
        if (Result.isFailure(told)) {
          expect(["RequestInProgress", "PaymentUnavailable", "ServiceUnavailable"]).toContain(told.failure._tag)
        }
        expect([yield* count("orders.orders"), yield* count("inventory.reservations")]).toEqual([1, 1])
        expect(yield* charges).toEqual([{ attemptId: saga.attemptId, orderId: saga.orderId }])
        expect(yield* levelsOf(productId)).toEqual({ onHand: 8, reserved: 0 })
        yield* booksBalance
      })
    ),
  60_000
)

/** The key of a checkout that was undone is free: it buys, as another order. */
const buysAnew = Effect.fnUntraced(function* (cartId: CartId, undone: typeof Row.Type) {
  const { answer } = yield* persistently(checkout(cartId))
  expect(answer.status).toBe("PAID")
  expect<string>(answer.orderId).not.toBe(undone.orderId)
  return answer
})

test(
  "a checkout that did not come to its order within a minute is undone; a reservation that comes too late is refused",
  () =>
    inWorld(() =>
      Effect.gen(function* () {
        const { cartId, productId } = yield* filledCart(2)
        const lock = yield* locked("lock table risk.assessments in access exclusive mode")
        const first = yield* Effect.forkScoped(Effect.result(checkout(cartId)))
        const saga = yield* processThat(({ step }) => step === "reserve")
        yield* overdue(61)
        const undone = yield* processThat(({ step }) => step === "done")
        expect(undone).toMatchObject({ outcome: "given_up", orderId: saga.orderId, work: { paymentToken: null } })
        yield* lock.release
        // Whoever asked is told of no order, since there is none.
        expect(Result.isFailure(yield* Fiber.join(first))).toBe(true)
        expect(yield* count("orders.orders")).toBe(0)
        const { reservationId } = saga.work
        const late = yield* Effect.flip(
          admin(
            (yield* InventoryRpc).Reserve({
              reservationId,
              orderId: saga.orderId,
              items: [{ productId, qty: 2 }],
              ttlMs: 60_000
            })
          )
        )
        expect(late._tag).toBe("ReservationClosed")
        expect(yield* levelsOf(productId)).toEqual({ onHand: 10, reserved: 0 })
        yield* buysAnew(cartId, saga)
        expect(yield* levelsOf(productId)).toEqual({ onHand: 8, reserved: 0 })
        yield* booksBalance
      })
    ),
  60_000
)

test(
  "a checkout whose reservation is under way when it is undone leaves nothing reserved",
  () =>
    inWorld(() =>
      Effect.gen(function* () {
        const { cartId, productId } = yield* filledCart(2)
        const lock = yield* locked("lock table inventory.reservations in access exclusive mode")
        const first = yield* Effect.forkScoped(Effect.result(checkout(cartId)))
        const saga = yield* processThat(({ step }) => step === "reserve")
        yield* Effect.repeat(
          (yield* SqlClient.SqlClient)`
            select from pg_locks where relation = 'inventory.reservations'::regclass and not granted`,
          { until: (rows) => rows.length > 0, schedule: Schedule.spaced("10 millis"), times: 500 }
        )
        yield* overdue(61)
        yield* processThat(({ step }) => step === "release")
        yield* lock.release
        const told = yield* Fiber.join(first)
        // It names no order: there is none, and never will be.
        expect(Result.isFailure(told) ? Object.keys(told.failure) : ["orderId"]).not.toContain("orderId")
        expect(yield* processThat(({ step }) => step === "done")).toMatchObject({ outcome: "given_up" })
        expect(yield* count("orders.orders")).toBe(0)
        expect(yield* levelsOf(productId)).toEqual({ onHand: 10, reserved: 0 })
        yield* buysAnew(cartId, saga)
        expect(yield* levelsOf(productId)).toEqual({ onHand: 8, reserved: 0 })
        yield* booksBalance
      })
    ),
  60_000
)

type Call = Effect.Effect<unknown, unknown>

/** Has inventory's `Reserve` answer the nth time, from 0, as `answer` makes of its own way. */
const reserveAnswers = Effect.fnUntraced(function* (answer: (reserve: Call, nth: number) => Call) {
  const switchboard = yield* Switchboard
  const calls = switchboard.calls("inventory")
  const reserve = calls?.get("Reserve")
  if (calls === undefined || reserve === undefined) throw new Error("Nobody answers inventory.Reserve")
  let count = 0
  const heard: typeof reserve = (payload) => answer(reserve(payload), count++)
  yield* switchboard.connect("inventory", new Map([...calls, ["Reserve", heard]]))
})

test(
  "a reservation that arrives once more after its checkout was refused takes nothing",
  () =>
    inWorld(() =>
      Effect.gen(function* () {
        const { cartId, productId } = yield* filledCart(60)
        const asked: Array<Call> = []
        yield* reserveAnswers((reserve) => {
          asked.push(reserve)
          return reserve
        })
        const refused = yield* Effect.flip(checkout(cartId))
        expect(refused._tag).toBe("OutOfStock")
        expect(yield* processThat(({ step }) => step === "done")).toMatchObject({ outcome: "out_of_stock" })
        const [once, ...others] = asked
        if (once === undefined || others.length > 0) throw new Error(`${asked.length} reservations were asked for`)
        yield* admin((yield* InventoryRpc).Adjust({ productId, delta: 200, reason: "delivery" }))
        expect(yield* Effect.flip(admin(once))).toMatchObject({ _tag: "ReservationClosed" })
        expect(yield* levelsOf(productId)).toEqual({ onHand: 210, reserved: 0 })
        // The same cart is bought by another checkout, is looked at, and keeps its goods as long as that may take.
        expect((yield* checkout(cartId, "another")).answer.status).toBe("HELD")
        const sql = yield* SqlClient.SqlClient
        const kept = yield* sql`
          select r.expires_at - r.created_at > interval '23 hours' as long from inventory.reservations r
          join orders.orders using (order_id)`
        expect(kept).toEqual([{ long: true }])
      })
    ),
  60_000
)

test(
  "an owner that learns late that goods were not there takes none from who has gone on with them",
  () =>
    inWorld(() =>
      Effect.gen(function* () {
        const { cartId, productId } = yield* filledCart(60)
        const refused = yield* Deferred.make<void>()
        const late = yield* Deferred.make<void>()
        const held = Effect.andThen(Deferred.succeed(refused, undefined), Deferred.await(late))
        yield* reserveAnswers((reserve, nth) => (nth === 0 ? Effect.onError(reserve, () => held) : reserve))
        const first = yield* Effect.forkScoped(Effect.result(checkout(cartId)))
        yield* Deferred.await(refused)
        yield* admin((yield* InventoryRpc).Adjust({ productId, delta: 200, reason: "delivery" }))
        yield* overdue()
        expect(yield* processThat(({ step }) => step === "done")).toMatchObject({ outcome: "held" })
        yield* Deferred.succeed(late, undefined)
        expect(Result.isFailure(yield* Fiber.join(first))).toBe(true)
        expect((yield* checkout(cartId)).answer.status).toBe("HELD")
        expect(yield* levelsOf(productId)).toEqual({ onHand: 210, reserved: 60 })
      })
    ),
  60_000
)

/** A clock that is so many milliseconds behind, until it catches up. */
const clockBehind = Effect.fnUntraced(function* (millis: number) {
  const live = yield* Clock.Clock
  let behind = millis
  const currentTimeMillisUnsafe = () => live.currentTimeMillisUnsafe() - behind
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe,
    currentTimeMillis: Effect.sync(currentTimeMillisUnsafe),
    currentTimeNanosUnsafe: () => live.currentTimeNanosUnsafe(),
    currentTimeNanos: live.currentTimeNanos,
    monotonicTimeNanosUnsafe: () => live.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: live.monotonicTimeNanos,
    sleep: (duration) => live.sleep(duration)
  }
  return { clock, catchUp: Effect.sync(() => void (behind = 0)) }
})

/** Waits until a query has an answer; within 10 seconds. */
const thereIs = Effect.fnUntraced(function* (query: string) {
  const sql = yield* SqlClient.SqlClient
  const found = yield* Effect.repeat(sql.unsafe(query), {
    until: (rows) => rows.length > 0,
    schedule: Schedule.spaced("20 millis"),
    times: 500
  })
  expect({ query, found: found.length > 0 }).toEqual({ query, found: true })
})

/** Orders has heard that a reservation ended, and knew of no order. */
const endHeard = thereIs(`select from orders.inbox where consumer_group = 'orders.end-expired'`)

/** What somebody does in a shop that is so long behind, and stands still when it has reserved something, until `goOn`. */
const standingStill = Effect.fnUntraced(function* <A, E>(
  { inAnother }: World,
  behindMs: number,
  doing: Effect.Effect<A, E, Shop | Scope.Scope>
) {
  const late = yield* Deferred.make<void>()
  const { clock, catchUp } = yield* clockBehind(behindMs)
  const { result } = yield* inAnother(
    Effect.gen(function* () {
      yield* reserveAnswers((reserve) => Effect.tap(reserve, () => Deferred.await(late)))
      return yield* Effect.forkScoped(doing)
    })
  ).pipe(Effect.provideService(Clock.Clock, clock))
  return { goOn: Effect.andThen(catchUp, Deferred.succeed(late, undefined)), told: Fiber.join(result) }
})

for (const { behindMs, status, reserved } of [
  { behindMs: 2 * 60_000, status: "PENDING", reserved: 2 },
  { behindMs: reservationTtlMs + 60_000, status: "CANCELED", reserved: 0 }
] as const) {
  test(
    `an order that was on its way for ${behindMs / 60_000} minutes is ${status}: it waits for its payment while there are goods for it`,
    () =>
      inWorld((world) =>
        Effect.gen(function* () {
          const productId = yield* onShelf(10)
          const { goOn, told } = yield* standingStill(world, behindMs, place("ADA", "late", [{ productId, qty: 2 }]))
          yield* status === "CANCELED" ? endHeard : thereIs("select from inventory.reservations")
          yield* goOn
          const { orderId } = (yield* told).answer
          expect((yield* ada((yield* OrdersRpc).Get({ orderId }))).status).toBe(status)
          expect(yield* levelsOf(productId)).toEqual({ onHand: 10, reserved })
        })
      ),
    60_000
  )
}

test(
  "a checkout that did not come to its order within a minute is undone by its own owner as well, when nobody was faster",
  () =>
    inWorld((world) =>
      Effect.gen(function* () {
        const { cartId, productId } = yield* filledCart(2)
        yield* world.gateways({ mode: "down" })
        const sql = yield* SqlClient.SqlClient
        // Nobody takes it over, however long it stands still.
        yield* sql`
          create function orders.patient() returns trigger language plpgsql as
            'begin new.deadline := now() + interval ''1 day''; return new; end'`
        yield* sql`create trigger patient before insert on orders.sagas for each row execute function orders.patient()`
        const { goOn, told } = yield* standingStill(world, reservationTtlMs + 60_000, Effect.flip(checkout(cartId)))
        yield* endHeard
        yield* goOn
        expect(yield* told).toMatchObject({ _tag: "ServiceUnavailable" })
        expect(yield* processThat(({ step }) => step === "done")).toMatchObject({ outcome: "given_up" })
        expect(yield* count("orders.orders")).toBe(0)
        expect(yield* levelsOf(productId)).toEqual({ onHand: 10, reserved: 0 })
      })
    ),
  60_000
)
