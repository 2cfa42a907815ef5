import { describe, expect, test } from "bun:test"
import { join } from "node:path"
import { TestOutput } from "../scripts/test.ts"

const root = join(import.meta.dir, "..")

const report = (exitCode: number, ...lines: ReadonlyArray<string>) => {
  const output = new TestOutput()
  for (const line of lines) output.line(line)
  return output.report(exitCode)
}

const summary = [
  "",
  " 3 pass",
  " 1 skip",
  " 2 fail",
  " 1 error",
  " 9 expect() calls",
  "Ran 6 tests across 2 files. [1s]"
]

describe("what scripts/test reads from bun test", () => {
  test("the summary counts, files that do not load included; what only looks like one does not", () => {
    expect(report(1, " 7 pass", "Ran 7 tests across 1 file. [1s]", ...summary)).toEqual({
      passed: 3,
      failed: 3,
      notRun: [],
      faults: []
    })
  })

  test("a run without a summary failed, even with exit code 0", () => {
    expect(report(0, "a.test.ts:", "(pass) one [1ms]", "(fail) two", "(pass) three")).toEqual({
      passed: 2,
      failed: 1,
      notRun: [],
      faults: ["bun test ended early, in a.test.ts, with exit code 0"]
    })
  })

  test("a bad exit code is a failure when no test explains it", () => {
    expect(report(137, "", " 1 pass", " 0 fail", "Ran 1 test across 1 file. [1s]").faults).toEqual([
      "bun test exited with code 137 though no test failed"
    ])
  })

  test("what could not run is named once, and data is optional", () => {
    const server = "NOT RUN: Kafka: KAFKA_BROKERS is not set"
    const data = "NOT RUN (data): baskets: no folder"
    expect(
      report(1, server, data, `\u001b[33m${server}\u001b[0m`, `  ${server}`, "NOT RUN:", ...summary).notRun
    ).toEqual([
      { line: server, optional: false },
      { line: data, optional: true }
    ])
  })

  test("a skipped test must be explained in its file", () => {
    const lines = [
      "a.test.ts:",
      "NOT RUN (data): baskets: no folder",
      "(skip) reads baskets",
      "::group::b.test.ts:",
      "(skip) b > sleeps",
      "(todo) c",
      "",
      "2 tests skipped:",
      "(skip) reads baskets",
      "(skip) b > sleeps"
    ]
    expect(report(1, ...lines, ...summary).notRun.map(({ line }) => line)).toEqual([
      "NOT RUN (data): baskets: no folder",
      'NOT RUN: b.test.ts: "b > sleeps" is skipped without saying why',
      'NOT RUN: b.test.ts: "c" is skipped without saying why'
    ])
  })
})

describe("scripts", () => {
  const run = (command: ReadonlyArray<string>, env: Record<string, string> = {}) => {
    const { exitCode, stderr, stdout } = Bun.spawnSync([...command], { cwd: root, env })
    return { exitCode, stdout: stdout.toString(), stderr: stderr.toString() }
  }

  for (const script of ["scripts/start", "scripts/test"])
    test(`${script} --help needs neither Bun nor dependencies`, () => {
      const bash = Bun.which("bash") ?? "bash"
      // An empty PATH but for what prints the text.
      const { exitCode, stdout } = run([bash, "-c", `cat() { ${Bun.which("cat")}; }; source ${script} --help`], {
        PATH: ""
      })
      expect({ exitCode, usage: stdout.startsWith(`Usage: ${script}`) }).toEqual({ exitCode: 0, usage: true })
    })

  for (const script of [
    "bench/events.ts",
    "bench/freshness.ts",
    "bench/live.ts",
    "bench/main.ts",
    "scripts/fuzz.ts",
    "scripts/nightly-full.ts"
  ]) {
    test(`${script} has a --help, and one sentence for an option it does not know`, () => {
      const help = run([process.execPath, script, "--help"])
      expect([help.exitCode, help.stderr]).toEqual([0, ""])
      expect(help.stdout).toStartWith("bun run ")
      const { exitCode, stderr, stdout } = run([process.execPath, script, "--nonsense"])
      expect([exitCode, stdout, stderr]).toEqual([2, "", "Unknown option '--nonsense'\n--help tells more\n"])
    })
  }

  test("numbers that are none are refused before anything is started", () => {
    const { exitCode, stderr } = run([process.execPath, "scripts/fuzz.ts", "--seconds", "soon"])
    expect([exitCode, stderr]).toEqual([2, '--seconds wants a whole number from 1 on, not "soon"\n--help tells more\n'])
  })

  test("a bun on the PATH is used from the pinned patch on, within its minor version", () => {
    const versions = ["1.4.4", "1.4.12", "1.4.5-canary.1", "1.4.3", "1.5.0", "2.4.4", "1.3.9", "", "broken"]
    const { stdout } = run(
      [
        "bash",
        "-c",
        'source scripts/lib.sh; for v; do if satisfies "$v" 1.4.4; then echo "$v"; fi; done',
        "bash",
        ...versions
      ],
      { PATH: process.env["PATH"] ?? "" }
    )
    expect(stdout.trim().split("\n")).toEqual(["1.4.4", "1.4.12", "1.4.5-canary.1"])
  })

  test("without bun and npm one sentence says what to install", () => {
    const { exitCode, stderr } = run([
      Bun.which("bash") ?? "bash",
      "-c",
      "command() { return 1; }; source scripts/lib.sh; install_bun 1.4.4 /nowhere"
    ])
    expect({ exitCode, lines: stderr.trim().split("\n").length, named: /Node\.js.*Bun/.test(stderr) }).toEqual({
      exitCode: 1,
      lines: 1,
      named: true
    })
  })
})
