/** The folder in which one shop keeps everything that must outlive it, and the lock that makes it one shop's. */
import { Context, Effect, Layer, Option, Schema } from "effect"
import { randomUUID } from "node:crypto"
import {
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync
} from "node:fs"
import { join, resolve } from "node:path"
import * as RunningProcess from "../runtime/RunningProcess.ts"

/** A running process owns the data folder; there is one owner at a time. */
export class DataFolderInUse extends Schema.TaggedError<DataFolderInUse>()("DataFolderInUse", {
  dataDir: Schema.String,
  pid: Schema.Int
}) {
  override get message() {
    return `The data folder ${this.dataDir} is in use by process ${this.pid}: stop that one, or choose another folder.`
  }
}

/** The data folder cannot be made, read or written by this process. */
export class DataFolderNotWritable extends Schema.TaggedError<DataFolderNotWritable>()("DataFolderNotWritable", {
  dataDir: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `The data folder ${this.dataDir} cannot be written: ${this.reason}.`
  }
}

/** Runs file operations in the data folder; what they throw says that it is not ours to use. */
export const onDisk = <A>(dataDir: string, work: () => A) =>
  Effect.try({
    try: work,
    catch: (cause) =>
      new DataFolderNotWritable({ dataDir, reason: cause instanceof Error ? cause.message : String(cause) })
  })

const LockRecord = Schema.Struct({ pid: Schema.Int, startedAt: Schema.String, token: Schema.NonEmptyString })
type LockRecord = typeof LockRecord.Type
const decode = Schema.decodeUnknownOption(Schema.fromJsonString(LockRecord))

const codeOf = (error: unknown) => (error instanceof Error && "code" in error ? error.code : undefined)

/** What the lock file says; a file that a power cut left empty names nobody. */
const read = (file: string): LockRecord | undefined => {
  try {
    return Option.getOrElse(decode(readFileSync(file, "utf8")), () => {
      const { ino, mtimeMs } = statSync(file)
      return { pid: 0, startedAt: "", token: `unreadable-${ino}-${mtimeMs}` }
    })
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined
    throw error
  }
}

/** Whose the data folder is, and whether that process still runs; undefined when it is nobody's. Only looks. */
export const ownerOf = (dataDir: string): { readonly pid: number; readonly running: boolean } | undefined => {
  const owner = read(join(dataDir, "lock"))
  return owner === undefined ? undefined : { pid: owner.pid, running: RunningProcess.isRunning(owner) }
}

/** Creates `name` with the whole content of `draft` in one step; false when the name is taken. */
const link = (draft: string, name: string): boolean => {
  try {
    linkSync(draft, name)
    return true
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false
    throw error
  }
}

/** The right to follow a dead owner, as the file that proves it; or the running process that already has it. */
const inherit = (lock: string, draft: string, dead: LockRecord): string | LockRecord => {
  let last = dead
  for (;;) {
    const right = `${lock}.after-${last.token}`
    if (link(draft, right)) return right
    const heir = read(right)
    if (heir === undefined) continue
    if (RunningProcess.isRunning(heir)) return heir
    last = heir
  }
}

/**
 * Makes `draft` the lock, or names the process that has it.
 *
 * The lock of a dead owner is inherited, never removed: two heirs that both see it dead must not remove each other's.
 * The right to replace the lock with token T is the file `lock.after-T`, which one heir alone can create; an heir that
 * died holding it is inherited from in the same way. `lock` exists throughout and no token is used twice, so an heir
 * that still finds T in `lock` once it holds the right is the only one who may replace it.
 */
const claim = (lock: string, draft: string): LockRecord | undefined => {
  for (;;) {
    if (link(draft, lock)) return undefined
    const owner = read(lock)
    if (owner === undefined) continue
    if (RunningProcess.isRunning(owner)) return owner
    const right = inherit(lock, draft, owner)
    if (typeof right !== "string") return right
    const unchanged = read(lock)?.token === owner.token
    if (unchanged) renameSync(draft, lock)
    rmSync(right, { force: true })
    if (unchanged) return undefined
  }
}

/** Removes what the dead left of their attempts; a draft without content may be somebody's who is just writing it. */
const sweep = (dataDir: string) => {
  for (const name of readdirSync(dataDir)) {
    if (!name.startsWith("lock.")) continue
    const left = read(join(dataDir, name))
    if (left !== undefined && left.pid > 0 && !RunningProcess.isRunning(left))
      rmSync(join(dataDir, name), { force: true })
  }
}

const take = (dataDir: string): LockRecord | DataFolderInUse => {
  const mine: LockRecord = { ...RunningProcess.self, token: randomUUID() }
  const lock = join(dataDir, "lock")
  const draft = `${lock}.${mine.token}`
  writeFileSync(draft, `${JSON.stringify(mine)}\n`)
  try {
    const owner = claim(lock, draft)
    if (owner !== undefined) return new DataFolderInUse({ dataDir, pid: owner.pid })
  } finally {
    rmSync(draft, { force: true })
  }
  sweep(dataDir)
  return mine
}

/**
 * A data folder that this process owns until the scope closes. The lock names a process of this machine (and pid
 * namespace): two containers that share a volume are not kept apart.
 */
export class DataFolder extends Context.Service<
  DataFolder,
  {
    /** Absolute, with no symlinks in it. */
    readonly path: string
  }
>()("infra/DataFolder") {
  /**
   * Makes the folder if need be and locks it. Fails with `DataFolderInUse` while another owner runs (one in this
   * process too); the lock of an owner that was killed is taken over.
   */
  static readonly lock = Effect.fn("DataFolder.lock")(function* (dataDir: string) {
    const path = yield* onDisk(resolve(dataDir), () => {
      mkdirSync(dataDir, { recursive: true })
      return realpathSync(dataDir)
    })
    yield* Effect.acquireRelease(
      Effect.flatMap(
        onDisk(path, () => take(path)),
        (taken) => (taken instanceof DataFolderInUse ? Effect.fail(taken) : Effect.succeed(taken))
      ),
      (mine) =>
        Effect.sync(() => {
          if (read(join(path, "lock"))?.token === mine.token) rmSync(join(path, "lock"), { force: true })
        })
    )
    return DataFolder.of({ path })
  })

  static readonly layer = (dataDir: string) => Layer.effect(DataFolder, DataFolder.lock(dataDir))
}
