// The operators' command: its pure parts, what it says and how it ends, and its work on a real shop.
import { allEvents } from "@merkato/domain/events"
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { ConfigProvider, Console, Effect, Exit, Layer, Option, Schedule, Schema, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import type { Command } from "effect/cli"
import * as fc from "fast-check"
import { buildASTSchema, parse } from "graphql"
import { chmodSync, existsSync, readFileSync, rmSync, statSync, writeFileSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { Topic } from "@merkato/domain/kernel/Event"
import { EventId, Id } from "@merkato/domain/kernel/Ids"
import { OrderFulfilled } from "@merkato/domain/orders/OrderEvents"
import { KeyRing } from "@merkato/infra/auth/KeyRing"
import { Tokens } from "@merkato/infra/auth/Tokens"
import { type BusMessage, EventBus } from "@merkato/infra/events/EventBus"
import * as Database from "@merkato/infra/postgres/Database"
import * as RunningPostgres from "@merkato/infra/postgres/RunningPostgres"
import { subgraphs, supergraph } from "@merkato/rpc/graphql/Subgraphs"
import { shelf } from "@merkato/services/seed"
import * as Baskets from "../apps/merkato/src/Baskets.ts"
import * as Bus from "../apps/merkato/src/Bus.ts"
import { runWith } from "../apps/merkato/src/Cli.ts"
import { isLoopback } from "../apps/merkato/src/commands/Load.ts"
import { parseDuration } from "../apps/merkato/src/Flags.ts"
import { Histogram } from "../apps/merkato/src/Histogram.ts"
import { merkato } from "../apps/merkato/src/Merkato.ts"
import * as Progress from "../apps/merkato/src/Progress.ts"
import { countBaskets, countFile } from "../scripts/count-baskets.ts"
import { Client } from "./support/Client.ts"
import { freePort, type Running, startApp, temporaryFolder } from "./support/Processes.ts"

const root = join(import.meta.dir, "..")
const folder = temporaryFolder()
afterAll(folder.remove)

interface Ran {
  readonly ok: boolean
  readonly stdout: string
  readonly stderr: string
}

/** Runs a command in this process, as a program would run it, without this machine's environment. */
const runCommand = async <Name extends string, Input, E, ContextInput>(
  command: Command.Command<Name, Input, ContextInput, E, Command.Environment>,
  args: ReadonlyArray<string>,
  env: Record<string, string> = {}
): Promise<Ran> => {
  const out: Array<string> = []
  const err: Array<string> = []
  const captured: Console.Console = {
    ...console,
    log: (...words) => void out.push(words.join(" ")),
    error: (...words) => void err.push(words.join(" "))
  }
  const exit = await runWith(command)(args).pipe(
    Effect.provide(NodeServices.layer),
    Effect.provideService(Console.Console, captured),
    Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env })),
    Effect.runPromiseExit
  )
  return { ok: Exit.isSuccess(exit), stdout: out.join("\n"), stderr: err.join("\n") }
}
const run = (...args: ReadonlyArray<string>) => runCommand(merkato, args)

const decodeItems = Schema.decodeUnknownSync(
  Schema.Struct({ items: Schema.Array(Schema.Struct({ name: Schema.String, productId: Schema.String })) })
)
const itemsOf = (body: unknown) => decodeItems(body).items

const spawned = (...args: ReadonlyArray<string>) => {
  const { exitCode, stdout, stderr } = Bun.spawnSync([process.execPath, "run", "--silent", "merkato", ...args], {
    cwd: root
  })
  return { exitCode, stdout: stdout.toString(), stderr: stderr.toString() }
}

describe("token", () => {
  test("prints a token that the shop takes, on one line, and nothing else; its key is the owner's alone", async () => {
    const dataDir = join(folder.path, "token")
    const args = ["--user", "USER-1", "--role", "shopper", "--region", "eu", "--data-dir", dataDir]
    const { exitCode, stdout } = spawned("token", ...args)
    expect(exitCode).toBe(0)
    expect(stdout).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+\n$/)
    expect(statSync(join(dataDir, "keys.json")).mode & 0o777).toBe(0o600)
    const principal = await Tokens.use((tokens) => tokens.verify(stdout.trim())).pipe(
      Effect.provide(Tokens.layer.pipe(Layer.provide(KeyRing.layer(dataDir)))),
      Effect.runPromise
    )
    expect(principal).toMatchObject({ userId: "USER-1", role: "shopper", region: "eu" })
  })

  test("a wrong role is told on stderr, and stdout stays empty", () => {
    const { exitCode, stdout, stderr } = spawned("token", "--user", "USER-1", "--role", "king")
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" })
    expect(stderr).toMatch(/--role: "king"\. Expected: "shopper" \| "admin" \| "guest"\nTry: merkato token --help\n$/)
  })

  test("an unreadable key is a sentence", async () => {
    const dataDir = join(folder.path, "broken")
    await Bun.write(join(dataDir, "keys.json"), "{}")
    const { ok, stderr } = await run("token", "--user", "U", "--role", "admin", "--data-dir", dataDir)
    expect({ ok, stderr }).toEqual({
      ok: false,
      stderr: `The signing keys in ${dataDir}/keys.json cannot be used: not a JWK set of Ed25519 keys`
    })
  })
})

