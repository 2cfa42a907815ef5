import { Cause, DateTime, Effect, Metric, Schedule } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import type { Envelope, Topic } from "@merkato/domain/kernel/Event"
import { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { Principal, RequestContext, type RequestContextShape, system } from "@merkato/domain/kernel/RequestContext"
import { cluster, isUnreachable, transaction, unhurried } from "../postgres/Database.ts"
import { traced } from "../telemetry/Tracing.ts"
import { gaveUp, letterOf } from "./DeadLetters.ts"
import { BusUnavailable, type Delivery, EventBus, isSampled } from "./EventBus.ts"

/** How often an event is tried before it goes to the dead letters (design: events). */
export const attempts = 3

const backoff = Schedule.exponential("100 millis")

const consumed = Metric.counter("events_consumed_total", {
  description: "Events whose effect is done, by consumer group",
  incremental: true
})

/**
 * What a context does about events of another. `apply` runs in a transaction of the context together with the inbox row,
 * so its effect happens once however often the event comes; it may not call other contexts. `react` is for consumers
 * that must call others: it runs outside a transaction, before the inbox row is written, and has to be idempotent.
 * `conditional` is for writes that look by themselves whether they were made already: there is neither inbox nor transaction.
 */
export interface Consumer<R> {
  /** Unique in the shop; never renamed, since it is the name under which the bus knows how far it has read. */
  readonly group: string
  readonly topic: Topic
  /** The event types it cares about; others are passed over. */
  readonly eventTypes: ReadonlyArray<string>
  readonly mode: "apply" | "react" | "conditional"
  readonly handle: (event: Envelope) => Effect.Effect<void, unknown, R>
  /**
   * The same for several events at once, where one statement can do them all; it runs in the name of the first, and is
   * told the request that each event stands for. Traced events come to `handle`.
   */
  readonly handleAll?: (
    events: ReadonlyArray<Envelope>,
    requests: ReadonlyArray<RequestContextShape>
  ) => Effect.Effect<void, unknown, R>
  /**
   * Of `apply`: locks the rows that several events change, in the order of their keys, before the first of them is handled.
   * Where each is handled by itself, one transaction does it in the order in which they came, and keeps the rows of each
   * until the last is done: whoever locks such rows in the order of their keys would else wait for it, and it for them.
   */
  readonly lock?: (events: ReadonlyArray<Envelope>) => Effect.Effect<void, unknown, R>
}

export const make = <R>(consumer: Consumer<R>): Consumer<R> => consumer

/** The shop itself acts on an event, with its region and its correlation. */
const requestOf = ({ envelope: { region, correlationId }, traceParent }: Delivery): RequestContextShape => ({
  principal: new Principal({ ...system, region }),
  correlationId,
  traceParent
})

const inTheNameOf = <A, E, R>(
  [first]: ReadonlyArray<Delivery>,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  first === undefined ? effect : Effect.provideService(effect, RequestContext, requestOf(first))

/** Runs a consumer for good: inbox, retries, dead letters. */
export const run = <R>(schema: string, consumer: Consumer<R>) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const bus = yield* EventBus
    const { group, topic, eventTypes, mode, handle, handleAll, lock } = consumer
    const inbox = sql(`${schema}.inbox`)
    const done = Metric.withAttributes(consumed, { group })

    // What is done is on the disk before the group's place is, where one server keeps both: a crash that loses the one has lost
    // the other, and the events come again. Elsewhere a place that stays must not be beyond what was lost.
    const keptBy = bus.cluster === undefined ? undefined : yield* bus.cluster
    const mayWait = keptBy !== undefined && keptBy === (yield* cluster)
    const settings = sql.literal(mayWait ? `, ${unhurried}` : "")

    /** Writes the inbox rows, in the order of their keys; what comes back is new. */
    const enter = Effect.fnUntraced(function* (batch: ReadonlyArray<Delivery>) {
      const now = yield* DateTime.nowAsDate
      const rows = yield* sql<{ eventId: string }>`
        insert into ${inbox} (consumer_group, event_id, received_at)
        select ${group}, event_id, ${now} from unnest(${batch.map(({ envelope }) => envelope.eventId)}::text[]) as e (event_id)
        order by event_id on conflict do nothing returning event_id as "eventId"${settings}`
      return new Set(rows.map((row) => row.eventId))
    })

    const one = (delivery: Delivery) =>
      traced(`consume ${topic}`, "consumer", delivery, inTheNameOf([delivery], handle(delivery.envelope)))

    const seen = (delivery: Delivery) =>
      Effect.map(
        sql`select 1 from ${inbox} where consumer_group = ${group} and event_id = ${delivery.envelope.eventId}`,
        (rows) => rows.length > 0
      )

    /** Those that are new, one after the other, as many together as can be. */
    const each = (
      batch: ReadonlyArray<Delivery>,
      fresh: ReadonlySet<string>,
      tells: (tried: Delivery | undefined) => void
    ) =>
      Effect.gen(function* () {
        const left = new Set(fresh)
        if (lock !== undefined && fresh.size > 1) {
          const news = batch.filter(({ envelope }) => fresh.has(envelope.eventId))
          const apart = handleAll === undefined || news.some(isSampled)
          if (apart) yield* inTheNameOf(news, lock(news.map(({ envelope }) => envelope)))
        }
        let gathered: Array<Delivery> = []
        const flush = Effect.suspend(() => {
          const events = gathered
          gathered = []
          if (events.length === 0 || handleAll === undefined) return Effect.void
          tells(undefined)
          const envelopes = events.map(({ envelope }) => envelope)
          return inTheNameOf(events, handleAll(envelopes, events.map(requestOf)))
        })
        for (const delivery of batch) {
          if (!left.delete(delivery.envelope.eventId)) continue
          if (handleAll !== undefined && batch.length > 1 && !isSampled(delivery)) {
            gathered.push(delivery)
            continue
          }
          yield* flush
          tells(delivery)
          yield* one(delivery)
        }
        yield* flush
        return fresh.size
      })

    /** `tells` gets the event whose effect is tried next: at a failure, the one that stands in the way, if it is one alone. */
    const together = (batch: ReadonlyArray<Delivery>, tells: (tried: Delivery | undefined) => void = () => {}) => {
      if (mode === "conditional") return each(batch, new Set(batch.map(({ envelope }) => envelope.eventId)), tells)
      return mode === "apply"
        ? transaction(Effect.flatMap(enter(batch), (fresh) => each(batch, fresh, tells)))
        : Effect.gen(function* () {
            let count = 0
            for (const delivery of batch) {
              if (yield* seen(delivery)) continue
              tells(delivery)
              yield* one(delivery)
              yield* enter([delivery])
              count += 1
            }
            return count
          })
    }

    const giveUp = (delivery: Delivery, cause: Cause.Cause<unknown>) =>
      Effect.gen(function* () {
        const letter = letterOf(delivery, { consumerGroup: group, attempts, reason: Cause.pretty(cause) })
        yield* bus.publish([letter])
        yield* gaveUp(letter)
      })

    /**
     * One event by itself: tried `attempts` times, then given up on. A database or context that is away is waited for
     * instead. `failed` is what came of a try before, among others: that was the first.
     */
    const alone = (
      delivery: Delivery,
      failed: Cause.Cause<unknown> | undefined
    ): Effect.Effect<void, BusUnavailable, R | SqlClient.SqlClient> => {
      let before = failed
      const attempt = Effect.suspend(() => {
        const cause = before
        before = undefined
        return cause === undefined ? Effect.sandbox(together([delivery])) : Effect.fail(cause)
      })
      return attempt.pipe(
        Effect.retry({ schedule: backoff, times: attempts - 1, while: (cause) => !isAway(cause) }),
        Effect.flatMap((count) => Metric.update(done, count)),
        Effect.catch((cause) => (isAway(cause) ? Effect.fail(new BusUnavailable({ cause })) : giveUp(delivery, cause)))
      )
    }

    return yield* bus.subscribe({
      consumerGroup: group,
      topics: [topic],
      eventTypes,
      batchSize: 200,
      handle: (batch) => {
        const wanted = batch.filter(({ envelope }) => eventTypes.includes(envelope.eventType))
        if (wanted.length === 0) return Effect.void
        let tried: Delivery | undefined
        return together(wanted, (delivery) => {
          tried = delivery
        }).pipe(
          Effect.flatMap((count) => Metric.update(done, count)),
          Effect.catchCause((cause) =>
            Cause.hasInterruptsOnly(cause)
              ? Effect.interrupt
              : Effect.forEach(wanted, (delivery) => alone(delivery, delivery === tried ? cause : undefined), {
                  discard: true
                })
          )
        )
      }
    })
  }).pipe(Effect.withTracerEnabled(false))

/** The database is away, or a context that the effect needs: no fault of the event's, so it is not given up on. */
const isAway = (cause: Cause.Cause<unknown>): boolean =>
  cause.reasons.some(
    (reason) =>
      Cause.isFailReason(reason) &&
      (reason.error instanceof ServiceUnavailable || (SqlError.isSqlError(reason.error) && isUnreachable(reason.error)))
  )
