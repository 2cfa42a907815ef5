/** The log of events as Parquet files in the object store: for as long as one wants, where the bus keeps them for days. */
import { Context, Effect, Layer, Schema, Scope, Semaphore } from "effect"
import { Envelope } from "@merkato/domain/kernel/Event"
import * as DuckDb from "../duckdb/DuckDb.ts"
import { type BusUnavailable, type Delivery, EventBus } from "../events/EventBus.ts"
import { ObjectStore, type ObjectStoreUnavailable } from "../objects/ObjectStore.ts"
import { type ArchiveFile, type BusKind, byOffset, dayOf, nameOf, parse, placeName, prefixOf } from "./ArchiveFile.ts"

/** The archive is not of this bus, or a file is not what it should be; the reason is a whole sentence. */
export class ArchiveUnusable extends Schema.TaggedError<ArchiveUnusable>()("ArchiveUnusable", {
  reason: Schema.String
}) {
  override get message() {
    return this.reason
  }
}

/** Events read off the bus with one trip. */
const batchSize = 2_000

/** Events of a file at most. A partition's are in memory until they are written. */
const mostInFile = 20_000

export interface Archived {
  readonly events: number
  readonly files: number
  /** Offsets that the bus did not have any more. */
  readonly missing: number
}

/** An event of the archive, with where it stood on the bus. */
export interface ArchivedEvent {
  readonly offset: number
  readonly key: string
  readonly traceParent: string
  readonly envelope: Envelope
}

/** How far it is, in offsets. */
export interface SoFar {
  readonly done: number
  readonly total: number
}

type ReadFailure = ArchiveUnusable | ObjectStoreUnavailable | DuckDb.QueryFailed

/** Consecutive events of a partition, of one day: what becomes a file. */
interface Run {
  readonly topic: string
  readonly partition: number
  readonly day: string
  readonly first: number
  readonly events: Array<Delivery>
}

const writtenTable = `create or replace table written (log_offset bigint, key varchar, trace_parent varchar, envelope varchar)`

/** What can be asked for without reading the envelope stands in columns of its own. */
const columns = `log_offset, key, trace_parent, envelope->>'eventId' as event_id, envelope->>'eventType' as event_type,
  try_cast(envelope->>'occurredAt' as timestamptz) as occurred_at, envelope->>'region' as region,
  (envelope->>'aggregateVersion')::integer as aggregate_version, envelope`

const decodeLast = Schema.decodeUnknownEffect(Schema.NonEmptyArray(Schema.Struct({ last: Schema.Int })))
const decodeEvents = Schema.decodeUnknownEffect(
  Schema.Array(
    Schema.Struct({
      offset: Schema.Int,
      key: Schema.String,
      traceParent: Schema.String,
      envelope: Schema.fromJsonString(Envelope)
    })
  )
)

/**
 * Writes the log down and reads it back. A file holds consecutive events of one partition and one day, its name says where it
 * begins, and it appears whole under a name that nobody had: so an archiver that dies leaves whole files and the next one goes
 * on behind them, and of two that are at the same place one alone gets the name.
 */
