// Risk on a real database: what its SQL sees, and what holds when calls, processes and rules meet.
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { ConfigProvider, Context, Effect, Exit, Layer, Logger, Metric, Redacted, Schedule, Scope } from "effect"
import { SqlClient } from "effect/sql"
import { AssessmentId, OrderId, UserId } from "@merkato/domain/kernel/Ids"
import type { Region } from "@merkato/domain/kernel/Region"
import { Principal, RequestContext, type Role } from "@merkato/domain/kernel/RequestContext"
import { OrderFlagged } from "@merkato/domain/risk/RiskEvents"
import { Authorizer } from "@merkato/infra/authorizer/Authorizer"
import { EventStore, RelaySignal } from "@merkato/infra/events/EventStore"
import * as PostgresEventBus from "@merkato/infra/events/PostgresEventBus"
import { Policies } from "@merkato/infra/policy/Policies"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { RiskRpc } from "@merkato/rpc/risk/RiskRpc"
import * as Deployment from "../src/deployment.ts"
import { Risk as RiskContext } from "../src/risk/index.ts"
import { Risk } from "../src/risk/Risk.ts"

const scope = Scope.makeUnsafe()
let url = Redacted.make("")

/** The environment of a process with these rules. */
const configured = (rules: unknown) =>
  ConfigProvider.layer(ConfigProvider.fromEnv({ env: { MERKATO_RISK_RULES: JSON.stringify(rules) } }))

const database = (maxConnections: number) => Database.layer({ url, maxConnections, applicationName: "test" })

/** The context as it is deployed, in a process of its own as far as the database can tell. */
const contextWith = (rules: unknown) =>
  RiskRpc.client.pipe(
    Layer.provide(RiskContext.layer),
    Layer.provide(Switchboard.layer),
    Layer.provide(Authorizer.layerRules),
    Layer.provide(PostgresEventBus.layer),
    Layer.provide(Policies.layerWith()),
    Layer.provideMerge(database(4)),
    Layer.provide(configured(rules))
  )

/** The use cases alone on one connection, so that nothing else is counted by the server's statistics. */
const useCasesWith = (rules: unknown) =>
  Risk.layer.pipe(
    Layer.provide(EventStore.layer("risk")),
    Layer.provide(Layer.succeed(RelaySignal, { wake: Effect.void })),
    Layer.provide(Authorizer.layerRules),
    Layer.provideMerge(database(1)),
    Layer.provide(configured(rules))
  )

/** Small limits, so that few rows reach them; every rule gives points that tell it from the others. */
const small = {
  keptDays: 30,
  velocity: {
    user: [
      {
        windowSeconds: 60,
        steps: [
          { over: 2, points: 1 },
          { over: 4, points: 2 }
        ]
      },
      { windowSeconds: 3_600, steps: [{ over: 6, points: 3 }] }
    ],
    device: [{ windowSeconds: 60, steps: [{ over: 3, points: 4 }] }]
  },
  amount: {
    high: { USD: [{ over: 500_00, points: 5 }] },
    unusual: { minimumOrders: 3, steps: [{ over: 2, points: 6 }] }
  },
  mismatch: {
    currency: { points: 7 },
    device: { points: 8 },
    regions: {
      windowSeconds: 600,
      steps: [
        { over: 0, points: 9 },
        { over: 1, points: 10 }
      ]
    }
  },
  device: { missing: { points: 11 }, new: { points: 12 }, shared: { steps: [{ over: 2, points: 13 }] } }
}
/** Whatever happens is let through, or is not. */
const easy = { review: 101, block: 101 }
const strict = { review: 1, block: 2, device: { missing: { points: 50 } } }

type Process = Context.Context<RiskRpc | SqlClient.SqlClient>
interface Processes {
  readonly easy: Process
  readonly strict: Process
  readonly small: Process
}
let running: Processes | undefined

