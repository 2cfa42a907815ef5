// Contexts share a server at most, never tables: each runs under a role that sees its own schema alone.
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { Context, Effect, Exit, Layer, Logger, Redacted, Schedule, Scope } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { Sku } from "@merkato/domain/catalogue/Product"
import { AssessmentId, IdempotencyKey, UserId } from "@merkato/domain/kernel/Ids"
import { anonymous, Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import { Tokens } from "@merkato/infra/auth/Tokens"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { CartRpc } from "@merkato/rpc/cart/CartRpc"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { IdentityRpc } from "@merkato/rpc/identity/IdentityRpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { NotificationsRpc } from "@merkato/rpc/notifications/NotificationsRpc"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { RiskRpc } from "@merkato/rpc/risk/RiskRpc"
import { contextNames } from "../src/contexts.ts"
import * as Deployment from "../src/deployment.ts"
import * as PaymentProviders from "../src/paymentProviders.ts"
import { as, clients } from "../../../tests/support/InProcess.ts"
import { temporaryFolder } from "../../../tests/support/Processes.ts"

const password = "only-for-tests"
const owners = [...contextNames, "bus"] as const
type Owner = (typeof owners)[number]

const scope = Scope.makeUnsafe()
const folder = temporaryFolder()
let superuser = Redacted.make("")
const roles = new Map<Owner, Redacted.Redacted>()
type Services = Layer.Success<typeof clients> | Tokens
let shop: Context.Context<Services> | undefined

const connected = (url: Redacted.Redacted) => Database.layer({ url, maxConnections: 1, applicationName: "test" })

const urlOf = (owner: Owner) => roles.get(owner) ?? Redacted.make("")

/** A role that may log in and work on the rows of its own schema, and nothing else. */
const makeRole = Effect.fnUntraced(function* (database: string, owner: Owner) {
  const sql = yield* SqlClient.SqlClient
  const role = `${database}_${owner}`
  yield* Effect.acquireRelease(sql.unsafe(`create role ${role} login password '${password}'`), () =>
    Effect.andThen(sql.unsafe(`drop owned by ${role}`), sql.unsafe(`drop role ${role}`)).pipe(Effect.orDie)
  )
  const [schema] = yield* sql`select from pg_namespace where nspname = ${owner}`
  if (schema !== undefined) {
    yield* sql.unsafe(`grant usage on schema ${owner} to ${role}`)
    yield* sql.unsafe(`grant select, insert, update, delete on all tables in schema ${owner} to ${role}`)
    yield* sql.unsafe(`grant usage on all sequences in schema ${owner} to ${role}`)
  }
  const url = new URL(Redacted.value(superuser))
  url.username = role
  url.password = password
  roles.set(owner, Redacted.make(url.href))
})

beforeAll(
  () =>
    Effect.gen(function* () {
      const database = yield* TestDatabase.fresh
      superuser = database.url
      yield* Deployment.migrate(contextNames, superuser)
      const admin = yield* Layer.build(connected(superuser))
      yield* Effect.forEach(owners, (owner) => Effect.provideContext(makeRole(database.name, owner), admin))
      shop = yield* Layer.build(
        clients.pipe(
          Layer.provideMerge(
            Deployment.running(contextNames, { contexts: urlOf, bus: urlOf("bus"), maxConnections: 4 }).pipe(
              Layer.provide(PaymentProviders.paymentGateway(superuser)),
              Layer.provide(Deployment.policies(folder.path)),
              Layer.provideMerge(Deployment.security(folder.path))
            )
          ),
          Layer.provide(Switchboard.layer)
        )
      )
    }).pipe(Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Scope.provide(scope), Effect.runPromise),
  60_000
)

afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  folder.remove()
})

const run = <A>(effect: Effect.Effect<A, unknown, Services>): Promise<A> => {
  if (shop === undefined) throw new Error("the shop has not started")
  return effect.pipe(Effect.provideContext(shop), Effect.withTracerEnabled(false), Effect.runPromise)
}

const admin = as("ADMIN", "admin")
const key = (text: string) => IdempotencyKey.make(text)
const tok = PaymentToken.make("tok_ok")