describe("help", () => {
  const paths = (command: Command.Command.Any, path: ReadonlyArray<string>): ReadonlyArray<ReadonlyArray<string>> => [
    path,
    ...command.subcommands.flatMap(({ commands }) => commands.flatMap((sub) => paths(sub, [...path, sub.name])))
  ]
  const all = paths(merkato, [])

  test("there is a command for each task", () => {
    expect(all.map((path) => path.join(" "))).toEqual([
      "",
      "token",
      "seed",
      "import",
      "import baskets",
      "load",
      "replay",
      "events",
      "events tail",
      "archive",
      "archive run",
      "archive query",
      "archive status",
      "warehouse",
      "warehouse build",
      "warehouse daily-sales",
      "warehouse query",
      "dlq",
      "dlq list",
      "dlq requeue",
      "devices",
      "devices mosquitto",
      "doctor",
      "contracts",
      "contracts export",
      "contracts register"
    ])
  })

  for (const path of all)
    test(`merkato ${[...path, "--help"].join(" ")}`, async () => {
      const { ok, stdout, stderr } = await run(...path, "--help")
      expect({ ok, stderr }).toEqual({ ok: true, stderr: "" })
      expect(stdout).toContain(`  ${["merkato", ...path].join(" ")} `)
    })
})

describe("what cannot be is refused with a sentence", () => {
  const nowhere = join(folder.path, "nowhere")
  const here = ["--data-dir", nowhere]
  const cases: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
    [["bogus"], /^Unknown subcommand "bogus" for "merkato"/],
    [["token"], /^Missing required flag: --user/],
    [["token", "--user", "a b", "--role", "admin"], /Expected: an id: 1 to 64 of/],
    [
      ["token", "--user", "U", "--role", "admin", "--data-dir", ""],
      /^Missing value for flag --data-dir. Expected: a folder/
    ],
    [["token", "--user", "U", "--role", "admin", "--ttl", "soon"], /Expected: a time such as 10s, 5m or 12h/],
    [["seed", "--url", "shop"], /Expected: the address of a shop/],
    [["seed", ...here], /^There are no keys in \S+: name the shop's data folder with --data-dir\.$/],
    [["import", "baskets", "no-such-file"], /Path does not exist/],
    [["contracts", "export", "a", "--dir", "b"], /^Name the folder once: by itself, or with --dir\.$/],
    [["import", "baskets", join(root, "package.json"), "--concurrency", "0"], /Expected: a whole number from 1 to 256/],
    [["load", "--url", "http://shop.example"], /^http:\/\/shop\.example is not on this machine: say --allow-remote/],
    [["load", "--orders", "5"], /^--orders is of a history: say --history too/],
    [["events", "tail", "--topic", "order"], /Expected: order\.events \| /],
    [["events", "tail", ...here], /^The embedded Postgres of \S+ cannot be used: it does not run/],
    [["replay", "orders", ...here], /^There is no projection orders\. There are: orders_by_customer\b/],
    [["replay", "orders_by_customer", "--check", "--into", "a", ...here], /^Say either --check or --into/],
    [["replay", "orders_by_customer", "--into", "orders;", ...here], /Expected: a new table's name/],
    [["replay", "orders_by_customer", "--from", "soon", ...here], /Expected: archive, or a time such as/],
    [["replay", "orders_by_customer", ...here], /^The embedded Postgres of \S+ cannot be used: it does not run/],
    [["archive", "run", ...here], /^The embedded Postgres of \S+ cannot be used: it does not run/],
    [["archive", "run", "--every", "soon", ...here], /Expected: a time such as 10s, 5m or 12h/],
    [["archive", "query", "select", "--first", "soon", ...here], /Expected: a day such as 2026-01-31/],
    [["archive", "query", "select nothing from events", ...here], /Referenced column "nothing" not found/],
    [["warehouse", "query", "select", ...here], /^SELECT clause without selection list/],
    [["dlq", "requeue", ...here], /^Say which dead letters/],
    [["dlq", "list", ...here], /^The embedded Postgres of \S+ cannot be used: it does not run/]
  ]
  for (const [args, sentence] of cases)
    test(args.join(" ").replaceAll(root, "").replaceAll(folder.path, ""), async () => {
      const { ok, stdout, stderr } = await run(...args)
      expect({ ok, stdout }).toEqual({ ok: false, stdout: "" })
      expect(stderr).toMatch(sentence)
      expect(stderr).not.toMatch(/\n {4}at |Error:/)
    })

  test("nobody at the address", async () => {
    const dataDir = join(folder.path, "alone")
    await run("token", "--user", "U", "--role", "admin", "--data-dir", dataDir)
    const url = `http://localhost:${await freePort()}`
    const { ok, stderr } = await run("load", "--data-dir", dataDir, "--url", url, "--duration", "1s")
    expect(ok).toBe(false)
    expect(stderr).toContain(`No shop answers at ${url} (nobody listens there): start one with scripts/start`)
  })

  test("a database that is not there, without its password", async () => {
    const env = { DATABASE_URL: `postgres://ada:secret@127.0.0.1:${await freePort()}/shop` }
    const { ok, stderr } = await runCommand(merkato, ["dlq", "list"], env)
    expect(ok).toBe(false)
    expect(stderr).toMatch(/^DATABASE_URL cannot be used: 127\.0\.0\.1:\d+: [^\n]*ECONNREFUSED/)
    expect(stderr).not.toContain("secret")
  })
})

describe("doctor", () => {
  test("finds nothing wrong before the first start, and leaves the folder unmade", async () => {
    const dataDir = join(folder.path, "fresh")
    const { ok, stdout, stderr } = await run("doctor", "--data-dir", dataDir, "--port", String(await freePort()))
    expect({ ok, stderr, made: existsSync(dataDir) }).toEqual({ ok: true, stderr: "", made: false })
    const subjects = [
      "bun",
      "dependencies",
      "data folder",
      "lock",
      "keys",
      "postgres",
      "database",
      "servers",
      "port",
      "disk"
    ]
    expect(stdout.split("\n").map((line) => line.slice(6, 18).trimEnd())).toEqual(subjects)
    expect(stdout).not.toMatch(/^fail/m)
  })

  test("says what to do about keys that others can read, a dead owner, a taken port and a database that is away", async () => {
    const dataDir = join(folder.path, "ill")
    await run("token", "--user", "U", "--role", "admin", "--data-dir", dataDir)
    chmodSync(join(dataDir, "keys.json"), 0o644)
    writeFileSync(join(dataDir, "lock"), JSON.stringify({ pid: 4_000_000, startedAt: "long ago", token: "gone" }))
    await using other = Bun.serve({ port: 0, hostname: "0.0.0.0", fetch: () => new Response("no shop") })
    const env = { DATABASE_URL: `postgres://127.0.0.1:${await freePort()}/shop` }
    const { ok, stdout, stderr } = await runCommand(
      merkato,
      ["doctor", "--data-dir", dataDir, "--port", String(other.port)],
      env
    )
    expect({ ok, stderr }).toEqual({ ok: false, stderr: "3 of these must be put right before a shop can run." })
    expect(stdout).toMatch(/^warn {2}lock .*process 4000000, which is gone → /m)
    expect(stdout).toMatch(/^fail {2}keys .*\(mode 0644\) → run chmod 600 /m)
    expect(stdout).toMatch(/^fail {2}port .*taken by something that is no shop → choose another with --port/m)
    expect(stdout).toMatch(/^fail {2}database .* → correct DATABASE_URL/m)
  })

  test("says which of the servers that are named are away, and tells no password", async () => {
    const dataDir = folder.path
    await using there = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() })
    const nobody = `127.0.0.1:${await freePort()}`
    const run = async (env: Readonly<Record<string, string>>) => {
      const port = String(await freePort())
      const { ok, stdout } = await runCommand(
        merkato,
        ["doctor", "--data-dir", join(dataDir, "fresh"), "--port", port],
        env
      )
      return { ok, said: stdout.split("\n").find((line) => line.slice(6, 13) === "servers") }
    }
    const named = {
      KAFKA_BROKERS: `${nobody}, 127.0.0.1:${there.port}`,
      REDIS_URL: `redis://:s3cret@127.0.0.1:${there.port}/0`
    }
    const rabbit = { RABBITMQ_URL: `amqp://127.0.0.1:${there.port}`, AMQP_URL: "not looked at" }
    expect(await run({ ...named, ...rabbit })).toEqual({
      ok: true,
      said: "ok    servers       somebody listens for KAFKA_BROKERS, REDIS_URL, RABBITMQ_URL"
    })
    const { ok, said } = await run({
      ...named,
      CASSANDRA_CONTACT_POINTS: nobody,
      MQTT_URL: `mqtt://merkato:s3cret@${nobody}`,
      AMQP_URL: "s3cret",
      OPENSEARCH_URL: "http://nowhere.invalid"
    })
    expect(ok).toBe(false)
    expect(said).toStartWith("fail  servers       OPENSEARCH_URL: nowhere.invalid:80: ")
    expect(said).toContain(`; CASSANDRA_CONTACT_POINTS: ${nobody}: connect ECONNREFUSED`)
    expect(said).toContain("; AMQP_URL names no server; ")
    expect(said).toContain(`; MQTT_URL: ${nobody}: `)
    expect(said).toContain(" → start what is away, or unset the variable")
    expect(said).not.toContain("s3cret")
  })
})