beforeAll(
  () =>
    Effect.gen(function* () {
      url = (yield* TestDatabase.fresh).url
      yield* Deployment.migrate(["risk"], url)
      running = {
        easy: yield* Layer.build(Layer.fresh(contextWith(easy))),
        strict: yield* Layer.build(Layer.fresh(contextWith(strict))),
        small: yield* Layer.build(Layer.fresh(contextWith(small)))
      }
    }).pipe(Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Scope.provide(scope), Effect.runPromise),
  60_000
)

afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const processes = (): Processes => {
  if (running === undefined) throw new Error("risk has not started")
  return running
}

const quietly = <A, E>(effect: Effect.Effect<A, E>) =>
  effect.pipe(Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Effect.runPromise)

const run = <A>(effect: Effect.Effect<A, unknown, RiskRpc | SqlClient.SqlClient>, process = processes().small) =>
  quietly(Effect.provideContext(effect, process))

const as =
  (role: Role) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.provideService(effect, RequestContext, {
      principal: new Principal({ userId: UserId.make("SOMEBODY"), role, region: "us" }),
      correlationId: "test",
      traceParent: ""
    })

let made = 0
const freshId = () => AssessmentId.make(`RISK-${++made}`)
const freshUser = () => UserId.make(`USER-${++made}`)
const freshDevice = () => `device-${++made}`

interface Attempt {
  readonly assessmentId: AssessmentId
  readonly userId: UserId
  readonly amountMinor: number
  readonly currency: "USD" | "EUR"
  readonly region: Region
  readonly deviceId?: string
}

const attemptOf = (given: Partial<Attempt>) => ({
  assessmentId: freshId(),
  orderId: OrderId.make("ORDER-1"),
  userId: freshUser(),
  amountMinor: 30_00,
  currency: "USD" as const,
  region: "us" as const,
  units: 3,
  lines: 2,
  ...given
})

const assess = (given: Partial<Attempt>) =>
  Effect.flatMap(RiskRpc, (risk) => risk.Assess(attemptOf(given))).pipe(as("shopper"))

/** Points by rule; several windows of one rule add up. */
const pointsOf = Effect.fnUntraced(function* (given: Partial<Attempt>) {
  const { reasons } = yield* assess(given)
  const points: Record<string, number> = {}
  for (const { rule, points: own } of reasons) points[rule] = (points[rule] ?? 0) + own
  return points
})

/** Makes earlier assessments that many seconds older. */
const age = (userId: UserId, seconds: number) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql`
      update risk.assessments set decided_at = decided_at - make_interval(secs => ${seconds}::float8)
      where user_id = ${userId}`
  )

const times = <A, E, R>(count: number, effect: Effect.Effect<A, E, R>) => Effect.replicateEffect(effect, count)

describe("an assessment is made once", () => {
  test("a repeat gets the first answer, whatever the rules, the attempt and its user's haste are by then", async () => {
    const attempt = { assessmentId: freshId(), userId: freshUser() }
    const first = await run(assess(attempt), processes().easy)
    expect(first).toMatchObject({ ...attempt, orderId: "ORDER-1", decision: "allow", score: 5 })
    await run(times(8, assess({ userId: attempt.userId })))
    for (const process of [processes().easy, processes().strict, processes().small]) {
      expect(await run(assess(attempt), process)).toEqual(first)
      expect(await run(assess({ ...attempt, amountMinor: 9_999_999 }), process)).toEqual(first)
    }
    expect((await run(assess({ userId: attempt.userId }), processes().strict)).decision).toBe("block")
  })

  test("many that come at once, in processes with other rules, get one answer; what is flagged is flagged once", async () => {
    const ids = Array.from({ length: 20 }, freshId)
    const { easy, strict } = processes()
    const answers = await Promise.all(
      ids.map((assessmentId, nth) =>
        Promise.all(
          Array.from({ length: 8 }, (_, call) => {
            const attempt = assess({ assessmentId, userId: UserId.make(`TWIN-${nth}`) })
            return run(attempt, (call + nth) % 2 === 0 ? easy : strict)
          })
        )
      )
    )
    for (const same of answers) expect(new Set(same.map((answer) => JSON.stringify(answer))).size).toBe(1)
    const flagged = answers.flatMap(([first]) => (first?.decision === "block" ? [first.assessmentId] : []))
    const stored = await run(
      Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql<{ id: string }>`
          select aggregate_id as id from risk.events where aggregate_id = any(${ids}::text[]) order by 1`
      )
    )
    expect(stored.map(({ id }) => id)).toEqual(flagged.toSorted())
  })

  test("a repeat only reads: it leaves one row, and takes no place in the list", async () => {
    const [userId, next] = [freshUser(), freshUser()]
    const assessmentId = freshId()
    await run(times(3, assess({ assessmentId, userId })))
    await run(assess({ userId: next }))
    const rows = await run(
      Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql<{ user: string; position: number }>`
          select user_id as user, position from risk.assessments where user_id in (${userId}, ${next}) order by position`
      )
    )
    const [first] = rows
    const position = first?.position ?? 0
    expect(rows).toEqual([
      { user: userId, position },
      { user: next, position: position + 1 }
    ])
  })
})

