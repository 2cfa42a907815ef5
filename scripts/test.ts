// What `scripts/test` does once Bun and the dependencies are there: each check, then every test, then one closing line.
//
// A test that cannot run says so on a line of its own, and then passes or skips:
//   NOT RUN: Kafka contract of EventBus: KAFKA_BROKERS is not set           (a server is missing: fails under CI=true)
//   NOT RUN (data): baskets of 2015: the folder with the data is not there  (optional data: never fails)
//   NOT RUN (nightly): the policy on a real OPA: bun run nightly:opa        (too long for each run: never fails)

export interface NotRun {
  readonly line: string
  readonly optional: boolean
}

export interface TestReport {
  readonly passed: number
  readonly failed: number
  readonly notRun: ReadonlyArray<NotRun>
  /** What is wrong with the run itself rather than with a test; each counts as one failure. */
  readonly faults: ReadonlyArray<string>
}

const notRunLine = /^NOT RUN(?: \((\w+)\))?: \S/
const fileHeader = /^(?:::group::)?(\S.*\.(?:test|spec)\.[cm]?[jt]sx?):$/
const recapHeader = /^\d+ tests? (?:skipped|todo|failed):$/

/** Reads the output of `bun test`, stdout and stderr in one stream. */
export class TestOutput {
  readonly #notRun = new Map<string, NotRun>()
  readonly #explained = new Set<string>()
  readonly #skipped: Array<{ readonly file: string; readonly name: string }> = []
  #file: string | undefined
  #block: Array<string> = []
  #summary: ReadonlyArray<string> | undefined
  #passLines = 0
  #failLines = 0

