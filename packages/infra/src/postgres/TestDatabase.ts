/** Databases for tests, all on one server that the test process shares. */
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { Config, Effect, Layer, Option, Redacted, Scope } from "effect"
import type { SqlClient } from "effect/sql"
import { spawn, spawnSync } from "node:child_process"
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Database from "./Database.ts"
import { DataFolder, ownerOf } from "./DataFolder.ts"
import { EmbeddedPostgres } from "./EmbeddedPostgres.ts"

/** Not durable, and so several times as fast. */
const notDurable = { fsync: "off", full_page_writes: "off", synchronous_commit: "off", max_connections: "300" }

/**
 * Stops the server in a folder, if it still runs, and deletes the folder. Whose pid the file says may be somebody else's
 * by now.
 */
const cleanUp = `
  pid=$(head -n 1 "$1/postgres/postmaster.pid" 2>/dev/null)
  runs() { [ -n "$pid" ] && ps -o args= -p "$pid" 2>/dev/null | grep -qF -- "$1/postgres"; }
  if runs "$1"; then
    kill -QUIT "$pid"
    # Backends that are stopped (the simulator does that) are killed by the server itself, after 5 seconds.
    for i in $(seq 70); do runs "$1" || break; sleep 0.1; done
  fi
  rm -rf "$1" || { sleep 2; rm -rf "$1"; }`

/**
 * Cleans up once this process has ended in whatever way: `bun test` runs no exit handlers, but a pipe from it closes even
 * when it is killed.
 */
const cleanUpAfterUs = (dataDir: string) => {
  const cleaner = spawn("/bin/sh", ["-c", `cat >/dev/null; ${cleanUp}`, "sh", dataDir], {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"]
  })
  cleaner.unref()
}

/** Those of this test file. */
const folders = new Set<string>()

/** Whether a test file made it that this process ran before this one; each has this module to itself. */
const isOfAnEarlierFile = (dataDir: string) => ownerOf(dataDir)?.pid === process.pid && !folders.has(dataDir)

/**
 * What was left when even the cleaner did not live: of a test file everything that it started is killed when it ends, but
 * the process goes on with the next file. Folders whose owner is dead, or is such a file.
 */
const sweep = Effect.fnUntraced(function* (parent: string, prefix: string) {
  for (const name of readdirSync(parent)) {
    const left = join(parent, name)
    if (!name.startsWith(prefix) || !existsSync(join(left, "lock"))) continue
    const isFree = isOfAnEarlierFile(left) ? Effect.void : DataFolder.lock(left)
    yield* isFree.pipe(
      Effect.andThen(Effect.sync(() => spawnSync("/bin/sh", ["-c", cleanUp, "sh", left]))),
      Effect.scoped,
      // Somebody's, or already gone.
      Effect.ignore
    )
  }
})

/**
 * A server in a temporary folder; both go with the scope, or when this process does. `prefix` is of the folder's name:
 * those of the same prefix that were left behind by killed processes are stopped and deleted first. `parent` is where the
 * folder is made: the system's folder for temporary files, unless told.
 */
export const temporary = Effect.fn("TestDatabase.temporary")(function* (
  prefix: string,
  settings: Readonly<Record<string, string>>,
  parent = tmpdir()
) {
  yield* sweep(parent, prefix)
  const dataDir = mkdtempSync(join(parent, prefix))
  folders.add(dataDir)
  chmodSync(dataDir, 0o755)
  cleanUpAfterUs(dataDir)
  // After its server, where that is stopped before the process ends.
  yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(dataDir, { recursive: true, force: true })))
  return yield* EmbeddedPostgres.start({ dataDir, settings })
})

const start = Effect.gen(function* () {
  const given = yield* Config.option(Config.Redacted("MERKATO_TEST_DATABASE_URL"))
  if (Option.isSome(given)) return given.value
  const untilTheProcessEnds = yield* Scope.make()
  const { url } = yield* temporary("merkato-test-", notDurable).pipe(Scope.provide(untilTheProcessEnds))
  return url
})

let starting: Promise<Redacted.Redacted> | undefined
let made = 0

/** The superuser's URL of the shared server: MERKATO_TEST_DATABASE_URL, or a server started on first use (1.5 s). */
export const server = Effect.promise(() => (starting ??= Effect.runPromise(start)))

const execute = Effect.fnUntraced(
  function* (url: Redacted.Redacted, statement: string) {
    const connection = yield* PgConnection.make({ url, applicationName: "merkato-test" })
    yield* connection.query(statement)
  },
  Effect.scoped,
  Effect.orDie
)

/** A new, empty database (about 30 ms to make and drop), dropped when the scope closes. */
export const fresh = Effect.gen(function* () {
  const admin = yield* server
  const name = `t_${process.pid}_${++made}`
  yield* Effect.acquireRelease(execute(admin, `create database ${name} strategy file_copy`), () =>
    execute(admin, `drop database if exists ${name} with (force)`)
  )
  const url = new URL(Redacted.value(admin))
  url.pathname = `/${name}`
  return { name, url: Redacted.make(url.href) }
})

/**
 * The same, where Postgres never ends a circle of transactions that wait for each other: a statement in one takes too long,
 * and whoever asked for it hears so instead of being served a second later.
 */
export const freshWithLastingDeadlocks = Effect.tap(fresh, ({ name, url }) =>
  execute(url, `alter database ${name} set deadlock_timeout = '10min'`)
)

/** Runs a test on one connection to a database of its own. */
export const run = <A, E>(test: Effect.Effect<A, E, SqlClient.SqlClient>): Promise<A> =>
  Effect.gen(function* () {
    const { url } = yield* fresh
    const database = Database.layer({ url, maxConnections: 1, applicationName: "test", statementTimeoutMs: 0 })
    return yield* Effect.provide(test, yield* Layer.build(database))
  }).pipe(Effect.scoped, Effect.withTracerEnabled(false), Effect.runPromise)
