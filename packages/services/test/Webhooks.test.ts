// Webhooks on a real database and with a real receiver, by a clock that the tests set: hours of retries in moments.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test"
import { Clock, Context, Effect, Exit, Fiber, Layer, Schedule, Scope } from "effect"
import { SqlClient } from "effect/sql"
import { createHmac } from "node:crypto"
import { type Envelope } from "@merkato/domain/kernel/Event"
import { DeliveryId, EventId, type SubscriptionId, uuidV7 } from "@merkato/domain/kernel/Ids"
import { InvalidValue } from "@merkato/domain/kernel/Problem"
import { SubscriptionNotFound, TooManySubscriptions } from "@merkato/domain/partners/Webhook"
import { Encryption } from "@merkato/infra/auth/Encryption"
import { Secrets } from "@merkato/infra/auth/Secrets"
import { Authorizer } from "@merkato/infra/authorizer/Authorizer"
import * as Retention from "@merkato/infra/context/Retention"
import { EventStore, RelaySignal } from "@merkato/infra/events/EventStore"
import { PublicHttp, Resolver } from "@merkato/infra/http/PublicHttp"
import { Policies } from "@merkato/infra/policy/Policies"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { delays, Partners } from "../src/partners/index.ts"
import * as PartnersStore from "../src/partners/PartnersStore.ts"
import { WebhookDispatch } from "../src/partners/WebhookDispatch.ts"
import { Webhooks } from "../src/partners/Webhooks.ts"
import { showing } from "../../../tests/support/Clocks.ts"
import { temporaryFolder } from "../../../tests/support/Processes.ts"
import { as, quietly } from "./Requests.ts"

type Services = Webhooks | WebhookDispatch | SqlClient.SqlClient
type Process = Context.Context<Services>

/** Where the clock stands; whoever sleeps does so by the real one. */
let millis = 0
const real = Context.get(Context.empty(), Clock.Clock)
const clock: Context.Context<never> = Context.make(
  Clock.Clock,
  showing(real, () => millis)
)

interface Received {
  readonly at: number
  readonly headers: Headers
  readonly body: string
  readonly eventId: string
  readonly aggregate: string
  readonly status: number
}

/** What each path of the receiver answers: 204 unless told. `hold` lets it wait before it does. */
const answers = new Map<string, () => number>()
const held = new Map<string, Promise<void>>()
/** What each path says about when to come again. */
const retryAfters = new Map<string, () => string>()
const received = new Map<string, Array<Received>>()
const receiver = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch: async (request) => {
    const { pathname } = new URL(request.url)
    const body = await request.text()
    const status = answers.get(pathname)?.() ?? 204
    const { eventId, partitionKey } = JSON.parse(body)
    const all = received.get(pathname) ?? []
    received.set(pathname, all)
    all.push({ at: millis, headers: request.headers, body, eventId, aggregate: partitionKey, status })
    await held.get(pathname)
    const retryAfter = retryAfters.get(pathname)?.()
    return new Response(null, {
      status,
      ...(retryAfter === undefined ? {} : { headers: { "retry-after": retryAfter } })
    })
  }
})

const scope = Scope.makeUnsafe()
const folder = temporaryFolder()
let processes: ReadonlyArray<Process> = []
/** One that may reach public addresses alone. */
let careful: Process | undefined

beforeAll(
  () =>
    Effect.gen(function* () {
      const { url } = yield* TestDatabase.freshWithLastingDeadlocks
      const database = Database.layer({ url, maxConnections: 20, applicationName: "test", statementTimeoutMs: 5_000 })
      yield* Effect.provide(Partners.migrate, database)
      const events = EventStore.layer("partners").pipe(Layer.provide(Layer.succeed(RelaySignal, { wake: Effect.void })))
      const partners = (anywhere: boolean) =>
        Layer.merge(Webhooks.layer, WebhookDispatch.layer).pipe(
          Layer.provide([
            delays,
            events,
            Authorizer.layerRules,
            PublicHttp.layerWith(anywhere).pipe(Layer.provide(Resolver.layer)),
            Encryption.layer(folder.path).pipe(Layer.provideMerge(Secrets.layer)),
            // The schedule is the code's; an answer may take its time, since the machine may be busy.
            Policies.layerWith({ "webhook.dispatch": { attemptTimeoutMs: 60_000 } })
          ]),
          Layer.provideMerge(database)
        )
      const start = (anywhere: boolean) =>
        Effect.provideContext(
          Layer.build(Layer.fresh(partners(anywhere))),
          Context.merge(clock, Context.make(Scope.Scope, scope))
        )
      processes = [yield* start(true), yield* start(true)]
      careful = yield* start(false)
    }).pipe(quietly, Scope.provide(scope), Effect.runPromise),
  60_000
)
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  await receiver.stop(true)
  folder.remove()
})

