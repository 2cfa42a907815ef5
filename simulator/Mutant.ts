/** Mistakes put in on purpose: each a patch, applied to a copy of the source, which the simulator has to find. */
import { spawn } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const root = new URL("..", import.meta.url).pathname
const folder = new URL("./mutants/", import.meta.url).pathname

export const names: ReadonlyArray<string> = readdirSync(folder)
  .filter((file) => file.endsWith(".patch"))
  .map((file) => file.replace(/\.patch$/, ""))
  .toSorted()

/** Runs in which a mutant must have been found (issue of the simulator). */
export const withinRuns = 30

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

/** Tries to find a mutant from a seed on: what the simulator said, and whether it found something. */
export const hunt = async (name: string, seed: number): Promise<{ readonly found: boolean; readonly said: string }> => {
  const place = copy()
  try {
    const patched = await run("git", ["apply", join(folder, `${name}.patch`)], place)
    if (patched.exitCode !== 0) return { found: false, said: `The patch does not fit any more: ${patched.output}` }
    const { exitCode, output } = await run(
      process.execPath,
      ["simulator/main.ts", "--seed", String(seed), "--runs", String(withinRuns), "--stop", "--no-shrink"],
      place
    )
    return { found: exitCode === 1 && output.includes("not so:"), said: output }
  } finally {
    rmSync(place, { recursive: true, force: true })
  }
}

if (import.meta.main) {
  for (const name of process.argv.length > 2 ? process.argv.slice(2) : names) {
    const { found, said } = await hunt(name, 1)
    const first = said.split("\n").filter((line) => /^seed \d+ is|not so:|^\d+ runs/.test(line))
    console.log(
      `${found ? "found" : "NOT FOUND"}: ${name}\n  ${(found ? first : [said.slice(-1_500)]).slice(0, 6).join("\n  ")}`
    )
  }
}
