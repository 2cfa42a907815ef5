import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import * as Cores from "./Cores.ts"
import { targetOf } from "./Machine.ts"
import { type Outcome, run } from "./Run.ts"
import type { Settings } from "./Settings.ts"
import type { Runner } from "./Shrink.ts"
import { Server } from "./wire/Server.ts"

/** Where a worker's database is; in the environment, since it holds a password. */
const variable = "MERKATO_SIMULATOR_DATABASE"

/** Runs in this process, one after the other, on a database server of its own. */
const here = async (database: URL): Promise<{ readonly run: Runner; readonly close: () => void }> => {
  const server = await Server.open(targetOf(database))
  return { run: (settings) => run(server, settings), close: () => server.close() }
}

/** What a worker process does: a line of settings in, a line with the outcome out. */
export const serve = async (): Promise<void> => {
  const { run, close } = await here(new URL(process.env[variable] ?? ""))
  for await (const line of createInterface({ input: process.stdin })) {
    const outcome = await run(JSON.parse(line) as Settings)
    process.stdout.write(`${JSON.stringify(outcome)}\n`)
  }
  close()
}

/** Runs in a process of its own, so that there is one per core, and with a compiler that is told what it compiles for. */
export const elsewhere = ({
  url,
  core
}: {
  readonly url: URL
  readonly core: number | undefined
}): { readonly run: Runner; readonly close: () => void } => {
  const child = spawn(process.execPath, [new URL("./main.ts", import.meta.url).pathname, "--worker"], {
    // A run is short, and no two are alike: what the last stage of the compiler costs does not come back (an eighth of the CPU).
    env: { BUN_JSC_useFTLJIT: "0", ...process.env, [variable]: url.href },
    stdio: ["pipe", "pipe", "inherit"]
  })
  if (core !== undefined && child.pid !== undefined) Cores.keep(child.pid, core)
  const waiting: Array<{ readonly resolve: (outcome: Outcome) => void; readonly reject: (error: Error) => void }> = []
  createInterface({ input: child.stdout }).on("line", (line) => waiting.shift()?.resolve(JSON.parse(line) as Outcome))
  child.once("exit", (code) => {
    for (const { reject } of waiting) reject(new Error(`A worker ended with ${code}`))
  })
  return {
    run: (settings) =>
      new Promise((resolve, reject) => {
        waiting.push({ resolve, reject })
        child.stdin.write(`${JSON.stringify(settings)}\n`)
      }),
    close: () => child.stdin.end()
  }
}