const on = <A, E>(process: Process | undefined, effect: Effect.Effect<A, E, Services>): Effect.Effect<A, E> =>
  process === undefined
    ? Effect.die("partners has not started")
    : Effect.provideContext(effect, Context.merge(process, clock))
const run = <A, E>(effect: Effect.Effect<A, E, Services>): Promise<A> =>
  Effect.runPromise(quietly(on(processes[0], effect)))

/** Every test is a day later than the one before. */
let noon = Date.UTC(2026, 0, 1, 12)
let paths = 0
let path = ""
beforeEach(() => {
  noon += 24 * 60 * 60_000
  millis = noon
  path = `/${++paths}`
  answers.clear()
  held.clear()
  retryAfters.clear()
  // Nobody of the test before hears of what happens in this one.
  return run(
    Effect.flatMap(SqlClient.SqlClient, (sql) =>
      Effect.andThen(sql`delete from partners.webhook_subscriptions`, sql`delete from partners.webhook_delays`)
    )
  )
})
const sinceNoon = (at: number) => (at - noon) / 1_000
const got = () => received.get(path) ?? []
const told = () => got().filter(({ status }) => status < 300)

const paid = "ecommerce.order.order.paid.v1"
const updated = "ecommerce.product.product.updated.v1"

let events = 0
const event = (aggregate: string, userId = "ADA", eventType = paid): Envelope => ({
  eventId: EventId.make(uuidV7(millis, () => ++events / 10_000)),
  eventType,
  occurredAt: new Date(millis).toISOString(),
  producer: "order-service",
  traceId: "1",
  correlationId: "c",
  schemaVersion: "1.0",
  partitionKey: aggregate,
  region: "us",
  aggregateVersion: 1,
  payload: { orderId: aggregate, userId }
})

const webhooks = <A, E>(use: (webhooks: Webhooks["Service"]) => Effect.Effect<A, E, Services>) =>
  Effect.flatMap(Webhooks, use)

const subscribed = (who = "ADA", role: "shopper" | "admin" = "shopper", eventTypes = [paid]) =>
  webhooks((hooks) => hooks.subscribe({ url: `http://127.0.0.1:${receiver.port}${path}`, eventTypes })).pipe(
    as(who, role)
  )
const owe = (...owed: ReadonlyArray<Envelope>) => webhooks((hooks) => hooks.owe(owed))

const take = Effect.flatMap(WebhookDispatch, (dispatch) => dispatch.take(64, "all", []))
const send = (taken: Effect.Success<typeof take>) =>
  Effect.flatMap(WebhookDispatch, (dispatch) =>
    Effect.forEach(taken, dispatch.send, { concurrency: "unbounded", discard: true })
  )

/** Sends what is due until nothing is. */
const sendDue: Effect.Effect<void, unknown, Services> = Effect.gen(function* () {
  const taken = yield* take
  if (taken.length === 0) return
  yield* send(taken)
  yield* sendDue
})

/** Lets time pass until so many seconds after noon, and sends each time that something is due. */
const passUntil = (seconds: number): Effect.Effect<void, unknown, Services> =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* sendDue
    const [next] = yield* sql<{ due: Date }>`select due_at as due from partners.webhook_delays order by due_at limit 1`
    const until = noon + seconds * 1_000
    if (next === undefined || next.due.getTime() > until) {
      millis = Math.max(millis, until)
      return
    }
    millis = Math.max(millis, next.due.getTime())
    yield* passUntil(seconds)
  })

