/** The real server under the simulated shop: a Postgres of the worker's own, not durable. */
import { Effect, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { statfsSync } from "node:fs"
import { tmpdir } from "node:os"
import * as Database from "@merkato/infra/postgres/Database"
import * as PostgresCluster from "@merkato/infra/postgres/PostgresCluster"
import * as Postmaster from "@merkato/infra/postgres/Postmaster"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { contexts } from "@merkato/services/contexts"
import * as Cores from "./Cores.ts"
import * as Owners from "./invariants/Owners.ts"
import { simulated } from "./shop/Topology.ts"
import type { Target } from "./wire/Backend.ts"

/**
 * Nothing on the disk, and nothing in the server that runs on real time or by itself: a plan, a lock or a row must not
 * depend on when a background process came by.
 */
const settings = {
  fsync: "off",
  synchronous_commit: "off",
  full_page_writes: "off",
  wal_level: "minimal",
  max_wal_senders: "0",
  autovacuum: "off",
  deadlock_timeout: "10ms",
  jit: "off",
  // A connection lives for some thirty statements: to plan one for its values five times first is a sixth of a run's CPU.
  plan_cache_mode: "force_generic_plan",
  max_parallel_workers_per_gather: "0",
  max_connections: "200",
  shared_buffers: "64MB",
  max_wal_size: "64MB"
} as const

/** Linux' file system in memory, and how many bytes a server may need there: some 200 MB, mostly old WAL. */
const memory = "/dev/shm"
const wantedBytes = 1024 ** 3

/**
 * Where the servers have their folders: in memory where there is room, since to empty the tables makes a few hundred files
 * a run; else with other temporary files.
 */
const folder = (): string => {
  try {
    const { bavail, bsize } = statfsSync(memory)
    return bavail * bsize >= wantedBytes ? memory : tmpdir()
  } catch {
    return tmpdir()
  }
}

/** Makes a database with the schemas of all simulated contexts, and what watches them. */
const prepare = Effect.fnUntraced(function* (server: Redacted.Redacted<string>) {
  const database = (url: Redacted.Redacted<string>) =>
    Database.layer({ url, maxConnections: 1, applicationName: "merkato-simulator" })
  const name = "simulator"
  yield* Effect.provide(
    Effect.flatMap(SqlClient.SqlClient, (sql) => sql`create database ${sql(name)}`),
    database(server)
  )
  const url = new URL(Redacted.value(server))
  url.pathname = `/${name}`
  yield* Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* Effect.forEach(simulated, (context) => contexts[context].migrate, { discard: true })
    yield* Effect.forEach(Owners.watch, (statement) => sql.unsafe(statement), { discard: true })
  }).pipe(Effect.provide(database(Redacted.make(url.href))))
  return url
})

/**
 * Starts a server in a temporary folder that goes with it, and makes its database. Workers share no server: transactions
 * of other databases hold back which rows of this one may be cleaned away, and so decide where the next ones lie and in
 * which order they are found; and a backend that is stopped may hold what those of all databases wait for. `core`: where
 * the server and its worker run, when that is told.
 */
export const start = Effect.fnUntraced(function* (core: number | undefined) {
  const { url, dataDir } = yield* TestDatabase.temporary("merkato-simulator-", settings, folder())
  const server = Postmaster.running(PostgresCluster.clusterFolder(dataDir))
  if (core !== undefined && server !== undefined) Cores.keep(server.pid, core)
  return { url: yield* prepare(url), core }
})

/** Where a database of the server is, for the gate. */
export const targetOf = (url: URL): Target => ({
  host: url.hostname,
  port: Number(url.port),
  path: url.searchParams.has("host") ? `${url.searchParams.get("host")}/.s.PGSQL.${url.port}` : undefined,
  database: url.pathname.slice(1),
  user: decodeURIComponent(url.username),
  password: decodeURIComponent(url.password)
})
