import { type ChildProcess, spawn } from "node:child_process"
import { chmodSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { freePort } from "@merkato/infra/runtime/Ports"

export { freePort }

const root = new URL("../..", import.meta.url).pathname

/**
 * A folder that every user may traverse (the embedded Postgres runs as another one), removed by `remove`. Not named as
 * `TestDatabase` names its own: it sweeps away those whose owner was killed.
 */
export const temporaryFolder = () => {
  const path = mkdtempSync(join(tmpdir(), "merkato-process-"))
  chmodSync(path, 0o755)
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}

export interface Running {
  readonly url: string
  readonly pid: number
  /** What it has printed so far. */
  readonly output: () => string
  /** Sends a signal and waits for the end; the exit code, or null when a signal ended it. */
  readonly end: (signal: NodeJS.Signals) => Promise<number | null>
  readonly ended: Promise<number | null>
}

export type App = "shop" | "service" | "gateway" | "payment-gateways" | "merkato"

/**
 * Starts one of the apps and waits until it is ready: at a free port, or at the one in `args`. Fails with its output when
 * it ends before that.
 */
export const startApp = async (
  app: App,
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> = {},
  readyWithinMs = 60_000
): Promise<Running> => {
  const chosen = args.indexOf("--port")
  const port = chosen < 0 ? await freePort() : Number(args[chosen + 1])
  const child: ChildProcess = spawn(
    process.execPath,
    [join(root, `apps/${app}/src/main.ts`), ...(chosen < 0 ? ["--port", String(port)] : []), ...args],
    { env: { ...cleanEnvironment(), MERKATO_LOG_FORMAT: "json", ...env }, stdio: ["ignore", "pipe", "pipe"] }
  )
  let output = ""
  child.stdout?.on("data", (chunk) => {
    output += String(chunk)
  })
  child.stderr?.on("data", (chunk) => {
    output += String(chunk)
  })
  let over = false
  const ended = new Promise<number | null>((resolve) =>
    child.once("exit", (code) => {
      over = true
      resolve(code)
    })
  )
  const url = `http://127.0.0.1:${port}`
  const deadline = Date.now() + readyWithinMs
  for (;;) {
    if (over) throw new Error(`${app} ended before it was ready:\n${output}`)
    if (Date.now() > deadline) {
      child.kill("SIGKILL")
      throw new Error(`${app} was not ready in time:\n${output}`)
    }
    const ready = await fetch(`${url}/readyz`).then(
      (response) => response.ok,
      () => false
    )
    if (ready) break
    await Bun.sleep(25)
  }
  return {
    url,
    pid: child.pid ?? 0,
    output: () => output,
    end: (signal) => {
      child.kill(signal)
      return ended
    },
    ended
  }
}

/** Runs one of the apps until it ends by itself, with exactly these arguments. */
export const runToEnd = (
  app: App | "merkato",
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> = {}
) =>
  new Promise<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }>((resolve, reject) => {
    const child = spawn(process.execPath, [join(root, `apps/${app}/src/main.ts`), ...args], {
      env: { ...cleanEnvironment(), MERKATO_LOG_FORMAT: "json", ...env },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let [stdout, stderr] = ["", ""]
    child.stdout?.on("data", (chunk) => {
      stdout += String(chunk)
    })
    child.stderr?.on("data", (chunk) => {
      stderr += String(chunk)
    })
    child.once("error", reject)
    child.once("close", (code) => resolve({ code, stdout, stderr }))
  })

/** The environment without what would steer the shop elsewhere. */
const cleanEnvironment = (): Record<string, string> =>
  Object.fromEntries(
    Object.entries(process.env).filter(
      (entry): entry is [string, string] =>
        entry[1] !== undefined &&
        !/^(MERKATO_|OTEL_|DATABASE_URL|KAFKA_BROKERS|REDIS_URL|OPENSEARCH_|CASSANDRA_|CLICKHOUSE_|SCHEMA_REGISTRY_URL|CONNECT_URL|OPA_|MQTT_|RABBITMQ_URL|AMQP_URL)/.test(
          entry[0]
        )
    )
  )

/** The postmaster of a data folder's embedded Postgres, if it runs. */
export const postmasterOf = (dataDir: string): number | undefined => {
  try {
    return Number(readFileSync(join(dataDir, "postgres", "postmaster.pid"), "utf8").split("\n")[0])
  } catch {
    return undefined
  }
}
