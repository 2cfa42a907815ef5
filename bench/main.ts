// Starts its own Postgres (default durability) and its own shop, runs each workload beside its twin in turns, and prints
// medians, ranges and ratios, and where the time went. The twins: pgbench with a hand-written transaction on the same
// server, and a bare Bun.serve.
import { mkdirSync } from "node:fs"
import { Effect, Schema } from "effect"
import * as Program from "./Program.ts"
import * as Options from "../scripts/Options.ts"
import { comparison, median, paced, type Rounds, report } from "./Report.ts"
import * as Stage from "./Stage.ts"
import { findPgbench } from "./Twin.ts"
import type { Turn, Workload } from "./Workload.ts"
import { checkouts, unguarded } from "./workloads/checkouts.ts"
import { hot, orders } from "./workloads/orders.ts"
import { list, product, search } from "./workloads/products.ts"

const usage = `bun run bench [--only orders,hot,product,list,search,checkouts,unguarded] [--rounds 3] [--seconds 5] [--warm 10]
              [--half] [--soak MINUTES] [--history [ORDERS] [--history-in FOLDER]] [--statements 10] [--profile FOLDER]
Measures the shop beside pgbench and a bare Bun.serve. Wants an otherwise idle machine.
  --only        workloads, by name or the beginning of one; all unless told
  --rounds      how often each is run, in turns with its twin
  --seconds     how long each turn takes
  --warm        seconds of each workload before it is measured: the shop is compiled while it runs
  --half        afterwards each of orders and checkouts at half of the rate it reached, for four times as long; orders beside pgbench at the same
  --soak        afterwards each of them at 80 % of it, for so many minutes (twice that, with pgbench)
  --history     beside it, in turns, a shop with so many orders behind it (200000 unless told), and what becomes of each figure
  --history-in  a folder that keeps this shop; the next run with the same number of orders finds it there
  --statements  how many of the statements are listed that took longest, with their calls per operation; 0 unless told
  --profile     writes a CPU profile of the shop there (and slows it down)`

const historyUnlessTold = "200000"
const given = process.argv.slice(2)
/** `--history` may stand alone. */
const args = given.flatMap((arg, index) =>
  arg === "--history" && !/^\d+$/.test(given[index + 1] ?? "") ? [arg, historyUnlessTold] : [arg]
)

const options = Options.read(
  usage,
  {
    only: { type: "string" },
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "5" },
    half: { type: "boolean", default: false },
    soak: { type: "string", default: "0" },
    history: { type: "string", default: "0" },
    "history-in": { type: "string" },
    statements: { type: "string", default: "0" },
    warm: { type: "string", default: "10" },
    profile: { type: "string" }
  },
  args
)
const rounds = Options.count("rounds", options.rounds)
const seconds = Options.count("seconds", options.seconds)
const warm = Options.count("warm", options.warm)
const statements = Options.count("statements", options.statements, 0)
const soak = Options.count("soak", options.soak, 0)
const history = Options.count("history", options.history, 0)
const only = options.only?.split(",").map((name) => name.trim())
if (options.profile !== undefined) mkdirSync(options.profile, { recursive: true })

const binary =
  findPgbench() ??
  Options.refuse("pgbench is not installed; it comes with Debian's postgresql package (apt-get install postgresql)")

/** `--only` names none. Fails the bench, so that what was set up for nothing is put away. */
class NoSuchWorkload extends Schema.TaggedError<NoSuchWorkload>()("NoSuchWorkload", {
  there: Schema.Array(Schema.String)
}) {
  override get message() {
    return `There is no such workload; there are ${this.there.join(", ")}`
  }
}

/** Sign-ins are not what is measured: as many shoppers as the whole checkouts want (issue: 10,000). */
const shoppers = 10_000

/** What a shop takes up that has nothing to do. */
const idle = ({ memory }: Stage.Stage, when: string) => {
  const { postgres, shop } = memory()
  return `idle ${when.padEnd(12)} ${(shop + postgres).toFixed(0)} MiB   shop ${shop.toFixed(0)}   Postgres ${postgres.toFixed(0)}   wanted: less than 300`
}

/** Long enough for a shop to come to rest. */
const atRest = Effect.sleep("5 seconds")

