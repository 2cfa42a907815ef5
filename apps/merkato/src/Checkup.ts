/** What a shop needs on this machine, looked at one by one. Changes nothing, but for a copy of Postgres that a start would make. */
import { Config, Effect, Option, type Redacted, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { accessSync, constants, existsSync, readFileSync, rmSync, statfsSync, statSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { KeyRing } from "@merkato/infra/auth/KeyRing"
import * as Database from "@merkato/infra/postgres/Database"
import { ownerOf } from "@merkato/infra/postgres/DataFolder"
import { DatabaseUrl } from "@merkato/infra/postgres/DatabaseUrl"
import * as PostgresBinaries from "@merkato/infra/postgres/PostgresBinaries"
import * as PostgresCluster from "@merkato/infra/postgres/PostgresCluster"
import * as ServerUser from "@merkato/infra/postgres/ServerUser"
import { isFree } from "@merkato/infra/runtime/Ports"
import * as NamedServers from "./NamedServers.ts"

/** What one check found, and what to do about it. */
export interface Finding {
  readonly state: "ok" | "warn" | "fail"
  readonly subject: string
  readonly found: string
  readonly action?: string
}

interface Options {
  readonly dataDir: string
  readonly port: number
}

type Check = Effect.Effect<Finding>

const root = new URL("../../../", import.meta.url).pathname

const ok = (subject: string, found: string): Finding => ({ state: "ok", subject, found })
const warn = (subject: string, found: string, action: string): Finding => ({ state: "warn", subject, found, action })
const fail = (subject: string, found: string, action: string): Finding => ({ state: "fail", subject, found, action })

/** A check that looks at files; what they throw is its failure. */
const looking = (subject: string, action: string, look: () => Finding): Check =>
  Effect.try({ try: look, catch: (cause) => (cause instanceof Error ? cause.message : String(cause)) }).pipe(
    Effect.catch((reason) => Effect.succeed(fail(subject, reason, action)))
  )

const Manifest = Schema.fromJsonString(
  Schema.Struct({
    engines: Schema.Struct({ bun: Schema.String }),
    dependencies: Schema.Record(Schema.String, Schema.String)
  })
)
const decodeManifest = Schema.decodeUnknownSync(Manifest)
const decodeVersion = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Struct({ version: Schema.String })))
const manifest = () => decodeManifest(readFileSync(join(root, "package.json"), "utf8"))

const bun: Check = looking("bun", "run scripts/start, which installs it", () => {
  const wanted = manifest().engines.bun
  return Bun.semver.satisfies(Bun.version, wanted)
    ? ok("bun", `${Bun.version} (${wanted} is needed)`)
    : fail("bun", `${Bun.version}, but ${wanted} is needed`, "run scripts/start, which installs it")
})

const dependencies: Check = looking("dependencies", "run bun install", () => {
  const wanted = Object.entries(manifest().dependencies).filter(([, version]) => !version.startsWith("workspace:"))
  const wrong = wanted.filter(([name, version]) => {
    const file = join(root, "node_modules", name, "package.json")
    return !existsSync(file) || decodeVersion(readFileSync(file, "utf8")).version !== version
  })
  return wrong.length === 0
    ? ok("dependencies", `all ${wanted.length} installed as pinned`)
    : fail(
        "dependencies",
        `missing or of another version: ${wrong.map(([name]) => name).join(", ")}`,
        "run bun install"
      )
})

/** The folder itself, or the nearest one above it that exists. */
const nearest = (folder: string): string =>
  existsSync(folder) || dirname(folder) === folder ? folder : nearest(dirname(folder))

const dataFolder = ({ dataDir }: Options): Check => {
  const action = "choose another with --data-dir, or make it writable for this user"
  return looking("data folder", action, () => {
    if (!existsSync(dataDir)) {
      accessSync(nearest(dataDir), constants.W_OK)
      return ok("data folder", `${dataDir} is made at the first start`)
    }
    const probe = join(dataDir, `doctor.${process.pid}`)
    writeFileSync(probe, "")
    rmSync(probe)
    return ok("data folder", `${dataDir} can be written`)
  })
}

const lock = ({ dataDir }: Options): Check =>
  looking("lock", "make the data folder readable for this user", () => {
    const owner = ownerOf(dataDir)
    if (owner === undefined) return ok("lock", "no shop uses the data folder")
    return owner.running
      ? ok("lock", `process ${owner.pid} uses the data folder`)
      : warn("lock", `left by process ${owner.pid}, which is gone`, "nothing: the next start takes over what it left")
  })

const binaries = ({ dataDir }: Options): Check => {
  const user = ServerUser.choose(PostgresCluster.clusterFolder(dataDir))
  const who = user === undefined ? "" : `, run as user ${user.name}`
  return PostgresBinaries.locate(user).pipe(
    Effect.map((folder) => ok("postgres", `embedded, in ${folder}${who}`)),
    Effect.catch((reason) =>
      Effect.succeed(
        fail("postgres", `the embedded one cannot be used: ${reason}`, "run bun install, or set DATABASE_URL")
      )
    )
  )
}

