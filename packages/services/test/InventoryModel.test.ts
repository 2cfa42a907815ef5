// Stock under any sequence of commands is what a model of a few lines says, and never negative.
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { Clock, Context, Effect, Exit, Layer, Logger, Result, Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as fc from "fast-check"
import {
  maxUnits,
  OutOfStock,
  ReservationClosed,
  StockLevels,
  StockWouldBeNegative,
  StockWouldOverflow
} from "@merkato/domain/inventory/Stock"
import { OrderId, ProductId, ReservationId } from "@merkato/domain/kernel/Ids"
import { Authorizer } from "@merkato/infra/authorizer/Authorizer"
import { EventStore, RelaySignal } from "@merkato/infra/events/EventStore"
import { Idempotency } from "@merkato/infra/idempotency/Idempotency"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { showing } from "../../../tests/support/Clocks.ts"
import { Inventory as InventoryContext } from "../src/inventory/index.ts"
import { Inventory } from "../src/inventory/Inventory.ts"

const productIds = ["P1", "P2", "P3"].map((id) => ProductId.make(id))
const reservationIds = ["R1", "R2", "R3"].map((id) => ReservationId.make(id))
const orderOf = (reservationId: ReservationId) => OrderId.make(`ORDER-${reservationId}`)

/** Every product exists. */
const catalogue = CatalogueRpc.client.pipe(
  Layer.provideMerge(
    Layer.effectDiscard(
      Effect.flatMap(Switchboard, (switchboard) =>
        switchboard.connect("catalogue", new Map([["PricesOf", () => Effect.succeed([{}])]]))
      )
    )
  ),
  Layer.provide(Switchboard.layer)
)

const scope = Scope.makeUnsafe()
let context: Context.Context<Inventory | SqlClient.SqlClient> | undefined

beforeAll(() =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.fresh
    const database = Database.layer({ url, maxConnections: 16, applicationName: "test" })
    yield* Effect.provide(InventoryContext.migrate, database)
    context = yield* Layer.build(
      Inventory.layer.pipe(
        Layer.provide(Layer.merge(EventStore.layer("inventory"), Idempotency.layer("inventory"))),
        Layer.provide(Layer.succeed(RelaySignal, { wake: Effect.void })),
        Layer.provide(Authorizer.layerRules),
        Layer.provide(catalogue),
        Layer.provideMerge(database)
      )
    )
  }).pipe(Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Scope.provide(scope), Effect.runPromise)
)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const run = <A, E>(effect: Effect.Effect<A, E, Inventory | SqlClient.SqlClient>): Promise<A> => {
  if (context === undefined) throw new Error("the inventory has not started")
  return effect.pipe(
    Effect.provideContext(context),
    Effect.provide(Logger.layer([])),
    Effect.withTracerEnabled(false),
    Effect.runPromise
  )
}

const empty = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`
    truncate inventory.inventory_stock, inventory.inventory_adjustment, inventory.reservations, inventory.events, inventory.outbox`
)

interface Line {
  readonly productId: ProductId
  readonly qty: number
}

type Command =
  | { readonly _tag: "Adjust"; readonly productId: ProductId; readonly delta: number }
  | {
      readonly _tag: "Reserve"
      readonly reservationId: ReservationId
      readonly items: ReadonlyArray<Line>
      readonly ttlMs: number
    }
  | { readonly _tag: "Extend"; readonly reservationId: ReservationId; readonly holdMs: number }
  | { readonly _tag: "Commit"; readonly reservationId: ReservationId }
  | { readonly _tag: "Release"; readonly reservationId: ReservationId }
  | { readonly _tag: "Expire" }
  | { readonly _tag: "Wait"; readonly ms: number }

const productId = fc.constantFrom(...productIds)
const reservationId = fc.constantFrom(...reservationIds)
/** Few different times, so that a reservation's end and a moment often are the same. */
const span = fc.constantFrom(0, 100, 100, 200)

const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      _tag: fc.constant("Adjust" as const),
      productId,
      delta: fc.oneof(
        { weight: 6, arbitrary: fc.integer({ min: 1, max: 12 }) },
        { weight: 4, arbitrary: fc.integer({ min: -12, max: -1 }) },
        { weight: 1, arbitrary: fc.constantFrom(maxUnits, maxUnits - 1, -maxUnits) }
      )
    })
  },
  {
    weight: 5,
    arbitrary: fc.record({
      _tag: fc.constant("Reserve" as const),
      reservationId,
      // The same product may come twice: a caller need not know better.
      items: fc.array(fc.record({ productId, qty: fc.integer({ min: 1, max: 6 }) }), { minLength: 1, maxLength: 4 }),
      ttlMs: span
    })
  },
  { weight: 2, arbitrary: fc.record({ _tag: fc.constant("Extend" as const), reservationId, holdMs: span }) },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constant("Commit" as const), reservationId }) },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constant("Release" as const), reservationId }) },
  { weight: 1, arbitrary: fc.constant({ _tag: "Expire" as const }) },
  { weight: 4, arbitrary: fc.record({ _tag: fc.constant("Wait" as const), ms: fc.constantFrom(99, 100, 200, -99) }) }
)

