import { Effect } from "effect"
import { parseArgs } from "node:util"
import seeds from "./seeds.json"
import * as Cores from "./Cores.ts"
import * as Machine from "./Machine.ts"
import { Progress, ranges } from "./Progress.ts"
import { Report } from "./Report.ts"
import type { Outcome } from "./Run.ts"
import { parseFaults, parseNumbers, replay, type Settings } from "./Settings.ts"
import { type Runner, shrink } from "./Shrink.ts"
import * as Worker from "./Worker.ts"

const help = `bun run simulate [--seed 1] [--runs 1] [--commands 200] …

Runs the whole shop on a real Postgres with everything else simulated, breaks it in every way it knows, and checks its
promises. A seed is a run: the same seed is the same history, to the byte.

  --seed N        first seed (1)
  --runs K        how many seeds from there on (1)
  --kept          run the seeds of simulator/seeds.json instead: those that once found something
  --commands M    what shoppers and admins do in a run (200)
  --repeat R      run each seed R times and compare the histories (1)
  --hashes        print each run's hash
  --trace         write each run's history to simulator-trace-<seed>.txt
  --workers W     processes, each with a database server of its own (1)
  --resume FILE   remember in FILE which seeds are done, and leave out those that broke nothing
  --seconds S     begin no run after so many seconds
  --only 3,17     do only these commands of the plan; --only= none of them
  --without kill  leave these faults out
  --alone         one process with one connection, so that no transaction overlaps another
  --stop          begin no run after the first one that is broken
  --no-shrink     do not look for a smaller run when one is broken

Ends with 0 when no promise was broken and every history was the same again.`

const traceFile = (seed: number, which = "") => `simulator-trace-${seed}${which}.txt`

const options = {
  seed: { type: "string", default: "1" },
  runs: { type: "string", default: "1" },
  kept: { type: "boolean", default: false },
  commands: { type: "string", default: "200" },
  repeat: { type: "string", default: "1" },
  hashes: { type: "boolean", default: false },
  trace: { type: "boolean", default: false },
  workers: { type: "string", default: "1" },
  resume: { type: "string" },
  seconds: { type: "string" },
  only: { type: "string" },
  without: { type: "string", default: "" },
  alone: { type: "boolean", default: false },
  stop: { type: "boolean", default: false },
  "no-shrink": { type: "boolean", default: false },
  worker: { type: "boolean", default: false },
  help: { type: "boolean", default: false }
} as const

const whole = (text: string): number => {
  const [number = 0] = parseNumbers(text)
  return number
}

const showProblems = ({ problems }: Outcome) =>
  problems.flatMap(({ invariant, details }) => [
    `  not so: ${invariant}`,
    ...details.slice(0, 5).map((detail) => `    ${detail}`)
  ])

/** Tells all there is to know about a broken run: the smallest one found, its history, and how to see it again. */
const explain = async (run: Runner, settings: Settings, outcome: Outcome, shrinking: boolean) => {
  await Bun.write(traceFile(settings.seed), outcome.trace.join("\n"))
  console.log(
    [
      `seed ${settings.seed} is broken (${outcome.topology})`,
      ...showProblems(outcome),
      `  history: ${traceFile(settings.seed)}`
    ].join("\n")
  )
  const smallest = shrinking ? await shrink(run, settings, outcome) : settings
  const again = await run({ ...smallest, trace: true })
  await Bun.write(traceFile(settings.seed, "-smallest"), again.trace.join("\n"))
  const done = smallest.only === undefined ? "all commands" : `commands ${smallest.only.join(", ") || "none"}`
  const differs = smallest === settings && again.hash !== outcome.hash
  console.log(
    [
      `  smallest run found: ${done}${smallest.without.length === 0 ? "" : `, without ${smallest.without.join(", ")}`}`,
      ...(differs ? ["  THE SAME RUN AGAIN IS ANOTHER HISTORY: something in it is not the seed's"] : []),
      ...showProblems(again),
      `  history: ${traceFile(settings.seed, "-smallest")}`,
      `  again:   ${replay(smallest)}`
    ].join("\n")
  )
}

