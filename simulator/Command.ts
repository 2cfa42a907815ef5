import { Effect } from "effect"
import { parseArgs } from "node:util"
import * as Machine from "./Machine.ts"
import { run } from "./Run.ts"
import { Server } from "./wire/Server.ts"

export const main = async (args: Array<string>) => {
  const { values } = parseArgs({
    args,
    options: {
      seed: { type: "string", default: "1" },
      commands: { type: "string", default: "200" },
      runs: { type: "string", default: "1" },
      repeat: { type: "string", default: "1" },
      trace: { type: "boolean", default: false },
      hashes: { type: "boolean", default: false }
    }
  })
  const first = Number(values.seed)
  await Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const server = yield* Machine.start
        const url = yield* Machine.prepare(server, "sim_1")
        yield* Effect.promise(async () => {
          const gate = await Server.open(Machine.targetOf(url))
          for (let seed = first; seed < first + Number(values.runs); seed++) {
            const outcome = await run(gate, {
              seed,
              commands: Number(values.commands),
              skipped: new Set(),
              off: new Set(),
              trace: values.trace
            })
            console.log(seed, outcome.hash.slice(0, 16), outcome.topology, Math.round(outcome.ms))
            for (const { invariant, details } of outcome.problems) {
              console.log(`  BROKEN ${invariant}\n    ${details.slice(0, 5).join("\n    ")}`)
            }
            console.log(JSON.stringify(Object.fromEntries(outcome.counts)), JSON.stringify(Object.fromEntries(outcome.answers)))
            if (values.trace) await Bun.write(`trace-${seed}.txt`, outcome.trace.join("\n"))
          }
          gate.close()
        })
      })
    )
  )
  process.exit(0)
}
