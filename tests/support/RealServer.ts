import { spawn } from "node:child_process"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { kill } from "./Crash.ts"
import { temporaryFolder } from "./Processes.ts"

const program = new URL("../../scripts/servers.ts", import.meta.url).pathname

/** A real server for one test file, at ports of its own, on data of its own. */
export interface RealServer {
  /** What the shop is told of it, as in `KAFKA_BROKERS`. */
  readonly settings: Readonly<Record<string, string>>
  /** kill -9 */
  readonly kill: () => void
  /** Lets it stand still, its connections open, and go on. */
  readonly freeze: () => void
  readonly thaw: () => void
  /** Starts it again, on the same data and ports. */
  readonly start: () => Promise<void>
  /** Stops it, and forgets all. */
  readonly stop: () => Promise<void>
  /** Where it is, for another server that needs it. */
  readonly folder: string
}

const servers = (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}) =>
  new Promise<{ readonly ok: boolean; readonly stdout: string; readonly stderr: string }>((resolve) => {
    const child = spawn(process.execPath, [program, ...args], {
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let [stdout, stderr] = ["", ""]
    child.stdout.on("data", (chunk) => void (stdout += String(chunk)))
    child.stderr.on("data", (chunk) => void (stderr += String(chunk)))
    child.once("close", (code) => resolve({ ok: code === 0, stdout, stderr }))
  })

/** Stops a process, and waits until none of its threads runs any more: a busy one still answers for a moment. */
const freeze = (pid: number) => {
  process.kill(pid, "SIGSTOP")
  const threads = `/proc/${pid}/task`
  if (!existsSync(threads)) return
  const runs = (thread: string) => !/\) [TtZ]/.test(readFileSync(`${threads}/${thread}/stat`, "utf8"))
  for (let looks = 0; looks < 1_000 && readdirSync(threads).some(runs); looks++) Bun.sleepSync(1)
}

/**
 * Starts a server as scripts/servers does; the first time it is downloaded. Where it cannot be had there is none, and the
 * log says what is not tested; under CI=true that is a failure. It ends with this process at the latest. `beside` is a server
 * that this one needs, and that runs already.
 */
export const realServer = async (
  name:
    | "kafka"
    | "redis"
    | "opensearch"
    | "cassandra"
    | "clickhouse"
    | "s3"
    | "toxiproxy"
    | "apicurio"
    | "debezium"
    | "opa"
    | "mosquitto"
    | "rabbitmq",
  what: string,
  environment: Readonly<Record<string, string>> = {},
  beside?: RealServer
): Promise<RealServer | undefined> => {
  const { path, remove } = beside === undefined ? temporaryFolder() : { path: beside.folder, remove: () => {} }
  const args = ["up", name, "--free-ports", "--as-long-as", String(process.pid), "--dir", path]
  const up = () => servers(args, environment)
  const { ok, stdout, stderr } = await up()
  if (!ok) {
    remove()
    if (process.env["CI"] === "true") throw new Error(`No ${name} for ${what}:\n${stderr}`)
    console.log(`NOT RUN: ${what}: no ${name} can be had here: ${stderr.trim().split("\n").at(-1)}`)
    return undefined
  }
  const pid = () => Number(JSON.parse(readFileSync(join(path, name, "running.json"), "utf8")).pid)
  return {
    settings: Object.fromEntries(
      [...stdout.matchAll(/^([A-Z0-9_]+)=(.*)$/gm)].map(([, key = "", value = ""]) => [key, value])
    ),
    folder: path,
    kill: () => kill(pid()),
    freeze: () => freeze(pid()),
    thaw: () => process.kill(pid(), "SIGCONT"),
    start: async () => {
      const again = await up()
      if (!again.ok) throw new Error(`${name} did not start again:\n${again.stderr}`)
    },
    stop: async () => {
      await servers(["down", name, "--wipe", "--dir", path])
      remove()
    }
  }
}
