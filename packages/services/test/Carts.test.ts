// A cart is what its shopper made of it, one change after the other, whoever else changes it or another one meanwhile.
import { afterAll, beforeAll, expect, test } from "bun:test"
import { Clock, Context, Effect, Exit, Fiber, Layer, Result, Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as fc from "fast-check"
import { type Cart, CartFull, maxQuantity } from "@merkato/domain/cart/Cart"
import { ProductNotFound } from "@merkato/domain/catalogue/Product"
import type { Envelope } from "@merkato/domain/kernel/Event"
import { AttemptId, EventId, Id, OrderId, ProductId, UserId } from "@merkato/domain/kernel/Ids"
import type { Region } from "@merkato/domain/kernel/Region"
import { Principal, type RequestContextShape, system } from "@merkato/domain/kernel/RequestContext"
import { OrderHeld, OrderPaid } from "@merkato/domain/orders/OrderEvents"
import { type Item, maxLines } from "@merkato/domain/pricing/Quote"
import { Tokens } from "@merkato/infra/auth/Tokens"
import { Authorizer } from "@merkato/infra/authorizer/Authorizer"
import { EventStore, RelaySignal } from "@merkato/infra/events/EventStore"
import { LockPatience } from "@merkato/infra/postgres/Combined"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { emptyOrdered } from "../src/cart/CartConsumers.ts"
import { Carts } from "../src/cart/Carts.ts"
import { Cart as CartContext } from "../src/cart/index.ts"
import { handedOver } from "./HandedOver.ts"
import { as, quietly } from "./Requests.ts"

const nowhere = ProductId.make("NOWHERE")

/** Every product exists but one. */
const catalogue = CatalogueRpc.client.pipe(
  Layer.provideMerge(
    Layer.effectDiscard(
      Effect.flatMap(Switchboard, (switchboard) =>
        switchboard.connect(
          "catalogue",
          new Map([
            [
              "PricesOf",
              (asked: unknown) => Effect.succeed(JSON.stringify(asked).includes(nowhere) ? [] : [{ priceMinor: 100 }])
            ]
          ])
        )
      )
    )
  ),
  Layer.provide(Switchboard.layer)
)

/** A guest's token is the guest's id. */
const guest = (token: string) => new Principal({ userId: UserId.make(token), role: "guest", region: "us" })
const tokens = Layer.succeed(
  Tokens,
  Tokens.of({
    issue: ({ userId }) => Effect.succeed(userId),
    verify: (token) => Effect.succeed(guest(token)),
    verifyUntil: (token) => Effect.succeed({ principal: guest(token), expiresAt: Number.MAX_SAFE_INTEGER }),
    issueForServices: Effect.succeed(""),
    verifyService: () => Effect.void,
    isKnown: () => false
  })
)

type Services = Carts | SqlClient.SqlClient

const scope = Scope.makeUnsafe()
/** Two processes of the shop, on one database. */
let processes: ReadonlyArray<Context.Context<Services>> = []

beforeAll(() =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.freshWithLastingDeadlocks
    const database = Database.layer({ url, maxConnections: 8, applicationName: "test", statementTimeoutMs: 5_000 })
    yield* Effect.provide(CartContext.migrate, database)
    const carts = Carts.layer.pipe(
      Layer.provide(EventStore.layer("cart")),
      Layer.provide(Layer.succeed(RelaySignal, { wake: Effect.void })),
      Layer.provide([Authorizer.layerRules, catalogue, tokens]),
      // Who waits in a circle is not let out of it after a second.
      Layer.provide(Layer.succeed(LockPatience, 0)),
      Layer.provideMerge(database)
    )
    processes = [yield* Layer.build(Layer.fresh(carts)), yield* Layer.build(Layer.fresh(carts))]
  }).pipe(quietly, Scope.provide(scope), Effect.runPromise)
)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

/** Does something in one of the processes. */
const at =
  (nth: number) =>
  <A, E>(effect: Effect.Effect<A, E, Services>): Effect.Effect<A, E> => {
    const services = processes[nth % processes.length]
    return services === undefined ? Effect.die("the carts have not started") : Effect.provideContext(effect, services)
  }

const run = <A, E>(effect: Effect.Effect<A, E, Services>): Promise<A> => Effect.runPromise(quietly(at(0)(effect)))