describe("a flag", () => {
  /** What the bus has of an assessment. */
  const published = (assessmentId: string) =>
    Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql<{ envelope: { payload: unknown; eventType: string } }>`
        select envelope from bus.log where topic = 'fraud.events' and key = ${assessmentId}`
    )

  test("goes to the bus once, with score and reasons; what is allowed raises none", async () => {
    const blocked = await run(assess({ userId: freshUser(), deviceId: "nobody-is-told" }), processes().strict)
    // No points at all: neither new nor missing nor fast.
    expect(blocked).toMatchObject({ score: 0, decision: "allow" })
    const attempt = { assessmentId: freshId(), userId: freshUser(), region: "br" as const }
    const flagged = await run(times(3, assess(attempt)), processes().strict)
    const again = await run(assess({ userId: freshUser() }), processes().strict)
    // The later one is there, so the earlier ones have passed, repeats included.
    const last = published(again.assessmentId).pipe(
      Effect.repeat({ until: (rows) => rows.length > 0, schedule: Schedule.spaced("20 millis"), times: 1_000 })
    )
    expect(await run(last)).toHaveLength(1)
    const [event, ...more] = await run(published(attempt.assessmentId))
    expect(more).toEqual([])
    expect(event?.envelope).toMatchObject({
      eventType: "ecommerce.fraud.order.flagged.v1",
      producer: "risk-service",
      correlationId: "test"
    })
    const payload = await quietly(OrderFlagged.decode(event?.envelope.payload))
    const { decidedAt: _, ...said } = { ...flagged[0] }
    expect<unknown>(payload).toEqual(said)
    expect(payload).toMatchObject({
      decision: "block",
      score: 60,
      reasons: [
        { rule: "device.missing", points: 50 },
        { rule: "mismatch.currency", points: 10 }
      ]
    })
    expect(await run(published(blocked.assessmentId))).toEqual([])
  })

  test("is not raised again for an attempt that is judged anew, its assessment being too old to be kept", async () => {
    const attempt = { assessmentId: freshId(), userId: freshUser() }
    const forget = Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql`delete from risk.assessments where assessment_id = ${attempt.assessmentId}`
    )
    expect((await run(assess(attempt), processes().strict)).decision).toBe("block")
    await run(forget)
    expect((await run(assess(attempt), processes().strict)).decision).toBe("block")
    const stored = Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql`select 1 from risk.events where aggregate_id = ${attempt.assessmentId}`
    )
    expect(await run(stored)).toHaveLength(1)
  })
})

