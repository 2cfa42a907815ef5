/** A Postgres of our own: set up, started and stopped with the shop, in its data folder. */
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { Context, Effect, Layer, Redacted, Schedule } from "effect"
import { spawn } from "node:child_process"
import { closeSync, openSync, readFileSync, renameSync, statSync } from "node:fs"
import { join } from "node:path"
import { DataFolder, onDisk } from "./DataFolder.ts"
import * as PostgresBinaries from "./PostgresBinaries.ts"
import * as PostgresCluster from "./PostgresCluster.ts"
import { DataFolderNotReachable, lastLines, PostgresStartFailed } from "./PostgresFailure.ts"
import * as Postmaster from "./Postmaster.ts"
import * as RunningProcess from "../runtime/RunningProcess.ts"
import * as ServerUser from "./ServerUser.ts"

export interface ServerOptions {
  /** Exactly this TCP port. Otherwise a free one, the same from one start to the next as long as nobody takes it. */
  readonly port?: number
  /** Postgres settings on top of ours, as in postgresql.conf. */
  readonly settings?: Readonly<Record<string, string>>
}

const host = PostgresCluster.host
const maxLogBytes = 16 * 1024 * 1024

/** For a small shop on a small machine: about 25 MB when idle, and every committed write on the disk. */
const defaults: Readonly<Record<string, string>> = {
  fsync: "on",
  synchronous_commit: "on",
  wal_level: "logical",
  max_connections: "200",
  shared_buffers: "128MB",
  // After a checkpoint, each page that is touched is written to the WAL as a whole: with one every half a minute under load,
  // that was most of the WAL, and what made the next one due (ADR 3).
  max_wal_size: "4GB",
  // A shop that grows fast is vacuumed and analyzed for it when it is half as big again, not each minute; rows that
  // changed or went are cleaned up as soon as ever.
  autovacuum_vacuum_insert_scale_factor: "0.5",
  autovacuum_analyze_scale_factor: "0.5",
  // Reads by the backends themselves and no subscriptions: four idle processes fewer.
  io_method: "sync",
  max_logical_replication_workers: "0",
  jit: "off",
  // A replication slot that nobody reads any more must not fill the disk.
  max_slot_wal_keep_size: "4GB",
  // What fails comes back to the caller as a typed error; in the log, statements and keys would be personal data.
  log_statement: "none",
  log_min_messages: "log",
  log_min_error_statement: "panic",
  log_error_verbosity: "terse",
  log_checkpoints: "off"
}

const commandLine = (native: string, cluster: string, port: number, settings: Readonly<Record<string, string>>) => {
  const all = {
    ...settings,
    listen_addresses: host,
    unix_socket_directories: PostgresCluster.socketFolder(cluster) ?? "",
    port: String(port)
  }
  return [
    join(native, "bin", "postgres"),
    "-D",
    cluster,
    ...Object.entries(all).flatMap(([k, v]) => ["-c", `${k}=${v}`])
  ]
}

/** Starts the server process in a session of its own: Ctrl-C reaches the shop, which still needs its database to drain. */
const launch = Effect.fnUntraced(function* (
  command: ReadonlyArray<string>,
  cluster: string,
  log: number,
  user: ServerUser.ServerUser | undefined
) {
  const [file = "", ...args] = command
  const pid = yield* Effect.callback<number, string>((resume) => {
    const child = spawn(file, args, {
      ...ServerUser.identity(user),
      cwd: "/",
      env: ServerUser.environment,
      detached: true,
      stdio: ["ignore", log, log]
    })
    child.unref()
    child.once("error", (error) => resume(Effect.fail(error.message)))
    child.once("spawn", () => resume(Effect.succeed(child.pid ?? 0)))
  })
  return { ...(RunningProcess.find(pid) ?? { pid, startedAt: "ended" }), cluster }
})

/** Opens a connection with our password, and says of which data folder the server that answers is. */
const folderOf = Effect.fnUntraced(function* (url: Redacted.Redacted) {
  const connection = yield* PgConnection.make({ url, applicationName: "merkato-start", connectTimeout: "2 seconds" })
  const { rows } = yield* connection.query("select current_setting('data_directory') as folder")
  return rows[0]?.folder
}, Effect.scoped)

/** Opens the log to write at its end. It starts anew when it has grown past 16 MB; one older log is kept. */
const openLog = (file: string): { readonly log: number; readonly size: number } => {
  const size = statSync(file, { throwIfNoEntry: false })?.size ?? 0
  if (size > maxLogBytes) renameSync(file, `${file}.1`)
  return { log: openSync(file, "a", 0o600), size: size > maxLogBytes ? 0 : size }
}

/** The embedded server: how to reach it. The URL names the superuser and the database `postgres`. */
export class EmbeddedPostgres extends Context.Service<
  EmbeddedPostgres,
  {
    readonly url: Redacted.Redacted<string>
    readonly host: string
    readonly port: number
    readonly dataDir: string
    readonly superuser: string
    /** It ran already: a shop that was killed had started it. */
    readonly adopted: boolean
  }