test("a whole purchase works with every context under a role of its own", () =>
  run(
    Effect.gen(function* () {
      const identity = yield* IdentityRpc
      const catalogue = yield* CatalogueRpc
      const inventory = yield* InventoryRpc
      const carts = yield* CartRpc
      const orders = yield* OrdersRpc
      const notifications = yield* NotificationsRpc

      // Identity: registers, signs in, renews, and is who they say they are.
      const email = "ada@example.com"
      const { userId } = yield* identity.Register({ email, password: "correct horse", name: "Ada", region: "us" })
      const session = yield* identity.SignIn({ email, password: "correct horse" })
      const renewed = yield* identity.Refresh({ refreshToken: session.refreshToken })
      const principal = yield* (yield* Tokens).verify(renewed.accessToken)
      expect(principal).toMatchObject({ userId, role: "shopper" })
      const ada = as(userId, "shopper")

      // Catalogue and inventory.
      const { productId } = yield* admin(
        catalogue.AddProduct({
          sku: Sku.make("MILK"),
          name: "Milk",
          description: "",
          category: "Dairy",
          priceMinor: 119,
          currency: "USD"
        })
      )
      yield* admin(catalogue.SetPrice({ productId, priceMinor: 129, currency: "USD", reason: "inflation" }))
      expect((yield* catalogue.PriceHistory({ productId, limit: 10 })).items).toHaveLength(2)
      expect((yield* catalogue.ListProducts({ limit: 10, q: "milk" })).items).toHaveLength(1)
      yield* admin(inventory.Adjust({ productId, delta: 20, reason: "delivery" }))

      // Cart: a guest's becomes a shopper's.
      const stranger = Effect.provideService(RequestContext, {
        principal: anonymous,
        correlationId: "",
        traceParent: ""
      })
      const { cart: guests, guestToken = "" } = yield* stranger(carts.CreateCart({}))
      const guest = as(guests.ownerId, "guest")
      yield* guest(carts.SetItem({ cartId: guests.cartId, productId, qty: 2 }))
      const { cart } = yield* ada(carts.CreateCart({}))
      yield* ada(carts.SetItem({ cartId: cart.cartId, productId, qty: 1 }))
      const merged = yield* ada(carts.MergeCart({ cartId: cart.cartId, guestToken }))
      expect(merged.items).toEqual([{ productId, qty: 3 }])

      // Orders, payments: one is paid and fulfilled, one declined and canceled.
      const { answer: order } = yield* ada(orders.Place({ idempotencyKey: key("one"), items: merged.items }))
      const { answer: other } = yield* ada(orders.Place({ idempotencyKey: key("two"), items: merged.items }))
      expect(yield* inventory.Levels({ productId })).toMatchObject({ onHand: 20, reserved: 6 })
      const { answer: paid } = yield* ada(
        orders.Pay({ idempotencyKey: key("pay"), orderId: order.orderId, paymentToken: tok, rail: "auto" })
      )
      expect(paid).toMatchObject({ status: "PAID", totalMinor: 387 })
      const again = yield* ada(
        orders.Pay({ idempotencyKey: key("pay"), orderId: order.orderId, paymentToken: tok, rail: "auto" })
      )
      expect(again.replayed).toBe(true)
      const declined = yield* ada(
        orders.Pay({
          idempotencyKey: key("no"),
          orderId: other.orderId,
          paymentToken: PaymentToken.make("tok_declined"),
          rail: "auto"
        })
      ).pipe(Effect.flip)
      expect(declined._tag).toBe("PaymentDeclined")
      expect((yield* ada(orders.Cancel({ orderId: other.orderId }))).status).toBe("CANCELED")
      expect((yield* admin(orders.Fulfil({ orderId: order.orderId }))).status).toBe("FULFILLED")
      expect(yield* ada(orders.History({ orderId: order.orderId }))).toHaveLength(4)
      expect(yield* inventory.Levels({ productId })).toMatchObject({ onHand: 17, reserved: 0, available: 17 })

      // Risk: looks back at its own, writes its own, flags.
      const risk = yield* RiskRpc
      const attempt = {
        assessmentId: AssessmentId.make("RISK-1"),
        orderId: order.orderId,
        userId,
        amountMinor: 10_000_01,
        currency: "USD" as const,
        region: "us" as const,
        units: 3,
        lines: 1,
        deviceId: "phone"
      }
      const assessment = yield* ada(risk.Assess(attempt))
      expect(assessment).toMatchObject({ decision: "review", score: 60, reasons: [{ rule: "amount.high" }] })
      expect(yield* admin(risk.Get({ assessmentId: attempt.assessmentId }))).toEqual(assessment)
      expect((yield* admin(risk.List({ limit: 10, decision: "review" }))).items).toEqual([assessment])

      // Events went from context to context.
      const feed = yield* ada(notifications.List({ limit: 10 })).pipe(
        Effect.repeat({ until: ({ items }) => items.length === 5, schedule: Schedule.spaced("20 millis"), times: 500 })
      )
      expect(feed.items.map(({ kind }) => kind).toSorted()).toEqual([
        "order.canceled",
        "order.created",
        "order.created",
        "order.fulfilled",
        "order.paid"
      ])
      yield* Effect.provideService(identity.SignOut({}), RequestContext, {
        principal: new Principal({ ...principal, userId: UserId.make(userId) }),
        correlationId: "",
        traceParent: ""
      })
      expect((yield* Effect.flip(identity.Refresh({ refreshToken: renewed.refreshToken })))._tag).toBe(
        "InvalidRefreshToken"
      )
    })
  ))

