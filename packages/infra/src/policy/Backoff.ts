import { Duration, Effect, Schedule } from "effect"
import type { Backoff } from "./Limits.ts"

/** The delay before the nth retry (from 1), before jitter, in milliseconds. For queues that keep their retries on disk, too. */
export const delayMs = (backoff: Backoff, nth: number): number =>
  backoff.kind === "exactly"
    ? (backoff.delaysMs[nth - 1] ?? backoff.delaysMs.at(-1) ?? 0)
    : Math.min(backoff.maxMs, backoff.firstMs * backoff.factor ** (nth - 1))

/** The longest delay before a retry, before jitter, in milliseconds. */
export const longestMs = (backoff: Backoff): number =>
  backoff.kind === "exactly" ? Math.max(...backoff.delaysMs) : backoff.maxMs

/** The schedule of the retries of something that is tried so often at most (null: without end). */
export const schedule = (backoff: Backoff | null, attempts: number | null): Schedule.Schedule<number> => {
  if (backoff === null || attempts === 1) return Schedule.recurs(0)
  const times = attempts === null ? Schedule.forever : Schedule.recurs(attempts - 1)
  const delayed = Schedule.modifyDelay(times, ({ attempt }) =>
    Effect.succeed(Duration.millis(delayMs(backoff, attempt)))
  )
  return backoff.kind === "exponential" && backoff.jitter ? Schedule.jittered(delayed) : delayed
}
