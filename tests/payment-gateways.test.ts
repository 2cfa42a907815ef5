// The test gateways as an app of their own, and a shop that pays through them.
import { afterEach, describe, expect, test } from "bun:test"
import { Effect, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { lookInto, wrongAtRest } from "./support/Audit.ts"
import { Client, text, tokenFor } from "./support/Client.ts"
import { kill, killPostgres } from "./support/Crash.ts"
import { freePort, runToEnd, startApp, temporaryFolder } from "./support/Processes.ts"
import { stockUp } from "./support/Shoppers.ts"

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

const start = async (app: "payment-gateways" | "shop", args: ReadonlyArray<string>, env?: Record<string, string>) => {
  const running = await startApp(app, args, env)
  left.push(() => kill(running.pid))
  return running
}

const json = async (url: string, method = "GET", body?: unknown): Promise<Record<string, unknown>> => {
  const answer = await fetch(url, { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }) })
  return { httpStatus: answer.status, ...Object(await answer.json()) }
}

describe("the payment gateways as an app", () => {
  test("serve both doors, stop when told to though somebody waits, and find their books again", async () => {
    const dataDir = folder()
    const app = await start("payment-gateways", ["--data-dir", dataDir])
    const order = { orderId: "ORDER-1", amount: 12.5, currency: "USD", token: "tok_ok" }
    expect(await json(`${app.url}/v1/attempts/A-1/authorise`, "POST", order)).toMatchObject({
      httpStatus: 200,
      status: "authorised"
    })
    expect(await (await fetch(`${app.url}/soap/payments?wsdl`)).text()).toContain(`location="${app.url}/soap/payments"`)
    const waiting = fetch(`${app.url}/v1/attempts/A-2/authorise`, {
      method: "POST",
      body: JSON.stringify({ ...order, token: "tok_lost" })
    }).then(
      ({ status }) => `answered ${status}`,
      () => "the connection was closed"
    )
    while ((await json(`${app.url}/v1/attempts/A-2`))["status"] !== "authorised") await Bun.sleep(10)
    expect(await app.end("SIGTERM")).toBe(130)
    expect(await waiting).toBe("the connection was closed")
    expect(app.output()).not.toMatch(/"level":"(?:WARN|ERROR|FATAL)"/)

    const again = await start("payment-gateways", ["--data-dir", dataDir])
    for (const attempt of ["A-1", "A-2"]) {
      expect(await json(`${again.url}/v1/attempts/${attempt}`)).toMatchObject({ status: "authorised", amount: 12.5 })
    }
    expect(await again.end("SIGINT")).toBe(130)
  }, 60_000)

  test("say in a sentence why they cannot start", async () => {
    const port = String(await freePort())
    const dataDir = folder()
    const nowhere = `postgres://merkato:s3cret@127.0.0.1:${await freePort()}/psp`
    const wrong: ReadonlyArray<readonly [args: ReadonlyArray<string>, env: Record<string, string>, why: RegExp]> = [
      [["--database-url", nowhere], {}, /^--database-url cannot be used: 127\.0\.0\.1:\d+: .*ECONNREFUSED/],
      [["--database-url", "s3cret"], {}, /^--database-url cannot be used: expected postgres:\/\//],
      [[], { DATABASE_URL: nowhere }, /^DATABASE_URL cannot be used: 127\.0\.0\.1:\d+: .*ECONNREFUSED/]
    ]
    for (const [args, env, why] of wrong) {
      const ended = await runToEnd("payment-gateways", ["--port", port, "--data-dir", dataDir, ...args], env)
      expect(ended).toMatchObject({ code: 1, stdout: "" })
      expect(ended.stderr.trim().split("\n")).toHaveLength(1)
      expect(ended.stderr).toMatch(why)
      expect(ended.stderr).not.toContain("s3cret")
    }
    const help = await runToEnd("payment-gateways", ["--help"])
    expect(help.code).toBe(0)
    for (const flag of ["--port", "--database-url", "--data-dir"]) expect(help.stdout).toContain(flag)
  }, 60_000)
})

test(
  "a shop that contains them does not open their doors to its own callers",
  () =>
    Effect.gen(function* () {
      const { url } = yield* TestDatabase.fresh
      yield* Effect.promise(async () => {
        const shop = await start("shop", ["--no-seed", "--data-dir", folder()], { DATABASE_URL: Redacted.value(url) })
        for (const path of ["/control/soap", "/v1/attempts/A-1", "/soap/payments?wsdl"]) {
          expect([path, (await fetch(`${shop.url}${path}`)).status]).toEqual([path, 404])
        }
        expect(await shop.end("SIGTERM")).toBe(130)
      })
    }).pipe(Effect.scoped, Effect.runPromise),
  60_000
)

describe("a shop with gateways elsewhere", () => {
  test(
    "pays through them, and both books agree",
    () =>
      Effect.gen(function* () {
        const { url } = yield* TestDatabase.fresh
        yield* Effect.promise(async () => {
          const app = await start("payment-gateways", ["--database-url", Redacted.value(url)])
          const dataDir = folder()
          const shop = await start("shop", ["--no-seed", "--data-dir", dataDir], {
            DATABASE_URL: Redacted.value(url),
            MERKATO_PAYMENT_GATEWAY_URL: `${app.url}/`
          })
          const admin = new Client(shop.url, await tokenFor(dataDir, "ADMIN", "admin"))
          const [productId] = await stockUp(admin)
          const ada = admin.as(await tokenFor(dataDir, "ADA", "shopper"))
          const pay = async (token: string) => {
            const placed = await ada.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key: `${token}-1` })
            const path = `/api/v1/orders/${text(placed, "orderId")}/pay`
            const { body, status } = await ada.post(path, { paymentToken: token }, { key: `${token}-2` })
            return [status, body["status"], body["code"]]
          }
          expect(await pay("tok_ok")).toEqual([200, "PAID", undefined])
          expect(await pay("tok_declined")).toEqual([402, 402, "payment_declined"])
          expect(await pay("tok_all_down")).toEqual([503, 503, "payment_unavailable"])
          expect(await lookInto(url, wrongAtRest)).toEqual([])
          const book = await lookInto(
            url,
            Effect.flatMap(
              SqlClient.SqlClient,
              (sql) => sql`select gateway, status from psp.attempts where status <> 'voided' order by status`
            )
          )
          expect(book).toEqual([
            { gateway: "soap", status: "captured" },
            { gateway: "soap", status: "declined" }
          ])
          expect(await shop.end("SIGTERM")).toBe(130)
          expect(await app.end("SIGTERM")).toBe(130)
        })
      }).pipe(Effect.scoped, Effect.runPromise),
    60_000
  )

  test(
    "is told which variable names no gateway, and not what it says",
    () =>
      Effect.gen(function* () {
        const { url } = yield* TestDatabase.fresh
        yield* Effect.promise(async () => {
          const args = ["--port", String(await freePort()), "--data-dir", folder(), "--no-seed"]
          const wrong: ReadonlyArray<readonly [env: Record<string, string>, variable: string]> = [
            [{ MERKATO_PAYMENT_GATEWAY_URL: "s3cret" }, "MERKATO_PAYMENT_GATEWAY_URL"],
            [{ MERKATO_PAYMENT_GATEWAY_URL: "ftp://s3cret/" }, "MERKATO_PAYMENT_GATEWAY_URL"],
            [{ MERKATO_PAYMENT_SOAP_URL: "http://127.0.0.1:1/s3cret" }, "MERKATO_PAYMENT_REST_URL"],
            [{ MERKATO_PAYMENT_REST_URL: "http://127.0.0.1:1/s3cret" }, "MERKATO_PAYMENT_SOAP_URL"]
          ]
          for (const [env, variable] of wrong) {
            const ended = await runToEnd("shop", args, { DATABASE_URL: Redacted.value(url), ...env })
            expect(ended).toMatchObject({ code: 1, stdout: "" })
            expect(ended.stderr).toBe(`${variable} cannot be used: expected http://host:port or https://host\n`)
          }
        })
      }).pipe(Effect.scoped, Effect.runPromise),
    60_000
  )
})