/** Tries a statement as a role; what the server says to it. */
const asRole = (owner: Owner, statement: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(statement)).pipe(
    Effect.as("allowed"),
    Effect.catchTag("SqlError", ({ reason }: SqlError.SqlError) => Effect.succeed(reason._tag)),
    Effect.provide(connected(urlOf(owner))),
    Effect.withTracerEnabled(false)
  )

/** Every table of the shop: schema and name. */
const tables = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  return yield* sql<{ schema: string; name: string }>`
    select schemaname as schema, tablename as name from pg_tables
    where schemaname not in ('pg_catalog', 'information_schema') order by 1, 2`
}).pipe(Effect.provide(Layer.suspend(() => connected(superuser))))

describe("the role of a context", () => {
  for (const owner of owners) {
    test(`reads its own tables and nobody else's: ${owner}`, () =>
      Effect.gen(function* () {
        const all = yield* tables
        expect(new Set(all.map(({ schema }) => schema)).size).toBeGreaterThan(8)
        const sql = yield* SqlClient.SqlClient
        for (const { schema, name } of all) {
          const answer = yield* sql.unsafe(`select 1 from ${schema}.${name} limit 1`).pipe(
            Effect.as("allowed"),
            Effect.catchTag("SqlError", ({ reason }) => Effect.succeed(reason._tag))
          )
          expect([schema, name, answer]).toEqual([schema, name, schema === owner ? "allowed" : "AuthorizationError"])
        }
      }).pipe(
        Effect.provide(Layer.suspend(() => connected(urlOf(owner)))),
        Effect.withTracerEnabled(false),
        Effect.runPromise
      ))
  }

  test("writes to nobody else's tables", () =>
    Effect.gen(function* () {
      for (const statement of [
        "update payments.payments set amount_minor = 0",
        "delete from inventory.reservations",
        "insert into bus.log (topic, partition, \"offset\", key, event_id, event_type, envelope, trace_parent, published_at) values ('a', 0, 0, '', '', '', '{}', '', '2025-01-01')",
        "truncate identity.users",
        "create table catalogue.mine (id integer)"
      ]) {
        expect([statement, yield* asRole("orders", statement)]).toEqual([statement, "AuthorizationError"])
      }
    }).pipe(Effect.runPromise))

  test("changes no tables, not even its own", () =>
    Effect.gen(function* () {
      for (const statement of [
        "drop table orders.orders",
        "alter table orders.orders add column x integer",
        "create table orders.mine (id integer)",
        "truncate orders.orders cascade"
      ]) {
        expect([statement, yield* asRole("orders", statement)]).toEqual([statement, "AuthorizationError"])
      }
    }).pipe(Effect.runPromise))
})
