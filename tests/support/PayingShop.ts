import { renameSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, Redacted } from "effect"
import type { SqlClient } from "effect/sql"
import type { Overrides } from "@merkato/infra/policy/Policies"
import type { OperationName } from "@merkato/infra/policy/operations"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import type { Conduct } from "@merkato/services/psp/Conduct"
import { lookInto } from "./Audit.ts"
import { Client, tokenFor } from "./Client.ts"
import { freePort, type Running, startApp, temporaryFolder } from "./Processes.ts"

export type GatewayName = "soap" | "rest"

/** How a payment operation stands, as `GET /ops/policies` tells it. */
export interface Standing {
  readonly limits: { readonly breaker: { readonly openMs: number; readonly failuresInARow: number } }
  readonly origins: Readonly<Record<string, string>>
  readonly breaker: { readonly state: string; readonly failuresInARow: number; readonly retryAfterSeconds: number }
  readonly counts: {
    readonly attempts: Readonly<Record<string, number>>
    readonly refusals: Readonly<Record<string, number>>
  }
}

/** A test gateways' app that can be killed, and comes back where it was. */
export interface GatewayApp {
  readonly url: string
  readonly kill: () => Promise<void>
  readonly start: () => Promise<void>
}

/** A shop in a process of its own that pays through gateways in processes of theirs, all on one database. */
export interface PayingShop {
  readonly shop: Running
  readonly databaseUrl: Redacted.Redacted
  readonly admin: Client
  readonly as: (userId: string) => Promise<Client>
  /** The process of a gateway; one for both unless they are apart. */
  readonly app: (gateway: GatewayName) => GatewayApp
  /** Tells a gateway how to behave. */
  readonly tell: (gateway: GatewayName, conduct: Conduct) => Promise<void>
  /** How many requests a gateway will still treat as it was told to, with `forNext`. */
  readonly left: (gateway: GatewayName) => Promise<number>
  readonly policy: (operation: OperationName) => Promise<Standing>
  /** Puts other limits in force while the shop runs, and waits until they are. */
  readonly configure: (overrides: Overrides) => Promise<void>
  /** The samples of a metric that have these labels, as /metrics has them. */
  readonly metric: (name: string, labels: Readonly<Record<string, string>>) => Promise<number | undefined>
  readonly look: <A, E>(look: Effect.Effect<A, E, SqlClient.SqlClient>) => Promise<A>
}

export interface PayingShopOptions {
  /** In force from the start. */
  readonly policies?: Overrides
  readonly env?: Readonly<Record<string, string>>
  /** Each gateway in a process of its own. */
  readonly apart?: boolean
}

/** Tells a gateway at its control door how to behave. */
export const tellGateway = async (url: string, gateway: GatewayName, conduct: Conduct) => {
  const answer = await fetch(`${url}/control/${gateway}`, { method: "PUT", body: JSON.stringify(conduct) })
  if (answer.status !== 200) throw new Error(`the control door says ${answer.status} ${await answer.text()}`)
}

/** How many requests a gateway will still treat as it was told to; 0 when it was not told a number. */
export const leftToDo = async (url: string, gateway: GatewayName): Promise<number> => {
  const told: { readonly forNext?: number } = Object(await (await fetch(`${url}/control/${gateway}`)).json())
  return told.forNext ?? 0
}

const gatewayApp = async (databaseUrl: Redacted.Redacted): Promise<GatewayApp> => {
  const port = await freePort()
  const args = ["--port", String(port), "--database-url", Redacted.value(databaseUrl)]
  let running: Running | undefined
  const app: GatewayApp = {
    url: `http://127.0.0.1:${port}`,
    kill: async () => {
      await running?.end("SIGKILL")
      running = undefined
    },
    start: async () => {
      running = await startApp("payment-gateways", args)
    }
  }
  await app.start()
  return app
}