describe("the facts", () => {
  test("velocity.user counts one's own attempts in each window, this one included", () =>
    run(
      Effect.gen(function* () {
        const userId = freshUser()
        const attempt = { userId, deviceId: freshDevice() }
        // Another user's do not count.
        yield* times(5, assess({ userId: freshUser() }))
        expect(yield* times(5, pointsOf(attempt))).toEqual([
          {},
          {},
          { "velocity.user": 1 },
          { "velocity.user": 1, "velocity.device": 4 },
          { "velocity.user": 2, "velocity.device": 4 }
        ])
        // A minute later the first window is empty; the hour remembers.
        yield* age(userId, 61)
        expect(yield* pointsOf(attempt)).toEqual({})
        expect(yield* pointsOf(attempt)).toEqual({ "velocity.user": 3 })
        yield* age(userId, 3_600)
        expect(yield* pointsOf(attempt)).toEqual({})
      })
    ))

  test("of attempts of one moment are each its own, and only what is flagged is told", () =>
    run(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const [known, stranger] = [freshUser(), freshUser()]
        const deviceId = freshDevice()
        yield* times(3, assess({ userId: known, deviceId }))
        const attempts: ReadonlyArray<readonly [Partial<Attempt>, Record<string, number>]> = [
          [{ deviceId: freshDevice() }, {}],
          [{}, { "device.missing": 11 }],
          [{ deviceId: freshDevice(), amountMinor: 600_00 }, { "amount.high": 5 }],
          [
            { userId: stranger, deviceId },
            { "mismatch.device": 8, "velocity.device": 4 }
          ],
          [{ region: "br" }, { "device.missing": 11, "mismatch.currency": 7 }],
          [
            { userId: known, deviceId: freshDevice(), amountMinor: 61_00 },
            { "velocity.user": 1, "amount.unusual": 6, "device.new": 12 }
          ]
        ]
        const many = Array.from({ length: 4 }, () => attempts.filter(([{ userId }]) => userId === undefined)).flat()
        const asked = [...many, ...attempts.filter(([{ userId }]) => userId !== undefined)]
        const ids = asked.map(freshId)
        const answers = yield* Effect.forEach(
          asked,
          ([given], nth) => pointsOf({ ...given, assessmentId: ids[nth] ?? freshId() }),
          { concurrency: "unbounded" }
        )
        expect(answers).toEqual(asked.map(([, points]) => points))
        const kept = yield* sql<{ id: string; score: number; device: boolean }>`
          select assessment_id as id, score, device is not null as device from risk.assessments
          where assessment_id = any(${ids}::text[])`
        const sum = (points: Record<string, number>) => Object.values(points).reduce((all, own) => all + own, 0)
        expect(new Map(kept.map(({ id, score, device }) => [id, [score, device]]))).toEqual(
          new Map(asked.map(([given, points], nth) => [ids[nth] ?? "", [sum(points), given.deviceId !== undefined]]))
        )
        const written = yield* sql<{ transactions: number }>`
          select count(distinct xmin::text)::int as transactions from risk.assessments
          where assessment_id = any(${ids}::text[])`
        expect(written[0]?.transactions).toBeLessThan(ids.length)
      })
    ))

  test("velocity.device counts a device's attempts, whoever made them", () =>
    run(
      Effect.gen(function* () {
        const deviceId = freshDevice()
        const [a, b] = [freshUser(), freshUser()]
        yield* times(2, assess({ userId: a, deviceId }))
        expect(yield* pointsOf({ userId: b, deviceId })).toEqual({ "mismatch.device": 8 })
        expect(yield* pointsOf({ userId: b, deviceId })).toEqual({ "velocity.device": 4 })
        yield* age(a, 61)
        expect((yield* pointsOf({ userId: b, deviceId }))["velocity.device"]).toBeUndefined()
      })
    ))

  test("amount.high goes by the currency's own limits", () =>
    run(
      Effect.gen(function* () {
        const deviceId = freshDevice()
        const userId = freshUser()
        expect(yield* pointsOf({ userId, deviceId, amountMinor: 500_00 })).toEqual({})
        expect(yield* pointsOf({ userId, deviceId, amountMinor: 500_01 })).toEqual({ "amount.high": 5 })
      })
    ))

  test("amount.unusual compares with the user's own allowed amounts in the currency", async () => {
    const userId = freshUser()
    const deviceId = freshDevice()
    const high = { userId, deviceId, amountMinor: 61_00 }
    const usual = (currency: "USD" | "EUR", amountMinor: number) => assess({ userId, deviceId, currency, amountMinor })
    const unusual = () => run(Effect.andThen(age(userId, 7_200), pointsOf(high)))
    await run(Effect.all([usual("USD", 10_00), usual("USD", 30_00)]))
    expect(await unusual()).toEqual({})
    // With that one there are three, of which 30.00 is in the middle.
    expect(await unusual()).toEqual({ "amount.unusual": 6 })
    // Neither what was blocked nor another currency makes a habit.
    await run(times(12, usual("USD", 900_00)), processes().strict)
    await run(times(4, usual("EUR", 900_00)))
    const stored = await run(
      Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql<{ decision: string }>`
          select distinct decision from risk.assessments
          where user_id = ${userId} and amount_minor = 90000 and currency = 'USD'`
      )
    )
    expect(stored).toEqual([{ decision: "block" }])
    await run(times(2, usual("USD", 20_00)))
    expect(await unusual()).toEqual({ "amount.unusual": 6 })
    // What is allowed does: the newest twenty.
    await run(times(20, usual("USD", 62_00)))
    expect(await unusual()).toEqual({})
  })

  test("mismatch.currency and mismatch.regions go by the token's region, then and now", () =>
    run(
      Effect.gen(function* () {
        const userId = freshUser()
        const deviceId = freshDevice()
        const from = (region: Region, currency: "USD" | "EUR") => pointsOf({ userId, deviceId, region, currency })
        expect(yield* from("us", "USD")).toEqual({})
        expect(yield* from("us", "EUR")).toEqual({ "mismatch.currency": 7 })
        yield* age(userId, 61)
        expect(yield* from("eu", "EUR")).toEqual({ "mismatch.regions": 9 })
        expect(yield* from("us", "USD")).toEqual({ "mismatch.regions": 9 })
        yield* age(userId, 61)
        expect(yield* from("in", "USD")).toEqual({ "mismatch.currency": 7, "mismatch.regions": 10 })
        yield* age(userId, 3_600)
        expect(yield* from("us", "USD")).toEqual({})
      })
    ))

  test("device.missing is a device without a name, or with a blank one", () =>
    run(
      Effect.gen(function* () {
        for (const given of [{}, { deviceId: "" }, { deviceId: "  " }]) {
          expect(yield* pointsOf({ userId: freshUser(), ...given })).toEqual({ "device.missing": 11 })
        }
        expect(yield* pointsOf({ deviceId: "\u0000 odd \ud800" })).toEqual({})
      })
    ))

  test("device.new is one more device of a user who had one, until a payment from it was allowed", async () => {
    const userId = freshUser()
    const [old, other] = [freshDevice(), freshDevice()]
    const points = (deviceId: string, process = processes().small) => run(pointsOf({ userId, deviceId }), process)
    await run(assess({ userId }))
    expect(await points(old)).toEqual({})
    // What was blocked makes no device known.
    expect(await run(assess({ userId, deviceId: other, amountMinor: 600_00 }), processes().strict)).toMatchObject({
      decision: "block"
    })
    await run(age(userId, 7_200))
    expect(await points(other)).toEqual({ "device.new": 12 })
    expect(await points(other)).toEqual({})
  })

  test("mismatch.device and device.shared count the others on a device, however often each was there", () =>
    run(
      Effect.gen(function* () {
        const deviceId = freshDevice()
        const users = [freshUser(), freshUser(), freshUser()]
        const seen: Array<Record<string, number>> = []
        for (const userId of users) {
          seen.push(yield* pointsOf({ userId, deviceId }))
          yield* times(4, assess({ userId, deviceId }))
          yield* age(userId, 61)
        }
        expect(seen).toEqual([{}, { "mismatch.device": 8 }, { "mismatch.device": 8 }])
        expect(yield* pointsOf({ userId: freshUser(), deviceId })).toEqual({
          "mismatch.device": 8,
          "device.shared": 13
        })
        // Those who were there before see the newcomer, and are still known.
        yield* Effect.forEach(users, (userId) => age(userId, 3_600))
        for (const userId of users) {
          expect((yield* pointsOf({ userId, deviceId }))["device.shared"]).toBe(13)
        }
      })
    ))

  test("are kept without the name of the device", () =>
    run(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const { assessmentId } = yield* assess({ deviceId: "adas-phone" })
        const [row] = yield* sql<{ text: string }>`
          select to_jsonb(a)::text as text from risk.assessments a where assessment_id = ${assessmentId}`
        expect(row?.text).toMatch(/"device": "[0-9a-f]{32}"/)
        expect(row?.text).not.toContain("adas-phone")
      })
    ))
})