test("contracts export says which file it cannot write", async () => {
  const dir = join(folder.path, "blocked")
  mkdirSync(join(dir, "openapi.json"), { recursive: true })
  const { ok, stderr } = await run("contracts", "export", dir)
  expect(ok).toBe(false)
  expect(stderr).toStartWith(`${join(dir, "openapi.json")} cannot be written: `)
})

test("contracts export writes the description of the REST surface, of the bus, of the stock over gRPC, of the graph, and the schema of each event", async () => {
  const dir = join(folder.path, "contracts")
  const { ok, stdout } = await run("contracts", "export", dir)
  const graphs = { supergraph, ...subgraphs }
  const graphFiles = Object.keys(graphs).map((name) => `graphql/${name}.graphql`)
  const documents = ["openapi.json", "asyncapi.json", "grpc/inventory.proto"]
  const files = [...documents, ...graphFiles, ...allEvents.map(({ type }) => `events/${type}.json`)]
  expect({ ok, files: stdout.split("\n") }).toEqual({ ok: true, files: files.map((file) => join(dir, file)) })
  const read = (file: string): unknown => JSON.parse(readFileSync(join(dir, file), "utf8"))
  expect(read("openapi.json")).toMatchObject({
    info: { title: "Merkato" },
    paths: { "/api/v1/orders": { post: {} } }
  })
  expect(read("asyncapi.json")).toMatchObject({ asyncapi: "3.0.0", channels: { order_events: {} } })
  expect(readFileSync(join(dir, "grpc/inventory.proto"), "utf8")).toMatch(/^service Inventory \{$/m)
  for (const [name, sdl] of Object.entries(graphs)) {
    expect(readFileSync(join(dir, `graphql/${name}.graphql`), "utf8")).toBe(sdl)
    expect(buildASTSchema(parse(sdl), { assumeValidSDL: true }).getQueryType()?.name).toBe("Query")
  }
  for (const { type } of allEvents) {
    expect(read(`events/${type}.json`)).toMatchObject({ title: type, type: "object", additionalProperties: false })
  }
})

describe("a file of baskets", () => {
  test("names are trimmed; nothing between commas, empty lines and carriage returns do not count", () => {
    expect(Baskets.parse("\uFEFFpip fruit, cream cheese ,pip fruit\r\n\n , ,\nwhole milk")).toEqual([
      {
        line: 1,
        items: [
          { name: "pip fruit", qty: 2 },
          { name: "cream cheese", qty: 1 }
        ]
      },
      { line: 4, items: [{ name: "whole milk", qty: 1 }] }
    ])
  })

  test("every unit is counted once, as a plain count does", () => {
    const name = fc.stringMatching(/^[a-z ]{0,6}$/)
    fc.assert(
      fc.property(fc.array(fc.array(name, { maxLength: 8 })), (baskets) => {
        const text = baskets.map((names) => names.join(",")).join("\n")
        expect(Baskets.unitsOf(Baskets.parse(text))).toEqual(countFile(text))
      })
    )
  })

  test("a basket that no order can hold is refused, with its line", () => {
    const refusals = (text: string) => Baskets.parse(text).map(Baskets.refusalOf)
    const names = Array.from({ length: 101 }, (_, nth) => `item ${nth}`)
    expect(refusals(["a,b", names.slice(1).join(","), names.join(","), "a,".repeat(100)].join("\n"))).toEqual([
      undefined,
      undefined,
      "Line 3 has 101 different items, and an order holds at most 100.",
      "Line 4 has a 100 times, and an order takes at most 99."
    ])
  })

  test("an SKU reads like the name, is one, and is nobody else's", () => {
    expect(["whole milk", "UHT-milk", "rolls/buns", "liquor (appetizer)", "crème brûlée"].map(Baskets.skuOf)).toEqual([
      "WHOLE-MILK",
      "UHT-MILK",
      "ROLLS-BUNS",
      "LIQUOR-APPETIZER",
      "CREME-BRULEE"
    ])
    expect([...Baskets.skusOf(["a/b", "a b", "ab"]).values()]).toEqual(["A-B-3A8E75C1", "A-B-10A3F9F2", "AB"])
    fc.assert(
      fc.property(fc.uniqueArray(fc.string({ minLength: 1, maxLength: 100, unit: "binary" })), (names) => {
        const skus = [...Baskets.skusOf(names).values()]
        expect(skus.filter((sku) => !/^[A-Z0-9-]{1,64}$/.test(sku))).toEqual([])
        expect(new Set(skus).size).toBe(names.length)
      })
    )
  })

  test("a price follows from the name: 0.49 to 9.99, to the cent", () => {
    expect(["whole milk", "soda", "yogurt"].map(Baskets.priceOf)).toEqual([8.33, 0.88, 0.97])
    fc.assert(
      fc.property(fc.string(), (name) => {
        const price = Baskets.priceOf(name)
        expect(price >= 0.49 && price <= 9.99 && Number(price.toFixed(2)) === price).toBe(true)
      })
    )
  })
})

describe("small parts", () => {
  test("durations", () => {
    const read = (text: string) => Option.getOrUndefined(Option.map(parseDuration(text), String))
    expect(["500ms", "10s", "5m", "12h", "30d"].map(read)).not.toContain(undefined)
    expect(["", "10", "s", "1.5h", "-1s", "1 h", "1w"].map(read).every((value) => value === undefined)).toBe(true)
  })

  test("only this machine is loopback", () => {
    const mine = [
      "http://localhost:8080",
      "http://127.0.0.1",
      "http://127.9.9.9:1",
      "http://[::1]:8080",
      "http://a.localhost"
    ]
    const others = [
      "http://localhost.example",
      "http://128.0.0.1",
      "http://10.0.0.1",
      "http://example",
      "http://127.0.0.1.nip.io"
    ]
    expect(mine.filter((url) => !isLoopback(url))).toEqual([])
    expect(others.filter(isLoopback)).toEqual([])
  })

  test("quantiles are right to 2 %, however many there are", () => {
    const times = fc.array(fc.double({ min: 0.02, max: 60_000, noNaN: true }), { minLength: 1, maxLength: 200 })
    fc.assert(
      fc.property(times, fc.double({ min: 0, max: 1, noNaN: true }), (values, share) => {
        const [one, other] = [new Histogram(), new Histogram()]
        values.forEach((value, nth) => (nth % 2 === 0 ? one : other).record(value))
        one.add(other)
        const sorted = values.toSorted((a, b) => a - b)
        const exact = sorted[Math.max(1, Math.ceil(share * values.length)) - 1] ?? 0
        expect(one.count).toBe(values.length)
        expect(one.max).toBe(sorted.at(-1) ?? 0)
        expect(one.quantile(share)).toBeWithin(exact * 0.999, exact * 1.021)
      })
    )
    expect(new Histogram().quantile(0.5)).toBe(0)
  })

  test("progress", () => {
    const state = { label: "orders", unit: "orders", done: 4_000, total: 8_000 }
    expect(Progress.render(state, 20_000)).toBe(
      "orders [############------------] 50 %  4,000/8,000 orders  200 orders/s  ETA 0:20"
    )
    expect(Progress.render({ ...state, done: 8_000 }, 3_700_000)).toEndWith(
      "100 %  8,000/8,000 orders  2.2 orders/s  in 1:01:40"
    )
    expect(Progress.render({ ...state, done: 0 }, 0)).toEndWith("0 %  0/8,000 orders  0.0 orders/s")
  })
})

/** An event of nobody's. */
const message = (topic: string, eventId: string, more: Partial<BusMessage["envelope"]> = {}): BusMessage => ({
  topic,
  key: "KEY-1",
  traceParent: "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00",
  envelope: {
    eventId: EventId.make(eventId),
    eventType: "ecommerce.test.thing.happened.v1",
    occurredAt: "2025-06-01T12:00:00.000Z",
    producer: "test",
    traceId: "0123456789abcdef0123456789abcdef",
    correlationId: "correlation",
    schemaVersion: "1.0",
    partitionKey: Id.make("KEY-1"),
    region: "us",
    aggregateVersion: 1,
    payload: { n: 1 },
    ...more
  }
})

describe("on a running shop", () => {
  const dataDir = join(folder.path, "shop")
  const file = join(folder.path, "baskets.csv")
  const baskets = Array.from({ length: 24 }, (_, nth) => `whole milk,${nth % 2 === 0 ? "soda ,yogurt" : "pip fruit"}`)
  let shop: Running
  const there = () => ["--url", shop.url, "--data-dir", dataDir]
  const client = async (user: string, role: string) => {
    const { stdout } = await run("token", "--user", user, "--role", role, "--data-dir", dataDir)
    return new Client(shop.url, stdout)
  }

  const onDatabase = <A, E>(body: (sql: SqlClient.SqlClient) => Effect.Effect<A, E, Scope.Scope>): Promise<A> =>
    Effect.flatMap(RunningPostgres.url(dataDir), (url) =>
      SqlClient.SqlClient.use(body).pipe(
        Effect.provide(Database.layer({ url, maxConnections: 2, applicationName: "test" }))
      )
    ).pipe(Effect.scoped, Effect.runPromise)

  beforeAll(async () => {
    writeFileSync(file, baskets.join("\n"))
    shop = await startApp("shop", ["--data-dir", dataDir, "--no-seed"])
  })
  afterAll(async () => {
    await shop.end("SIGTERM")
    rmSync(dataDir, { recursive: true, force: true })
  })

  test("seed fills it once", async () => {
    const first = await run("seed", ...there())
    expect(first.stdout).toStartWith(
      `${shelf.length} products added to the shop at ${shop.url}, 500 units each; 0 were`
    )
    const second = await run("seed", ...there())
    expect(second.stdout).toEndWith(`has all ${shelf.length} products of the shelf already; nothing was changed.`)
  })

  test("import buys every basket once, wherever an earlier run stopped", async () => {
    const importing = () => run("import", "baskets", file, ...there())
    const some = await run("import", "baskets", file, "--limit", "10", ...there())
    expect(some.stdout).toContain("4 products: 4 new, 0 there already\nstock: 25 units added\n10 of 10 baskets")

    // What a run leaves that was killed between two requests: an order placed and not paid, and one whose time was over.
    const products = new Map<string, string>()
    const page = await new Client(shop.url).get("/api/v1/products?category=Groceries")
    for (const { name, productId } of itemsOf(page.body)) products.set(name, productId)
    const halfway = async (line: number) => {
      const shopper = await client(`USER-BASKET-${(line % 200) + 1}`, "shopper")
      const items = Baskets.parse(baskets[line - 1] ?? "")[0]?.items ?? []
      const body = { items: items.map(({ name, qty }) => ({ productId: products.get(name), qty })) }
      return { shopper, order: await shopper.post("/api/v1/orders", body, { key: `baskets-${line}` }) }
    }
    const admin = await client("ADMIN", "admin")
    await Promise.all(
      [...products.values()].map((id) =>
        admin.post(`/api/v1/inventory/${id}/adjustments`, { delta: 2, reason: "for two" })
      )
    )
    expect((await halfway(11)).order.status).toBe(201)
    const { shopper, order } = await halfway(12)
    expect((await shopper.post(`/api/v1/orders/${order.body["orderId"]}/cancel`)).status).toBe(200)

    const rest = await importing()
    expect(rest).toMatchObject({ ok: true })
    expect(rest.stdout).toContain("orders: 13 new, 11 replayed, 0 failed\npayments: 14 new, 10 replayed")
    const again = await importing()
    expect(again.stdout).toContain("4 products: 0 new, 4 there already\nstock: 0 units added\n24 of 24 baskets")
    expect(again.stdout).toContain("orders: 0 new, 24 replayed, 0 failed\npayments: 0 new, 24 replayed")
  }, 30_000)

  test("a paid order is answered again as often as it is asked for, and takes nothing from the stock", async () => {
    const shopper = await client("USER-AGAIN", "shopper")
    const page = await shopper.get("/api/v1/products?q=tea")
    const productId = itemsOf(page.body)[0]?.productId ?? ""
    const body = { items: [{ productId, qty: 1 }] }
    const ask = () => shopper.post("/api/v1/orders", body, { key: "again" })
    const { body: order } = await ask()
    await shopper.post(`/api/v1/orders/${order["orderId"]}/pay`, { paymentToken: "tok_ok" }, { key: "again-pay" })
    for (let time = 1; time <= 7; time++) {
      const { status, headers, body } = await ask()
      expect({ time, status, orderId: body["orderId"] }).toEqual({ time, status: 201, orderId: order["orderId"] })
      expect(headers.get("idempotent-replayed")).toBe("true")
    }
    const inventory = ["--topic", "inventory.events", "--from-beginning", "--data-dir", dataDir]
    const changes = async () =>
      (await run("events", "tail", ...inventory)).stdout
        .split("\n")
        .flatMap((line) => (line.includes(productId) ? (/stock\.(\w+)/.exec(line)?.[1] ?? []) : []))
    // The relay may be a moment behind.
    for (let left = 100; left > 0 && !(await changes()).includes("committed"); left--) await Bun.sleep(50)
    expect(await changes()).toEqual(["adjusted", "reserved", "committed"])
  })

  test("count-baskets finds the shop in agreement with the file, and a unit too many", async () => {
    const agreed = await runCommand(countBaskets, [file, ...there()])
    expect(agreed).toMatchObject({ ok: true, stderr: "" })
    expect(agreed.stdout).toContain("4 products, 25 orders paid of 26\nunits: 60 in the file, 60 sold\n")
    expect(agreed.stdout).toEndWith("\n0 differences")
    writeFileSync(file, `${baskets.join("\n")}\nsoda,tea`)
    const differing = await runCommand(countBaskets, [file, ...there()])
    expect(differing).toMatchObject({ ok: false, stderr: "The shop and the file do not agree." })
    expect(differing.stdout).toMatch(/^soda .* sold differs$/m)
    expect(differing.stdout).toEndWith(
      "tea: the shop has no such product\n\n4 products, 25 orders paid of 26\nunits: 62 in the file, 60 sold\n" +
        "stock: 60 received = 0 on hand + 60 sold, 0 reserved\n2 differences"
    )
  })

  test("load measures each operation", async () => {
    const { ok, stdout } = await run("load", "--mix", "checkout", "--clients", "2", "--duration", "1s", ...there())
    expect(ok).toBe(true)
    const operations = stdout
      .split("\n")
      .slice(2)
      .map((line) => line.split("  ")[0])
    expect(operations).toEqual(["create cart", "put into cart", "read cart", "place order", "pay order", "all"])
  })

  test("events tail prints the latest, or all in order", async () => {
    const latest = await run("events", "tail", "--topic", "order.events", "--limit", "2", "--data-dir", dataDir)
    expect(latest.stdout.split("\n")).toHaveLength(2)
    expect(latest.stdout).toMatch(/ {2}order\.events\/\d@\d+ {2}ecommerce\.order\.\w+\.\w+\.v1 {2}ORDER-/)
    const all = await run(
      "events",
      "tail",
      "--topic",
      "catalogue.events",
      "--from-beginning",
      "--json",
      "--data-dir",
      dataDir
    )
    const skus = all.stdout.split("\n").map((line) => String(JSON.parse(line).envelope.payload.sku))
    const expected = [...shelf.map(([sku]) => String(sku)), "WHOLE-MILK", "SODA", "YOGURT", "PIP-FRUIT", "LOAD-1"]
    expect(expected.filter((sku) => !skus.includes(sku))).toEqual([])
  })

  test("events tail passes over nothing when the clocks of two publishers differ", async () => {
    await EventBus.use((bus) =>
      bus.publish(["first", "second"].map((eventId) => message("promo.events", eventId)))
    ).pipe(Bus.provide(dataDir), Effect.runPromise)
    const database = Effect.map(RunningPostgres.url(dataDir), (url) =>
      Database.layer({ url, maxConnections: 1, applicationName: "test" })
    )
    await SqlClient.SqlClient.use(
      (sql) => sql`update bus.log set published_at = published_at - interval '1 hour' where event_id = 'second'`
    ).pipe(Effect.provide(Layer.unwrap(database)), Effect.runPromise)
    const tail = await run(
      "events",
      "tail",
      "--topic",
      "promo.events",
      "--from-beginning",
      "--limit",
      "1",
      "--json",
      "--data-dir",
      dataDir
    )
    expect(JSON.parse(tail.stdout)).toMatchObject({ offset: 0, envelope: { eventId: "first" } })
  })

  test("dlq lists a dead letter with its cause and puts it back once", async () => {
    const eventId = `EVENT-${process.pid}`
    const failure = {
      topic: "partner.events",
      consumerGroup: "test.group",
      attempts: 3,
      reason: "no such thing\n  at x"
    }
    await EventBus.use((bus) => bus.publish([{ ...message("partner.events.dlq", eventId), failure }])).pipe(
      Bus.provide(dataDir),
      Effect.runPromise
    )
    const dlq = (...args: ReadonlyArray<string>) => run("dlq", ...args, "--data-dir", dataDir)
    expect((await dlq("list")).stdout).toMatch(
      new RegExp(
        `^\\S+Z  partner\\.events  ecommerce\\.test\\.thing\\.happened\\.v1  KEY-1  event ${eventId}  test\\.group \\(3 attempts\\): no such thing$`
      )
    )
    expect((await dlq("list", "--topic", "order.events")).stdout).toBe("No dead letters.")
    expect((await dlq("requeue", "--event-id", eventId)).stdout).toBe("1 event put back.")
    expect((await dlq("requeue", "--event-id", eventId)).stderr).toStartWith(
      `No dead letter has the event id ${eventId}`
    )
    expect((await dlq("requeue", "--all")).stdout).toBe("0 events put back.")
    const back = await run("events", "tail", "--topic", "partner.events", "--data-dir", dataDir)
    expect(back.stdout).toContain("partner.events/")
  })

  test("dlq leaves among the dead letters what breaks its schema, and says why", async () => {
    const broken = message("order.events.dlq", `BROKEN-${process.pid}`, { eventType: OrderFulfilled.type, payload: {} })
    const failure = { topic: "order.events", consumerGroup: "orders.relay", attempts: 1, reason: "it did before" }
    await EventBus.use((bus) => bus.publish([{ ...broken, failure }])).pipe(Bus.provide(dataDir), Effect.runPromise)
    for (const which of [["--all"], ["--event-id", broken.envelope.eventId]]) {
      const { stdout, stderr } = await run("dlq", "requeue", ...which, "--data-dir", dataDir)
      expect(stdout).toBe("0 events put back.")
      expect(stderr).toBe(
        `Event ${broken.envelope.eventId} stays where it is. It breaks the schema of ${OrderFulfilled.type}: Missing key at ["orderId"]`
      )
    }
    const { stdout } = await run("dlq", "list", "--topic", "order.events", "--data-dir", dataDir)
    expect(stdout).toContain(broken.envelope.eventId)
  })

  describe("replay", () => {
    const replay = (...args: ReadonlyArray<string>) =>
      run("replay", "orders_by_customer", ...args, "--data-dir", dataDir)
    const comparedIn = (stdout: string) => Number(/^([\d,]+) rows? compared/m.exec(stdout)?.[1]?.replaceAll(",", ""))

    test("while the shop sells agrees with what it replaces, again and again", async () => {
      const orders = () =>
        onDatabase((sql) =>
          Effect.map(sql<{ n: number }>`select count(*) as n from orders.orders`, ([row]) => row?.n ?? 0)
        )
      const before = await orders()
      let selling = true
      const load = run("load", "--mix", "checkout", "--clients", "2", "--duration", "3s", ...there()).finally(() => {
        selling = false
      })
      let replays = 0
      while (selling || replays === 0) {
        const { ok, stdout, stderr } = await replay()
        expect({ ok, stderr }).toEqual({ ok: true, stderr: "" })
        expect(stdout).toMatch(
          /^orders_by_customer: [\d,]+ events read in .*\n[\d,]+ rows? compared, 0 differences\norders_by_customer is the rebuilt one now\.$/
        )
        expect(comparedIn(stdout)).toBeGreaterThanOrEqual(before)
        replays += 1
      }
      expect((await load).ok).toBe(true)
      expect(await orders()).toBeGreaterThan(before)
      const { ok, stdout } = await replay("--check")
      expect({ ok, compared: comparedIn(stdout) }).toEqual({ ok: true, compared: await orders() })
      // The orders themselves, which are written by nobody's consumer, say the same.
      const others = await onDatabase(
        (sql) => sql`
          select order_id, o.status, c.status as "inList" from orders.orders o full join orders.orders_by_customer c using (order_id)
          where (o.user_id, o.status, o.total_minor, o.currency, o.region, o.created_at)
            is distinct from (c.user_id, c.status, c.total_minor, c.currency, c.region, c.placed_at)`
      )
      expect(others).toEqual([])
    })

    test("finds damaged rows and mends them", async () => {
      const damaged = await onDatabase((sql) =>
        Effect.gen(function* () {
          const [gone, wrong] = yield* sql<{ orderId: string }>`
            select order_id as "orderId" from orders.orders_by_customer order by user_id, order_id limit 2`
          yield* sql`delete from orders.orders_by_customer where order_id = ${gone?.orderId ?? ""}`
          yield* sql`update orders.orders_by_customer set total_minor = 1 where order_id = ${wrong?.orderId ?? ""}`
          return { gone: gone?.orderId, wrong: wrong?.orderId }
        })
      )
      for (const args of [["--check"], ["--into", "orders_by_customer_of_the_test"], []]) {
        const { ok, stdout, stderr } = await replay(...args)
        expect(ok).toBe(false)
        expect(stdout).toContain(" rows compared, 2 differences:\n")
        expect(stdout).toContain(`order_id=${damaged.gone}: missing, its events tell of it\n`)
        expect(stdout).toMatch(new RegExp(`order_id=${damaged.wrong}: total_minor is 1, its events say \\d+$`, "m"))
        expect(stderr).toBe(
          `orders_by_customer was not what its events say in 2 rows${args.length === 0 ? " and is mended" : ""}.`
        )
      }
      expect((await replay()).stdout).toContain(" rows compared, 0 differences\n")
      const kept = await onDatabase(
        (sql) => sql`
          select * from orders.orders_by_customer_of_the_test except select * from orders.orders_by_customer`
      )
      expect(kept).toEqual([])
      const { stderr } = await replay("--into", "orders_by_customer_of_the_test")
      expect(stderr).toBe("There is a table orders.orders_by_customer_of_the_test already.")
    })

    test("that was killed can be run again", () =>
      onDatabase((sql) =>
        Effect.gen(function* () {
          const building = Effect.map(
            sql<{ building: string }>`
              select building from orders.projections where name = 'orders_by_customer' and building is not null`,
            (rows) => rows.length
          )
          const killed = yield* sql.withTransaction(
            Effect.gen(function* () {
              // It begins, and comes no further.
              yield* sql`lock table orders.events in access exclusive mode`
              const child = Bun.spawn([process.execPath, "apps/merkato/src/main.ts", "replay", "orders_by_customer"], {
                cwd: root,
                env: { ...process.env, MERKATO_DATA_DIR: dataDir },
                stdio: ["ignore", "ignore", "ignore"]
              })
              yield* Effect.repeat(building, {
                until: (count) => count > 0,
                schedule: Schedule.spaced("20 millis"),
                times: 1_500
              })
              child.kill("SIGKILL")
              return yield* Effect.promise(() => child.exited)
            })
          )
          expect(killed).not.toBe(0)
          expect(yield* building).toBe(1)
          // Time goes by.
          yield* sql`update orders.projections set lease_until = ${new Date(0)}`
          const { ok, stdout } = yield* Effect.promise(() => replay())
          expect({ ok, same: stdout.includes(" 0 differences\n") }).toEqual({ ok: true, same: true })
          expect(yield* building).toBe(0)
        })
      ))
  })

  describe("archive and warehouse", () => {
    const here = ["--data-dir", dataDir]
    const rowsOf = async (...args: ReadonlyArray<string>): Promise<ReadonlyArray<unknown>> => {
      const { ok, stdout, stderr } = await run(...args, "--json", ...here)
      expect({ ok, stderr }).toEqual({ ok: true, stderr: "" })
      return stdout === "" ? [] : stdout.split("\n").map((line): unknown => JSON.parse(line))
    }

    test("an archiver that is killed neither loses nor doubles an event", async () => {
      const objects = join(dataDir, "objects", "archive")
      const child = Bun.spawn([process.execPath, "apps/merkato/src/main.ts", "archive", "run", ...here], {
        cwd: root,
        stdio: ["ignore", "ignore", "ignore"]
      })
      while (!existsSync(objects) && child.exitCode === null) await Bun.sleep(1)
      child.kill("SIGKILL")
      await child.exited
      expect((await run("archive", "run", ...here)).stdout).toMatch(/^[\d,]+ events? archived in \d+ files?$/)
      expect((await run("archive", "run", ...here)).stdout).toBe("0 events archived in 0 files")
      const onBus = await onDatabase(
        (sql) => sql`
          select topic, partition, count(*) as n, max("offset") as last, string_agg(event_id, ' ' order by "offset") as events
          from bus.log where topic = any(${Topic.literals}::text[]) group by topic, partition order by topic, partition`
      )
      expect(onBus.length).toBeGreaterThan(8)
      const archived = `select topic, log_partition as partition, count(*) as n, max(log_offset) as last,
        string_agg(event_id, ' ' order by log_offset) as events from log group by all order by all`
      expect(await rowsOf("archive", "query", archived)).toEqual([...onBus])
    }, 30_000)

    test("the warehouse agrees with Postgres, to the cent", async () => {
      const built = await run("warehouse", "build", ...here)
      expect(built).toMatchObject({ ok: true, stderr: "" })
      const orders = await onDatabase(
        (sql) => sql`
          select order_id, user_id, region, currency, status, items_minor, discount_minor, tax_minor, shipping_minor, total_minor,
            version, (select count(*)::int from orders.order_items i where i.order_id = o.order_id) as lines,
            (select sum(qty)::int from orders.order_items i where i.order_id = o.order_id) as units
          from orders.orders o order by order_id`
      )
      expect(orders.length).toBeGreaterThan(20)
      const columns = Object.keys(orders[0] ?? {}).join(", ")
      expect(await rowsOf("warehouse", "query", `select ${columns} from fact_orders order by order_id`)).toEqual([
        ...orders
      ])
      const adjustments = await onDatabase(
        (sql) => sql`
          select product_id, warehouse_id, delta, reason, on_hand from inventory.inventory_adjustment
          order by product_id, adjusted_at, on_hand`
      )
      expect(
        await rowsOf(
          "warehouse",
          "query",
          `select product_id, warehouse_id, delta, reason, on_hand from fact_inventory_adjustments
           order by product_id, adjusted_at, on_hand`
        )
      ).toEqual([...adjustments])
      const products = await onDatabase(
        (sql) =>
          sql`select product_id, sku, name, price_minor, currency, version from catalogue.products order by product_id`
      )
      expect(
        await rowsOf(
          "warehouse",
          "query",
          "select product_id, sku, name, price_minor, currency, version from dim_product where is_current order by product_id"
        )
      ).toEqual([...products])
      expect((await run("warehouse", "daily-sales", ...here)).stderr).toMatch(/^summed up: \d{4}-/)
      expect((await run("warehouse", "daily-sales", ...here)).stderr).toBe("summed up: nothing, all is as it was")
      const sales = await onDatabase(
        (sql) => sql`
          select to_char(created_at at time zone 'America/New_York', 'YYYY-MM-DD') as day, count(*) as orders,
            sum(total_minor)::bigint as total_minor,
            coalesce(sum(total_minor) filter (where status in ('PAID', 'FULFILLED')), 0)::bigint as paid_minor
          from orders.orders where region = 'us' and currency = 'USD' group by 1 order by 1`
      )
      expect(
        await rowsOf(
          "warehouse",
          "query",
          "select day, orders, total_minor, paid_minor from daily_sales where region = 'us' and currency = 'USD' order by day"
        )
      ).toEqual([...sales])
      const day = String(sales[0]?.["day"])
      const told = await run("warehouse", "daily-sales", "--day", day, ...here)
      expect(told.stdout).toMatch(new RegExp(`^day +region .*\\n${day}  us `))
    }, 30_000)

    test("a projection is built of the archive, though the bus has long forgotten", async () => {
      const forgotten = await onDatabase(
        (sql) => sql`delete from bus.log where topic = 'order.events' and "offset" < 5 returning 1`
      )
      expect(forgotten.length).toBeGreaterThan(0)
      const replay = (...args: ReadonlyArray<string>) =>
        run("replay", "orders_by_customer", "--from", "archive", ...args, ...here)
      const [orders] = await onDatabase((sql) => sql<{ n: number }>`select count(*) as n from orders.orders`)
      const { ok, stdout } = await replay()
      expect({ ok, stdout }).toMatchObject({
        ok: true,
        stdout: expect.stringContaining(`${orders?.n.toLocaleString("en")} rows compared, 0 differences\n`)
      })
      await onDatabase(
        (sql) => sql`
          delete from orders.orders_by_customer where order_id = (select min(order_id) from orders.orders_by_customer)`
      )
      expect((await replay()).stdout).toContain(" rows compared, 1 difference:\n")
      expect((await replay("--check")).stdout).toEndWith(" rows compared, 0 differences")
      // What nobody has any more is not passed over.
      rmSync(join(dataDir, "objects", "archive", "bus=postgres", "topic=order.events"), { recursive: true })
      expect(await replay("--check")).toMatchObject({
        ok: false,
        stderr: expect.stringMatching(/Neither the archive nor the bus has order\.events\/\d from 0 to \d\.$/)
      })
    }, 30_000)
  })

  test.skipIf(process.platform !== "linux")("it does without the memory of DuckDB", () => {
    const maps = readFileSync(`/proc/${shop.pid}/maps`, "utf8")
    expect(maps).toContain("libc")
    expect(maps).not.toContain("duckdb")
  })

  test("contracts export writes what the shop serves", async () => {
    const { stdout } = await run("contracts", "export", "--dir", join(folder.path, "served"))
    const served: unknown = await (await fetch(`${shop.url}/openapi.json`)).json()
    expect(served).toEqual(JSON.parse(readFileSync(stdout.split("\n")[0] ?? "", "utf8")))
  })

  test("doctor finds it", async () => {
    const { ok, stdout } = await run("doctor", "--data-dir", dataDir, "--port", new URL(shop.url).port)
    expect(ok).toBe(true)
    expect(stdout).toContain(`process ${shop.pid} uses the data folder`)
    expect(stdout).toContain("the embedded Postgres answers")
    expect(stdout).toContain(`a shop answers at http://localhost:${new URL(shop.url).port}`)
  })
})