const many = (count: number) => Array.from({ length: count }, (_, nth) => nth)
const atOnce = { concurrency: "unbounded" } as const
const product = (nth: number) => ProductId.make(`P-${nth}`)

const created = (userId: string) =>
  Effect.map(
    Effect.flatMap(Carts, (carts) => carts.create),
    ({ cart }) => cart
  ).pipe(as(userId))

const set = (cart: Cart, productId: ProductId, qty: number) =>
  Effect.flatMap(Carts, (carts) => carts.setItem({ cartId: cart.cartId, productId, qty })).pipe(as(cart.ownerId))
const remove = (cart: Cart, productId: ProductId) =>
  Effect.flatMap(Carts, (carts) => carts.removeItem({ cartId: cart.cartId, productId })).pipe(as(cart.ownerId))
const get = (cart: Cart) => Effect.flatMap(Carts, (carts) => carts.get(cart.cartId)).pipe(as(cart.ownerId))

interface Told {
  readonly version: number
  readonly items: ReadonlyArray<Item>
  readonly correlationId: string
  readonly region: Region
  readonly traceParent: string
  readonly writtenBy: string
}

/** A cart's events, oldest first: without a gap, each in the outbox, and the last one what the tables say. */
const story = Effect.fnUntraced(function* (cart: Cart) {
  const sql = yield* SqlClient.SqlClient
  const events = yield* sql<Told>`
    select e.version, payload -> 'items' as items, correlation_id as "correlationId", region,
      trace_parent as "traceParent", e.xmin::text as "writtenBy"
    from cart.events e join cart.outbox o using (position)
    where e.aggregate_id = ${cart.cartId} and payload ->> 'userId' = ${cart.ownerId} order by e.version`
  expect(events.map(({ version }) => version)).toEqual(events.map((_, index) => index + 1))
  const lines = yield* sql<Item & { readonly line: number }>`
    select product_id as "productId", qty, line from cart.cart_items where cart_id = ${cart.cartId} order by line`
  const { items, version } = yield* get(cart)
  expect(version).toBe(events.length)
  expect(events.at(-1)?.items).toEqual([...items])
  expect(lines).toEqual(items.map((item, index) => ({ ...item, line: index + 1 })))
  return events
})

let orders = 0

/** What the shop tells when somebody has bought from a cart, and in whose name. */
const order = (
  cart: Cart,
  items: ReadonlyArray<Item>,
  region: Region = "us"
): { readonly event: Envelope; readonly request: RequestContextShape } => {
  const nth = ++orders
  const orderId = OrderId.make(`ORDER-${nth}`)
  const bought = {
    orderId,
    userId: cart.ownerId,
    items: items.map((item) => ({ ...item, price: 1 })),
    cartId: cart.cartId
  }
  const { eventType, payload } =
    nth % 2 === 0
      ? OrderHeld.of(orderId, 3, { ...bought, score: 70, reasons: [] })
      : OrderPaid.of(orderId, 3, { ...bought, attemptId: AttemptId.make("A"), totalAmount: 1, currency: "USD" })
  return {
    event: {
      eventId: EventId.make(`EVENT-${nth}`),
      eventType,
      occurredAt: "2025-06-01T12:00:00.000Z",
      producer: "orders-service",
      traceId: "",
      correlationId: `order-${nth}`,
      schemaVersion: "1.0",
      partitionKey: Id.make(orderId),
      region,
      aggregateVersion: 3,
      payload
    },
    request: {
      principal: new Principal({ ...system, region }),
      correlationId: `order-${nth}`,
      traceParent: `00-${String(nth).padStart(32, "0")}-0000000000000001-00`
    }
  }
}

/** The carts' consumer gets events, several at once, in a transaction of its own. */
const consumed = (batch: ReadonlyArray<ReturnType<typeof order>>) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const events = batch.map(({ event }) => event)
    const requests = batch.map(({ request }) => request)
    yield* sql.withTransaction(emptyOrdered.handleAll?.(events, requests) ?? Effect.die("one by one"))
  })

type Command =
  | { readonly _tag: "Set"; readonly productId: ProductId; readonly qty: number }
  | { readonly _tag: "Remove"; readonly productId: ProductId }
  | { readonly _tag: "Ordered"; readonly items: ReadonlyArray<Item> }
  | { readonly _tag: "Merge"; readonly items: ReadonlyArray<Item> }