/** Half of the sequences begin with something on the shelf, so that reservations come about. */
const commands = fc
  .tuple(fc.boolean(), fc.array(command, { minLength: 1, maxLength: 40, size: "max" }))
  .map(
    ([delivered, commands]): ReadonlyArray<Command> => [
      ...(delivered ? productIds.map((productId) => ({ _tag: "Adjust", productId, delta: 40 }) as const) : []),
      ...commands
    ]
  )

interface Reservation {
  status: "held" | "committed" | "released" | "expired"
  readonly lines: ReadonlyMap<ProductId, number>
  expiresAt: number
}

/** What a command comes to: its answer, or its refusal. */
type Outcome = Result.Result<unknown, unknown>

/** The stock as one would explain it to a colleague. */
class Model {
  now = Date.UTC(2025, 5, 1, 12)
  readonly stock = new Map<ProductId, { onHand: number; reserved: number; version: number }>()
  readonly reservations = new Map<ReservationId, Reservation>()

  levels(productId: ProductId): StockLevels {
    const { onHand, reserved, version } = this.stock.get(productId) ?? { onHand: 0, reserved: 0, version: 0 }
    return new StockLevels({ productId, onHand, reserved, available: onHand - reserved, version })
  }

  apply(command: Command): Outcome {
    switch (command._tag) {
      case "Wait":
        this.now += command.ms
        return Result.succeed(undefined)
      case "Adjust":
        return this.adjust(command.productId, command.delta)
      case "Reserve":
        return this.reserve(command)
      case "Extend": {
        const held = this.live(command.reservationId)
        if (held === undefined) return this.closed(command.reservationId)
        held.expiresAt = Math.max(held.expiresAt, this.now + command.holdMs)
        return Result.succeed(undefined)
      }
      case "Commit": {
        const known = this.reservations.get(command.reservationId)
        if (known?.status === "held") this.end(known, known.expiresAt > this.now ? "committed" : "expired")
        return known?.status === "committed" ? Result.succeed(undefined) : this.closed(command.reservationId)
      }
      case "Release": {
        const known = this.reservations.get(command.reservationId)
        if (known?.status === "committed") return this.closed(command.reservationId)
        if (known?.status === "held") this.end(known, "released")
        if (known === undefined) {
          this.reservations.set(command.reservationId, { status: "released", lines: new Map(), expiresAt: this.now })
        }
        return Result.succeed(undefined)
      }
      case "Expire": {
        const due = [...this.reservations.values()].filter(
          ({ status, expiresAt }) => status === "held" && expiresAt <= this.now
        )
        for (const reservation of due) this.end(reservation, "expired")
        return Result.succeed(due.length)
      }
    }
  }

  private adjust(productId: ProductId, delta: number): Outcome {
    const { onHand, reserved, available, version } = this.levels(productId)
    if (onHand + delta > maxUnits) return Result.fail(new StockWouldOverflow({ productId }))
    if (onHand + delta < reserved) return Result.fail(new StockWouldBeNegative({ productId, available }))
    this.stock.set(productId, { onHand: onHand + delta, reserved, version: version + 1 })
    return Result.succeed(this.levels(productId))
  }

  private reserve({ reservationId, items, ttlMs }: Extract<Command, { _tag: "Reserve" }>): Outcome {
    const known = this.reservations.get(reservationId)
    if (known?.status === "held") return Result.succeed({ orderId: orderOf(reservationId) })
    if (known !== undefined) return this.closed(reservationId)
    const lines = new Map<ProductId, number>()
    for (const { productId, qty } of items) lines.set(productId, (lines.get(productId) ?? 0) + qty)
    const short = [...lines]
      .map(([productId, requested]) => ({ productId, requested, available: this.levels(productId).available }))
      .filter(({ requested, available }) => available < requested)
      .toSorted((a, b) => (a.productId < b.productId ? -1 : 1))
    if (short.length > 0) return Result.fail(new OutOfStock({ products: short }))
    this.reservations.set(reservationId, { status: "held", lines, expiresAt: this.now + ttlMs })
    for (const [productId, qty] of lines) this.change(productId, 0, qty)
    return Result.succeed({ orderId: orderOf(reservationId) })
  }