>()("infra/EmbeddedPostgres") {
  /**
   * Starts Postgres 18 in a data folder that this process has locked, and stops it when the scope closes (usually in
   * 0.1 s, at most in 18). The first start makes the cluster (1–2 s). A server that a killed shop left behind is taken
   * over if it runs as it would be started now, and stopped and started again otherwise.
   *
   * Fails with `DataFolderNotReachable` (only as root), `DataFolderNotWritable`, or `PostgresStartFailed` when it is not
   * ready after 30 seconds without progress.
   */
  static readonly startIn = Effect.fn("EmbeddedPostgres.startIn")(function* (
    folder: DataFolder["Service"],
    options: ServerOptions = {}
  ) {
    const dataDir = folder.path
    const cluster = PostgresCluster.clusterFolder(dataDir)
    const logFile = join(dataDir, "postgres.log")
    const failed = (reason: string, log = "") => new PostgresStartFailed({ dataDir, reason, log: lastLines(log) })

    const user = ServerUser.choose(cluster)
    if (user !== undefined) {
      const shut = yield* ServerUser.shutOutAt(user, dataDir)
      if (shut !== undefined) return yield* new DataFolderNotReachable({ dataDir, folder: shut, user: user.name })
    }
    const native = yield* Effect.mapError(PostgresBinaries.locate(user), (reason) => failed(reason))
    const settings = { ...defaults, ...options.settings }
    const password = yield* PostgresCluster.prepare({ dataDir, native, user, durable: settings.fsync !== "off" })

    const command = (port: number) => commandLine(native, cluster, port, settings)
    const ready = Effect.fnUntraced(function* (port: number, adopted: boolean) {
      const url = Redacted.make(PostgresCluster.urlOf({ cluster, port, password }))
      const answering = yield* folderOf(url).pipe(
        Effect.retry({
          schedule: Schedule.spaced("25 millis"),
          times: 200,
          while: ({ reason }) => reason._tag !== "AuthenticationError"
        }),
        Effect.mapError(({ message, reason }) =>
          reason._tag === "AuthenticationError"
            ? failed(`the password in ${dataDir}/postgres.password does not open it (${message})`)
            : failed(`it does not answer on port ${port} (${message})`)
        )
      )
      if (answering !== cluster) return yield* failed(`on port ${port} answers the server of ${String(answering)}`)
      return EmbeddedPostgres.of({ url, host, port, dataDir, superuser: PostgresCluster.superuser, adopted })
    })

    for (let attempt = 1; ; attempt++) {
      const running = yield* onDisk(dataDir, () => Postmaster.find(cluster))
      if (running !== undefined) {
        const asWanted = RunningProcess.commandLine(running) === command(options.port ?? running.port).join(" ")
        if (asWanted && (yield* Postmaster.awaitReady(running, logFile))) {
          const server = yield* ready(running.port, true)
          yield* Effect.addFinalizer(() => Postmaster.stop(running))
          return server
        }
        yield* Postmaster.stop(running)
      }

      const port = options.port ?? (yield* PostgresCluster.choosePort(dataDir))
      const { log, size } = yield* onDisk(dataDir, () => openLog(logFile))
      const server = yield* Effect.acquireRelease(
        Effect.ensuring(
          launch(command(port), cluster, log, user),
          Effect.sync(() => closeSync(log))
        ),
        Postmaster.stop
      ).pipe(Effect.mapError((error) => failed(`its program does not start (${error})`)))
      if (yield* Postmaster.awaitReady(server, logFile)) return yield* ready(port, false)

      const said = yield* onDisk(dataDir, () => readFileSync(logFile).subarray(size).toString("utf8"))
      if (RunningProcess.isRunning(server)) return yield* failed("it made no progress for 30 seconds", said)
      const portTaken = said.includes("could not create any TCP/IP sockets")
      if (portTaken && options.port !== undefined) return yield* failed(`port ${port} is taken`, said)
      // A server that ran a moment ago: it has not yet told its name, or queries of it have not yet noticed its death.
      const haunted = said.includes("pre-existing shared memory block") || said.includes("already exists")
      if (!(portTaken || haunted) || attempt === 100) return yield* failed("it ended at once", said)
      yield* Effect.sleep(100)
    }
  })

  /** `startIn` with a lock on the data folder of its own; fails with `DataFolderInUse` too. */
  static readonly start = Effect.fn("EmbeddedPostgres.start")(function* (
    options: ServerOptions & { readonly dataDir: string }
  ) {
    return yield* EmbeddedPostgres.startIn(yield* DataFolder.lock(options.dataDir), options)
  })

  static readonly layerIn = (options: ServerOptions = {}) =>
    Layer.effect(
      EmbeddedPostgres,
      Effect.flatMap(DataFolder, (folder) => EmbeddedPostgres.startIn(folder, options))
    )

  static readonly layer = (options: ServerOptions & { readonly dataDir: string }) =>
    Layer.effect(EmbeddedPostgres, EmbeddedPostgres.start(options))
}