const productId = fc.constantFrom(...many(5).map(product))
const qty = fc.integer({ min: 1, max: maxQuantity })
const someItems = fc.uniqueArray(fc.record({ productId, qty }), { maxLength: 4, selector: (item) => item.productId })
const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      _tag: fc.constant("Set" as const),
      productId: fc.oneof({ weight: 9, arbitrary: productId }, { weight: 1, arbitrary: fc.constant(nowhere) }),
      qty: fc.oneof(qty, fc.constantFrom(1, 2))
    })
  },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constant("Remove" as const), productId }) },
  { weight: 2, arbitrary: fc.record({ _tag: fc.constant("Ordered" as const), items: someItems }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("Merge" as const), items: someItems }) }
)

/** A cart as one would explain it to a colleague. */
class Model {
  version = 1
  readonly items = new Map<ProductId, number>()

  /** Whether it is another cart afterwards. */
  apply(command: Command): boolean {
    const { items } = this
    const before = JSON.stringify([...items])
    switch (command._tag) {
      case "Set":
        if (command.productId !== nowhere) items.set(command.productId, command.qty)
        break
      case "Remove":
        items.delete(command.productId)
        break
      case "Ordered":
        for (const { productId, qty } of command.items) {
          const left = (items.get(productId) ?? 0) - qty
          if (left > 0) items.set(productId, left)
          else items.delete(productId)
        }
        // An order is told of, whatever was left to take out.
        this.version += 1
        return true
      case "Merge":
        for (const { productId, qty } of command.items) {
          items.set(productId, Math.min(maxQuantity, (items.get(productId) ?? 0) + qty))
        }
        if (command.items.length > 0) this.version += 1
        return command.items.length > 0
    }
    const other = JSON.stringify([...items]) !== before
    if (other) this.version += 1
    return other
  }
}

let shoppers = 0

const follow = (commands: ReadonlyArray<Command>) =>
  Effect.gen(function* () {
    const carts = yield* Carts
    const cart = yield* created(`USER-${++shoppers}`)
    const model = new Model()
    for (const [step, command] of commands.entries()) {
      /** Mostly by a process that does not know of the step before. */
      const somewhere = at(step % 3)
      model.apply(command)
      switch (command._tag) {
        case "Set": {
          const answer = yield* Effect.result(somewhere(set(cart, command.productId, command.qty)))
          expect(Result.isFailure(answer) ? answer.failure._tag : "Set").toBe(
            command.productId === nowhere ? new ProductNotFound({ productIds: [] })._tag : "Set"
          )
          break
        }
        case "Remove":
          yield* somewhere(remove(cart, command.productId))
          break
        case "Ordered":
          yield* somewhere(consumed([order(cart, command.items)]))
          break
        case "Merge": {
          const guest = yield* created(`GUEST-${++shoppers}`)
          for (const item of command.items) yield* set(guest, item.productId, item.qty)
          yield* carts.merge({ cartId: cart.cartId, guestToken: guest.ownerId }).pipe(as(cart.ownerId))
          expect((yield* get(guest)).items).toEqual([])
          yield* story(guest)
        }
      }
      const { version, items } = yield* at(step % 2)(get(cart))
      expect([step, command, version, items.map((item) => [item.productId, item.qty])]).toEqual([
        step,
        command,
        model.version,
        [...model.items]
      ])
    }
    yield* story(cart)
  })

test(
  "a cart is what the model says after every command of any sequence",
  () =>
    fc.assert(
      fc.asyncProperty(fc.array(command, { minLength: 1, maxLength: 15, size: "max" }), (commands) =>
        run(follow(commands))
      ),
      { numRuns: 40 }
    ),
  120_000
)

