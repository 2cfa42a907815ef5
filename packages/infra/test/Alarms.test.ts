// Alarms of what waits, with a real RabbitMQ and without one: what every side must do, and what comes of kills.
import { afterAll, describe, expect, test } from "bun:test"
import { rmSync } from "node:fs"
import { join } from "node:path"
import { ConfigProvider, Context, Deferred, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { realServer } from "../../../tests/support/RealServer.ts"
import { type AlarmClock, Alarms, polling, type Rung } from "../src/delay/Alarms.ts"
import * as AlarmsWhereNamed from "../src/delay/AlarmsWhereNamed.ts"
import * as RabbitAlarms from "../src/delay/RabbitAlarms.ts"
import { connecting } from "../src/delay/RabbitConnection.ts"
import { Policies } from "../src/policy/Policies.ts"
import { freePort } from "../src/runtime/Ports.ts"

const rabbitmq = await realServer("rabbitmq", "alarms in RabbitMQ")
afterAll(() => rabbitmq?.stop(), 60_000)
const url = rabbitmq?.settings["RABBITMQ_URL"] ?? ""

const never = 3_600_000
let names = 0
const newName = () => `test-${++names}`

/** The alarms of one process. A machine that is busy may take its time to answer. */
const inRabbit = (name: string, sweepMs = never) =>
  connecting(url, name).pipe(
    Effect.flatMap((connection) => RabbitAlarms.make(connection, name, sweepMs)),
    Effect.provide(Policies.layerWith({ "webhook.alarm": { attemptTimeoutMs: 10_000, deadlineMs: 30_000 } }))
  )

interface Heard {
  readonly rung: Rung
  readonly at: number
}

/** Listens until something as wanted rings; all that rang. */
const until = (alarms: AlarmClock, wanted: (rung: Rung) => boolean) =>
  Effect.gen(function* () {
    const heard: Array<Heard> = []
    for (;;) {
      const rung = yield* alarms.rung(Effect.succeed)
      heard.push({ rung, at: Date.now() })
      if (wanted(rung)) return heard
    }
  })
const isAll = (rung: Rung) => rung === "all"
const named = (group: string) => (rung: Rung) => rung !== "all" && rung.includes(group)
const last = (heard: ReadonlyArray<Heard>) => heard.at(-1)?.at ?? 0

/** Listens until alarms are heard by name, and not because everything is looked at anyway. */
const ready = (alarms: AlarmClock) =>
  Effect.gen(function* () {
    yield* until(alarms, isAll)
    for (;;) {
      yield* alarms.set(["READY"], inMs(0))
      const rung = yield* alarms.rung(Effect.succeed)
      if (named("READY")(rung)) return
    }
  })

const inMs = (ms: number) => new Date(Date.now() + ms)

const run = <A, E>(test: Effect.Effect<A, E, Scope.Scope>): Promise<A> => Effect.runPromise(Effect.scoped(test))

test("a wait is made of few others, ends in time, and never too early", () => {
  const longest = RabbitAlarms.waitsMs.at(-1) ?? 0
  for (let delayMs = 1; delayMs <= longest; delayMs += delayMs < 40_000 ? 7 : 977) {
    let left = delayMs
    let hops = 0
    for (let wait = RabbitAlarms.waitFor(left); wait !== undefined; wait = RabbitAlarms.waitFor(left)) {
      left -= wait
      hops += 1
    }
    expect([delayMs, left <= 0 && left >= -100, hops <= 30]).toEqual([delayMs, true, true])
  }
  expect([0, -5].map(RabbitAlarms.waitFor)).toEqual([undefined, undefined])
  // As the schedule of webhooks has them, less the time that it took to write it down.
  for (const step of [30_000, 120_000, 300_000, 900_000, 1_800_000]) expect(RabbitAlarms.waitFor(step - 40)).toBe(step)
})

const sides: ReadonlyArray<readonly [string, () => Effect.Effect<AlarmClock, unknown, Scope.Scope>]> = [
  ["without a clock", () => Effect.succeed(polling)],
  ...(rabbitmq === undefined ? [] : [["in RabbitMQ", () => inRabbit(newName())] as const])
]

describe.each(sides)("alarms %s", (_name, make) => {
  test("ring when their time has come; what was looked at without success rings again", () =>
    run(
      Effect.gen(function* () {
        const alarms = yield* make()
        const at = inMs(700)
        yield* alarms.set(["A", "A", "B"], at)
        const inTime = (rung: Rung) => Date.now() >= at.getTime() && (rung === "all" || rung.includes("A"))
        yield* until(alarms, inTime)
        yield* alarms.set(["C"], inMs(0))
        const refused = yield* alarms
          .rung((rung) => (rung === "all" || rung.includes("C") ? Effect.fail("not now") : Effect.succeed("other")))
          .pipe(Effect.repeat({ times: 50 }), Effect.flip)
        expect(refused).toBe("not now")
        yield* until(alarms, (rung) => rung === "all" || rung.includes("C"))
      })
    ))
})

describe.skipIf(rabbitmq === undefined)("alarms in RabbitMQ", () => {
  test("ring by name, not before their time and soon after it, however long others wait", () =>
    run(
      Effect.gen(function* () {
        const alarms = yield* inRabbit(newName())
        yield* ready(alarms)
        const [later, soon] = [inMs(4_000), inMs(1_350)]
        yield* alarms.set(["LATER"], later)
        yield* alarms.set(["SOON"], soon)
        yield* alarms.set(["NOW"], inMs(0))
        yield* until(alarms, named("NOW"))
        const first = yield* until(alarms, named("SOON"))
        const second = yield* until(alarms, named("LATER"))
        expect(first.some(({ rung }) => named("LATER")(rung) || isAll(rung))).toBe(false)
        for (const [heard, at] of [
          [first, soon],
          [second, later]
        ] as const) {
          const late = last(heard) - at.getTime()
          expect([late >= 0, late < 2_500]).toEqual([true, true])
        }
      })
    ))

  test("that somebody heard who then died ring for another", () =>
    run(
      Effect.gen(function* () {
        const name = newName()
        const doomed = yield* Scope.make()
        const first = yield* Scope.provide(inRabbit(name), doomed)
        const second = yield* inRabbit(name)
        yield* ready(first)
        yield* first.set(["A"], inMs(0))
        const heard = yield* Deferred.make<void>()
        yield* first
          .rung((rung) =>
            named("A")(rung) ? Effect.andThen(Deferred.succeed(heard, undefined), Effect.never) : Effect.void
          )
          .pipe(Effect.forever, Effect.forkIn(doomed))
        yield* Deferred.await(heard)
        yield* until(second, isAll)
        const next = yield* Effect.forkScoped(until(second, named("A")))
        yield* Scope.close(doomed, Exit.void)
        yield* Fiber.join(next)
      })
    ))

  test("whose queue somebody deleted are set all the same", () =>
    run(
      Effect.gen(function* () {
        const name = newName()
        const alarms = yield* inRabbit(name)
        yield* ready(alarms)
        yield* alarms.set(["A"], inMs(1_000))
        yield* until(alarms, named("A"))
        const connection = yield* connecting(url, "somebody")
        yield* Effect.promise(() => connection.queueDelete({ queue: `${name}.wait-1000ms` }))
        yield* alarms.set(["B"], inMs(1_000))
        yield* until(alarms, named("B"))
      })
    ))

  test(
    "are still set after kill -9 of RabbitMQ, for the same time",
    () =>
      run(
        Effect.gen(function* () {
          const name = newName()
          const alarms = yield* inRabbit(name)
          const at = inMs(5_000)
          yield* alarms.set(["A"], at)
          rabbitmq?.kill()
          yield* Effect.promise(() => rabbitmq?.start() ?? Promise.resolve())
          const connection = yield* connecting(url, "somebody")
          for (;;) {
            const message = yield* Effect.promise(() => connection.basicGet(`${name}.due`))
            const heardAt = Date.now()
            if (message === undefined) yield* Effect.sleep("50 millis")
            else {
              expect(message.body).toEqual({ group: "A", at: at.getTime() })
              return expect(heardAt).toBeGreaterThanOrEqual(at.getTime())
            }
          }
        })
      ),
    120_000
  )

  test(
    "cannot be set while RabbitMQ is away, which is no failure: everything is looked at all the time, until it is back",
    () =>
      run(
        Effect.gen(function* () {
          const alarms = yield* inRabbit(newName())
          yield* ready(alarms)
          rabbitmq?.kill()
          const began = Date.now()
          for (let looks = 0; looks < 4; looks++) yield* until(alarms, isAll)
          expect(Date.now() - began).toBeLessThan(10_000)
          yield* alarms.set(["A"], inMs(0))
          yield* Effect.promise(() => rabbitmq?.start() ?? Promise.resolve())
          yield* ready(alarms)
          yield* alarms.set(["B"], inMs(2_000))
          expect((yield* until(alarms, named("B"))).filter(({ rung }) => isAll(rung))).toEqual([])
        })
      ),
    120_000
  )

  test(
    "that a RabbitMQ forgot, whose data are gone, are made up for by a look at everything",
    () =>
      run(
        Effect.gen(function* () {
          const alarms = yield* inRabbit(newName())
          yield* ready(alarms)
          yield* alarms.set(["A"], inMs(3_000))
          rabbitmq?.kill()
          rmSync(join(rabbitmq?.folder ?? "nowhere", "rabbitmq", "data"), { recursive: true, force: true })
          yield* Effect.promise(() => rabbitmq?.start() ?? Promise.resolve())
          yield* ready(alarms)
          // It makes its queues again.
          yield* alarms.set(["B"], inMs(1_000))
          const heard = yield* until(alarms, named("B"))
          expect(heard.some(({ rung }) => named("A")(rung))).toBe(false)
        })
      ),
    120_000
  )

  test("that were never set, since a process died before, are made up for by the sweep", () =>
    run(
      Effect.gen(function* () {
        const alarms = yield* inRabbit(newName(), 1_500)
        const looks: Array<number> = []
        for (let look = 0; look < 4; look++) looks.push(last(yield* until(alarms, isAll)))
        const pauses = looks.slice(2).map((at, nth) => at - (looks[nth + 1] ?? 0))
        for (const pause of pauses) expect([pause > 1_000, pause < 6_000]).toEqual([true, true])
      })
    ))
})

const whereNamed = (settings: Readonly<Record<string, string>>) =>
  Layer.build(AlarmsWhereNamed.layer(newName())).pipe(
    Effect.map((context) => Context.get(context, Alarms)),
    Effect.provide([Policies.layerWith(), ConfigProvider.layer(ConfigProvider.fromUnknown(settings))]),
    Effect.scoped
  )

test("without RABBITMQ_URL there is no clock; one that is wrong, or where nobody is, is told of at the start", () =>
  run(
    Effect.gen(function* () {
      expect(yield* whereNamed({})).toBe(polling)
      const port = yield* Effect.promise(() => freePort())
      const nobody = yield* Effect.flip(whereNamed({ RABBITMQ_URL: `amqp://shop:secret@127.0.0.1:${port}` }))
      expect(nobody.message).toMatch(new RegExp(`^RABBITMQ_URL cannot be used: 127\\.0\\.0\\.1:${port}: [^\\n]+$`))
      expect(nobody.message).not.toContain("secret")
      const wrong = yield* Effect.flip(whereNamed({ RABBITMQ_URL: "http://127.0.0.1" }))
      expect(wrong.message).toBe("RABBITMQ_URL cannot be used: expected amqp://user:password@host:port/vhost")
      const other = yield* Effect.flip(whereNamed({ AMQP_URL: "http://127.0.0.1" }))
      expect(other.message).toBe("AMQP_URL cannot be used: expected amqp://user:password@host:port/vhost")
      const both = yield* Effect.flip(whereNamed({ AMQP_URL: "amqp://nobody", RABBITMQ_URL: "http://127.0.0.1" }))
      expect(both.message).toStartWith("RABBITMQ_URL cannot be used: ")
      if (url === "") return
      expect(yield* whereNamed({ RABBITMQ_URL: url })).not.toBe(polling)
      const stranger = yield* Effect.flip(whereNamed({ RABBITMQ_URL: url.replace(/:[^:@]+@/, ":wrong@") }))
      expect(stranger.message).toMatch(/^RABBITMQ_URL cannot be used: .*ACCESS_REFUSED/)
    })
  ))