describe("an operator", () => {
  const risk = Effect.service(RiskRpc)
  const listed = Effect.fnUntraced(function* (options: {
    readonly limit: number
    readonly cursor?: string
    readonly decision?: "allow" | "review" | "block"
  }) {
    return yield* as("admin")((yield* risk).List(options))
  })

  test("reads an assessment as it was answered; one that is not there is not found", async () => {
    const made = await run(assess({}))
    for (const role of ["admin", "service"] as const) {
      const get = (assessmentId: AssessmentId) => Effect.flatMap(risk, (each) => as(role)(each.Get({ assessmentId })))
      expect(await run(get(made.assessmentId))).toEqual(made)
      expect(await run(Effect.flip(get(AssessmentId.make("NOBODY"))))).toMatchObject({
        _tag: "AssessmentNotFound",
        assessmentId: "NOBODY"
      })
    }
  })

  test("reads the newest first, page by page, all or those of one decision", async () => {
    for (const rules of [{ ...easy }, { review: 1, block: 101 }, strict]) {
      const process = await Effect.runPromise(
        Layer.build(Layer.fresh(contextWith(rules))).pipe(
          Effect.provide(Logger.layer([])),
          Effect.withTracerEnabled(false),
          Scope.provide(scope)
        )
      )
      await run(times(4, assess({})), process)
    }
    const all = await run(
      Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql<{ id: string; decision: string }>`
          select assessment_id as id, decision from risk.assessments order by position desc`
      )
    )
    for (const decision of [undefined, "allow", "review", "block"] as const) {
      const walked: Array<string> = []
      let cursor: string | null | undefined
      while (cursor !== null) {
        const options = { ...(decision === undefined ? {} : { decision }), ...(cursor === undefined ? {} : { cursor }) }
        const page: Effect.Success<ReturnType<typeof listed>> = await run(listed({ limit: 3, ...options }))
        expect(page.items.length).toBeLessThanOrEqual(3)
        walked.push(...page.items.map(({ assessmentId }) => assessmentId))
        cursor = page.nextCursor
      }
      const expected = all.filter((row) => decision === undefined || row.decision === decision)
      expect(expected.length).toBeGreaterThan(3)
      expect(walked).toEqual(expected.map(({ id }) => id))
    }
    expect(await run(Effect.flip(listed({ limit: 3, cursor: "bogus" })))).toMatchObject({ _tag: "InvalidValue" })
  })

  test("is an admin or a service; judged are those who may pay", async () => {
    const refusal = <A, E>(effect: Effect.Effect<A, E, RiskRpc>) =>
      run(
        effect.pipe(
          Effect.as("done"),
          Effect.catch((error) => Effect.succeed(error))
        )
      )
    const may = async (role: Role) => ({
      assess: await refusal(Effect.flatMap(risk, (each) => as(role)(each.Assess(attemptOf({}))))),
      list: await refusal(Effect.flatMap(risk, (each) => as(role)(each.List({ limit: 1 })))),
      get: await refusal(Effect.flatMap(risk, (each) => as(role)(each.Get({ assessmentId: AssessmentId.make("X") }))))
    })
    const no = { assess: { action: "risk.assess" }, list: { action: "ops.read" }, get: { action: "ops.read" } }
    const missing = { _tag: "AssessmentNotFound" }
    for (const role of ["anonymous", "guest"] as const) expect(await may(role)).toMatchObject(no)
    expect(await may("shopper")).toMatchObject({ ...no, assess: "done" })
    for (const role of ["admin", "service"] as const) {
      expect(await may(role)).toMatchObject({ assess: "done", list: "done", get: missing })
    }
  })

  test("sees decisions counted, and rules by what came of them", async () => {
    const counted = async (id: string, attributes: Record<string, string>) => {
      const found = (await Effect.runPromise(Metric.snapshot)).find(
        (metric) => metric.id === id && Bun.deepEquals(metric.attributes, attributes)
      )
      return found?.type === "Counter" ? Number(found.state.count) : 0
    }
    const counts = async () => [
      await counted("risk_decisions_total", { decision: "block" }),
      await counted("risk_rules_matched_total", { rule: "device.missing", decision: "block" }),
      await counted("risk_rules_matched_total", { rule: "mismatch.currency", decision: "block" })
    ]
    const before = await counts()
    const attempt = { assessmentId: freshId(), region: "br" as const }
    await run(assess(attempt), processes().strict)
    // A repeat decides nothing.
    await run(assess(attempt), processes().strict)
    await run(assess({}), processes().strict)
    expect(await counts()).toEqual([2, 2, 1].map((more, nth) => more + (before[nth] ?? 0)))
  })
})