export class Archive extends Context.Service<
  Archive,
  {
    /** The files of these topics, each partition's in the order of their offsets; of all buses that this shop had. */
    readonly files: (topics: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<ArchiveFile>, ObjectStoreUnavailable>
    /** What a file holds, in order. */
    readonly read: (file: ArchiveFile) => Effect.Effect<ReadonlyArray<ArchivedEvent>, ReadFailure>
    /** The last offset of each partition of this bus that is archived, by `topic/partition`. */
    readonly ends: (topics: ReadonlyArray<string>) => Effect.Effect<ReadonlyMap<string, number>, ReadFailure>
    /** Writes down what the bus has of these topics and the archive has not, up to where the bus ends now. */
    readonly catchUp: (
      topics: ReadonlyArray<string>,
      tells?: (soFar: SoFar) => void
    ) => Effect.Effect<Archived, ReadFailure | BusUnavailable, EventBus>
  }
>()("merkato/infra/Archive") {
  static readonly layer = (bus: BusKind) => Layer.effect(Archive, make(bus))
}

const make = Effect.fnUntraced(function* (bus: BusKind) {
  const objects = yield* ObjectStore
  const scope = yield* Effect.scope
  const duck = yield* Effect.cached(Scope.provide(DuckDb.open, scope))
  const oneAtATime = yield* Semaphore.make(1)

  const files = Effect.fnUntraced(function* (topics: ReadonlyArray<string>) {
    const kinds: ReadonlyArray<BusKind> = ["kafka", "postgres"]
    const prefixes = kinds.flatMap((kind) => topics.map((topic) => prefixOf(kind, topic)))
    const found = yield* Effect.forEach(prefixes, (prefix) => objects.list(prefix), { concurrency: 4 })
    return found
      .flat()
      .flatMap(({ name }) => parse(name) ?? [])
      .toSorted(byOffset)
  })

  const unreadable = (file: ArchiveFile) => (error: unknown) =>
    new ArchiveUnusable({ reason: `${file.name} is no file of the archive: ${String(error)}` })

  const read = Effect.fnUntraced(function* (file: ArchiveFile) {
    const path = yield* objects.localFile(file.name)
    const rows = yield* (yield* duck).rows(`
      select log_offset as "offset", key, trace_parent as "traceParent", envelope
      from read_parquet(${DuckDb.quoted(path)}, hive_partitioning = false) order by log_offset`)
    return yield* Effect.mapError(decodeEvents(rows), unreadable(file))
  })

  const lastOf = Effect.fnUntraced(function* (file: ArchiveFile) {
    const path = yield* objects.localFile(file.name)
    const rows = yield* (yield* duck).rows(
      `select max(log_offset) as last from read_parquet(${DuckDb.quoted(path)}, hive_partitioning = false)`
    )
    return (yield* Effect.mapError(decodeLast(rows), unreadable(file)))[0].last
  })

  const ends = Effect.fnUntraced(function* (topics: ReadonlyArray<string>) {
    const newest = new Map<string, ArchiveFile>()
    for (const file of yield* files(topics)) if (file.bus === bus) newest.set(placeName(file), file)
    return new Map(
      yield* Effect.forEach(newest, ([place, file]) => Effect.map(lastOf(file), (last) => [place, last] as const))
    )
  })

  /** Whether it is ours: else another archiver was faster. */
  const write = Effect.fnUntraced(function* ({ topic, partition, day, first, events }: Run) {
    const { run, fill, parquet } = yield* duck
    yield* run(writtenTable)
    yield* fill(
      "written",
      events.map(({ offset, key, traceParent, envelope }) => [offset, key, traceParent, JSON.stringify(envelope)])
    )
    const content = yield* parquet(`(select ${columns} from written order by log_offset)`)
    return yield* objects.putNew(nameOf({ bus, topic, partition }, day, first), content)
  }, oneAtATime.withPermits(1))

  const catchUpTopic = Effect.fnUntraced(function* (topic: string, tells: (events: number) => void) {
    const events = yield* EventBus
    const [archived, until] = [new Map(yield* ends([topic])), yield* events.ends([topic])]
    for (const [place, end] of archived) {
      const last = until.get(place)
      if (last === undefined || last < end) {
        return yield* new ArchiveUnusable({
          reason: `The archive has ${place} up to ${end}, the bus ends at ${last ?? "nothing"}: this is the archive of another bus.`
        })
      }
    }
    const after = new Map(archived)
    const runs = new Map<string, Run>()
    const lost = new Set<string>()
    let [written, fileCount, missing] = [0, 0, 0]

    const flush = Effect.fnUntraced(function* (place: string) {
      const run = runs.get(place)
      runs.delete(place)
      if (run === undefined || lost.has(place)) return
      if (yield* write(run)) {
        fileCount += 1
        written += run.events.length
      } else lost.add(place)
    })

    while ([...until].some(([place, end]) => (after.get(place) ?? -1) < end && !lost.has(place))) {
      const batch = yield* events.read({ topics: [topic], after, limit: batchSize })
      if (batch.length === 0) break
      for (const delivery of batch) {
        const { partition, offset, envelope } = delivery
        const place = placeName(delivery)
        const before = after.get(place) ?? -1
        missing += offset - before - 1
        after.set(place, offset)
        if (offset > (until.get(place) ?? -1)) continue
        const day = dayOf(envelope.occurredAt)
        const run = runs.get(place)
        if (run !== undefined && (run.day !== day || run.events.length >= mostInFile)) yield* flush(place)
        const open = runs.get(place) ?? { topic, partition, day, first: offset, events: [] }
        open.events.push(delivery)
        runs.set(place, open)
      }
      tells(batch.length)
    }
    for (const place of runs.keys()) yield* flush(place)
    return { events: written, files: fileCount, missing } satisfies Archived
  })

  const catchUp: Archive["Service"]["catchUp"] = Effect.fnUntraced(function* (topics, tells = () => {}) {
    const bus = yield* EventBus
    const sum = (places: ReadonlyMap<string, number>) => [...places.values()].reduce((all, end) => all + end + 1, 0)
    const total = sum(yield* bus.ends(topics)) - sum(yield* ends(topics))
    let done = 0
    const all: Array<Archived> = []
    for (const topic of topics) {
      all.push(yield* catchUpTopic(topic, (events) => tells({ done: (done += events), total })))
    }
    return {
      events: all.reduce((sum, { events }) => sum + events, 0),
      files: all.reduce((sum, { files }) => sum + files, 0),
      missing: all.reduce((sum, { missing }) => sum + missing, 0)
    }
  })

  return Archive.of({ files, read, ends, catchUp })
})
