/** The embedded server that a shop has running, for whoever only wants to talk to it: nothing is locked, started or stopped. */
import { Effect, Redacted, Schema } from "effect"
import { readFileSync, realpathSync } from "node:fs"
import { join, resolve } from "node:path"
import * as PostgresCluster from "./PostgresCluster.ts"
import * as Postmaster from "./Postmaster.ts"

/** No embedded server answers for the data folder, or this user may not open it. */
export class PostgresNotRunning extends Schema.TaggedError<PostgresNotRunning>()("PostgresNotRunning", {
  dataDir: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `The embedded Postgres of ${this.dataDir} cannot be used: ${this.reason}.`
  }
}

const notRunning = "it does not run (start the shop, name its data folder, or set DATABASE_URL)"

const codeOf = (error: unknown) => (error instanceof Error && "code" in error ? error.code : undefined)

/** Why its files cannot be read; without them there is no server. */
const explain = (cause: unknown): string => {
  if (codeOf(cause) === "ENOENT") return notRunning
  const reason = cause instanceof Error ? cause.message : String(cause)
  return codeOf(cause) === "EACCES" ? `${reason}; run this as the user who started the shop` : reason
}

/** The URL of the running server: the superuser and the database `postgres`. */
export const url = Effect.fn("RunningPostgres.url")(function* (dataDir: string) {
  const path = resolve(dataDir)
  const found = yield* Effect.try({
    try: () => {
      const folder = realpathSync(path)
      const password = readFileSync(join(folder, "postgres.password"), "utf8").trim()
      const cluster = PostgresCluster.clusterFolder(folder)
      const server = Postmaster.running(cluster)
      return server === undefined ? undefined : { password, cluster, port: server.port }
    },
    catch: (cause) => new PostgresNotRunning({ dataDir: path, reason: explain(cause) })
  })
  if (found === undefined) return yield* new PostgresNotRunning({ dataDir: path, reason: notRunning })
  return Redacted.make(PostgresCluster.urlOf(found))
})
