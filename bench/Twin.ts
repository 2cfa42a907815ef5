import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Latencies from "./Latencies.ts"

/** pgbench on the PATH or where Debian puts it; undefined when it is not installed. */
export const findPgbench = (): string | undefined => {
  const onPath = Bun.which("pgbench")
  if (onPath !== null) return onPath
  const debian = "/usr/lib/postgresql"
  if (!existsSync(debian)) return undefined
  return readdirSync(debian)
    .map((version) => join(debian, version, "bin/pgbench"))
    .find((path) => existsSync(path))
}

export interface Script {
  /** The program. */
  readonly binary: string
  readonly database: URL
  readonly script: string
  readonly clients: number
}

const run = async (
  { binary, database, script, clients }: Script,
  seconds: number,
  more: ReadonlyArray<string> = [],
  folder?: string
) => {
  const child = Bun.spawn(
    [
      binary,
      "-n",
      "-M",
      "prepared",
      "-j",
      "2",
      "-c",
      String(clients),
      "-T",
      String(seconds),
      "-f",
      script,
      ...more,
      "-h",
      // As the shop does: over the Unix socket, where there is one.
      database.searchParams.get("host") ?? database.hostname,
      "-p",
      database.port,
      "-U",
      decodeURIComponent(database.username),
      database.pathname.slice(1)
    ],
    {
      env: { ...process.env, PGPASSWORD: decodeURIComponent(database.password) },
      ...(folder === undefined ? {} : { cwd: folder }),
      stdout: "pipe",
      stderr: "pipe"
    }
  )
  const [output, errors] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()])
  const tps = /tps = ([\d.]+)/.exec(output)?.[1]
  if (tps === undefined) throw new Error(`pgbench failed: ${errors || output}`)
  return Number(tps)
}

/** Transactions a second of a pgbench script, prepared, with so many clients. */
export const pgbench = (script: Script, seconds: number): Promise<number> => run(script, seconds)

/** How long the same transactions take at so many a second, each counted from when it was due. */
export const pgbenchPaced = async (
  script: Script,
  seconds: number,
  perSecond: number
): Promise<Latencies.Latencies> => {
  const folder = mkdtempSync(join(tmpdir(), "merkato-bench-twin-"))
  try {
    await run(script, seconds, ["--rate", String(perSecond), "--log"], folder)
    // A line per transaction: client, number, microseconds, ...; each of its threads has a file.
    const logs = await Promise.all(readdirSync(folder).map((name) => Bun.file(join(folder, name)).text()))
    const taken = logs.flatMap((log) => log.trimEnd().split("\n")).map((line) => Number(line.split(" ")[2]) / 1_000)
    return Latencies.of(taken, seconds)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