/** Whether a shop answers there: `ready`, `not ready`, or nothing that looks like one. */
const shopAt = (port: number) =>
  Effect.tryPromise({
    try: async (signal) => {
      const text = await (await fetch(`http://localhost:${port}/readyz`, { signal })).text()
      return /^\{"status":"(ready|not ready)"/.exec(text)?.[1]
    },
    catch: () => undefined
  }).pipe(
    Effect.timeout("3 seconds"),
    Effect.catch(() => Effect.undefined)
  )

/** Whether a shop uses the data folder; what cannot be looked at is the business of another check. */
const inUse = (dataDir: string): boolean => {
  try {
    return ownerOf(dataDir)?.running === true
  } catch {
    return false
  }
}

const port = Effect.fnUntraced(function* ({ port, dataDir }: Options) {
  const answer = yield* shopAt(port)
  if (answer === "ready") return ok("port", `a shop answers at http://localhost:${port}`)
  if (answer === "not ready")
    return warn("port", `the shop at http://localhost:${port} is not ready yet`, "wait, or look at its log")
  if (!(yield* isFree(port, "0.0.0.0")))
    return fail("port", `${port} is taken by something that is no shop`, "choose another with --port")
  return inUse(dataDir)
    ? warn("port", `${port} is free, though a shop uses the data folder`, "say on which port it is with --port")
    : ok("port", `${port} is free`)
})

const answers = (url: Redacted.Redacted) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* sql`select 1`
  }).pipe(
    Effect.provide(Database.layer({ url, maxConnections: 1, applicationName: "merkato-doctor" })),
    Effect.timeout("10 seconds")
  )

const database = Effect.fnUntraced(function* ({ dataDir }: Options) {
  const given = Option.isSome(yield* Effect.orDie(Config.option(Config.String("DATABASE_URL"))))
  const running = inUse(dataDir)
  if (!given && !running) return ok("database", "DATABASE_URL is not set: a start brings up the embedded Postgres")
  return yield* Effect.flatMap(DatabaseUrl, ({ url }) => answers(url)).pipe(
    Effect.provide(DatabaseUrl.layerRunning(dataDir)),
    Effect.as(ok("database", given ? "DATABASE_URL answers" : "the embedded Postgres answers")),
    Effect.catch((error) =>
      Effect.succeed(
        fail(
          "database",
          error.message,
          given
            ? "correct DATABASE_URL, or unset it for the embedded Postgres"
            : "look at postgres.log in the data folder"
        )
      )
    )
  )
})

/** A start wants an answer from each server that is named; what it says is for the start to judge. */
const servers: Check = Effect.map(NamedServers.look, ({ named, away }) =>
  away.length === 0
    ? ok("servers", named.length === 0 ? "none is named besides Postgres" : `somebody listens for ${named.join(", ")}`)
    : fail(
        "servers",
        away.join("; "),
        "start what is away, or unset the variable: nothing but a name makes a shop want it"
      )
)

const keys = Effect.fnUntraced(function* ({ dataDir }: Options) {
  const given = Option.isSome(yield* Effect.orDie(Config.option(Config.String("MERKATO_SIGNING_KEYS"))))
  const file = join(dataDir, "keys.json")
  if (!given && !existsSync(file)) return ok("keys", `${file} is made when it is first needed`)
  const mode = given ? 0o600 : statSync(file).mode & 0o777
  if ((mode & 0o077) !== 0) {
    return fail("keys", `${file} can be read by others (mode 0${mode.toString(8)})`, `run chmod 600 ${file}`)
  }
  return yield* KeyRing.use(({ byId }) => Effect.succeed(byId.size)).pipe(
    Effect.provide(KeyRing.layer(dataDir)),
    Effect.map((count) =>
      ok("keys", `${count} in ${given ? "MERKATO_SIGNING_KEYS" : `${file}, mode 0${mode.toString(8)}`}`)
    ),
    Effect.catch((error) =>
      Effect.succeed(fail("keys", error.message, "restore them from a backup; without them nobody stays signed in"))
    )
  )
})

const gigabyte = 1024 ** 3
const wantedBytes = 2 * gigabyte
const neededBytes = gigabyte / 4

const disk = ({ dataDir }: Options): Check =>
  looking("disk", "free some space", () => {
    const folder = nearest(dataDir)
    const { bavail, bsize } = statfsSync(folder)
    const free = bavail * bsize
    const found = `${(free / gigabyte).toFixed(1)} GB free in ${folder}`
    if (free < neededBytes) return fail("disk", found, "free some space, or choose another folder with --data-dir")
    return free < wantedBytes ? warn("disk", found, "free some space before it gets tight") : ok("disk", found)
  })

/** The checks, in the order in which one would put things right. */
export const checks = (options: Options): ReadonlyArray<Check> => [
  bun,
  dependencies,
  dataFolder(options),
  lock(options),
  keys(options),
  binaries(options),
  database(options),
  servers,
  port(options),
  disk(options)
]