/** Long enough for the pools to close the connections that only the load wanted: they do so after a minute. */
const atRestForLong = Effect.sleep("70 seconds")

/** A shop with so many orders behind it, and what is to be done with it. */
const setUp = Effect.fnUntraced(function* (behind: number) {
  console.log(`\nsetting up: Postgres, the shop, ${behind === 0 ? "" : "its history, "}its shelf, its shoppers`)
  const keptIn = behind === 0 ? undefined : options["history-in"]
  const stage = yield* Stage.make({
    shoppers,
    profile: options.profile,
    history: behind,
    planning: statements > 0,
    keptIn
  })
  yield* atRest
  const idleAtFirst = idle(stage, "at first")
  const all: ReadonlyArray<Workload> = [
    orders(stage, binary, 64, 1),
    orders(stage, binary, 16, 0.5),
    orders(stage, binary, 1),
    hot(stage, binary, 64),
    yield* product(stage),
    yield* list(stage),
    yield* search(stage),
    checkouts(stage, binary, 64),
    unguarded(stage, 16)
  ]
  const chosen = all.filter(({ name }) => only?.some((wanted) => name.startsWith(wanted)) ?? true)
  if (chosen.length === 0) return yield* new NoSuchWorkload({ there: all.map(({ name }) => name) })
  const results = chosen.map((workload) => ({ workload, ours: Array<Turn>(), twin: Array<number>() }) satisfies Rounds)
  return { stage, idleAtFirst, results, name: behind === 0 ? "a new shop" : `a shop with ${behind} orders behind it` }
})

const tell = Effect.fnUntraced(function* ({
  stage,
  idleAtFirst,
  results,
  name
}: Effect.Success<ReturnType<typeof setUp>>) {
  const { ready } = stage
  console.log(
    `\n${name}: ready after ${(ready.postgres + ready.shop).toFixed(1)} s   Postgres ${ready.postgres.toFixed(1)}   shop ${ready.shop.toFixed(1)}   wanted: less than 4`
  )
  console.log(idleAtFirst)
  console.log(idle(stage, "afterwards"))
  console.log(`\nmedian (lowest–highest) of ${rounds} rounds of ${seconds} s`)
  for (const result of results) {
    console.log(report(result, statements))
    const { check, paced: ours, theirsPaced: theirs } = result.workload
    if (ours !== undefined) {
      const highest = median(result.ours.map(({ perSecond }) => perSecond))
      const turn = Effect.fnUntraced(function* (name: string, seconds: number, rate: number) {
        const twin = theirs === undefined ? undefined : yield* theirs(seconds, rate)
        console.log(paced(name, yield* ours(seconds, rate), twin))
      })
      if (options.half) yield* turn("half", 4 * seconds, highest / 2)
      if (soak > 0) yield* turn("at 80 %", 60 * soak, highest * 0.8)
    }
    if (check !== undefined) console.log(`  check       ${yield* check}`)
  }
})

/** The new shop and the one with a history take turns, so that a busy moment of the machine meets both. */
const bench = Effect.gen(function* () {
  const small = yield* setUp(0)
  const shops = history === 0 ? [small] : [small, yield* setUp(history)]
  for (const { results } of shops) for (const { workload } of results) yield* workload.ours(warm)
  for (let round = 1; round <= rounds; round++) {
    for (const [index, { workload }] of small.results.entries()) {
      console.log(`round ${round} of ${rounds}: ${workload.name}`)
      for (const { results } of shops) {
        const result = results[index]
        if (result === undefined) continue
        result.twin.push(yield* result.workload.theirs(seconds))
        result.ours.push(yield* result.workload.ours(seconds))
      }
    }
  }
  console.log("at rest for 70 s")
  yield* atRestForLong
  for (const shop of shops) yield* tell(shop)
  const grown = shops[1]
  if (grown === undefined) return
  console.log(`\n${grown.name}, beside a new one in the same rounds (wanted: at least 0.80 of the rate)`)
  for (const [index, before] of small.results.entries()) {
    const after = grown.results[index]
    if (after !== undefined) console.log(comparison(before, after))
  }
}).pipe(Effect.scoped)

Program.run(bench)
