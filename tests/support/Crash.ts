import { execFileSync } from "node:child_process"
import { Effect, type Redacted } from "effect"
import * as RunningPostgres from "@merkato/infra/postgres/RunningPostgres"
import { postmasterOf } from "./Processes.ts"

const childrenOf = (pid: number): ReadonlyArray<number> =>
  execFileSync("ps", ["-A", "-o", "ppid=,pid="], { encoding: "utf8" })
    .split("\n")
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter(([parent]) => parent === pid)
    .flatMap(([, child]) => (child === undefined ? [] : [child]))

/** kill -9, if it is there. */
export const kill = (pid: number): void => {
  try {
    process.kill(pid, "SIGKILL")
  } catch {
    // Gone already.
  }
}

/** kill -9 of a data folder's Postgres: the postmaster and all that it started. */
export const killPostgres = (dataDir: string): void => {
  const postmaster = postmasterOf(dataDir)
  if (postmaster === undefined) return
  for (const pid of [...childrenOf(postmaster), postmaster]) kill(pid)
}

/** The database of a shop that runs on an embedded Postgres. */
export const databaseOf = (dataDir: string): Promise<Redacted.Redacted> =>
  Effect.runPromise(RunningPostgres.url(dataDir))
