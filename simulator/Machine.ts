/** The real server under the simulated shop: a Postgres of the simulator's own, not durable, with a database per worker. */
import { Effect, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { contexts } from "@merkato/services/contexts"
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
  max_parallel_workers_per_gather: "0",
  max_connections: "200",
  shared_buffers: "64MB"
} as const

/** Starts the server in a temporary folder that goes with it. */
export const start = Effect.map(TestDatabase.temporary("merkato-simulator-", settings), ({ url }) => url)

/** Where a database of the server is, for the gate. */
export const targetOf = (url: URL): Target => ({
  host: url.hostname,
  port: Number(url.port),
  path: url.searchParams.has("host") ? `${url.searchParams.get("host")}/.s.PGSQL.${url.port}` : undefined,
  database: url.pathname.slice(1),
  user: decodeURIComponent(url.username),
  password: decodeURIComponent(url.password)
})

/** Makes a database with the schemas of all simulated contexts, if it is not there yet. */
export const prepare = Effect.fnUntraced(function* (server: Redacted.Redacted<string>, name: string) {
  const admin = Database.layer({ url: server, maxConnections: 1, applicationName: "merkato-simulator" })
  yield* Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const there = yield* sql`select 1 from pg_database where datname = ${name}`
    if (there.length === 0) yield* sql`create database ${sql(name)}`
  }).pipe(Effect.provide(admin))
  const url = new URL(Redacted.value(server))
  url.pathname = `/${name}`
  yield* Effect.forEach(simulated, (context) => contexts[context].migrate, { discard: true }).pipe(
    Effect.provide(
      Database.layer({ url: Redacted.make(url.href), maxConnections: 1, applicationName: "merkato-simulator" })
    )
  )
  return url
})
