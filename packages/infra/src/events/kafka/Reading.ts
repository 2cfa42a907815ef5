/** Reads what stands in topics: on from where one is, or all that is there now. */
import { Effect } from "effect"
import type { Delivery } from "../EventBus.ts"
import { toDelivery } from "./Message.ts"
import { type Fetched, type KafkaFailure, placeName, type Positions, topicsOf, type Wire } from "./Wire.ts"

/** How long a reader waits for the first record before it asks again. */
const waitMs = 1_000

export const deliveriesOf = (fetched: ReadonlyArray<Fetched>): ReadonlyArray<Delivery> =>
  fetched.flatMap((place) => place.records.map((record) => toDelivery(place, record)))

/**
 * What comes next. When what was read on from is not there any more, this fails once, and the positions are where the
 * partitions begin or end.
 */
export const next = (
  reader: Wire,
  positions: Map<string, number>
): Effect.Effect<ReadonlyArray<Fetched>, KafkaFailure> =>
  Effect.tapError(reader.fetch(positions, waitMs), (failure) =>
    Effect.gen(function* () {
      if (!failure.says("OFFSET_OUT_OF_RANGE")) return
      const topics = topicsOf(positions)
      const [starts, ends] = yield* Effect.all([reader.starts(topics), reader.ends(topics)])
      for (const [name, position] of positions) {
        positions.set(name, Math.max(starts.get(name) ?? 0, Math.min(position, ends.get(name) ?? position)))
      }
    })
  )

/** What stands from these positions to where the partitions end now; at most `limit` of each. */
export const standing = Effect.fnUntraced(function* (
  wire: Wire,
  topics: ReadonlyArray<string>,
  from: Positions,
  limit: number
) {
  const [starts, ends] = yield* Effect.all([wire.starts(topics), wire.ends(topics)], { concurrency: 2 })
  const positions = new Map<string, number>()
  for (const [name, start] of starts) positions.set(name, Math.max(from.get(name) ?? start, start))
  const read = new Map<string, Array<Delivery & { readonly publishedAt: number }>>()
  while (true) {
    for (const [name, position] of positions) {
      if (position >= (ends.get(name) ?? 0) || (read.get(name)?.length ?? 0) >= limit) positions.delete(name)
    }
    if (positions.size === 0) break
    for (const place of yield* wire.fetch(positions, waitMs)) {
      const name = placeName(place)
      const end = ends.get(name) ?? 0
      const records = place.records.filter(({ offset }) => offset < end)
      const deliveries = records.map((record) => ({
        ...toDelivery(place, record),
        publishedAt: record.timestamp
      }))
      read.set(name, [...(read.get(name) ?? []), ...deliveries].slice(0, limit))
      positions.set(name, place.next)
    }
  }
  // As in the other bus: an event counts as old as the newest before it, so that a page never passes over one.
  return [...read.values()]
    .flatMap((deliveries) => {
      let arrived = 0
      return deliveries.map((delivery) => {
        arrived = Math.max(arrived, delivery.publishedAt)
        return { ...delivery, arrived }
      })
    })
    .toSorted(
      (a, b) =>
        a.arrived - b.arrived ||
        (a.topic < b.topic ? -1 : a.topic > b.topic ? 1 : 0) ||
        a.partition - b.partition ||
        a.offset - b.offset
    )
})
