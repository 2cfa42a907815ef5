import type { Envelope } from "@merkato/domain/kernel/Event"
import type { DeadLetter, DeadLetterCause } from "../EventBus.ts"

/** A row of the log. What our own relays wrote is not decoded again; consumers decode the payloads they care about. */
export interface LogRow {
  readonly topic: string
  readonly partition: number
  readonly offset: number
  readonly key: string
  readonly envelope: Envelope
  readonly traceParent: string
  readonly failure: DeadLetterCause | null
  readonly publishedAt: Date
  readonly requeued: boolean
}

export const toLetter = ({ failure, publishedAt, ...row }: LogRow): DeadLetter => ({
  ...row,
  failedAt: publishedAt,
  failure: failure ?? undefined
})

/** What is selected from `bus.log` for a row. */
export const columns =
  'topic, partition, "offset", key, envelope, trace_parent as "traceParent", failure, published_at as "publishedAt", ' +
  "requeued_at is not null as requeued"
