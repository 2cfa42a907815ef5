import { expect, test } from "bun:test"
import { join } from "node:path"

const simulate = (...args: ReadonlyArray<string>) => {
  const { exitCode, stdout, stderr } = Bun.spawnSync([process.execPath, join(import.meta.dir, "../main.ts"), ...args])
  return { exitCode, stdout: stdout.toString(), stderr: stderr.toString() }
}

test("what makes no sense is told in a sentence, before anything is started", () => {
  const wrong: ReadonlyArray<readonly [args: ReadonlyArray<string>, why: RegExp]> = [
    [["--bogus"], /^Unknown option '--bogus'/],
    [["--seed", "x"], /^"x" is not a whole number /],
    [["--seconds", "soon"], /^"soon" is not a whole number /],
    [["--without", "kill,rain"], /^There is no fault "rain"; there are kill, /]
  ]
  for (const [args, why] of wrong) {
    const { exitCode, stdout, stderr } = simulate(...args)
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" })
    expect(stderr).toMatch(why)
    expect(stderr).toEndWith(" (--help lists the options)\n")
    expect(stderr.trim().split("\n").length).toBe(1)
  }
})