const statuses = (subscriptionId: SubscriptionId) =>
  webhooks((hooks) => hooks.listDeliveries({ subscriptionId, limit: 100 })).pipe(
    as("ADA"),
    Effect.map(({ items }) => items.map(({ status }) => status).toReversed())
  )
const failures = (subscriptionId: SubscriptionId) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql<{ payload: { attempts: number; reason: string; eventId: string } }>`
      select payload from partners.events where aggregate_id = ${subscriptionId} order by version`
  ).pipe(Effect.map((rows) => rows.map(({ payload }) => payload)))

test("a receiver that is down for 40 minutes gets everything afterwards, in order per aggregate and as it was signed", () =>
  run(
    Effect.gen(function* () {
      const { secret } = yield* subscribed()
      const back = noon + 40 * 60_000
      answers.set(path, () => (millis < back ? 503 : 204))
      const all: Array<Envelope> = []
      for (let minute = 0; minute < 40; minute += 2) {
        yield* passUntil(minute * 60)
        for (const order of ["A", "B", "C"]) all.push(event(`${path}${order}`.replace("/", "O-")))
        yield* owe(...all.slice(-3))
      }
      expect(told()).toEqual([])
      yield* passUntil(3 * 60 * 60)
      expect(told()).toHaveLength(all.length)
      for (const order of new Set(all.map(({ partitionKey }) => partitionKey))) {
        const of = (each: { eventId: string }) => each.eventId
        expect(
          told()
            .filter(({ aggregate }) => aggregate === order)
            .map(of)
        ).toEqual(all.filter(({ partitionKey }) => partitionKey === order).map(of))
      }
      for (const { headers, body, at, eventId } of got()) {
        const [id, timestamp] = [headers.get("webhook-id"), headers.get("webhook-timestamp")]
        expect([id, timestamp]).toEqual([eventId, String(at / 1_000)])
        const key = Buffer.from(secret.slice("whsec_".length), "base64")
        const signature = createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64")
        expect(headers.get("webhook-signature")).toBe(`v1,${signature}`)
      }
    })
  ))

test("an event is tried at once and after 30 s, 2, 5, 15 and 30 minutes; then it is given up, and the next is told", () =>
  run(
    Effect.gen(function* () {
      const { subscription } = yield* subscribed()
      const [first, second, other] = [event("O-1"), event("O-1"), event("O-2")]
      answers.set(path, () => (got().length > 0 && millis > noon + 3_150_000 ? 204 : 500))
      yield* owe(first, second)
      yield* passUntil(3_149)
      answers.set(path, () => (got().some(({ at }) => sinceNoon(at) === 3_150) ? 204 : 500))
      expect(got().map(({ at, eventId }) => [sinceNoon(at), eventId])).toEqual(
        [0, 30, 150, 450, 1_350].map((seconds) => [seconds, first.eventId])
      )
      // What waits holds back its own aggregate alone.
      yield* owe(other)
      answers.set(path, () => (got().at(-1)?.eventId === other.eventId ? 500 : 204))
      yield* sendDue
      expect(told().map(({ eventId }) => eventId)).toEqual([other.eventId])
      yield* passUntil(4_000)
      expect(got().at(-2)).toMatchObject({ eventId: first.eventId, status: 500 })
      expect(sinceNoon(got().at(-2)?.at ?? 0)).toBe(3_150)
      expect(told().map(({ eventId }) => eventId)).toEqual([other.eventId, second.eventId])
      expect(yield* failures(subscription.subscriptionId)).toMatchObject([
        { eventId: first.eventId, attempts: 6, reason: "answered 500" }
      ])
    })
  ))

/** The clock that receivers go by: seconds alone. */
const httpDate = (seconds: number) => new Date(noon + seconds * 1_000).toUTCString()

const asked: ReadonlyArray<
  readonly [what: string, status: number, retryAfter: () => string, times: ReadonlyArray<number>]
