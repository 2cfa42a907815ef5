// The simulator as CI runs it: what it once found, as many fresh seeds as fit, and that a seed is one history wherever it
// runs. MERKATO_SIMULATE_SECONDS says how long fresh seeds are tried (20; 180 in CI), MERKATO_SIMULATE_HISTORIES=long is for the
// night: 20 seeds of whole runs have their history twice, instead of 3 short ones.
import { afterAll, describe, expect, test } from "bun:test"
import { spawn } from "node:child_process"
import { cpus } from "node:os"
import { join } from "node:path"
import seeds from "../simulator/seeds.json"

const main = join(import.meta.dir, "../simulator/main.ts")
const seconds = Number(process.env["MERKATO_SIMULATE_SECONDS"] ?? (process.env["CI"] === "true" ? "180" : "20"))
const histories =
  process.env["MERKATO_SIMULATE_HISTORIES"] === "long" ? { seeds: 20, commands: 200 } : { seeds: 3, commands: 60 }
/** Of starting a server, of a run that begins in the last second, and of making a failure smaller. */
const beyondMs = 300_000
const historiesMs = 2 * beyondMs + histories.seeds * 20_000

const children = new Set<ReturnType<typeof spawn>>()
afterAll(() => children.forEach((child) => child.kill("SIGKILL")))

const simulate = (...args: ReadonlyArray<string>) =>
  new Promise<{ readonly exitCode: number | null; readonly output: string }>((resolve) => {
    const child = spawn(process.execPath, [main, ...args], { stdio: ["ignore", "pipe", "pipe"] })
    children.add(child)
    let output = ""
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()))
    child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()))
    child.once("close", (exitCode) => {
      children.delete(child)
      resolve({ exitCode, output })
    })
  })

/** `seed hash` lines. */
const hashes = (output: string) => output.split("\n").filter((line) => /^\d+ [0-9a-f]{64}$/.test(line))

describe("the simulator", () => {
  test.skipIf(seeds.length === 0)(
    "finds nothing any more where it once found something",
    async () => {
      const { exitCode, output } = await simulate("--kept")
      expect(`${output}\nexit code ${exitCode}`).toEndWith("exit code 0")
    },
    beyondMs + seeds.length * 20_000
  )

  test(
    "has the same history for a seed in every process and database, also on a busy machine",
    async () => {
      const range = ["--runs", String(histories.seeds), "--commands", String(histories.commands)]
      const same = ["--seed", "1", ...range, "--hashes", "--no-shrink"]
      // One after the other in one process; then three at a time, while others want the processor: what they share would be seen.
      const once = hashes((await simulate(...same)).output)
      expect(once).toHaveLength(histories.seeds)
      for (let nth = 1; nth <= 2; nth++) {
        const endless = `for (const end = Date.now() + ${historiesMs}; Date.now() < end;) {}`
        const load = spawn(process.execPath, ["-e", endless], { stdio: "ignore" })
        children.add(load)
        load.once("close", () => children.delete(load))
      }
      const again = hashes((await simulate(...same, "--workers", "3")).output)
      children.forEach((child) => child.kill("SIGKILL"))
      expect(again.toSorted()).toEqual(once.toSorted())
      console.log(`${new Set(once).size} histories of ${histories.commands} commands, each twice`)
    },
    historiesMs
  )

  test(
    "breaks no promise under fresh seeds",
    async () => {
      const base = Math.floor(Math.random() * 1_000_000_000)
      console.log(`fresh seeds from ${base} on`)
      const { exitCode, output } = await simulate(
        "--seed",
        String(base),
        "--runs",
        "100000",
        "--seconds",
        String(seconds),
        "--workers",
        String(cpus().length)
      )
      console.log(output.slice(-3_000))
      expect(`${output}\nexit code ${exitCode}`).toEndWith("exit code 0")
    },
    beyondMs + seconds * 1_000
  )
})