describe("rules that cannot be used", () => {
  test("are one sentence that names the variable", async () => {
    const failure = (rules: unknown) =>
      quietly(Effect.flip(Layer.build(Layer.fresh(contextWith(rules))).pipe(Effect.scoped)))
    expect(await failure({ review: 95 })).toMatchObject({
      message: "MERKATO_RISK_RULES cannot be used: Expected `review` to be at most `block`"
    })
    expect(await failure({ velocity: { users: [] } })).toMatchObject({
      message: expect.stringMatching(/^MERKATO_RISK_RULES cannot be used: velocity\.users: [^\n]+$/)
    })
  })
})

/** On a database of its own, where nothing else is counted. */
const alone = <A>(rules: unknown, test: Effect.Effect<A, unknown, Risk | SqlClient.SqlClient>) =>
  Effect.gen(function* () {
    const before = url
    const fresh = yield* TestDatabase.fresh
    yield* Deployment.migrate(["risk"], fresh.url)
    url = fresh.url
    const context = yield* Effect.ensuring(
      Layer.build(Layer.fresh(useCasesWith(rules))),
      Effect.sync(() => (url = before))
    )
    return yield* Effect.provideContext(test, context)
  }).pipe(Effect.scoped, quietly)

/** Assessments of one user on one device, the newest now, a millisecond apart. */
const fill = (userId: string, device: string | null, count: number, newest: Date) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql`
      insert into risk.assessments (assessment_id, order_id, user_id, device, amount_minor, currency, region, units, lines,
        score, decision, reasons, decided_at)
      select ${userId} || '-' || n, 'ORDER-' || n, ${userId}, ${device}::text, 1000 + n, 'USD', 'us', 1, 1, 0,
        case when n % 50 = 0 then 'review' else 'allow' end, '[]', ${newest}::timestamptz - n * interval '1 millisecond'
      from generate_series(1, ${count}::int) as n`
  )