> = [
  ["later than the schedule: then", 429, () => "200", [0, 200, 400, 700, 1_600, 3_400]],
  ["later, by a date: then", 503, () => httpDate(500), [0, 500, 620, 920, 1_820, 3_620]],
  ["sooner than the schedule: not before that", 503, () => "1", [0, 30, 150, 450, 1_350, 3_150]],
  ["a date that is past: by the schedule", 429, () => httpDate(-60), [0, 30, 150, 450, 1_350, 3_150]],
  ["in a week: the longest wait at most", 429, () => "604800", [0, 1_800, 3_600, 5_400, 7_200, 9_000]],
  ["nonsense: by the schedule", 429, () => "soon", [0, 30, 150, 450, 1_350, 3_150]],
  ["later, by an answer that is just wrong: by the schedule", 500, () => "200", [0, 30, 150, 450, 1_350, 3_150]]
]
test.each(asked)("a receiver that asks for its next try %s", (_what, status, retryAfter, times) =>
  run(
    Effect.gen(function* () {
      yield* subscribed()
      answers.set(path, () => status)
      retryAfters.set(path, retryAfter)
      yield* owe(event("O-1"))
      yield* passUntil(10_000)
      expect(got().map(({ at }) => sinceNoon(at))).toEqual([...times])
    })
  )
)

test("an event that comes again is told once; after it was given up it is owed again", () =>
  run(
    Effect.gen(function* () {
      const { subscription } = yield* subscribed()
      const twice = event("O-1")
      yield* owe(twice, twice)
      yield* owe(twice)
      yield* sendDue
      yield* owe(twice)
      yield* sendDue
      expect(told()).toHaveLength(1)
      const lost = event("O-1")
      answers.set(path, () => 500)
      yield* owe(lost)
      yield* passUntil(4_000)
      answers.delete(path)
      yield* owe(lost)
      yield* sendDue
      expect(yield* statuses(subscription.subscriptionId)).toEqual(["DELIVERED", "DELIVERED"])
    })
  ))

describe("a sender", () => {
  test("that was killed before it asked is replaced after its lease", () =>
    run(
      Effect.gen(function* () {
        const { subscription } = yield* subscribed()
        yield* owe(event("O-1"))
        expect(yield* take).toHaveLength(1)
        // Nobody sends: it was killed.
        millis += 79_000
        expect(yield* on(processes[1], take)).toEqual([])
        millis += 2_000
        yield* on(processes[1], sendDue)
        expect(yield* statuses(subscription.subscriptionId)).toEqual(["DELIVERED"])
        expect(got()).toHaveLength(1)
      })
    ))

  test("that was killed while it waited for the answer is replaced, and the receiver knows the repeat by its id", () =>
    run(
      Effect.gen(function* () {
        const { subscription } = yield* subscribed()
        const { promise, resolve } = Promise.withResolvers<void>()
        held.set(path, promise)
        yield* owe(event("O-1"))
        const sending = yield* Effect.forkChild(sendDue)
        while (got().length === 0) yield* Effect.sleep("5 millis")
        yield* Fiber.interrupt(sending)
        resolve()
        expect(yield* statuses(subscription.subscriptionId)).toEqual(["PENDING"])
        millis += 81_000
        yield* on(processes[1], sendDue)
        expect(yield* statuses(subscription.subscriptionId)).toEqual(["DELIVERED"])
        expect(got().map(({ headers }) => headers.get("webhook-id"))).toEqual(got().map(() => got()[0]?.eventId ?? ""))
        expect(got()).toHaveLength(2)
      })
    ))

  test("that was taken for dead changes nothing any more", () =>
    run(
      Effect.gen(function* () {
        const { subscription } = yield* subscribed()
        yield* owe(event("O-1"))
        const late = yield* take
        millis += 81_000
        answers.set(path, () => (got().length === 0 ? 204 : 500))
        yield* on(processes[1], sendDue)
        const second = event("O-1")
        answers.set(path, () => 500)
        yield* owe(second)
        yield* send(late)
        expect(yield* statuses(subscription.subscriptionId)).toEqual(["DELIVERED", "PENDING"])
        const [kept] = yield* webhooks((hooks) =>
          hooks.listDeliveries({ subscriptionId: subscription.subscriptionId, limit: 1 })
        ).pipe(
          as("ADA"),
          Effect.map(({ items }) => items)
        )
        expect(kept?.attempts).toBe(0)
      })
    ))
})

