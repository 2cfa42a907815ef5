/** The server process of a cluster: which one runs, whether it is ready, and how it is stopped. */
import { Clock, Effect } from "effect"
import { readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as RunningProcess from "../runtime/RunningProcess.ts"

export interface Postmaster extends RunningProcess.RunningProcess {
  readonly cluster: string
}

const pollMs = 25
const patienceMs = 30_000

const pidFile = (cluster: string) => join(cluster, "postmaster.pid")

/**
 * postmaster.pid, line by line: pid, data folder, start, port, socket folder, address, shared memory, status. A server that
 * starts removes the file of a dead one before it writes its own, so it may go at any moment.
 */
const lines = (cluster: string): ReadonlyArray<string> => {
  try {
    return readFileSync(pidFile(cluster), "utf8").split("\n")
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return []
    throw error
  }
}

/** Its command line says so, or (started by hand in other words) its working directory, which is its data folder. */
const serves = (candidate: RunningProcess.RunningProcess, cluster: string): boolean =>
  `${RunningProcess.commandLine(candidate)} `.includes(`postgres -D ${cluster} `) ||
  RunningProcess.workingDirectory(candidate) === cluster

/** The server that runs on this cluster, if any. Only looks. */
export const running = (cluster: string): (Postmaster & { readonly port: number }) | undefined => {
  const [written, ...rest] = lines(cluster)
  const named = RunningProcess.find(Number(written))
  return named !== undefined && serves(named, cluster) ? { ...named, cluster, port: Number(rest[2]) } : undefined
}

/**
 * The same, for whoever is about to start one. Postgres itself copes with the pid file of a dead server, but refuses to
 * start when the pid has gone to another process of its user, when the dead is a zombie, and when a power cut left the
 * file empty. Then the pid is replaced by our own (a server takes no offence at its parent's), and the rest stays,
 * because by the shared memory named there Postgres sees whether anything of the old server still runs.
 */
export const find = (cluster: string): (Postmaster & { readonly port: number }) | undefined => {
  const [written, ...rest] = lines(cluster)
  const pid = Number(written)
  // Below zero is a single-user session, which Postgres does not let us share.
  if (written === undefined || pid < 0) return undefined
  const found = running(cluster)
  if (found !== undefined) return found
  const misleading = !(pid > 0) || RunningProcess.find(pid) !== undefined || RunningProcess.answers(pid)
  if (misleading) writeFileSync(pidFile(cluster), [process.pid, ...rest].join("\n"))
  return undefined
}

/**
 * Waits until the server takes connections; false when it has ended, or has not got on for 30 seconds. Crash recovery
 * may take longer, and writes to the log at least every 10 seconds.
 */
export const awaitReady = Effect.fn("Postmaster.awaitReady")(function* (server: Postmaster, log: string) {
  const logSize = () => statSync(log, { throwIfNoEntry: false })?.size ?? 0
  let size = logSize()
  let deadline = (yield* Clock.currentTimeMillis) + patienceMs
  while (RunningProcess.isRunning(server)) {
    const written = lines(server.cluster)
    if (Number(written[0]) === server.pid && written[7]?.trim() === "ready") return true
    const now = yield* Clock.currentTimeMillis
    if (logSize() !== size) {
      size = logSize()
      deadline = now + patienceMs
    }
    if (now > deadline) return false
    yield* Effect.sleep(pollMs)
  }
  return false
})

const awaitEnd = Effect.fnUntraced(function* (server: Postmaster, withinMs: number) {
  const deadline = (yield* Clock.currentTimeMillis) + withinMs
  while (RunningProcess.isRunning(server)) {
    if ((yield* Clock.currentTimeMillis) > deadline) return false
    yield* Effect.sleep(10)
  }
  return true
})

/** Fast shutdown; after 10 seconds an immediate one (the next start recovers from the log); after 7 more, a kill. */
export const stop = Effect.fn("Postmaster.stop")(function* (server: Postmaster) {
  RunningProcess.signal(server, "SIGINT")
  if (yield* awaitEnd(server, 10_000)) return
  yield* Effect.logWarning(`Postgres (process ${server.pid}) did not stop within 10 seconds: stopping it at once`)
  RunningProcess.signal(server, "SIGQUIT")
  // Postgres itself kills what is left of its children after 5 seconds.
  if (yield* awaitEnd(server, 7_000)) return
  RunningProcess.signal(server, "SIGKILL")
})