test(
  "different products set by many at the same moment, in two processes, are all there; each was told in its turn",
  () =>
    run(
      Effect.gen(function* () {
        const carts = yield* Effect.forEach(many(4), (nth) => created(`RACER-${nth}`))
        const answers = yield* Effect.forEach(
          many(160),
          (nth) => {
            const cart = carts[nth % carts.length]
            if (cart === undefined) return Effect.die("no cart")
            return Effect.map(at(nth >> 2)(set(cart, product(nth), 1 + (nth % 9))), (answer) => ({ nth, answer }))
          },
          atOnce
        )
        for (const [nth, cart] of carts.entries()) {
          const told = yield* story(cart)
          const mine = answers.filter((answer) => answer.nth % carts.length === nth)
          expect(told).toHaveLength(1 + mine.length)
          for (const { nth, answer } of mine) {
            // The answer is the version that this change made, and nothing but this change was made by it.
            expect(told[answer.version - 1]?.items).toEqual([...answer.items])
            const before = told[answer.version - 2]?.items ?? []
            expect(answer.items).toEqual([...before, { productId: product(nth), qty: 1 + (nth % 9) }])
          }
        }
      })
    ),
  60_000
)

test(
  "the same change by many at the same moment makes one new version",
  () =>
    run(
      Effect.gen(function* () {
        const cart = yield* created("REPEATER")
        const answers = yield* Effect.forEach(many(24), (nth) => at(nth)(set(cart, product(1), 3)), atOnce)
        expect(answers.map(({ version, items }) => [version, items.length])).toEqual(answers.map(() => [2, 1]))
        expect(yield* story(cart)).toHaveLength(2)
      })
    ),
  60_000
)

test(
  "the last places of a cart go to those who come first, and no more than there are",
  () =>
    run(
      Effect.gen(function* () {
        const cart = yield* created("HOARDER")
        yield* Effect.forEach(many(maxLines - 3), (nth) => set(cart, product(nth), 1))
        const answers = yield* Effect.forEach(
          many(12),
          (nth) => Effect.result(at(nth)(set(cart, product(1_000 + nth), 1))),
          atOnce
        )
        const refused = answers.flatMap((answer) => (Result.isFailure(answer) ? [answer.failure] : []))
        expect(refused).toEqual(many(9).map(() => new CartFull()))
        expect((yield* get(cart)).items).toHaveLength(maxLines)
        yield* story(cart)
      })
    ),
  60_000
)

test(
  "orders of many carts are taken out with one transaction, each told in its order's name; of one cart one after the other",
  () =>
    run(
      Effect.gen(function* () {
        const carts = yield* Effect.forEach(many(30), (nth) => created(`BUYER-${nth}`), atOnce)
        yield* Effect.forEach(
          carts,
          (cart) => Effect.andThen(set(cart, product(1), 5), set(cart, product(2), 1)),
          atOnce
        )
        const twice = carts[7]
        if (twice === undefined) throw new Error("no cart")
        const bought = [{ productId: product(1), qty: 2 }]
        const batch = [
          ...carts.map((cart, nth) => ({ cart, order: order(cart, bought, nth % 2 === 0 ? "eu" : "us") })),
          { cart: twice, order: order(twice, [{ productId: product(2), qty: 1 }], "in") }
        ]
        yield* consumed(batch.map(({ order }) => order))
        const writers = new Set<string>()
        for (const cart of carts) {
          const told = yield* story(cart)
          const of = batch.filter((entry) => entry.cart === cart)
          const taken = told.slice(3)
          expect(
            taken.map(({ correlationId, region, traceParent }) => ({ correlationId, region, traceParent }))
          ).toEqual(
            of.map(({ order: { event, request } }) => ({
              correlationId: event.correlationId,
              region: event.region,
              traceParent: request.traceParent
            }))
          )
          for (const { writtenBy } of taken) writers.add(writtenBy)
          const now = yield* get(cart)
          expect(now.ordersTaken).toBe(of.length)
          expect(now.items).toEqual(
            cart === twice
              ? [{ productId: product(1), qty: 3 }]
              : [
                  { productId: product(1), qty: 3 },
                  { productId: product(2), qty: 1 }
                ]
          )
        }
        expect(writers.size).toBe(1)
      })
    ),
  60_000
)

