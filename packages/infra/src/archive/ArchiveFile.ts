/** How files of the archive are called: what they are of, and where they begin. */

/** Offsets are those of a bus: the same shop on another one begins anew. */
export type BusKind = "kafka" | "postgres"

export interface Place {
  readonly bus: BusKind
  readonly topic: string
  readonly partition: number
}

export interface ArchiveFile extends Place {
  readonly name: string
  /** A day of UTC, such as 2026-01-31: that of its events. */
  readonly day: string
  /** The offset of its first event. */
  readonly first: number
}

const root = "archive"

/** As wide as the largest offset, so that names are in the order of offsets. */
const digits = 16

export const nameOf = ({ bus, topic, partition }: Place, day: string, first: number): string =>
  `${root}/bus=${bus}/topic=${topic}/day=${day}/${partition}-${String(first).padStart(digits, "0")}.parquet`

const pattern = /^archive\/bus=(kafka|postgres)\/topic=([\w.-]+)\/day=(\d{4}-\d\d-\d\d)\/(\d+)-(\d{16})\.parquet$/

/** What a name says; nothing when it is none of the archive's. */
export const parse = (name: string): ArchiveFile | undefined => {
  const [, bus, topic, day, partition, first] = pattern.exec(name) ?? []
  return (bus === "kafka" || bus === "postgres") && topic !== undefined && day !== undefined
    ? { name, bus, topic, day, partition: Number(partition), first: Number(first) }
    : undefined
}

/** What the names of a topic's files begin with. */
export const prefixOf = (bus: BusKind, topic: string): string => `${root}/bus=${bus}/topic=${topic}/`

/** The day of events that do not tell when they happened. */
const noDay = "1970-01-01"

/** The day of UTC at a time. */
export const dayOf = (occurredAt: string): string => {
  const at = new Date(occurredAt)
  const text = Number.isNaN(at.getTime()) ? "" : at.toISOString()
  return /^\d{4}-/.test(text) ? text.slice(0, 10) : noDay
}

export const placeName = ({ topic, partition }: Pick<Place, "topic" | "partition">): string => `${topic}/${partition}`

/** Each partition's in the order of their offsets. */
export const byOffset = (a: ArchiveFile, b: ArchiveFile): number =>
  a.bus.localeCompare(b.bus) || a.topic.localeCompare(b.topic) || a.partition - b.partition || a.first - b.first
