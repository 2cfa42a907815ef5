import { Effect, Metric } from "effect"
import type { Topic } from "@merkato/domain/kernel/Event"
import { EventBus } from "./EventBus.ts"

/** Events on the bus that a group has not taken yet. While the bus is away, the gauge stays as it was. */
export const lag = Metric.gauge("consumer_group_lag", {
  description: "Events on the bus that a consumer group has not taken yet, by group and topic"
})

const every = "15 seconds"

export interface Reading {
  readonly group: string
  readonly topic: Topic
}

/** Keeps the gauge of these groups up to date. */
export const watch = (groups: ReadonlyArray<Reading>): Effect.Effect<never, never, EventBus> =>
  Effect.flatMap(EventBus, (bus) =>
    Effect.forEach(
      groups,
      ({ group, topic }) =>
        bus.lag(group, [topic]).pipe(
          Effect.flatMap((events) => Metric.update(Metric.withAttributes(lag, { group, topic }), events)),
          Effect.catchTag("BusUnavailable", () => Effect.void)
        ),
      { discard: true }
    ).pipe(Effect.andThen(Effect.sleep(every)), Effect.forever, Effect.withTracerEnabled(false))
  )