test("what comes while the one before is being told is told next", () =>
  run(
    Effect.gen(function* () {
      yield* subscribed()
      const { promise, resolve } = Promise.withResolvers<void>()
      held.set(path, promise)
      const [first, second] = [event("O-1"), event("O-1")]
      yield* owe(first)
      const sending = yield* Effect.forkChild(sendDue)
      while (got().length === 0) yield* Effect.sleep("5 millis")
      yield* owe(second)
      // Not while the first is under way.
      expect(yield* on(processes[1], take)).toEqual([])
      resolve()
      yield* Fiber.join(sending)
      expect(told().map(({ eventId }) => eventId)).toEqual([first.eventId, second.eventId])
    })
  ))

test("who is told of whose orders: shoppers of their own, administrators of all, everybody of products", () =>
  run(
    Effect.gen(function* () {
      yield* subscribed("ADA", "shopper", [paid, updated])
      const [hers, his, product] = [event("O-1"), event("O-2", "BOB"), event("P-1", "", updated)]
      // An order whose owner is not known is nobody's.
      const nobodys = { ...event("O-3"), payload: {} }
      yield* owe(hers, his, nobodys)
      yield* owe(product)
      yield* sendDue
      const ids = () =>
        told()
          .map(({ eventId }) => eventId)
          .toSorted()
      expect(ids()).toEqual([hers.eventId, product.eventId].toSorted())
      path = `/${++paths}`
      yield* subscribed("ROOT", "admin", [paid])
      const later = [event("O-4"), event("O-5", "BOB")]
      yield* owe(...later)
      yield* sendDue
      expect(ids()).toEqual(later.map(({ eventId }) => eventId).toSorted())
    })
  ))

test("a new secret takes over, and the one before signs for a day", () =>
  run(
    Effect.gen(function* () {
      const { subscription, secret } = yield* subscribed()
      const { subscriptionId } = subscription
      const rotated = yield* webhooks((hooks) => hooks.rotateSecret(subscriptionId)).pipe(as("ADA"))
      const hex = (key: string, body: string) => createHmac("sha256", key).update(body).digest("hex")
      for (const [seconds, signatures, previous] of [
        [24 * 3_600 - 1, 2, true],
        [24 * 3_600, 1, false]
      ] as const) {
        millis = noon + seconds * 1_000
        yield* owe(event("O-1"))
        yield* sendDue
        const last = got().at(-1)
        const body = last?.body ?? ""
        expect(last?.headers.get("webhook-signature")?.split(" ")).toHaveLength(signatures)
        expect(last?.headers.get("x-bv-signature")).toBe(hex(rotated.secret, body))
        expect(last?.headers.get("x-bv-signature-previous")).toBe(previous ? hex(secret, body) : null)
      }
    })
  ))

test("ten deliveries given up in a row disable a subscription; enabled again, it is told what a replay asks for", () =>
  run(
    Effect.gen(function* () {
      const { subscription } = yield* subscribed()
      const { subscriptionId } = subscription
      const status = webhooks((hooks) => hooks.get(subscriptionId)).pipe(
        as("ADA"),
        Effect.map((found) => found.status)
      )
      const many = (count: number) => Array.from({ length: count }, (_, nth) => event(`O-${nth}`))
      answers.set(path, () => 500)
      yield* owe(...many(9))
      yield* passUntil(4_000)
      // One that arrives begins the count anew.
      answers.delete(path)
      yield* owe(event("O-1"))
      yield* sendDue
      answers.set(path, () => 500)
      yield* owe(...many(9))
      yield* passUntil(8_000)
      expect(yield* status).toBe("ACTIVE")
      const [tenth, waiting] = [event("O-1"), event("O-1")]
      yield* owe(tenth, waiting)
      yield* passUntil(12_000)
      expect(yield* status).toBe("DISABLED")
      const asked = got().length
      const meanwhile = event("O-1")
      yield* owe(meanwhile)
      yield* passUntil(16_000)
      expect(got()).toHaveLength(asked)
      expect((yield* statuses(subscriptionId)).slice(-3)).toEqual(["FAILED", "SKIPPED", "SKIPPED"])

      answers.delete(path)
      yield* webhooks((hooks) => hooks.enable(subscriptionId)).pipe(as("ADA"))
      const [before] = (yield* Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql<{ id: string }>`
          select delivery_id as id from partners.webhook_deliveries
          where subscription_id = ${subscriptionId} and event_id = ${tenth.eventId}`
      )).map(({ id }) => DeliveryId.make(id))
      if (before === undefined) throw new Error("nothing was kept")
      const replayed = yield* webhooks((hooks) => hooks.replay({ subscriptionId, after: before, limit: 100 })).pipe(
        as("ADA")
      )
      expect(replayed).toEqual({ queued: 2, nextAfter: null })
      yield* sendDue
      expect(
        got()
          .slice(asked)
          .map(({ eventId }) => eventId)
      ).toEqual([waiting.eventId, meanwhile.eventId])
    })
  ))

