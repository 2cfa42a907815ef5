import { afterEach, describe, expect, test } from "bun:test"
import { Effect, Redacted } from "effect"
import { readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { ownerOf } from "@merkato/infra/postgres/DataFolder"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { lookInto, wrongAtRest } from "./support/Audit.ts"
import { type Answer, Client, text, tokenFor } from "./support/Client.ts"
import { kill, killPostgres } from "./support/Crash.ts"
import { freePort, postmasterOf, type Running, runToEnd, startApp, temporaryFolder } from "./support/Processes.ts"
import { stockUp } from "./support/Shoppers.ts"
import { ThreeProcesses } from "./support/ThreeProcesses.ts"

/** What a test that fails half-way leaves behind. */
const left: Array<() => void> = []
afterEach(() => {
  for (const clear of left.splice(0).toReversed()) clear()
})

const folder = () => {
  const { path, remove } = temporaryFolder()
  left.push(remove, () => killPostgres(path))
  return path
}

/** Starts a shop, and says how long it took. */
const start = async (dataDir: string, ...more: ReadonlyArray<string>): Promise<Running> => {
  const begun = performance.now()
  const shop = await startApp("shop", ["--data-dir", dataDir, ...more])
  left.push(() => kill(shop.pid))
  console.log(`ready after ${((performance.now() - begun) / 1_000).toFixed(1)} s`)
  return shop
}

const until = async (isSo: () => boolean | Promise<boolean>) => {
  while (!(await isSo())) await Bun.sleep(10)
}

const isDraining = (url: string) =>
  fetch(`${url}/readyz`).then(
    async (response) => (await response.text()).includes("draining"),
    () => false
  )

/** Nothing of the shop runs any more, and its data folder is nobody's. */
const nothingIsLeftOf = (dataDir: string) => {
  expect(postmasterOf(dataDir)).toBeUndefined()
  expect(ownerOf(dataDir)).toBeUndefined()
}

/** One sentence for who started it: no stack, no log, and no word that says how it is made inside. */
const isOneSentence = (said: string) => {
  expect(said.trim().split("\n").length).toBe(1)
  expect(said).not.toMatch(/^\s*at |Error:|Effect|Cause|"level"|\{/m)
}

describe("a shop that is told to stop", () => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    test(`${signal}: answers what it was asked, stops all that it started, and finds everything again`, async () => {
      const dataDir = folder()
      const shop = await start(dataDir)
      const ada = new Client(shop.url, await tokenFor(dataDir, "ADA", "shopper"))
      const products = await ada.get("/api/v1/products?limit=100")
      const shelf: unknown = products.body["items"]
      if (!Array.isArray(shelf)) throw new Error("no products")
      const { productId } = shelf[0]
      const placed = await ada.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key: "one" })
      const order = `/api/v1/orders/${text(placed, "orderId")}`

      // The gateway takes the money and loses the answer: this is under way for two seconds.
      const paying = ada.post(`${order}/pay`, { paymentToken: "tok_lost" }, { key: "two" })
      await Bun.sleep(300)
      const ending = shop.end(signal)
      await until(() => isDraining(shop.url))
      const refused: Answer = await ada.get(order)
      expect({ status: refused.status, type: refused.headers.get("content-type") }).toEqual({
        status: 503,
        type: "application/problem+json"
      })
      const paid = await paying
      expect({ status: paid.status, order: paid.body["status"] }).toEqual({ status: 200, order: "PAID" })
      expect(await ending).toBe(130)
      expect(shop.output()).not.toMatch(/"level":"(?:WARN|ERROR|FATAL)"/)
      expect(await fetch(`${shop.url}/healthz`).catch(() => "nobody there")).toBe("nobody there")
      nothingIsLeftOf(dataDir)

      const again = await start(dataDir)
      const later = new Client(again.url, ada.token)
      expect((await later.get(order)).body).toEqual(paid.body)
      expect((await later.get("/api/v1/products?limit=100")).body["items"]).toEqual(shelf)
      const repeated = await later.post(`${order}/pay`, { paymentToken: "tok_lost" }, { key: "two" })
      expect(repeated.headers.get("idempotent-replayed")).toBe("true")
      expect(await again.end(signal)).toBe(130)
      nothingIsLeftOf(dataDir)
    }, 60_000)
  }

  test("while it starts: it stops what it had started", async () => {
    for (const afterMs of [50, 300, 700, 1_200, 2_000]) {
      const dataDir = folder()
      const starting = startApp("shop", ["--data-dir", dataDir]).then(
        (shop) => shop.end("SIGTERM"),
        () => "ended"
      )
      await until(() => ownerOf(dataDir) !== undefined)
      await Bun.sleep(afterMs)
      process.kill(ownerOf(dataDir)?.pid ?? 0, "SIGTERM")
      await starting
      nothingIsLeftOf(dataDir)
    }
  }, 60_000)

  test(
    "a gateway and services answer what they were asked, too",
    () =>
      Effect.gen(function* () {
        const { url } = yield* TestDatabase.fresh
        yield* Effect.promise(async () => {
          const three = await ThreeProcesses.start(url, folder())
          left.push(() => void three.stop())
          const admin = new Client(three.url("gateway"), await tokenFor(three.dataDir, "ADMIN", "admin"))
          const [productId] = await stockUp(admin)
          const ada = admin.as(await tokenFor(three.dataDir, "ADA", "shopper"))
          for (const name of ["gateway", "front", "back"] as const) {
            const placed = await ada.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key: `${name}-1` })
            const order = `/api/v1/orders/${text(placed, "orderId")}`
            const pay = () => ada.post(`${order}/pay`, { paymentToken: "tok_lost" }, { key: `${name}-2` })
            const paying = pay()
            await Bun.sleep(200)
            const ending = three.end(name, "SIGTERM")
            const { status, body } = await paying
            // A payment asks inventory and payments several times, and one that stops takes nothing new.
            if (name === "back" && status === 503) expect(body).toMatchObject({ code: "service_unavailable" })
            else expect({ status, order: body["status"] }).toEqual({ status: 200, order: "PAID" })
            expect(await ending).toBe(130)
            await three.start(name)
            expect((await ada.persist(pay)).body["status"]).toBe("PAID")
          }
          expect(await lookInto(url, wrongAtRest)).toEqual([])
          await three.stop()
          expect(three.errors).toEqual([])
        })
      }).pipe(Effect.scoped, Effect.runPromise),
    60_000
  )
})

