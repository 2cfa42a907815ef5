import { Clock, Console, Effect, FileSystem, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { OrderJson } from "@merkato/rpc/rest/Json"
import * as Baskets from "../Baskets.ts"
import { CommandFailed } from "../Failure.ts"
import * as Flags from "../Flags.ts"
import * as Progress from "../Progress.ts"
import * as Shelf from "../Shelf.ts"
import { type Answer, problemOf, type Request, Shop } from "../Shop.ts"

/** Shoppers over whom the baskets of a file are spread. */
const shoppers = 200

/** Orders that are tried for one basket: an earlier run may have left one that ran out of time before it was paid. */
const maxTries = 20

/** Failures that are told one by one. */
const maxToldFailures = 10

const defaultPrefix = "baskets"

/** A basket's shopper is always the same, since keys belong to their caller; other prefixes are other people. */
const shopperOf = (prefix: string, nth: number): string =>
  `USER-BASKET-${prefix === defaultPrefix ? "" : `${prefix}-`}${(nth % shoppers) + 1}`

const decodeOrder = Schema.decodeUnknownEffect(OrderJson)
const decodeOrderStatus = Schema.decodeUnknownOption(Schema.Struct({ orderStatus: Schema.String }))

/** What became of a basket. */
type Outcome =
  | { readonly _tag: "Bought"; readonly placedNow: boolean; readonly paidNow: boolean }
  | { readonly _tag: "Failed"; readonly reason: string }

const failure = (what: string, answer: Answer): Outcome => {
  const problem = problemOf(answer)
  return { _tag: "Failed", reason: `${what}: ${answer.status} ${problem?.code ?? ""}: ${problem?.detail ?? ""}` }
}

/** Places a basket as an order and pays it. Repeated with the same key, it finds what is there already. */
const buy = Effect.fnUntraced(function* (
  { line, items }: Baskets.Basket,
  productIds: ReadonlyMap<string, string>,
  keyPrefix: string
) {
  const shop = yield* Shop
  const token = yield* shop.token(shopperOf(keyPrefix, line), "shopper")
  const lines = items.map(({ name, qty }) => ({ productId: productIds.get(name), qty }))

  let outcome: Outcome = { _tag: "Failed", reason: "no order could be paid in time" }
  for (let attempt = 1; attempt <= maxTries; attempt++) {
    const key = `${keyPrefix}-${line}${attempt === 1 ? "" : `.${attempt}`}`
    const order: Request = { method: "POST", path: "/api/v1/orders", token, key, body: { items: lines } }
    const placed = yield* shop.persist(order)
    if (placed.status !== 201) {
      outcome = failure("not placed", placed)
      // An earlier run was told so, and the key keeps that answer; by now there may be stock.
      if (placed.replayed && problemOf(placed)?.code === "out_of_stock") continue
      return outcome
    }
    const { orderId } = yield* Effect.orDie(decodeOrder(placed.body))
    const payment: Request = {
      method: "POST",
      path: `/api/v1/orders/${orderId}/pay`,
      token,
      key: `${key}-pay`,
      body: { paymentToken: "tok_ok" }
    }
    const paid = yield* shop.persist(payment)
    if (paid.status === 200) {
      return { _tag: "Bought", placedNow: !placed.replayed, paidNow: !paid.replayed } satisfies Outcome
    }
    outcome = failure("not paid", paid)
    if (problemOf(paid)?.code !== "not_payable") return outcome
    const status = Option.map(decodeOrderStatus(paid.body), ({ orderStatus }) => orderStatus)
    // An earlier run placed it and came to no payment within 15 minutes: its stock went back, so it is placed anew.
    if (placed.replayed && Option.contains(status, "CANCELED")) continue
    return Option.contains(status, "PAID") || Option.contains(status, "FULFILLED")
      ? ({ _tag: "Bought", placedNow: !placed.replayed, paidNow: false } satisfies Outcome)
      : outcome
  }
  return outcome
})

interface Options {
  readonly file: string
  readonly concurrency: number
  readonly limit: Option.Option<number>
  readonly keyPrefix: string
}

const readBaskets = Effect.fnUntraced(function* ({ file, limit }: Options) {
  const files = yield* FileSystem.FileSystem
  const text = yield* Effect.mapError(
    files.readFileString(file),
    ({ message }) => new CommandFailed({ reason: `${file} cannot be read: ${message}` })
  )
  const all = Baskets.parse(text)
  const refusal = all.map(Baskets.refusalOf).find((reason) => reason !== undefined)
  if (refusal !== undefined) return yield* new CommandFailed({ reason: refusal })
  if (all.length === 0) return yield* new CommandFailed({ reason: `There are no baskets in ${file}.` })
  return { all, baskets: all.slice(0, Option.getOrUndefined(limit)) }
})

const count = (units: number): string => units.toLocaleString("en")

const importBaskets = Effect.fn("import.baskets")(function* (options: Options) {
  const { concurrency, keyPrefix } = options
  const shop = yield* Shop
  const { all, baskets } = yield* readBaskets(options)

  const put = yield* Shelf.put([...Baskets.unitsOf(all).keys()], concurrency)
  yield* Console.log(
    `${put.productIds.size} products: ${put.added.size} new, ${put.productIds.size - put.added.size} there already`
  )
  const users = Array.from({ length: shoppers }, (_, nth) => shopperOf(keyPrefix, nth))
  const stocked = yield* Shelf.stock(put, Baskets.unitsOf(baskets), users, concurrency)
  yield* Console.log(`stock: ${count(stocked)} units added`)

  const done = { placed: 0, replayed: 0, paid: 0, paidBefore: 0, failed: 0 }
  const finished = () => done.placed + done.replayed + done.failed
  const begun = yield* Clock.currentTimeMillis

  const one = Effect.fnUntraced(function* (basket: Baskets.Basket) {
    const outcome = yield* buy(basket, put.productIds, keyPrefix)
    if (outcome._tag === "Bought") {
      done[outcome.placedNow ? "placed" : "replayed"] += 1
      done[outcome.paidNow ? "paid" : "paidBefore"] += 1
      return
    }
    done.failed += 1
    if (done.failed <= maxToldFailures) yield* Console.error(`line ${basket.line} ${outcome.reason}`)
    if (done.failed === maxToldFailures + 1) yield* Console.error("more failures are only counted")
  })

  const summary = Effect.gen(function* () {
    const seconds = ((yield* Clock.currentTimeMillis) - begun) / 1_000
    const rate = seconds === 0 ? 0 : finished() / seconds
    yield* Console.log(
      [
        `${count(finished())} of ${count(baskets.length)} baskets in ${seconds.toFixed(1)} s (${rate.toFixed(0)}/s)`,
        `orders: ${count(done.placed)} new, ${count(done.replayed)} replayed, ${count(done.failed)} failed`,
        `payments: ${count(done.paid)} new, ${count(done.paidBefore)} replayed`,
        ...(shop.repeats() === 0
          ? []
          : [`requests repeated because the shop was busy or away: ${count(shop.repeats())}`])
      ].join("\n")
    )
  })

  yield* Effect.scoped(
    Effect.gen(function* () {
      yield* Progress.show(() => ({ label: "orders", unit: "orders", done: finished(), total: baskets.length }))
      yield* Effect.forEach(baskets, one, { concurrency, discard: true })
    })
  ).pipe(
    Effect.onExit((exit) =>
      exit._tag === "Success"
        ? summary
        : Effect.andThen(summary, Console.error("Not finished; the same command goes on from here."))
    )
  )
  if (done.failed > 0) {
    return yield* new CommandFailed({
      reason: `${count(done.failed)} of ${count(baskets.length)} baskets could not be bought.`
    })
  }
})

const baskets = Command.make(
  "baskets",
  {
    file: Argument.File("FILE", { mustExist: true }).pipe(
      Argument.withDescription("A text file: one basket a line, its items separated by commas")
    ),
    url: Flags.url,
    dataDir: Flags.dataDir,
    concurrency: Flags.int("concurrency", 1, 256, "Baskets on their way at the same time (default 16)").pipe(
      Flag.withDefault(16)
    ),
    limit: Flags.int("limit", 1, 1_000_000_000, "Only the first so many baskets").pipe(Flag.optional),
    keyPrefix: Flag.String("key-prefix").pipe(
      Flag.withDescription(`Baskets with the same prefix and line are bought once (default ${defaultPrefix})`),
      Flag.filter(
        (prefix) => /^[A-Za-z0-9_-]{1,40}$/.test(prefix),
        () => "1 to 40 of letters, digits, _ and -"
      ),
      Flag.withDefault(defaultPrefix)
    )
  },
  ({ url, dataDir, ...options }) => Effect.provide(importBaskets(options), Shop.layer({ url, dataDir }))
).pipe(
  Command.withDescription(
    "Buy real baskets in a running shop: a product and stock for each kind of item, then an order for each basket, paid with the " +
      "test token. Every request has a key of its own, so within 24 hours the same command finds what is there and only adds what is missing"
  ),
  Command.withShortDescription("Buy the baskets of a file"),
  Command.withExamples([
    { command: "bun run merkato import baskets baskets.csv", description: "All baskets of a file" }
  ])
)

export const importing = Command.make("import").pipe(
  Command.withDescription("Bring data of others into a running shop"),
  Command.withSubcommands([baskets])
)
