import { Clock, Effect } from "effect"
import * as Ids from "@merkato/domain/kernel/Ids"
import type { Region } from "@merkato/domain/kernel/Region"
import { emptyTraceParent, RequestContext } from "@merkato/domain/kernel/RequestContext"

/** What every event of one command has in common. */
export interface Stamp {
  readonly occurredAt: Date
  readonly region: Region
  readonly correlationId: string
  /** W3C trace context of the span that decided the event. */
  readonly traceParent: string
}

/** W3C trace context of the fiber: its span when it is traced, else what the request came with. */
export const currentTraceParent: Effect.Effect<string> = Effect.withFiber((fiber) => {
  const span = fiber.cache.span
  return fiber.cache.tracerEnabled && span !== undefined && /^[0-9a-f]{32}$/.test(span.traceId)
    ? Effect.succeed(`00-${span.traceId}-${span.spanId}-${span.sampled ? "01" : "00"}`)
    : Effect.map(RequestContext, (request) => request.traceParent || emptyTraceParent)
})

export const stamp: Effect.Effect<Stamp> = Effect.gen(function* () {
  const request = yield* RequestContext
  return {
    occurredAt: new Date(yield* Clock.currentTimeMillis),
    region: request.principal.region,
    correlationId: request.correlationId,
    traceParent: yield* currentTraceParent
  }
})

/** Fresh event ids. */
export const eventIds = (count: number): Effect.Effect<ReadonlyArray<string>> => Effect.replicateEffect(Ids.next, count)