/** What was asked; throws what the user should read. */
const read = (args: Array<string>) => {
  const { values } = parseArgs({ args, options })
  return {
    values,
    commands: whole(values.commands),
    first: whole(values.seed),
    runs: whole(values.runs),
    repeat: whole(values.repeat),
    workers: whole(values.workers),
    withinSeconds: values.seconds === undefined ? Number.POSITIVE_INFINITY : whole(values.seconds),
    without: parseFaults(values.without),
    ...(values.only === undefined ? {} : { only: values.only === "" ? [] : parseNumbers(values.only) })
  }
}

/** What was asked, or a sentence about what is wrong with it. */
const readOrSay = (args: Array<string>): ReturnType<typeof read> | string => {
  try {
    return read(args)
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

export const main = async (args: Array<string>): Promise<number> => {
  const asked = readOrSay(args)
  if (typeof asked === "string") {
    console.error(`${asked} (--help lists the options)`)
    return 1
  }
  const { values, commands, first, without, only } = asked
  if (values.help) {
    console.log(help)
    return 0
  }
  if (values.worker) {
    await Worker.serve()
    return 0
  }
  const progress = new Progress(values.resume, commands)
  const planned = values.kept
    ? seeds.map(({ seed }) => seed)
    : Array.from({ length: asked.runs }, (_, index) => first + index)
  const todo = planned.filter((seed) => !progress.has(seed))
  const base = {
    commands,
    without,
    alone: values.alone,
    trace: values.trace,
    ...(only === undefined ? {} : { only })
  }
  const began = performance.now()
  const seconds = () => (performance.now() - began) / 1_000
  const report = new Report()
  const ran: Array<number> = []
  let diverged = 0

  const work = async (run: Runner) => {
    for (let seed = todo.shift(); seed !== undefined; seed = todo.shift()) {
      if (seconds() > asked.withinSeconds) return
      if (values.stop && report.failed > 0) return
      const settings = { ...base, seed }
      const outcomes: Array<Outcome> = []
      for (let nth = 0; nth < asked.repeat; nth++) outcomes.push(await run(settings))
      const [outcome] = outcomes
      if (outcome === undefined) return
      outcomes.forEach((each) => report.add(each))
      ran.push(seed)
      progress.record(seed, [...new Set(outcome.problems.map(({ invariant }) => invariant))])
      if (values.hashes) console.log(`${seed} ${outcome.hash}`)
      if (values.trace) await Bun.write(traceFile(seed), outcome.trace.join("\n"))
      const hashes = new Set(outcomes.map(({ hash }) => hash))
      if (hashes.size > 1) {
        diverged += 1
        console.log(`seed ${seed}: ${hashes.size} different histories in ${outcomes.length} runs`)
        for (const [nth, { trace }] of outcomes.entries())
          await Bun.write(traceFile(seed, `-${nth + 1}`), trace.join("\n"))
      }
      if (outcome.problems.length > 0) await explain(run, settings, outcome, !values["no-shrink"])
    }
  }

  await Effect.gen(function* () {
    const workers = Math.max(1, Math.min(asked.workers, todo.length))
    const databases = yield* Effect.forEach(Cores.ofWorkers(workers), Machine.start, { concurrency: "unbounded" })
    yield* Effect.promise(() =>
      Promise.all(
        databases.map(async (database) => {
          const worker = Worker.elsewhere(database)
          await work(worker.run)
          worker.close()
        })
      )
    )
  }).pipe(Effect.scoped, Effect.runPromise)

  const range = ranges(ran).map(([from, to]) => (from === to ? String(from) : `${from}–${to}`))
  console.log(`seeds ${range.join(", ") || "none"}`)
  console.log(report.text(seconds()))
  return report.failed > 0 || diverged > 0 || report.missing.length > 0 ? 1 : 0
}