  /** A reservation that is held and whose time is not over. */
  private live(reservationId: ReservationId): Reservation | undefined {
    const known = this.reservations.get(reservationId)
    return known?.status === "held" && known.expiresAt > this.now ? known : undefined
  }

  private closed(reservationId: ReservationId): Outcome {
    const status = this.reservations.get(reservationId)?.status ?? "unknown"
    return Result.fail(new ReservationClosed({ reservationId, status: status === "held" ? "expired" : status }))
  }

  private end(reservation: Reservation, status: "committed" | "released" | "expired") {
    reservation.status = status
    for (const [productId, qty] of reservation.lines) this.change(productId, status === "committed" ? -qty : 0, -qty)
  }

  private change(productId: ProductId, onHand: number, reserved: number) {
    const before = this.levels(productId)
    this.stock.set(productId, {
      onHand: before.onHand + onHand,
      reserved: before.reserved + reserved,
      version: before.version + 1
    })
  }
}

/** The same on the real thing. */
const real = (inventory: Inventory["Service"], command: Command): Effect.Effect<Outcome> => {
  switch (command._tag) {
    case "Wait":
      return Effect.succeed(Result.succeed(undefined))
    case "Adjust":
      return Effect.result(Effect.map(inventory.adjust({ ...command, reason: "test" }), ({ answer }) => answer))
    case "Reserve":
      return Effect.result(inventory.reserve({ ...command, orderId: orderOf(command.reservationId) }))
    case "Extend":
      return Effect.result(inventory.extend(command))
    case "Commit":
      return Effect.result(inventory.commit(command.reservationId))
    case "Release":
      return Effect.result(inventory.release({ ...command, orderId: orderOf(command.reservationId) }))
    case "Expire":
      return Effect.result(inventory.expireDue)
  }
}

/** Results as they are compared: tag and value. */
const told = (outcome: Outcome) =>
  Result.isSuccess(outcome)
    ? { answer: outcome.success ?? null }
    : {
        refusal: outcome.failure instanceof Error ? { ...outcome.failure, tag: outcome.failure.name } : outcome.failure
      }

/** What the events of stock say, product by product: versions without a gap, and the last levels. */
const eventsTell = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ productId: string; versions: ReadonlyArray<number>; last: unknown }>`
    select aggregate_id as "productId", jsonb_agg(version order by version) as versions,
      (array_agg(payload order by version desc))[1] as last
    from inventory.events where event_type like 'ecommerce.inventory.stock.%' group by aggregate_id`
  const [unpublished] = yield* sql<{ count: number }>`select count(*) as count from inventory.outbox`
  const [all] = yield* sql<{ count: number }>`select count(*) as count from inventory.events`
  expect(unpublished).toEqual(all)
  return new Map(rows.map(({ productId, versions, last }) => [productId, { versions, last }]))
})

const follow = (commands: ReadonlyArray<Command>) =>
  Effect.gen(function* () {
    yield* empty
    const inventory = yield* Inventory
    const model = new Model()
    const live = yield* Clock.Clock
    const clock = showing(live, () => model.now)
    for (const [step, command] of commands.entries()) {
      const expected = told(model.apply(command))
      const got = told(yield* Effect.provideService(real(inventory, command), Clock.Clock, clock))
      expect([step, command, got]).toEqual([step, command, expected])
      const levels = yield* Effect.forEach(productIds, (productId) => inventory.levels(productId), { concurrency: 3 })
      expect([step, command, levels]).toEqual([step, command, productIds.map((productId) => model.levels(productId))])
      for (const { onHand, reserved, available } of levels) {
        expect(Math.min(onHand, reserved, available)).toBeGreaterThanOrEqual(0)
      }
    }
    const events = yield* eventsTell
    for (const productId of productIds) {
      const { onHand, reserved, available, version } = model.levels(productId)
      expect(events.get(productId)?.versions ?? []).toEqual(Array.from({ length: version }, (_, index) => index + 1))
      if (version > 0)
        expect(events.get(productId)?.last).toMatchObject({ productId, onHand, reserved, available, version })
    }
  })

