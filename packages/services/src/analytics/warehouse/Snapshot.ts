/** Which files the warehouse consists of: written anew with each build, and read as a whole. */
import { Effect, Schema } from "effect"
import { ObjectStore } from "@merkato/infra/objects/ObjectStore"
import { type ArchiveFile, placeName } from "@merkato/infra/archive/ArchiveFile"

const Files = Schema.Record(Schema.String, Schema.String)

export const Snapshot = Schema.Struct({
  /** Of all that there were, from 1. */
  version: Schema.Int,
  /** Of each partition of the log, where the last file of the archive begins that is in here. */
  read: Schema.Record(Schema.String, Schema.Int),
  /** By the day of UTC on which the orders were placed. */
  factOrders: Files,
  /** By the day of UTC on which stock was adjusted. */
  factInventoryAdjustments: Files,
  dimProduct: Schema.NullOr(Schema.String),
  dimDate: Schema.NullOr(Schema.String),
  /** By the day of the regions: the file, if anything was sold, and the files that it was made of. */
  dailySales: Schema.Record(
    Schema.String,
    Schema.Struct({ file: Schema.NullOr(Schema.String), of: Schema.Array(Schema.String) })
  )
})
export type Snapshot = typeof Snapshot.Type

export const empty: Snapshot = {
  version: 0,
  read: {},
  factOrders: {},
  factInventoryAdjustments: {},
  dimProduct: null,
  dimDate: null,
  dailySales: {}
}

const root = "warehouse"
const snapshots = `${root}/snapshots/`

/** Snapshots whose files are kept: somebody may still read an older one. */
const kept = 5

/** As wide as versions get, so that names are in their order. */
const padded = (version: number) => String(version).padStart(10, "0")

const nameOf = (version: number) => `${snapshots}${padded(version)}.json`

/** A new file of a table; `id` tells it from those of a build at the same time. */
export const fileName = (table: string, day: string | undefined, version: number, id: string): string =>
  `${root}/${table}/${day === undefined ? "" : `day=${day}/`}${padded(version)}-${id}.parquet`

/** Another build has published its snapshot first. What this one wrote is not used. */
export class BuiltElsewhere extends Schema.TaggedError<BuiltElsewhere>()("BuiltElsewhere", {}) {
  override get message() {
    return "Another build of the warehouse was faster: run it again."
  }
}

/** A snapshot is not what it should be. */
export class SnapshotUnreadable extends Schema.TaggedError<SnapshotUnreadable>()("SnapshotUnreadable", {
  name: Schema.String
}) {
  override get message() {
    return `${this.name} is no snapshot of a warehouse of this version.`
  }
}

const codec = Schema.fromJsonString(Snapshot)
const decode = Schema.decodeUnknownEffect(codec)
const encode = Schema.encodeSync(codec)

const read = Effect.fnUntraced(function* (name: string) {
  const objects = yield* ObjectStore
  const content = yield* objects.get(name)
  return yield* Effect.mapError(decode(new TextDecoder().decode(content)), () => new SnapshotUnreadable({ name }))
})

/** The newest one; an empty one before the first build. */
export const latest = Effect.gen(function* () {
  const objects = yield* ObjectStore
  const newest = (yield* objects.list(snapshots)).at(-1)
  return newest === undefined ? empty : yield* read(newest.name)
})

const filesOf = (snapshot: Snapshot): ReadonlyArray<string> => [
  ...Object.values(snapshot.factOrders),
  ...Object.values(snapshot.factInventoryAdjustments),
  ...[snapshot.dimProduct, snapshot.dimDate].flatMap((name) => name ?? []),
  ...Object.values(snapshot.dailySales).flatMap(({ file }) => file ?? [])
]

/** Removes what no kept snapshot has: old snapshots, files that were replaced, and those of builds that died. */
const clean = Effect.fnUntraced(function* (version: number) {
  const objects = yield* ObjectStore
  const oldest = version - kept + 1
  const all = (yield* objects.list(snapshots)).map(({ name }) => name)
  const old = all.filter((name) => name < nameOf(oldest))
  if (old.length === 0) return
  const used = new Set((yield* Effect.forEach(all.slice(old.length), read)).flatMap(filesOf))
  const isOld = (name: string) => Number(/\/(\d{10})-[^/]+\.parquet$/.exec(name)?.[1] ?? version) < oldest
  const unused = (yield* objects.list(`${root}/`))
    .map(({ name }) => name)
    .filter((name) => isOld(name) && !used.has(name))
  yield* Effect.forEach([...unused, ...old], (name) => objects.remove(name), { concurrency: 8, discard: true })
})

/** Makes a snapshot the newest one, for all readers at one moment. */
export const publish = Effect.fnUntraced(function* (snapshot: Snapshot) {
  const objects = yield* ObjectStore
  const isOurs = yield* objects.putNew(nameOf(snapshot.version), new TextEncoder().encode(encode(snapshot)))
  if (!isOurs) return yield* new BuiltElsewhere()
  yield* clean(snapshot.version)
})

const partitionOf = (file: ArchiveFile) => `${file.bus}/${placeName(file)}`

/** Files of the archive that are not in the snapshot yet. */
export const unread = ({ read }: Snapshot, files: ReadonlyArray<ArchiveFile>): ReadonlyArray<ArchiveFile> =>
  files.filter((file) => file.first > (read[partitionOf(file)] ?? -1))

/** What is read once these files are. */
export const readWith = (snapshot: Snapshot, files: ReadonlyArray<ArchiveFile>): Snapshot["read"] => {
  const read = { ...snapshot.read }
  for (const file of files) read[partitionOf(file)] = Math.max(read[partitionOf(file)] ?? -1, file.first)
  return read
}
