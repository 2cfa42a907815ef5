// Has the shop sold what is in a file of baskets? Counts the file plainly, without the code that imported it, and
// holds that against the shop's orders, and the stock against what came in:
//
//   bun scripts/count-baskets.ts FILE [--url http://localhost:8080] [--data-dir .merkato]
import { Console, Effect, FileSystem } from "effect"
import { Argument, Command } from "effect/cli"
import { StockAdjusted } from "@merkato/domain/inventory/InventoryEvents"
import { EventBus } from "@merkato/infra/events/EventBus"
import { LevelsJson, OrderJson, ProductJson } from "@merkato/rpc/rest/Json"
import * as Bus from "../apps/merkato/src/Bus.ts"
import { main } from "../apps/merkato/src/Cli.ts"
import { CommandFailed } from "../apps/merkato/src/Failure.ts"
import * as Flags from "../apps/merkato/src/Flags.ts"
import { Shop } from "../apps/merkato/src/Shop.ts"

/** Units of each thing in the file: every item of every line counts one. */
export const countFile = (text: string): ReadonlyMap<string, number> => {
  const counts = new Map<string, number>()
  for (const item of text.split(/[\n,]/)) {
    const name = item.trim()
    if (name !== "") counts.set(name, (counts.get(name) ?? 0) + 1)
  }
  return counts
}

/** One product as the file and the shop have it. */
interface Row {
  readonly name: string
  readonly counted: number
  readonly sold: number
  readonly received: number
  readonly onHand: number
  readonly reserved: number
}

const isSold = (status: typeof OrderJson.Type.status) => status === "PAID" || status === "FULFILLED"

/** Units of each product in orders that are paid for. */
const unitsSold = Effect.fn("unitsSold")(function* () {
  const shop = yield* Shop
  const orders = yield* shop.all("/api/v1/orders", OrderJson, yield* shop.token("count-baskets", "admin"))
  const units = new Map<string, number>()
  for (const { status, items } of orders) {
    for (const { productId, qty } of isSold(status) ? items : []) {
      units.set(productId, (units.get(productId) ?? 0) + qty)
    }
  }
  return { units, orders: orders.filter(({ status }) => isSold(status)).length, placed: orders.length }
})

const inventoryTopic = "inventory.events"
const batchSize = 5_000

/** Units of each product that came in, by the events that adjusted its stock (kept for 7 days). */
const unitsReceived = Effect.fn("unitsReceived")(function* () {
  const bus = yield* EventBus
  const after = new Map<string, number>()
  const units = new Map<string, number>()
  while (true) {
    const batch = yield* bus.read({ topics: [inventoryTopic], after, limit: batchSize })
    for (const { topic, partition, offset, envelope } of batch) {
      after.set(`${topic}/${partition}`, offset)
      if (envelope.eventType !== StockAdjusted.type) continue
      const { productId, delta } = yield* Effect.orDie(StockAdjusted.decode(envelope.payload))
      units.set(productId, (units.get(productId) ?? 0) + delta)
    }
    if (batch.length < batchSize) return units
  }
})

const sum = (rows: ReadonlyArray<Row>, of: (row: Row) => number): number => rows.reduce((all, row) => all + of(row), 0)

const verdicts = ({ counted, sold, received, onHand, reserved }: Row): ReadonlyArray<string> => [
  ...(counted === sold ? [] : ["sold differs"]),
  ...(received === onHand + sold ? [] : ["stock differs"]),
  ...(reserved === 0 ? [] : ["reserved"])
]

const columns = ["product", "file", "sold", "received", "on hand", "reserved", ""]

const tableOf = (rows: ReadonlyArray<Row>): string => {
  const width = Math.max(...rows.map(({ name }) => name.length), 7)
  const line = ([name = "", ...cells]: ReadonlyArray<string>) =>
    [name.padEnd(width), ...cells.map((cell, at) => (at === 5 ? cell : cell.padStart(8)))].join("  ").trimEnd()
  const cellsOf = (row: Row) => [
    row.name,
    ...[row.counted, row.sold, row.received, row.onHand, row.reserved].map(String),
    verdicts(row).join(", ")
  ]
  return [columns, ...rows.map(cellsOf)].map(line).join("\n")
}

const count = Effect.fn("count-baskets")(function* (file: string, dataDir: string) {
  const shop = yield* Shop
  const files = yield* FileSystem.FileSystem
  const counted = countFile(yield* files.readFileString(file))
  const products = yield* shop.all("/api/v1/products", ProductJson)
  const received = yield* unitsReceived().pipe(Bus.provide(dataDir))
  const sold = yield* unitsSold()

  const byName = new Map(products.map((product) => [product.name, product]))
  const missing = [...counted.keys()].filter((name) => !byName.has(name))
  const rows = yield* Effect.forEach(
    products.filter(({ name }) => counted.has(name)),
    Effect.fnUntraced(function* ({ productId, name }) {
      const { onHand, reserved } = yield* shop.read(
        { method: "GET", path: `/api/v1/inventory/${productId}` },
        200,
        LevelsJson
      )
      const units = { sold: sold.units.get(productId) ?? 0, received: received.get(productId) ?? 0 }
      return { name, counted: counted.get(name) ?? 0, ...units, onHand, reserved } satisfies Row
    }),
    { concurrency: 8 }
  )
  rows.sort((a, b) => b.counted - a.counted || a.name.localeCompare(b.name))
  const wrong = rows.filter((row) => verdicts(row).length > 0).length + missing.length

  yield* Console.log(tableOf(rows))
  for (const name of missing) yield* Console.log(`${name}: the shop has no such product`)
  yield* Console.log(
    [
      "",
      `${rows.length} products, ${sold.orders} orders paid of ${sold.placed}`,
      `units: ${[...counted.values()].reduce((all, units) => all + units, 0)} in the file, ${sum(rows, (row) => row.sold)} sold`,
      `stock: ${sum(rows, (row) => row.received)} received = ${sum(rows, (row) => row.onHand)} on hand + ${sum(rows, (row) => row.sold)} sold, ${sum(rows, (row) => row.reserved)} reserved`,
      `${wrong} differences`
    ].join("\n")
  )
  if (wrong > 0) return yield* new CommandFailed({ reason: "The shop and the file do not agree." })
})

export const countBaskets = Command.make(
  "count-baskets",
  {
    file: Argument.File("FILE", { mustExist: true }).pipe(Argument.withDescription("The file that was imported")),
    url: Flags.url,
    dataDir: Flags.dataDir
  },
  ({ file, url, dataDir }) => Effect.provide(count(file, dataDir), Shop.layer({ url, dataDir }))
).pipe(
  Command.withDescription(
    "Hold a file of baskets against what the shop has sold of each product (orders that are PAID or FULFILLED), and what " +
      "came in against what is there and what was sold; exit code 1 when anything differs"
  )
)

if (import.meta.main) main(countBaskets)
