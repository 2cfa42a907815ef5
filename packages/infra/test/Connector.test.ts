// What a Kafka Connect is told and asked, where no real one is needed; the real one is in KafkaEventBus.test.ts.
import { describe, expect, test } from "bun:test"
import { type Duration, Effect, Layer, Logger, Redacted } from "effect"
import * as Connector from "../src/events/capture/Connector.ts"
import { Policies } from "../src/policy/Policies.ts"
import { eventually } from "./EventBus.contract.ts"

const database = Redacted.make("postgres://ada:s%40cret@db.example:5433/Shop-1?sslmode=require")
const policies = Policies.layerWith({
  "relay.configure": { attempts: 3, backoff: { kind: "exactly", delaysMs: [1, 1] } }
})

const connector = (url: string, lookEvery?: Duration.Input) =>
  Connector.layer(url, [database], lookEvery).pipe(Layer.provide([policies, Logger.layer([])]))

const open = (url: string) =>
  Effect.runPromise(
    Layer.build(connector(url)).pipe(
      Effect.scoped,
      Effect.as("opened"),
      Effect.catch(({ message }) => Effect.succeed(message))
    )
  )

/** A Connect that notes what it is asked. */
const connect = (answer: (path: string, method: string, nth: number) => Response, port = 0) => {
  const asked: Array<string> = []
  const bodies: Array<unknown> = []
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port,
    fetch: async (request) => {
      const { pathname, search } = new URL(request.url)
      asked.push(`${request.method} ${pathname}${search}`)
      if (request.method === "PUT") bodies.push(await request.json())
      return answer(pathname, request.method, asked.length)
    }
  })
  return { url: `http://127.0.0.1:${server.port}`, asked, bodies, [Symbol.asyncDispose]: () => server.stop(true) }
}

const none = () => Response.json({ message: "not found" }, { status: 404 })

describe("the connector of a database", () => {
  const { name, settings } = Connector.settingsOf(database)

  test("is named after it, and told where it is as a client of Java's wants it", () => {
    expect(name).toBe("merkato_shop_1")
    expect(settings).toMatchObject({
      "database.hostname": "db.example",
      "database.port": "5433",
      "database.user": "ada",
      "database.password": "s@cret",
      "database.dbname": "Shop-1",
      "database.sslmode": "require",
      "slot.name": "merkato_shop_1"
    })
  })

  test("is made where there is none, and left alone where it is as it should be", async () => {
    await using fresh = connect((_, method) => (method === "GET" ? none() : Response.json({}, { status: 201 })))
    expect(await open(fresh.url)).toBe("opened")
    expect(fresh.asked).toEqual([`GET /connectors/${name}/config`, `PUT /connectors/${name}/config`])
    expect(fresh.bodies).toEqual([settings])
    await using known = connect(() => Response.json(settings))
    expect(await open(known.url)).toBe("opened")
    expect(known.asked).toEqual([`GET /connectors/${name}/config`])
    await using older = connect(() => Response.json({ ...settings, "database.port": "5432" }))
    expect(await open(older.url)).toBe("opened")
    expect(older.bodies).toEqual([settings])
  })

  test("that Connect does not take is told of in a sentence, and so is a Connect that does not answer", async () => {
    await using refusing = connect((_, method) =>
      method === "GET" ? none() : Response.json({ message: "Connector\nis invalid" }, { status: 400 })
    )
    expect(await open(refusing.url)).toBe(
      `CONNECT_URL cannot be used: ${refusing.url}: it does not take the connector ${name}: Connector is invalid`
    )
    const nobody = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
    nobody.stop(true)
    const said = await open(`http://ada:secret@127.0.0.1:${nobody.port}`)
    expect(said).toMatch(new RegExp(`^CONNECT_URL cannot be used: http://127\\.0\\.0\\.1:${nobody.port}: [^\\n]+$`))
    expect(said).not.toContain("secret")
    expect(await open("kafka:9092")).toBe("CONNECT_URL cannot be used: expected http://host:port")
  })

  test("is told again while the workers agree on who does what", async () => {
    await using busy = connect((_, method, nth) =>
      method === "GET" ? none() : Response.json({ message: "rebalancing" }, { status: nth < 4 ? 409 : 200 })
    )
    expect(await open(busy.url)).toBe("opened")
    expect(busy.asked.filter((line) => line.startsWith("PUT"))).toHaveLength(3)
  })

  test("is started again when it has given up, and not while it runs", async () => {
    let state = "RUNNING"
    await using server = connect((path) =>
      path.endsWith("/status")
        ? Response.json({ connector: { state: "RUNNING" }, tasks: [{ id: 0, state, trace: "no\n  at x" }] })
        : Response.json(settings)
    )
    const asked = (start: string) => Effect.sync(() => server.asked.filter((line) => line.startsWith(start)))
    const looks = asked(`GET /connectors/${name}/status`)
    const restarts = asked("POST")
    await Effect.runPromise(
      Effect.gen(function* () {
        yield* Layer.build(connector(server.url, "5 millis"))
        expect((yield* eventually(looks, (all) => all.length >= 3)).length).toBeGreaterThanOrEqual(3)
        expect(yield* restarts).toEqual([])
        state = "FAILED"
        const [first] = yield* eventually(restarts, (all) => all.length > 0)
        expect(first).toBe(`POST /connectors/${name}/restart?includeTasks=true&onlyFailed=true`)
      }).pipe(Effect.scoped, Effect.provide(Logger.layer([])))
    )
  })

  test("is looked after again when Connect is back that was away", async () => {
    let state = "RUNNING"
    const answer = (path: string) =>
      path.endsWith("/status")
        ? Response.json({ connector: { state: "RUNNING" }, tasks: [{ id: 0, state }] })
        : Response.json(settings)
    const server = connect(answer)
    await Effect.runPromise(
      Effect.gen(function* () {
        yield* Layer.build(connector(server.url, "5 millis"))
        yield* Effect.promise(() => server[Symbol.asyncDispose]())
        yield* Effect.sleep("100 millis")
        state = "FAILED"
        const again = connect(answer, Number(new URL(server.url).port))
        yield* Effect.addFinalizer(() => Effect.promise(() => again[Symbol.asyncDispose]()))
        const restarts = Effect.sync(() => again.asked.filter((line) => line.startsWith("POST")))
        expect((yield* eventually(restarts, (all) => all.length > 0)).length).toBeGreaterThan(0)
      }).pipe(Effect.scoped, Effect.provide(Logger.layer([])))
    )
  })
})
