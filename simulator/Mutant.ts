/** Mistakes put in on purpose: each a patch, applied to a copy of the source, which the simulator has to find. */
import { spawn } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"

const root = new URL("..", import.meta.url).pathname
const folder = new URL("./mutants/", import.meta.url).pathname

export const names: ReadonlyArray<string> = readdirSync(folder)
  .filter((file) => file.endsWith(".patch"))
  .map((file) => file.replace(/\.patch$/, ""))
  .toSorted()

/** Runs in which a mutant must have been found (issue of the simulator). */
const withinRuns = 30

const run = (command: string, args: ReadonlyArray<string>, cwd: string) =>
  new Promise<{ readonly exitCode: number | null; readonly output: string }>((resolve) => {
    const child = spawn(command, args, { cwd, stdio: ["ignore", "pipe", "pipe"] })
    let output = ""
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()))
    child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()))
    child.once("close", (exitCode) => resolve({ exitCode, output }))
  })

/** A copy of the sources that uses the packages of others from here, and its own for the shop's. */
const copy = (): string => {
  const to = mkdtempSync(join(tmpdir(), "merkato-mutant-"))
  for (const name of ["packages", "simulator", "package.json", "tsconfig.json", "bunfig.toml"]) {
    cpSync(join(root, name), join(to, name), { recursive: true, filter: (path) => !path.endsWith("/node_modules") })
  }
  mkdirSync(join(to, "node_modules/@merkato"), { recursive: true })
  for (const name of readdirSync(join(root, "node_modules"))) {
    if (name !== "@merkato") symlinkSync(join(root, "node_modules", name), join(to, "node_modules", name))
  }
  for (const name of readdirSync(join(to, "packages"))) {
    symlinkSync(join(to, "packages", name), join(to, "node_modules/@merkato", name))
  }
  return to
}

/** What git says of a mutant that cannot be put into the source as it is; undefined when it can. */
export const misfit = async (name: string): Promise<string | undefined> => {
  const { exitCode, output } = await run("git", ["apply", "--check", join(folder, `${name}.patch`)], root)
  return exitCode === 0 ? undefined : output
}

export interface Hunt {
  readonly found: boolean
  /** Runs until it was found. */
  readonly runs: number | undefined
  /** Everything that the simulator said. */
  readonly said: string
}

/** Tries to find a mutant from a seed on; `alone` in one process with one connection. */
export const hunt = async (name: string, seed: number, alone = false): Promise<Hunt> => {
  const place = copy()
  const range = ["--seed", String(seed), "--runs", String(withinRuns)]
  try {
    const patched = await run("git", ["apply", join(folder, `${name}.patch`)], place)
    if (patched.exitCode !== 0) {
      return { found: false, runs: undefined, said: `The patch does not fit any more: ${patched.output}` }
    }
    const { exitCode, output } = await run(
      process.execPath,
      ["simulator/main.ts", ...range, "--stop", "--no-shrink", ...(alone ? ["--alone"] : [])],
      place
    )
    const broken = /^seed (\d+) is broken/m.exec(output)?.[1]
    const found = exitCode === 1 && broken !== undefined
    return { found, runs: found ? Number(broken) - seed + 1 : undefined, said: output }
  } finally {
    rmSync(place, { recursive: true, force: true })
  }
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    options: { seed: { type: "string", default: "1" }, alone: { type: "boolean", default: false } },
    allowPositionals: true
  })
  for (const name of positionals.length > 0 ? positionals : names) {
    const { found, runs, said } = await hunt(name, Number(values.seed), values.alone)
    const told = found ? said.slice(said.indexOf("is broken"), said.indexOf("  smallest run")) : said.slice(-1_500)
    console.log(`${found ? `found in run ${runs}` : "NOT FOUND"}: ${name} (from seed ${values.seed} on)\n  ${told}`)
  }
}