describe("the stock", () => {
  test(
    "is what the model says after every command of any sequence, with the same answers and refusals",
    () =>
      fc.assert(
        fc.asyncProperty(commands, (commands) => run(follow(commands))),
        { numRuns: 60 }
      ),
    300_000
  )

  const [p1, p2] = [ProductId.make("P1"), ProductId.make("P2")]
  const [r1, r2] = [ReservationId.make("R1"), ReservationId.make("R2")]
  const ten: Command = { _tag: "Adjust", productId: p1, delta: 10 }
  const five: Command = {
    _tag: "Reserve",
    reservationId: r1,
    items: [{ productId: p1, qty: 5 }],
    ttlMs: 100
  }
  const sequences: Readonly<Record<string, ReadonlyArray<Command>>> = {
    "a release that comes before its reserve refuses the late reserve": [
      ten,
      { _tag: "Release", reservationId: r1 },
      five,
      { _tag: "Commit", reservationId: r1 }
    ],
    "a reserve, a commit and a release that come twice have one effect": [
      ten,
      five,
      five,
      { _tag: "Commit", reservationId: r1 },
      { _tag: "Commit", reservationId: r1 },
      five,
      { _tag: "Release", reservationId: r1 },
      { ...five, reservationId: r2 },
      { _tag: "Release", reservationId: r2 },
      { _tag: "Release", reservationId: r2 }
    ],
    "a reservation can be committed until the moment it ends, and expires from that moment on": [
      ten,
      five,
      { _tag: "Wait", ms: 99 },
      { _tag: "Expire" },
      { _tag: "Wait", ms: 1 },
      { _tag: "Commit", reservationId: r1 },
      { _tag: "Extend", reservationId: r1, holdMs: 500 },
      { _tag: "Expire" },
      { _tag: "Commit", reservationId: r1 },
      { _tag: "Release", reservationId: r1 }
    ],
    "a commit that comes too late stays refused, also when the next clock is behind": [
      ten,
      five,
      { _tag: "Wait", ms: 100 },
      { _tag: "Commit", reservationId: r1 },
      { _tag: "Wait", ms: -50 },
      { _tag: "Commit", reservationId: r1 },
      { _tag: "Expire" }
    ],
    "an extended reservation lives as long as it was extended, and is never shortened": [
      ten,
      five,
      { _tag: "Wait", ms: 50 },
      { _tag: "Extend", reservationId: r1, holdMs: 10 },
      { _tag: "Wait", ms: 49 },
      { _tag: "Expire" },
      { _tag: "Extend", reservationId: r1, holdMs: 300 },
      { _tag: "Wait", ms: 299 },
      { _tag: "Expire" },
      { _tag: "Commit", reservationId: r1 }
    ],
    "the same product on two lines is held, sold and given back as one": [
      ten,
      {
        _tag: "Reserve",
        reservationId: r1,
        items: [
          { productId: p1, qty: 6 },
          { productId: p1, qty: 5 }
        ],
        ttlMs: 100
      },
      {
        _tag: "Reserve",
        reservationId: r1,
        items: [
          { productId: p1, qty: 1 },
          { productId: p1, qty: 5 }
        ],
        ttlMs: 100
      },
      { _tag: "Commit", reservationId: r1 },
      {
        _tag: "Reserve",
        reservationId: r2,
        items: [
          { productId: p1, qty: 1 },
          { productId: p1, qty: 2 }
        ],
        ttlMs: 100
      },
      { _tag: "Release", reservationId: r2 }
    ],
    "what is reserved cannot be taken away, and what is not there cannot be reserved": [
      ten,
      five,
      { _tag: "Adjust", productId: p1, delta: -6 },
      { _tag: "Adjust", productId: p1, delta: -5 },
      { ...five, reservationId: r2 },
      {
        ...five,
        reservationId: r2,
        items: [
          { productId: p2, qty: 1 },
          { productId: p1, qty: 1 }
        ]
      },
      { _tag: "Adjust", productId: p2, delta: -1 }
    ]
  }
  for (const [name, commands] of Object.entries(sequences)) {
    test(name, () => run(follow(commands)))
  }

  test("is not sold twice and adds up when many want it at the same time", () =>
    run(
      Effect.gen(function* () {
        yield* empty
        const inventory = yield* Inventory
        const sql = yield* SqlClient.SqlClient
        yield* Effect.forEach(productIds, (productId) => inventory.adjust({ productId, delta: 60, reason: "test" }))
        const outcomes = yield* Effect.forEach(
          Array.from({ length: 150 }, (_, index) => index),
          Effect.fnUntraced(function* (index) {
            const reservationId = ReservationId.make(`C${index}`)
            const orderId = orderOf(reservationId)
            // Baskets name the products in different orders: locks are taken in one.
            const items = productIds.map((_, nth) => ({
              productId: productIds[(index + nth) % 3] ?? p1,
              qty: 1 + ((index + nth) % 2)
            }))
            const held = yield* Effect.result(inventory.reserve({ reservationId, orderId, items, ttlMs: 60_000 }))
            if (Result.isFailure(held)) return held.failure._tag
            switch (index % 3) {
              case 0:
                yield* inventory.commit(reservationId)
                return "committed"
              case 1:
                yield* inventory.release({ reservationId, orderId })
                return "released"
              default:
                return "held"
            }
          }),
          { concurrency: 12 }
        )
        expect(new Set(outcomes)).toEqual(new Set(["committed", "released", "held", "OutOfStock"]))
        const rows = yield* sql<{ status: string; productId: string; units: number }>`
          select status, product_id as "productId", sum(qty)::int as units
          from inventory.reservations, unnest(product_ids, quantities) as l (product_id, qty) group by 1, 2`
        const units = (status: string, productId: string) =>
          rows.find((row) => row.status === status && row.productId === productId)?.units ?? 0
        const events = yield* eventsTell
        for (const productId of productIds) {
          const levels = yield* inventory.levels(productId)
          expect(levels.onHand).toBe(60 - units("committed", productId))
          expect(levels.reserved).toBe(units("held", productId))
          expect(levels.available).toBeGreaterThanOrEqual(0)
          expect(events.get(productId)?.versions).toHaveLength(levels.version)
        }
      })
    ))

  test("those who ask at the same moment get what is there: nobody is refused for a neighbour who asks for too much", () =>
    run(
      Effect.gen(function* () {
        const inventory = yield* Inventory
        const sql = yield* SqlClient.SqlClient
        for (let round = 0; round < 10; round++) {
          yield* empty
          yield* Effect.forEach([p1, p2], (productId) => inventory.adjust({ productId, delta: 5, reason: "test" }))
          const wanted = [
            [p1, 10],
            [p1, 3],
            [p2, 4],
            [p1, 6],
            [p1, 2],
            [p2, 1]
          ] as const
          const outcomes = yield* Effect.forEach(
            wanted,
            ([productId, qty], index) => {
              const reservationId = ReservationId.make(`W${index}`)
              const items = [{ productId, qty }]
              return Effect.result(
                inventory.reserve({ reservationId, orderId: orderOf(reservationId), items, ttlMs: 60_000 })
              )
            },
            { concurrency: "unbounded" }
          )
          const refused = outcomes.map((outcome) => (Result.isFailure(outcome) ? outcome.failure._tag : undefined))
          expect(refused).toEqual(["OutOfStock", undefined, undefined, "OutOfStock", undefined, undefined])
          for (const outcome of outcomes) {
            if (Result.isSuccess(outcome) || outcome.failure._tag !== "OutOfStock") continue
            expect(outcome.failure.products).toHaveLength(1)
            for (const { requested, available } of outcome.failure.products) expect(available).toBeLessThan(requested)
          }
          // Each event tells the levels right after its own reservation.
          const events = yield* sql<{ productId: string; version: number; qty: number; reserved: number }>`
            select aggregate_id as "productId", version, (payload ->> 'qty')::int as qty,
              (payload ->> 'reserved')::int as reserved
            from inventory.events where payload ? 'reservationId' order by aggregate_id, version`
          for (const productId of [p1, p2]) {
            const own = events.filter((event) => event.productId === productId)
            let sum = 0
            expect(own.map(({ version, reserved }) => ({ version, reserved }))).toEqual(
              own.map(({ qty }, index) => ({ version: index + 2, reserved: (sum += qty) }))
            )
            expect(own).toHaveLength(2)
            expect(yield* inventory.levels(productId)).toMatchObject({
              onHand: 5,
              reserved: 5,
              available: 0,
              version: 3
            })
          }
        }
      })
    ))

  test("gives a reservation to one of two who reserve, commit and release it at the same time", () =>
    run(
      Effect.gen(function* () {
        const inventory = yield* Inventory
        for (let round = 0; round < 20; round++) {
          yield* empty
          yield* inventory.adjust({ productId: p1, delta: 10, reason: "test" })
          const reserve = inventory.reserve({
            reservationId: r1,
            orderId: orderOf(r1),
            items: [{ productId: p1, qty: 4 }],
            ttlMs: 60_000
          })
          const release = inventory.release({ reservationId: r1, orderId: orderOf(r1) })
          const commit = inventory.commit(r1)
          yield* Effect.all([reserve, release, reserve, commit, release].map(Effect.result), { concurrency: 5 })
          const { onHand, reserved } = yield* inventory.levels(p1)
          expect(reserved).toBe(0)
          expect([6, 10]).toContain(onHand)
        }
      })
    ))
})