describe("an assessment stays cheap", () => {
  const most = 100
  const rules = {
    velocity: {
      user: [{ windowSeconds: 3_600, steps: [{ over: most, points: 10 }] }],
      device: [{ windowSeconds: 3_600, steps: [{ over: most, points: 10 }] }]
    }
  }

  test(
    "it reads a bounded number of index entries, never the whole table, also of a user with 10,000 attempts",
    () =>
      alone(
        rules,
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const risk = yield* Risk
          const attempt = (userId: string, deviceId?: string) =>
            Effect.suspend(() =>
              risk.assess({
                ...attemptOf({ userId: UserId.make(userId) }),
                ...(deviceId === undefined ? {} : { deviceId })
              })
            )
          const { assessmentId } = yield* attempt("SCOUT", "phone")
          const [scout] = yield* sql<{ device: string }>`select device from risk.assessments`
          const newest = new Date()
          yield* fill("HASTY", scout?.device ?? "", 10_000, newest)
          for (const user of ["A", "B", "C"]) yield* fill(user, scout?.device ?? "", 200, newest)
          // Never had a device: none is found, however far one looks.
          yield* fill("QUIET", null, 1_000, newest)
          yield* sql`analyze risk.assessments`
          const statistics = Effect.gen(function* () {
            yield* sql`select pg_stat_force_next_flush()`
            const [table] = yield* sql<{ scans: number; rows: number }>`
            select seq_scan::int as scans, seq_tup_read::int as rows
            from pg_stat_user_tables where schemaname = 'risk' and relname = 'assessments'`
            const [index] = yield* sql<{ entries: number }>`
            select sum(idx_tup_read)::int as entries
            from pg_stat_user_indexes where schemaname = 'risk' and relname = 'assessments'`
            return { scans: table?.scans ?? 0, rows: table?.rows ?? 0, entries: index?.entries ?? 0 }
          })
          const read = Effect.fnUntraced(function* (effect: Effect.Effect<unknown, unknown>) {
            const before = yield* statistics
            yield* effect
            const after = yield* statistics
            return {
              scans: after.scans - before.scans,
              rows: after.rows - before.rows,
              entries: after.entries - before.entries
            }
          })
          // Two windows of 100, 20 amounts, twice 50 recent ones, a few users and itself.
          const bound = 2 * most + 20 + 2 * 50 + 20
          const attempts = [
            attempt("HASTY"),
            attempt("HASTY", "phone"),
            attempt("NEW", "phone"),
            attempt("C", "phone"),
            attempt("QUIET", "phone")
          ]
          // So often that the server has made up its mind about a plan for all of them.
          for (const effect of Array.from({ length: 8 }, () => attempts).flat()) {
            const { entries, rows, scans } = yield* read(effect)
            expect({ scans, rows }).toEqual({ scans: 0, rows: 0 })
            expect(entries).toBeGreaterThan(0)
            expect(entries).toBeLessThanOrEqual(bound)
          }
          expect((yield* attempt("HASTY", "phone")).reasons.map(({ rule }) => rule).toSorted()).toEqual([
            "device.shared",
            "velocity.device",
            "velocity.user"
          ])
          const asAdmin = as("admin")
          for (const effect of [
            asAdmin(risk.list({ limit: 20 })),
            asAdmin(risk.list({ limit: 20, decision: "review" })),
            asAdmin(risk.list({ limit: 20, decision: "block" })),
            asAdmin(risk.get(assessmentId))
          ]) {
            const { entries, rows, scans } = yield* read(effect)
            expect({ scans, rows }).toEqual({ scans: 0, rows: 0 })
            expect(entries).toBeLessThanOrEqual(bound)
          }
          // The expiry looks at the oldest thousand, however many there are.
          const expiry = yield* read(risk.expire)
          expect(expiry).toMatchObject({ scans: 0, rows: 0 })
          expect(expiry.entries).toBeLessThanOrEqual(1_000 + 20)
        })
      ),
    60_000
  )
})

describe("what is old", () => {
  test("goes, the oldest first, a bounded number at a time; what is younger stays", () =>
    alone(
      { keptDays: 10 },
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const risk = yield* Risk
        const day = 24 * 60 * 60_000
        const before = (days: number) => new Date(Date.now() - days * day)
        yield* fill("OLD", "a", 1_500, before(11))
        yield* fill("YOUNG", "b", 30, before(9))
        const left = sql<{ user: string; count: number }>`
          select user_id as user, count(*)::int as count from risk.assessments group by 1 order by 1`
        expect(yield* risk.expire).toBe(true)
        expect(yield* left).toEqual([
          { user: "OLD", count: 500 },
          { user: "YOUNG", count: 30 }
        ])
        const [oldest] = yield* sql<{ nth: number }>`
          select min(position)::int as nth from risk.assessments where user_id = 'OLD'`
        expect(oldest).toEqual({ nth: 1_001 })
        expect(yield* risk.expire).toBe(false)
        expect(yield* left).toEqual([{ user: "YOUNG", count: 30 }])
        expect(yield* risk.expire).toBe(false)
        expect(yield* left).toEqual([{ user: "YOUNG", count: 30 }])
      })
    ))
})