describe("a shop that cannot start says why, in a sentence", () => {
  test("the data folder is another's, who goes on undisturbed", async () => {
    const dataDir = folder()
    const shop = await start(dataDir, "--no-seed")
    const second = await runToEnd("shop", ["--data-dir", dataDir, "--port", String(await freePort())])
    expect(second).toMatchObject({ code: 1, stdout: "" })
    expect(second.stderr).toBe(
      `The data folder ${dataDir} is in use by process ${shop.pid}: stop that one, or choose another folder.\n`
    )
    expect((await fetch(`${shop.url}/readyz`)).status).toBe(200)
    expect(await shop.end("SIGTERM")).toBe(130)
  }, 60_000)

  test("the port is taken; what was started for nothing is stopped", async () => {
    const other = Bun.serve({ port: 0, hostname: "0.0.0.0", fetch: () => new Response() })
    left.push(() => void other.stop(true))
    const dataDir = folder()
    const shop = await runToEnd("shop", ["--data-dir", dataDir, "--port", String(other.port), "--no-seed"])
    expect(shop).toMatchObject({ code: 1, stdout: "" })
    isOneSentence(shop.stderr)
    expect(shop.stderr).toStartWith(`Port ${other.port} is in use`)
    nothingIsLeftOf(dataDir)
  }, 60_000)

  test(
    "DATABASE_URL leads nowhere: the variable is named, the password is not",
    () =>
      Effect.gen(function* () {
        const database = yield* TestDatabase.fresh
        const free = yield* Effect.promise(() => freePort())
        const real = new URL(Redacted.value(database.url))
        const change = (what: (url: URL) => void) => {
          const url = new URL(real)
          what(url)
          return url.href
        }
        const wrong: ReadonlyArray<readonly [url: string, why: RegExp]> = [
          ["s3cret", /expected postgres:\/\/user:password@host:port\/database/],
          ["mysql://root:s3cret@localhost/shop", /expected postgres:\/\//],
          [`postgres://merkato:s3cret@127.0.0.1:${free}/merkato`, /127\.0\.0\.1:\d+: .*ECONNREFUSED/],
          ["postgres://merkato:s3cret@nowhere.invalid/merkato", /nowhere\.invalid: /],
          [
            change((url) => {
              url.password = "s3cret"
            }),
            /password authentication failed for user "postgres"/
          ],
          [
            change((url) => {
              url.pathname = "/s3cret_db"
            }),
            /database "s3cret_db" does not exist/
          ]
        ]
        yield* Effect.forEach(wrong, ([url, why]) =>
          Effect.promise(async () => {
            const dataDir = folder()
            const [shop, service] = [
              await runToEnd("shop", ["--data-dir", dataDir, "--port", String(free)], { DATABASE_URL: url }),
              await runToEnd("service", ["--data-dir", dataDir, "--port", String(free), "--contexts", "cart"], {
                MERKATO_CART_DATABASE_URL: url
              })
            ]
            expect(shop).toMatchObject({ code: 1, stdout: "" })
            expect(shop.stderr).toStartWith("DATABASE_URL cannot be used: ")
            expect(service).toMatchObject({ code: 1, stdout: "" })
            expect(service.stderr).toStartWith("MERKATO_CART_DATABASE_URL cannot be used: ")
            for (const { stderr } of [shop, service]) {
              isOneSentence(stderr)
              expect(stderr).toMatch(why)
              expect(stderr.replace("s3cret_db", "")).not.toContain("s3cret")
              expect(stderr).not.toContain(real.password)
            }
          })
        )
      }).pipe(Effect.scoped, Effect.runPromise),
    60_000
  )

  test("a setting cannot be read: the variable is named, its value is not", async () => {
    const dataDir = folder()
    const wrong = {
      MERKATO_HTTP_PORT: "s3cret",
      MERKATO_PROFILE: "s3cret",
      MERKATO_LOG_LEVEL: "s3cret",
      MERKATO_SIGNING_KEYS: "s3cret",
      MERKATO_PAYMENT_TIMEOUT_MS: "-77777",
      MERKATO_PAYMENT_RECONCILE_AFTER_MS: "-77777",
      MERKATO_ORDER_PROCESS_SWEEP_MS: "-77777",
      MERKATO_RESERVATION_SWEEP_MS: "-77777",
      MERKATO_REVENUE_LATENESS_MINUTES: "-77777",
      MERKATO_TRACE_SAMPLING: "77777",
      MERKATO_KEEP_NOTIFICATIONS_DAYS: "0.99999",
      MERKATO_KEEP_ORDER_PROCESSES_DAYS: "77777"
    }
    for (const [name, value] of Object.entries(wrong)) {
      const port = name === "MERKATO_HTTP_PORT" ? [] : ["--port", String(await freePort())]
      const shop = await runToEnd("shop", ["--data-dir", dataDir, ...port], { [name]: value })
      expect(shop).toMatchObject({ code: 1, stdout: "" })
      isOneSentence(shop.stderr)
      expect(shop.stderr).toContain(name)
      expect(shop.stderr).not.toContain(value)
      nothingIsLeftOf(dataDir)
    }
  }, 60_000)

  test("contexts and peers make no sense", async () => {
    const dataDir = folder()
    const at = ["--data-dir", dataDir, "--port", String(await freePort())]
    const wrong: ReadonlyArray<readonly [app: "service" | "gateway", args: ReadonlyArray<string>, why: RegExp]> = [
      ["service", ["--contexts", "orders,warehouse"], /no context "warehouse"; there are .*orders/],
      ["service", ["--contexts", "cart"], /DATABASE_URL is not set/],
      ["gateway", ["--peer", "orders"], /contexts=url.*got "orders"/],
      ["gateway", ["--peer", "warehouse=http://127.0.0.1:1"], /no context "warehouse"/]
    ]
    for (const [app, args, why] of wrong) {
      const ended = await runToEnd(app, [...at, ...args])
      expect(ended).toMatchObject({ code: 1, stdout: "" })
      isOneSentence(ended.stderr)
      expect(ended.stderr).toMatch(why)
    }
  }, 60_000)

  test("a flag that makes no sense is named before anything is made", async () => {
    const dataDir = folder()
    const port = String(await freePort())
    const wrong: ReadonlyArray<readonly [args: ReadonlyArray<string>, why: string]> = [
      [["--port", "0", "--data-dir", dataDir], '--port: "0". Expected: a whole number from 1 to 65535'],
      [["--port", "70000", "--data-dir", dataDir], '--port: "70000". Expected: a whole number from 1 to 65535'],
      [["--port", port, "--data-dir", ""], "--data-dir. Expected: a folder"]
    ]
    for (const [args, why] of wrong) {
      // A flag that were taken after all leads no further than to a database that is not there.
      const env = { DATABASE_URL: "postgres://127.0.0.1:1/nowhere" }
      const { code, stderr } = await runToEnd("shop", args, env)
      expect({ code, named: stderr.includes(why) ? why : stderr }).toEqual({ code: 1, named: why })
    }
    expect(readdirSync(dataDir)).toEqual([])
  }, 60_000)

  test("a flag that there is not is named, and how to see those that there are", async () => {
    for (const [app, command] of [
      ["shop", "start"],
      ["service", "service"],
      ["gateway", "gateway"],
      ["payment-gateways", "payment-gateways"]
    ] as const) {
      const { code, stdout, stderr } = await runToEnd(app, ["--bogus", "8080"])
      expect({ code, stdout }).toEqual({ code: 1, stdout: "" })
      expect(stderr).toMatch(/^Unrecognized flag: --bogus in command /)
      expect(stderr).toEndWith(`\nTry: ${command} --help\n`)
      const help = await runToEnd(app, ["--help"])
      expect(help).toMatchObject({ code: 0, stderr: "" })
      expect(help.stdout).toContain("--port")
      expect(help.stdout).not.toMatch(/--log-level|--wizard/)
    }
  }, 60_000)
})

test(
  "MERKATO_DATA_DIR is where processes find the keys that they share",
  () =>
    Effect.gen(function* () {
      const { url } = yield* TestDatabase.fresh
      yield* Effect.promise(async () => {
        const dataDir = folder()
        const keys = join(dataDir, "keys.json")
        writeFileSync(keys, "no keys", { mode: 0o600 })
        const env = { MERKATO_DATA_DIR: dataDir, DATABASE_URL: Redacted.value(url) }
        for (const [app, ...args] of [
          ["shop", "--no-seed"],
          ["service", "--contexts", "cart"],
          ["gateway", "--peer", "orders=http://127.0.0.1:1"]
        ] as const) {
          const ended = await runToEnd(app, [...args, "--port", String(await freePort())], env)
          expect(ended).toMatchObject({ code: 1, stdout: "" })
          isOneSentence(ended.stderr)
          expect(ended.stderr).toContain(`The signing keys in ${keys} cannot be used`)
        }
      })
    }).pipe(Effect.scoped, Effect.runPromise),
  60_000
)
