import { type Context, Effect, Metric, type Scope } from "effect"

/** The two kinds of live connections. */
export type Channel = "ws_orders" | "sse_flash_sales"

const attributes = (channel: Channel) => ({ channel })

const made = (channel: Channel) => ({
  open: Metric.gauge("live_connections", {
    description: "Live connections that are open",
    attributes: attributes(channel)
  }),
  sent: Metric.counter("live_frames_sent_total", {
    description: "Frames and events sent over live connections",
    incremental: true,
    attributes: attributes(channel)
  })
})
const metrics = { ws_orders: made("ws_orders"), sse_flash_sales: made("sse_flash_sales") }

/** Milliseconds from the moment that an event says it happened to its frames. */
const age = Metric.histogram("live_frame_age_ms", {
  description: "Milliseconds from what happened to its frames being sent",
  boundaries: [10, 25, 50, 100, 200, 300, 500, 1_000, 2_000, 5_000]
})

/** Counts one more connection until the scope closes. */
export const connected = (channel: Channel): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(Metric.modify(metrics[channel].open, 1), () => Metric.modify(metrics[channel].open, -1))

export const sent = (channel: Channel, frames: number, services: Context.Context<never>): void =>
  metrics[channel].sent.updateUnsafe(frames, services)

/** An event of that moment was handed to this many connections. */
export const handedOver = (occurredAt: string, nowMs: number, services: Context.Context<never>): void => {
  const happenedMs = Date.parse(occurredAt)
  if (Number.isFinite(happenedMs)) age.updateUnsafe(Math.max(0, nowMs - happenedMs), services)
}

/** A connection that the server ended, and why. */
export const dropped = (channel: Channel, reason: string): Effect.Effect<void> =>
  Metric.update(
    Metric.counter("live_clients_dropped_total", {
      description: "Live connections that the server ended",
      incremental: true,
      attributes: { ...attributes(channel), reason }
    }),
    1
  )