test(
  "what comes into carts while others are emptied stays, and what was ordered goes once",
  () =>
    run(
      Effect.gen(function* () {
        const carts = yield* Effect.forEach(many(12), (nth) => created(`LATE-${nth}`), atOnce)
        yield* Effect.forEach(carts, (cart) => set(cart, product(1), 2), atOnce)
        const backwards = carts.toReversed()
        const bought = (cart: Cart) => order(cart, [{ productId: product(1), qty: 1 }])
        yield* Effect.all(
          [
            at(0)(consumed(carts.map(bought))),
            at(1)(consumed(backwards.map(bought))),
            Effect.forEach(carts, (cart, nth) => at(nth)(set(cart, product(2), 4)), atOnce),
            Effect.forEach(backwards, (cart, nth) => at(nth)(set(cart, product(3), 5)), atOnce)
          ],
          { ...atOnce, discard: true }
        )
        for (const cart of carts) {
          const { items, ordersTaken } = yield* get(cart)
          // Whatever came in meanwhile: that is not counted, what was taken out is.
          expect(ordersTaken).toBe(2)
          expect(new Map(items.map(({ productId, qty }) => [productId, qty]))).toEqual(
            new Map([
              [product(2), 4],
              [product(3), 5]
            ])
          )
          expect(yield* story(cart)).toHaveLength(6)
        }
      })
    ),
  60_000
)

test(
  "orders that are taken out of many carts one after the other keep nobody waiting in a circle who changes as many at once",
  () =>
    run(
      Effect.gen(function* () {
        const carts = yield* Effect.forEach(many(24), (nth) => created(`TRACED-${nth}`), atOnce)
        const lastFirst = carts.toSorted((one, other) => (one.cartId < other.cartId ? 1 : -1))
        for (const round of many(6)) {
          yield* Effect.forEach(carts, (cart) => set(cart, product(1), 2), atOnce)
          yield* Effect.all(
            [
              at(1)(
                handedOver(
                  "cart",
                  emptyOrdered,
                  lastFirst.map((cart) => order(cart, [{ productId: product(1), qty: 2 }]).event)
                )
              ),
              Effect.forEach(many(12), (turn) =>
                Effect.forEach(carts, (cart, nth) => at(nth % 2)(set(cart, product(2), 12 * round + turn + 1)), atOnce)
              )
            ],
            atOnce
          )
        }
        for (const cart of carts) expect((yield* get(cart)).ordersTaken).toBe(6)
      })
    ),
  60_000
)

test("the same orders come to two processes, in another order, and neither waits for the other in a circle", () =>
  run(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const cart = yield* created("TWICE")
      const bought = yield* Effect.forEach(many(3), () =>
        Effect.map(set(cart, product(1), 2), () => order(cart, [{ productId: product(1), qty: 1 }]).event)
      )
      const inTurn = bought.toSorted((one, other) => (one.eventId < other.eventId ? -1 : 1))
      // Somebody else has taken one of them, and gives it back: until then both stand before it, with what they have by then.
      const other = yield* sql.reserve
      yield* other.execute("begin", [], undefined)
      yield* other.execute(
        "insert into cart.inbox (consumer_group, event_id, received_at) values ($1, $2, '-infinity')",
        [emptyOrdered.group, inTurn[1]?.eventId],
        undefined
      )
      const begun = yield* Clock.currentTimeMillis
      const consuming = yield* Effect.forkChild(
        Effect.all(
          [inTurn, inTurn.toReversed()].map((events, nth) => at(nth)(handedOver("cart", emptyOrdered, events))),
          atOnce
        )
      )
      yield* Effect.sleep("500 millis")
      yield* other.execute("rollback", [], undefined)
      yield* Fiber.join(consuming)
      expect((yield* get(cart)).ordersTaken).toBe(3)
      // Sooner than the statements would have been ended.
      expect((yield* Clock.currentTimeMillis) - begun).toBeLessThan(5_000)
    }).pipe(Effect.scoped)
  ))

test("carts that are made at the same moment share statements", () =>
  run(
    Effect.gen(function* () {
      const carts = yield* Effect.forEach(many(60), (nth) => created(`CROWD-${nth}`), atOnce)
      const told = yield* Effect.forEach(carts, story)
      expect(new Set(told.flat().map(({ writtenBy }) => writtenBy)).size).toBeLessThan(30)
    })
  ))

test("a cart that is forgotten while somebody remembers it goes on where it was", () =>
  run(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const cart = yield* created("ADA")
      yield* set(cart, product(1), 2)
      yield* remove(cart, product(1))
      yield* sql`delete from cart.carts where cart_id = ${cart.cartId}`
      expect(yield* set(cart, product(2), 5)).toMatchObject({ version: 4, items: [{ productId: "P-2", qty: 5 }] })
      expect((yield* story(cart)).length).toBe(4)
    })
  ))
