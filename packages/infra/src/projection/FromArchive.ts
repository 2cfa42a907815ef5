/** A projection built anew from the archive, which has what the bus has long forgotten, and from what the bus has since. */
import { Effect } from "effect"
import type { Envelope } from "@merkato/domain/kernel/Event"
import { Archive } from "../archive/Archive.ts"
import { placeName } from "../archive/ArchiveFile.ts"
import { EventBus } from "../events/EventBus.ts"
import * as Build from "./Build.ts"
import { eventTypesOf, type ProjectedEvent } from "./Projection.ts"
import type { ReadSoFar } from "./ReadLog.ts"
import { ReplayFailed } from "./ReplayFailed.ts"

/** Events read off the bus with one trip. */
const batchSize = 2_000

/**
 * Reads every event that is archived, and then on from there what is on the bus, up to where that ended at the beginning or
 * later: what the live table had heard of when the build began was on the bus by then. Fails when the bus has forgotten
 * something that is not archived. Without the context's own log, and so without its database having kept it.
 */
export const read = Effect.fnUntraced(function* (
  build: Build.Build,
  { tells = () => {} }: { readonly tells?: (soFar: ReadSoFar) => void } = {}
) {
  const { topic } = build.projection
  const archive = yield* Archive
  const bus = yield* EventBus
  const until = yield* bus.ends([topic])
  const [files, ends] = [yield* archive.files([topic]), yield* archive.ends([topic])]
  const after = new Map(ends)
  const waiting = [...until].reduce((sum, [place, end]) => sum + Math.max(0, end - (after.get(place) ?? -1)), 0)
  const wanted = new Set(eventTypesOf(build.projection))
  let [events, read] = [0, 0]
  const total = files.length + Math.ceil(waiting / batchSize)
  const take = Effect.fnUntraced(function* (envelopes: ReadonlyArray<Envelope>) {
    const told: ReadonlyArray<ProjectedEvent> = envelopes.filter(({ eventType }) => wanted.has(eventType))
    yield* Build.take(build, told)
    events += told.length
    read += 1
    tells({ done: Math.min(read, total), total, events })
  })
  const follows = (place: string, before: number, offset: number) =>
    offset === before + 1
      ? Effect.void
      : Effect.fail(
          new ReplayFailed({
            reason: `Neither the archive nor the bus has ${place} from ${before + 1} to ${offset - 1}.`
          })
        )
  const seen = new Map<string, number>()
  for (const file of files) {
    const archived = yield* archive.read(file)
    const place = `${placeName(file)} of ${file.bus}`
    for (const { offset } of archived) {
      yield* follows(place, seen.get(place) ?? -1, offset)
      seen.set(place, offset)
    }
    yield* take(archived.map(({ envelope }) => envelope))
  }
  while ([...until].some(([place, end]) => (after.get(place) ?? -1) < end)) {
    const batch = yield* bus.read({ topics: [topic], after, limit: batchSize })
    if (batch.length === 0) break
    for (const delivery of batch) {
      const place = placeName(delivery)
      yield* follows(place, after.get(place) ?? -1, delivery.offset)
      after.set(place, delivery.offset)
    }
    yield* take(batch.map(({ envelope }) => envelope))
  }
  yield* Build.finish(build)
  return events
})