/** Waits until it is so; fails when that does not happen in time. */
export const until = async <A>(what: string, ask: () => Promise<A>, good: (answer: A) => boolean): Promise<A> => {
  const deadline = Date.now() + 90_000
  for (;;) {
    const answer = await ask()
    if (good(answer)) return answer
    if (Date.now() > deadline) throw new Error(`not in time: ${what}; last seen: ${JSON.stringify(answer)}`)
    await Bun.sleep(50)
  }
}

const startOn = async (
  databaseUrl: Redacted.Redacted,
  dataDir: string,
  options: PayingShopOptions,
  stopLater: (stop: () => Promise<unknown>) => void
): Promise<PayingShop> => {
  const file = join(dataDir, "policies.json")
  // The file is there whole or not at all: the shop may look at any moment.
  const write = (overrides: Overrides) => {
    writeFileSync(`${file}.new`, JSON.stringify(overrides))
    renameSync(`${file}.new`, file)
  }
  if (options.policies !== undefined) write(options.policies)
  const soap = await gatewayApp(databaseUrl)
  stopLater(soap.kill)
  const rest = options.apart === true ? await gatewayApp(databaseUrl) : soap
  if (rest !== soap) stopLater(rest.kill)
  const shop = await startApp("shop", ["--no-seed", "--data-dir", dataDir], {
    DATABASE_URL: Redacted.value(databaseUrl),
    MERKATO_PAYMENT_SOAP_URL: `${soap.url}/soap/payments`,
    MERKATO_PAYMENT_REST_URL: rest.url,
    MERKATO_TRACE_SAMPLING: "0",
    ...options.env
  })
  stopLater(() => shop.end("SIGTERM"))
  const inForce = () => shop.output().split(`The policies of ${file} are in force`).length - 1
  if (options.policies !== undefined && inForce() === 0) throw new Error(`refused policies: ${shop.output()}`)
  const admin = new Client(shop.url, await tokenFor(dataDir, "ADMIN", "admin"))
  const app = (gateway: GatewayName) => (gateway === "soap" ? soap : rest)

  const policy = async (operation: OperationName) => {
    const { body } = await admin.get("/ops/policies")
    const items: ReadonlyArray<Standing & { readonly operation: string }> = Object(body["items"])
    const found = items.find((item) => item.operation === operation)
    if (found === undefined) throw new Error(`no policy ${operation} in ${JSON.stringify(body)}`)
    return found
  }

  return {
    shop,
    databaseUrl,
    admin,
    as: async (userId) => admin.as(await tokenFor(dataDir, userId, "shopper")),
    app,
    tell: (gateway, conduct) => tellGateway(app(gateway).url, gateway, conduct),
    left: (gateway) => leftToDo(app(gateway).url, gateway),
    policy,
    configure: async (overrides) => {
      const before = inForce()
      write(overrides)
      await until(
        "the shop takes other limits",
        () => Promise.resolve(inForce()),
        (now) => now > before
      )
    },
    metric: async (name, labels) => {
      const samples = (await (await fetch(`${shop.url}/metrics`)).text())
        .split("\n")
        .filter((line) => line.startsWith(`${name}{`))
        .filter((line) => Object.entries(labels).every(([label, value]) => line.includes(`${label}="${value}"`)))
      return samples.length === 0
        ? undefined
        : samples.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0)
    },
    look: (look) => lookInto(databaseUrl, look)
  }
}

/** Runs a test against such a shop. */
export const withPayingShop = (options: PayingShopOptions, test: (shop: PayingShop) => Promise<void>): Promise<void> =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.fresh
    const folder = yield* Effect.acquireRelease(Effect.sync(temporaryFolder), ({ remove }) => Effect.sync(remove))
    const stops: Array<() => Promise<unknown>> = []
    yield* Effect.addFinalizer(() =>
      Effect.promise(async () => {
        for (const stop of stops.toReversed()) await stop()
      })
    )
    const shop = yield* Effect.promise(() => startOn(url, folder.path, options, (stop) => stops.push(stop)))
    yield* Effect.promise(() => test(shop))
  }).pipe(Effect.scoped, Effect.runPromise)