test("a subscription that is deleted is told nothing more, whatever it was owed", () =>
  run(
    Effect.gen(function* () {
      const { subscription } = yield* subscribed()
      yield* owe(event("O-1"), event("O-2"))
      const taken = yield* take
      yield* webhooks((hooks) => hooks.unsubscribe(subscription.subscriptionId)).pipe(as("ADA"))
      yield* send(taken)
      yield* sendDue
      yield* owe(event("O-3"))
      yield* sendDue
      expect(got()).toEqual([])
      const missing = yield* webhooks((hooks) => hooks.get(subscription.subscriptionId)).pipe(as("ADA"), Effect.flip)
      expect(missing).toEqual(new SubscriptionNotFound({ subscriptionId: subscription.subscriptionId }))
      const left = yield* Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql`select from partners.webhook_delays where group_id = ${subscription.subscriptionId}`
      )
      expect(left).toEqual([])
    })
  ))

test("nobody has more than 20, and none of them is at a private address", () =>
  run(
    Effect.gen(function* () {
      const made = yield* Effect.forEach(Array.from({ length: 24 }), () => Effect.result(subscribed("MANY")), {
        concurrency: "unbounded"
      })
      const refused = made.flatMap((each) => (each._tag === "Failure" ? [each.failure] : []))
      expect(refused).toEqual(Array.from({ length: 4 }, () => new TooManySubscriptions({ most: 20 })))
      const objection = yield* Effect.flip(
        on(
          careful,
          webhooks((hooks) => hooks.subscribe({ url: "https://169.254.169.254/", eventTypes: [paid] })).pipe(as("ADA"))
        )
      )
      expect(objection).toEqual(new InvalidValue({ path: "url", reason: "the address is not a public one" }))
    })
  ))

test("deliveries and their tries are forgotten after 30 days, unless they are still owed", () =>
  run(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { subscription } = yield* subscribed()
      yield* owe(event("O-1"))
      yield* sendDue
      yield* owe(event("O-2"))
      const count = Effect.map(
        sql<{ kept: number; tries: number }>`
          select count(*) as kept,
            (select count(*) from partners.webhook_delivery_attempts a where a.delivery_id = any(array_agg(d.delivery_id))) as tries
          from partners.webhook_deliveries d where subscription_id = ${subscription.subscriptionId}`,
        ([row]) => [row?.kept, row?.tries]
      )
      millis = noon + 29 * 24 * 3_600_000
      yield* Retention.turn("partners", Partners.passing)
      expect(yield* count).toEqual([2, 1])
      millis = noon + 31 * 24 * 3_600_000
      yield* Retention.turn("partners", Partners.passing)
      expect(yield* count).toEqual([1, 0])
      noon = millis
      yield* sendDue
      expect(told()).toHaveLength(2)
    })
  ))

