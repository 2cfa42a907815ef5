/** What Postgres keeps in the data folder: the cluster itself, the superuser's password and the port. */
import { Effect, Random } from "effect"
import { randomBytes } from "node:crypto"
import {
  chownSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { isFree } from "../runtime/Ports.ts"
import { DataFolderNotWritable, onDisk } from "./DataFolder.ts"
import { lastLines, PostgresStartFailed } from "./PostgresFailure.ts"
import { run, type ServerUser } from "./ServerUser.ts"

export const superuser = "postgres"
export const host = "127.0.0.1"
export const clusterFolder = (dataDir: string) => join(dataDir, "postgres")

/** Bytes that the path of a Unix socket may have on every system that we know (108 on Linux, 104 elsewhere, one for the end). */
const longestSocketPath = 103

/** Where the server listens besides TCP: the cluster's folder, which only its user may enter; undefined when that is too far down. */
export const socketFolder = (cluster: string): string | undefined =>
  Buffer.byteLength(join(cluster, ".s.PGSQL.65535")) <= longestSocketPath ? cluster : undefined

/**
 * The superuser's URL. Its `host` parameter names the folder of the Unix socket, over which a round trip costs two thirds of
 * what it does over TCP; who does not know the parameter takes TCP.
 */
export const urlOf = (options: {
  readonly cluster: string
  readonly port: number
  readonly password: string
}): string => {
  const folder = socketFolder(options.cluster)
  const tcp = `postgres://${superuser}:${options.password}@${host}:${options.port}/postgres`
  return folder === undefined ? tcp : `${tcp}?host=${encodeURIComponent(folder)}`
}

const sync = (path: string) => {
  const file = openSync(path, "r")
  fsyncSync(file)
  closeSync(file)
}

/** A file that is there whole or not at all, readable by its owner alone. */
const writeWhole = (dataDir: string, name: string, text: string, user?: ServerUser) => {
  const draft = join(dataDir, `${name}.new`)
  rmSync(draft, { force: true })
  writeFileSync(draft, text, { mode: 0o600, flush: true })
  if (user !== undefined) chownSync(draft, user.uid, user.gid)
  renameSync(draft, join(dataDir, name))
  sync(dataDir)
}

const give = (path: string, user: ServerUser) => {
  chownSync(path, user.uid, user.gid)
  for (const name of readdirSync(path, { recursive: true, encoding: "utf8" }))
    chownSync(join(path, name), user.uid, user.gid)
}

/** The password in `<dataDir>/postgres.password`, made on first use: 192 random bits, safe in a URL. */
const password = (dataDir: string) => {
  const file = join(dataDir, "postgres.password")
  if (!existsSync(file) && existsSync(clusterFolder(dataDir))) return undefined
  if (!existsSync(file)) writeWhole(dataDir, "postgres.password", `${randomBytes(24).toString("base64url")}\n`)
  return readFileSync(file, "utf8").trim()
}

/** lower() and friends follow Unicode everywhere alike; pg_trgm asks the system's LC_CTYPE what a letter is. */
const locale = [
  "--encoding=UTF8",
  "--locale-provider=builtin",
  "--builtin-locale=C.UTF-8",
  "--locale=C",
  `--lc-ctype=${process.platform === "darwin" ? "en_US.UTF-8" : "C.UTF-8"}`
]

/**
 * Makes the cluster if there is none: under another name first, so that a folder called `postgres` is always a whole
 * one. What a killed attempt left is removed. Returns the superuser's password.
 */
export const prepare = Effect.fn("PostgresCluster.prepare")(function* (options: {
  readonly dataDir: string
  readonly native: string
  readonly user: ServerUser | undefined
  /** Whether to wait until the new cluster has reached the disk. */
  readonly durable: boolean
}) {
  const { dataDir, native, user } = options
  const cluster = clusterFolder(dataDir)
  const secret = yield* onDisk(dataDir, () => password(dataDir))
  if (secret === undefined) {
    return yield* new PostgresStartFailed({
      dataDir,
      reason: "postgres.password is missing, and nothing else opens the database: restore it from where you keep it",
      log: ""
    })
  }
  const draft = `${cluster}.init-${process.pid}`
  const secretForInitdb = `${draft}.password`
  const removeDrafts = onDisk(dataDir, () => {
    for (const name of readdirSync(dataDir)) {
      if (!name.startsWith("postgres.init-")) continue
      // An initdb that outlived its shop may still be writing there.
      rmSync(join(dataDir, name), { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })
    }
  })
  yield* removeDrafts

  const found = yield* onDisk(dataDir, () => statSync(cluster, { throwIfNoEntry: false }))
  if (found !== undefined) {
    if (user !== undefined && found.uid !== user.uid) yield* onDisk(dataDir, () => give(cluster, user))
    if (user === undefined && process.getuid !== undefined && found.uid !== process.getuid()) {
      return yield* new DataFolderNotWritable({
        dataDir,
        reason: `${cluster} belongs to the user with id ${found.uid}: start as that user or as root, or choose another folder`
      })
    }
    return secret
  }

  yield* Effect.gen(function* () {
    yield* onDisk(dataDir, () => {
      writeWhole(dataDir, `postgres.init-${process.pid}.password`, secret, user)
      mkdirSync(draft, { mode: 0o700 })
      if (user !== undefined) chownSync(draft, user.uid, user.gid)
    })
    const initdb = (args: ReadonlyArray<string>) =>
      Effect.flatMap(run(user, join(native, "bin", "initdb"), ["-D", draft, ...args]), ({ ok, output }) =>
        ok
          ? Effect.void
          : Effect.fail(new PostgresStartFailed({ dataDir, reason: "initdb failed", log: lastLines(output) }))
      )
    yield* initdb([
      `--username=${superuser}`,
      "--auth=scram-sha-256",
      `--pwfile=${secretForInitdb}`,
      ...locale,
      "--no-sync",
      "--no-instructions"
    ])
    // Syncing once, at the end, takes a fifth of the time.
    if (options.durable) yield* initdb(["--sync-only"])
    yield* onDisk(dataDir, () => {
      renameSync(draft, cluster)
      sync(dataDir)
    })
  }).pipe(Effect.ensuring(Effect.ignore(removeDrafts)))
  return secret
})

/** Below the ports that systems lend to outgoing connections (32768 and up), so that it is still free next time. */
const drawPort = Effect.gen(function* () {
  for (let draws = 0; draws < 50; draws++) {
    const port = yield* Random.nextIntBetween(15_432, 32_000)
    if (yield* isFree(port, host)) return port
  }
  return undefined
})

/** The port remembered in `<dataDir>/postgres.port` if nobody else took it, or a free one, remembered from now on. */
export const choosePort = Effect.fn("PostgresCluster.choosePort")(function* (dataDir: string) {
  const file = join(dataDir, "postgres.port")
  const remembered = yield* onDisk(dataDir, () => (existsSync(file) ? Number(readFileSync(file, "utf8")) : 0))
  const valid = Number.isInteger(remembered) && remembered > 0 && remembered < 65_536
  if (valid && (yield* isFree(remembered, host))) return remembered
  const port = yield* drawPort
  if (port === undefined) {
    return yield* new PostgresStartFailed({ dataDir, reason: `no free port was found on ${host}`, log: "" })
  }
  yield* onDisk(dataDir, () => writeWhole(dataDir, "postgres.port", `${port}\n`))
  return port
})
