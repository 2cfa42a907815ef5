// Starts its own Postgres (default durability) and its own shop, runs each workload beside its twin in turns, and prints
// medians, ranges and ratios, and where the time went. The twins: pgbench with a hand-written transaction on the same
// server, and a bare Bun.serve.
import { mkdirSync } from "node:fs"
import { parseArgs } from "node:util"
import { Effect } from "effect"
import { median, pacedLine, type Rounds, report } from "./Report.ts"
import * as Stage from "./Stage.ts"
import { findPgbench } from "./Twin.ts"
import type { Turn, Workload } from "./Workload.ts"
import { checkouts, unguarded } from "./workloads/checkouts.ts"
import { hot, orders } from "./workloads/orders.ts"
import { product } from "./workloads/products.ts"

const usage = `bun run bench [--only orders,hot,product,checkouts,unguarded] [--rounds 3] [--seconds 5]
              [--half] [--soak MINUTES] [--statements 10] [--profile FOLDER]
Measures the shop beside pgbench and a bare Bun.serve. Wants an otherwise idle machine.
  --only        workloads, by name or the beginning of one; all unless told
  --rounds      how often each is run, in turns with its twin
  --seconds     how long each turn takes
  --half        afterwards each of orders and checkouts at half of the rate it reached, for four times as long
  --soak        afterwards each of them at 80 % of it, for so many minutes
  --statements  how many of the statements are listed that took longest, with their calls per operation; 0 unless told
  --profile     writes a CPU profile of the shop there (and slows it down)`

const { values: options } = parseArgs({
  options: {
    only: { type: "string" },
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "5" },
    half: { type: "boolean", default: false },
    soak: { type: "string", default: "0" },
    statements: { type: "string", default: "0" },
    profile: { type: "string" },
    help: { type: "boolean" }
  }
})
if (options.help === true) {
  console.log(usage)
  process.exit(0)
}
const refuse = (reason: string): never => {
  console.error(reason)
  process.exit(1)
}
const count = (name: "rounds" | "seconds" | "soak" | "statements", least: number) => {
  const value = Number(options[name])
  return Number.isInteger(value) && value >= least ? value : refuse(`--${name} wants a whole number from ${least} on`)
}
const rounds = count("rounds", 1)
const seconds = count("seconds", 1)
const statements = count("statements", 0)
const soak = count("soak", 0)
const only = options.only?.split(",").map((name) => name.trim())
if (options.profile !== undefined) mkdirSync(options.profile, { recursive: true })

const binary =
  findPgbench() ??
  refuse("pgbench is not installed; it comes with Debian's postgresql package (apt-get install postgresql)")

/** Sign-ins are not what is measured: as many shoppers as the whole checkouts want (issue: 10,000). */
const shoppers = 10_000

const bench = Effect.gen(function* () {
  console.log("setting up: Postgres, the shop, its shelf, its shoppers")
  const stage = yield* Stage.make({ shoppers, profile: options.profile })
  const all: ReadonlyArray<Workload> = [
    orders(stage, binary, 64, 1),
    orders(stage, binary, 16, 0.5),
    orders(stage, binary, 1),
    hot(stage, binary, 64),
    yield* product(stage),
    checkouts(stage, binary, 16),
    unguarded(stage, 16)
  ]
  const chosen = all.filter(({ name }) => only?.some((wanted) => name.startsWith(wanted)) ?? true)
  if (chosen.length === 0)
    return refuse(`there is no such workload; there are ${all.map(({ name }) => name).join(", ")}`)

  const results = chosen.map((workload) => ({ workload, ours: Array<Turn>(), twin: Array<number>() }) satisfies Rounds)
  for (const { workload } of results) yield* workload.ours(1) // warm
  for (let round = 1; round <= rounds; round++) {
    for (const { workload, ours, twin } of results) {
      console.log(`round ${round} of ${rounds}: ${workload.name}`)
      twin.push(yield* workload.theirs(seconds))
      ours.push(yield* workload.ours(seconds))
    }
  }
  console.log(`\nmedian (lowest–highest) of ${rounds} rounds of ${seconds} s`)
  for (const result of results) {
    console.log(report(result, statements))
    const { check, paced } = result.workload
    if (paced !== undefined) {
      const highest = median(result.ours.map(({ perSecond }) => perSecond))
      if (options.half) console.log(pacedLine("half", yield* paced(4 * seconds, highest / 2)))
      if (soak > 0) console.log(pacedLine("at 80 %", yield* paced(60 * soak, highest * 0.8)))
    }
    if (check !== undefined) console.log(`  check       ${yield* check}`)
  }
}).pipe(Effect.scoped, Effect.withTracerEnabled(false))

await Effect.runPromise(bench)