describe("commands and senders that meet at the same deliveries wait for each other, and never in a circle:", () => {
  /** Two processes at once send what is due, while somebody does something else. */
  const sendWhile = <A, E>(other: Effect.Effect<A, E, Services>) =>
    Effect.gen(function* () {
      const mine = yield* take
      const theirs = yield* on(processes[1], take)
      const sending = yield* Effect.forkChild(
        Effect.all([send(mine), on(processes[1], send(theirs))], { concurrency: "unbounded" })
      )
      const done = yield* other
      yield* Fiber.join(sending)
      return done
    })
  const orders = (count: number) => Array.from({ length: count }, (_, nth) => event(`O-${nth}`))

  test("a receiver that is told of much wants to hear nothing more", () =>
    run(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        for (let round = 0; round < 6; round++) {
          const { subscriptionId } = (yield* subscribed()).subscription
          // Something was given up before, which whoever tells it something now ends.
          yield* sql`update partners.webhook_subscriptions set given_up = 1 where subscription_id = ${subscriptionId}`
          let asked = 0
          answers.set(path, () => (++asked % 2 === round % 2 ? 410 : 204))
          let release = () => {}
          held.set(path, new Promise((resolve) => (release = resolve)))
          yield* owe(...orders(24))
          yield* sendWhile(Effect.sync(() => release()).pipe(Effect.delay("100 millis")))
          yield* sendDue
          const ended = yield* statuses(subscriptionId)
          expect(ended).toHaveLength(24)
          expect(ended).toContain("FAILED")
          expect(ended).not.toContain("PENDING")
        }
      })
    ))

  test("what is being sent is asked for once more", () =>
    run(
      Effect.gen(function* () {
        const { subscription } = yield* subscribed()
        const { subscriptionId } = subscription
        const known = orders(16)
        yield* owe(...known)
        yield* sendDue
        const { items } = yield* webhooks((hooks) => hooks.listDeliveries({ subscriptionId, limit: 100 })).pipe(
          as("ADA")
        )
        for (let round = 0; round < 8; round++) {
          yield* webhooks((hooks) => hooks.replay({ subscriptionId, limit: 100 })).pipe(as("ADA"))
          yield* sendWhile(
            Effect.all(
              [
                webhooks((hooks) => hooks.replay({ subscriptionId, limit: 100 })).pipe(as("ADA")),
                // They come again, and news with them.
                owe(...known, ...orders(16)),
                ...items.map(({ deliveryId }) => webhooks((hooks) => hooks.redeliver(deliveryId)).pipe(as("ADA")))
              ],
              { concurrency: "unbounded" }
            )
          )
        }
        yield* sendDue
        expect(new Set(yield* statuses(subscriptionId))).toEqual(new Set(["DELIVERED"]))
      })
    ))

  test("what is being sent is wanted no more", () =>
    run(
      Effect.gen(function* () {
        for (let round = 0; round < 8; round++) {
          const { subscriptionId } = (yield* subscribed()).subscription
          yield* owe(...orders(16))
          yield* sendWhile(webhooks((hooks) => hooks.unsubscribe(subscriptionId)).pipe(as("ADA")))
        }
        expect(yield* take).toEqual([])
      })
    ))

  test("what is owed is ended, and is asked for once more", () =>
    run(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const store = yield* PartnersStore.make
        const { subscriptionId } = (yield* subscribed()).subscription
        yield* owe(...orders(5).toReversed())
        const owed = yield* store.after(subscriptionId, 0, 5)
        // Neither by their place in the table nor by an index do they come in the order of their positions.
        for (const { deliveryId } of owed.slice(0, 2)) {
          yield* sql`update partners.webhook_deliveries set attempts = 0 where delivery_id = ${deliveryId}`
        }
        const other = yield* sql.reserve
        const waiting = (statements: number) =>
          Effect.repeat(
            sql`select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`,
            { until: (rows) => rows.length >= statements, schedule: Schedule.spaced("5 millis"), times: 2_000 }
          )
        for (const [first, second] of [
          [store.skipOwed(subscriptionId), store.oweAgain(owed)],
          [store.oweAgain(owed), store.skipOwed(subscriptionId)]
        ] as const) {
          yield* other.execute("begin", [], undefined)
          yield* other.execute(
            "select from partners.webhook_deliveries where delivery_id = $1 for update",
            [owed.at(-1)?.deliveryId],
            undefined
          )
          const one = yield* Effect.forkScoped(first)
          yield* waiting(1)
          const two = yield* Effect.forkScoped(second)
          yield* waiting(2)
          yield* other.execute("rollback", [], undefined)
          yield* Fiber.join(one)
          yield* Fiber.join(two)
          yield* store.oweAgain(owed)
        }
      }).pipe(Effect.scoped)
    ))
})
