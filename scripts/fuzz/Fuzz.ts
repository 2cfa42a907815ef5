import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Installing } from "../server/Server.ts"
import * as Servers from "../server/Servers.ts"
import type { Known } from "./Furnished.ts"
import * as Python from "../server/Python.ts"

const schemathesis: Python.Programs = {
  name: "schemathesis-4.32.5",
  requirements: join(import.meta.dir, "requirements.txt")
}

const place: Installing = {
  cache: Servers.defaultCache(),
  say: (line) => console.error(`${schemathesis.name}: ${line}`)
}

/** Fetches the fuzzer into the cache, unless it is there. */
export const install = (): Promise<void> =>
  Servers.alone(place.cache, `install-${schemathesis.name}`, () => Python.install(schemathesis, place))

export interface Fuzzing {
  /** Where the shop is that is asked. */
  readonly url: string
  /** Without one it is nobody who asks. */
  readonly token: string | undefined
  readonly known: Known
  readonly seed: number
  /**
   * `coverage`: every limit of every field, just kept and just broken. `fuzzing`: by chance. `stateful`: what answers lead to;
   * an order that was made is paid, a sale that was scheduled is called off.
   */
  readonly phases: ReadonlyArray<"coverage" | "fuzzing" | "stateful">
  /** What the document allows, what it forbids, or both. */
  readonly mode: "positive" | "negative" | "all"
  /** Requests by chance for each operation; and for how long at most, in all. */
  readonly examples?: number
  readonly seconds?: number
  /** For its configuration. */
  readonly folder: string
}

export interface Found {
  readonly ok: boolean
  /** Operations that were asked. */
  readonly operations: number
  readonly requests: number
  /** What the fuzzer says: each failure with a request that shows it. */
  readonly output: string
}

/** Operations whose rules no schema can say; for good input, 400 is a good answer there. */
const moreThanSchemas = [
  // A cursor is one that the list has given out.
  "catalogue.listProducts",
  "catalogue.listPrices",
  "flash-sales.listFlashSales",
  "orders.listOrders",
  "notifications.listNotifications",
  "webhooks.listSubscriptions",
  "webhooks.listDeliveries",
  "ops.assessments",
  // An amount has no more decimals than its currency.
  "catalogue.addProduct",
  "catalogue.setPrice",
  "flash-sales.scheduleFlashSale",
  "orders.placeOrder",
  "orders.checkout",
  // A token of a payment method does not look like the number of a card.
  "orders.payOrder",
  // If-Match is an entity tag that a product had.
  "catalogue.changeProduct",
  // What ends begins first, and is not too long.
  "ops.revenuePerMinute",
  // A URL is a public one.
  "webhooks.subscribe"
]

/** What a good request may be answered besides 2xx and 3xx. */
const refusals = [401, 402, 403, 404, 409, 412, 422]

const configuration = (known: Known, token: string | undefined): string => {
  const json = JSON.stringify
  const dictionaries = Object.entries(known).filter(([, values]) => values.length > 0)
  const uses = dictionaries.flatMap(([name]) => (places[name as keyof Known] ?? []).map((at) => [at, name] as const))
  const accepted = (statuses: ReadonlyArray<number>) =>
    `checks.positive_data_acceptance.expected-statuses = ${json(["2xx", "3xx", ...statuses.map(String)])}`
  return [
    // It would take the Python of this machine for that of the shop's.
    "analysis.constants.enabled = false",
    ...(token === undefined ? [] : [`headers = { Authorization = ${json(`Bearer ${token}`)} }`]),
    // What is missing to whom is for other tests; and nobody who is not signed in sees much.
    "warnings = false",
    accepted(refusals),
    // The methods that are not there; CONNECT and QUERY are not for servers like this one.
    'phases.coverage.unexpected-methods = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE"]',
    ...dictionaries.map(([name, values]) => `[dictionaries.${name}]\nvalues = ${json(values)}`),
    "[parameters]",
    ...uses.map(([at, dictionary]) => `${json(at)} = { dictionary = ${json(dictionary)}, probability = 0.7 }`),
    "[[operations]]",
    `include-operation-id = ${json(moreThanSchemas)}`,
    accepted([400, ...refusals]),
    // A payment may be unavailable, and the document says so.
    "[[operations]]",
    'include-operation-id = ["orders.payOrder", "orders.checkout"]',
    `checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]`,
    accepted([400, ...refusals, 503]),
    ""
  ].join("\n")
}

/** Where in a request things of the shop are named. */
const places: Readonly<Record<keyof Known, ReadonlyArray<string>>> = {
  products: ["path.productId", "query.productId", "body.productId", "body.items[*].productId"],
  carts: ["path.cartId", "body.cartId"],
  orders: ["path.orderId", "path.id"],
  sales: ["path.saleId"],
  subscriptions: ["path.subscriptionId"],
  currencies: ["body.currency"],
  paymentTokens: ["body.paymentToken"]
}

/**
 * Asks a running shop whatever its document at /openapi.json allows and forbids, and holds each answer against what it
 * promises: no 500, no status, content type, header or body that is not written there, nothing forbidden that is taken and
 * nothing allowed that is refused.
 */
export const fuzz = async (fuzzing: Fuzzing): Promise<Found> => {
  const { url, token, known, seed, examples, seconds, phases, mode, folder } = fuzzing
  mkdirSync(folder, { recursive: true })
  const settings = join(folder, "schemathesis.toml")
  writeFileSync(settings, configuration(known, token))
  const flags = {
    seed: String(seed),
    phases: phases.join(","),
    mode,
    ...(examples === undefined ? {} : { "max-examples": String(examples) }),
    ...(seconds === undefined ? {} : { "max-time": String(seconds) }),
    // How long it takes here to think of requests says nothing of the shop.
    "suppress-health-check": "all",
    "request-timeout": "60",
    "generation-database": "none"
  }
  const child = Bun.spawn(
    [
      Python.pathOf(schemathesis, "st", place),
      `--config-file=${settings}`,
      "run",
      `${url}/openapi.json`,
      ...Object.entries(flags).map(([flag, value]) => `--${flag}=${value}`),
      "--continue-on-failure",
      "--no-color",
      // Shrinking sends many more requests; the first one that shows a failure is good enough.
      "--no-shrink"
    ],
    { cwd: folder, env: { ...process.env, PYTHONDONTWRITEBYTECODE: "1" }, stdio: ["ignore", "pipe", "pipe"] }
  )
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited
  ])
  const output = `${stdout}${stderr}`
  return {
    ok: code === 0,
    operations: Number(/Tested:\s+(\d+)/.exec(output)?.[1] ?? 0),
    requests: Number(/(\d+) generated/.exec(output)?.[1] ?? 0),
    output
  }
}
