import { existsSync, readdirSync } from "node:fs"
import { join } from "node:path"

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

/** Transactions a second of a pgbench script, prepared, with so many clients. */
export const pgbench = async (binary: string, url: URL, script: string, clients: number, seconds: number) => {
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
      "-h",
      // As the shop does: over the Unix socket, where there is one.
      url.searchParams.get("host") ?? url.hostname,
      "-p",
      url.port,
      "-U",
      decodeURIComponent(url.username),
      url.pathname.slice(1)
    ],
    { env: { ...process.env, PGPASSWORD: decodeURIComponent(url.password) }, stdout: "pipe", stderr: "pipe" }
  )
  const [output, errors] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()])
  const tps = /tps = ([\d.]+)/.exec(output)?.[1]
  if (tps === undefined) throw new Error(`pgbench failed: ${errors || output}`)
  return Number(tps)
}
