import { Clock, Console, Duration, Effect, Option, Record } from "effect"
import { Command, Flag } from "effect/cli"
import { DatabaseUrl } from "@merkato/infra/postgres/DatabaseUrl"
import { CommandFailed } from "../Failure.ts"
import * as Flags from "../Flags.ts"
import * as History from "../history/History.ts"
import * as People from "../history/People.ts"
import * as LoadRun from "../LoadRun.ts"
import * as Progress from "../Progress.ts"
import { Shop } from "../Shop.ts"

/** Whether an address is this machine and no other. */
export const isLoopback = (url: string): boolean =>
  /^(?:localhost|[^.]+\.localhost|127(?:\.\d{1,3}){3}|\[::1\])$/.test(new URL(url).hostname)

interface Options {
  readonly clients: number
  readonly duration: Duration.Duration
  readonly mix: LoadRun.Mix
}

const loading = Effect.fn("load")(function* ({ clients, duration, mix }: Options) {
  const shop = yield* Shop
  const measured = new LoadRun.Measured()
  const durationMs = Duration.toMillis(duration)
  const { running } = yield* LoadRun.run({ mix, clients, durationMs, measured })
  const begun = yield* Clock.currentTimeMillis

  const result = Effect.gen(function* () {
    const elapsedMs = (yield* Clock.currentTimeMillis) - begun
    yield* Console.log(`${mix} on ${shop.url}, ${clients} clients, ${(elapsedMs / 1_000).toFixed(1)} s`)
    yield* Console.log(LoadRun.table(measured, elapsedMs))
  })
  yield* Effect.scoped(
    Effect.gen(function* () {
      yield* Progress.show((elapsedMs) => ({
        label: mix,
        unit: "s",
        done: Math.min(durationMs, elapsedMs) / 1_000,
        total: durationMs / 1_000,
        rate: `${((measured.requests * 1_000) / Math.max(1, elapsedMs)).toFixed(0)} requests/s`
      }))
      yield* running
    })
  ).pipe(Effect.ensuring(result))

  const unanswered = [...measured.operations.values()].reduce(
    (sum, { errors }) => sum + (errors.get("unreachable") ?? 0),
    0
  )
  if (unanswered === measured.requests) return yield* new CommandFailed({ reason: `The shop at ${shop.url} is gone.` })
})

/** The size of a history, and the days it went on for, unless told. */
const usually = { products: 100_000, customers: 1_000_000, orders: 5_000_000, days: 730 } as const

const count = (value: number) => value.toLocaleString("en")

/** Writes a history and says how fast it went and how big it is. */
const filling = Effect.fn("load")(function* (options: History.Options) {
  const { url } = yield* DatabaseUrl
  const { elapsedMs, bytes, bytesBefore, written, products, customers, orders } = yield* History.load(url, options)
  if (!written) {
    return yield* Console.log("This shop has this history already; nothing was changed.")
  }
  const seconds = elapsedMs / 1_000
  yield* Console.log(
    `${count(products)} products, ${count(customers)} customers and ${count(orders)} orders in ${Progress.clockTime(seconds)}: ` +
      `${count(Math.round(orders / Math.max(seconds, 0.001)))} orders/s, ${count(Math.round((bytes - bytesBefore) / 1_048_576))} MiB, ` +
      `${count(Math.round((bytes - bytesBefore) / orders))} bytes an order with all that belongs to it. Customers are ` +
      `${People.emailOf(0)} to ${People.emailOf(customers - 1)}, their password is "${History.password}".`
  )
})

export const load = Command.make(
  "load",
  {
    url: Flags.url,
    dataDir: Flags.dataDir,
    clients: Flags.int("clients", 1, 1_024, "Clients, each with one request at a time (default 16)").pipe(
      Flag.withDefault(16)
    ),
    duration: Flags.duration("duration", Duration.seconds(1), Duration.days(1), "How long (default 10s)").pipe(
      Flag.withDefault(Duration.seconds(10))
    ),
    mix: Flag.Literals("mix", LoadRun.mixes).pipe(
      Flag.withDescription(
        "browse: look at products; order: place and pay; checkout: fill a cart, place and pay (default browse)"
      ),
      Flag.withDefault("browse" as const)
    ),
    allowRemote: Flag.Boolean("allow-remote").pipe(
      Flag.withDescription("Also where the shop is on another machine: only load what is yours"),
      Flag.withDefault(false)
    ),
    history: Flag.Boolean("history").pipe(
      Flag.withDescription(
        "Instead of load: write a past of products, customers and orders into the shop's database, with all that follows from " +
          "them. Whatever ends it, the same command goes on where it ended; when all is there, it changes nothing"
      ),
      Flag.withDefault(false)
    ),
    products: Flags.int("products", 10, 10_000_000, "Of the history (default 100,000)").pipe(Flag.optional),
    customers: Flags.int("customers", 10, 100_000_000, "Of the history (default 1,000,000)").pipe(Flag.optional),
    orders: Flags.int("orders", 1, 100_000_000, "Of the history (default 5,000,000)").pipe(Flag.optional),
    days: Flags.int("days", 1, 3_650, "Over how many days until now the history went on (default 730)").pipe(
      Flag.optional
    ),
    besideOrders: Flag.Boolean("beside-orders").pipe(
      Flag.withDescription("Write the history also into a shop where people have ordered"),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* ({
    url,
    dataDir,
    allowRemote,
    history,
    products,
    customers,
    orders,
    days,
    besideOrders,
    ...options
  }) {
    const past = { products, customers, orders, days }
    if (history) {
      const size = Record.map(past, (given, name) => Option.getOrElse(given, () => usually[name]))
      return yield* filling({ ...size, besideOrders }).pipe(Effect.provide(DatabaseUrl.layerRunning(dataDir)))
    }
    const stray = Object.keys(Record.getSomes(past))[0] ?? (besideOrders ? "beside-orders" : undefined)
    if (stray !== undefined) {
      return yield* new CommandFailed({ reason: `--${stray} is of a history: say --history too, or leave it out.` })
    }
    if (!allowRemote && !isLoopback(url)) {
      return yield* new CommandFailed({
        reason: `${url} is not on this machine: say --allow-remote if you really mean to load it.`
      })
    }
    yield* Effect.provide(loading(options), Shop.layer({ url, dataDir }))
  })
).pipe(
  Command.withDescription(
    "Put load on a running shop and measure it: each client asks, waits for the answer, and asks again. Orders go to products " +
      "made for it (LOAD-1 …), paid with the test token. With --history: fill its database with the past instead"
  ),
  Command.withShortDescription("Put load on a running shop and measure it"),
  Command.withExamples([
    {
      command: "bun run merkato load --mix order --clients 32 --duration 30s",
      description: "Half a minute of purchases"
    },
    {
      command: "bun run merkato load --history --orders 100000",
      description: "Two years in which 100,000 orders were placed"
    }
  ])
)