  line(raw: string): void {
    const line = Bun.stripANSI(raw).trimEnd()
    const header = fileHeader.exec(line)?.[1]
    if (header !== undefined) this.#file = header
    // The recap at the end repeats what was said under its file.
    else if (recapHeader.test(line)) this.#file = undefined
    else if (line.startsWith("(pass) ")) this.#passLines++
    else if (line.startsWith("(fail) ") && this.#file !== undefined) this.#failLines++
    else if (/^\((?:skip|todo)\) /.test(line) && this.#file !== undefined)
      this.#skipped.push({ file: this.#file, name: line.slice(7) })
    const notRun = notRunLine.exec(line)
    if (notRun !== null) {
      this.#notRun.set(line, { line, optional: notRun[1] === "data" || notRun[1] === "nightly" })
      if (this.#file !== undefined) this.#explained.add(this.#file)
    }

    if (line === "") this.#block = []
    else this.#block.push(line)
    // Only the last one counts: a test may print the summary of another run.
    if (/^Ran \d+ tests? across \d+ files?\./.test(line)) this.#summary = this.#block
  }

  report(exitCode: number): TestReport {
    const notRun = [
      ...this.#notRun.values(),
      ...this.#skipped
        .filter(({ file }) => !this.#explained.has(file))
        .map(({ file, name }) => ({
          line: `NOT RUN: ${file}: "${name}" is skipped without saying why`,
          optional: false
        }))
    ]
    if (this.#summary === undefined) {
      const faults = [`bun test ended early, in ${this.#file ?? "no file"}, with exit code ${exitCode}`]
      return { passed: this.#passLines, failed: this.#failLines, notRun, faults }
    }
    const count = (what: RegExp) =>
      (this.#summary ?? [])
        .map((line) => /^\s*(\d+) (\w+)$/.exec(line))
        .reduce((sum, found) => (found !== null && what.test(found[2] ?? "") ? sum + Number(found[1]) : sum), 0)
    const passed = count(/^pass$/)
    const failed = count(/^fail$/) + count(/^errors?$/)
    const faults = exitCode !== 0 && failed === 0 ? [`bun test exited with code ${exitCode} though no test failed`] : []
    return { passed, failed, notRun, faults }
  }
}

const checks = [
  { name: "types", script: "typecheck" },
  { name: "lint", script: "lint" },
  { name: "format", script: "format:check" }
]

/** Ample for a test that starts a Postgres of its own on a busy machine. */
const testTimeoutMs = 60_000

/** Files at a time: most of them wait for processes that start, stop and recover, and none may need a machine of its own. */
const filesAtOnce = 3

const seconds = (sinceMs: number) => `${((performance.now() - sinceMs) / 1000).toFixed(1)} s`

/** What runs now; a signal ends it and everything after it. */
let running: Bun.Subprocess | undefined
let interrupted = false
const interrupt = (signal: NodeJS.Signals) => {
  interrupted = true
  running?.kill(signal)
}

const runCheck = async (script: string): Promise<boolean> => {
  const child = Bun.spawn([process.execPath, "run", "--silent", script], { stdio: ["ignore", "inherit", "inherit"] })
  running = child
  return (await child.exited) === 0
}

/**
 * Servers that are built, which takes minutes of a machine that has none of them: begun at once and with what the rest does
 * not need, so that the tests that want them, among the last, find them there. So is the fuzzer.
 */
const builtBeforehand = ["s3", "toxiproxy"]

const buildBeforehand = (): void => {
  for (const script of [
    ["scripts/servers.ts", "fetch", ...builtBeforehand],
    ["scripts/fuzz.ts", "--install"]
  ]) {
    const command = ["nice", "-n", "19", process.execPath, ...script]
    Bun.spawn(command, { stdio: ["ignore", "ignore", "ignore"] }).unref()
  }
}

const runTests = async (filters: ReadonlyArray<string>): Promise<TestReport> => {
  // Under an agent Bun hides what passed and what was skipped; the log is the same for everybody.
  const { AGENT: _, CLAUDECODE: _1, REPL_ID: _2, ...env } = process.env
  // Not --no-orphans: the processes that tests start would inherit it, and some are there to be orphaned.
  const command = [process.execPath, "test", `--parallel=${filesAtOnce}`, `--timeout=${testTimeoutMs}`, ...filters]
  // One pipe for both streams, or the order of their lines would be lost.
  const child = Bun.spawn(["sh", "-c", 'exec "$@" 2>&1', "sh", ...command], {
    env,
    stdio: ["ignore", "pipe", "inherit"]
  })
  running = child
  const output = new TestOutput()
  const decoder = new TextDecoder()
  let rest = ""
  for await (const chunk of child.stdout) {
    process.stdout.write(chunk)
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n")
    rest = lines.pop() ?? ""
    for (const line of lines) output.line(line)
  }
  output.line(rest)
  return output.report(await child.exited)
}

const main = async (filters: ReadonlyArray<string>): Promise<void> => {
  process.on("SIGINT", interrupt).on("SIGTERM", interrupt)
  const ci = process.env["CI"] === "true"
  if (ci && filters.length === 0) buildBeforehand()
  const summary: Array<string> = []
  let passed = 0
  let failed = 0

  const step = async (name: string, run: () => Promise<{ readonly ok: boolean; readonly detail: string }>) => {
    if (interrupted) return
    console.log(`\n── ${name}`)
    const started = performance.now()
    const { ok, detail } = await run()
    const line = `${ok ? "ok    " : "FAILED"}  ${name.padEnd(6)}  ${seconds(started).padStart(8)}  ${detail}`.trimEnd()
    console.log(line)
    summary.push(line)
  }

  for (const { name, script } of filters.length === 0 ? checks : [])
    await step(name, async () => {
      const ok = await runCheck(script)
      if (ok) passed++
      else failed++
      return { ok, detail: ok ? "" : `bun run ${script}` }
    })

  let notRun: ReadonlyArray<NotRun> = []
  await step("tests", async () => {
    const report = await runTests(filters)
    notRun = report.notRun
    for (const fault of report.faults) console.log(fault)
    passed += report.passed
    failed += report.failed + report.faults.length
    const ok = report.failed + report.faults.length === 0
    return { ok, detail: [`${report.passed} passed, ${report.failed} failed`, ...report.faults].join("; ") }
  })

  if (interrupted) {
    summary.push("FAILED  interrupted")
    failed++
  }
  console.log(`\n── summary\n${summary.join("\n")}`)
  if (notRun.length > 0) {
    const missing = notRun.filter(({ optional }) => !optional).length
    if (ci) failed += missing
    console.log(`\nWhat could not run${ci && missing > 0 ? ` (${missing} count as failed, because CI=true)` : ""}:`)
    for (const { line } of notRun) console.log(line)
  }
  console.log(`\n${passed} passed, ${failed} failed`)
  process.exitCode = failed === 0 ? 0 : 1
}

if (import.meta.main) await main(process.argv.slice(2))
