import { Clock, Effect, type Fiber } from "effect"
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

const traceParentOf = (fiber: Fiber.Fiber<unknown, unknown>): string => {
  const { span, tracerEnabled } = fiber.cache
  return tracerEnabled && span !== undefined && /^[0-9a-f]{32}$/.test(span.traceId)
    ? `00-${span.traceId}-${span.spanId}-${span.sampled ? "01" : "00"}`
    : fiber.getRef(RequestContext).traceParent || emptyTraceParent
}

/** W3C trace context of the fiber: its span when it is traced, else what the request came with. */
export const currentTraceParent: Effect.Effect<string> = Effect.withFiber((fiber) =>
  Effect.succeed(traceParentOf(fiber))
)

export const stamp: Effect.Effect<Stamp> = Effect.withFiber((fiber) => {
  const { correlationId, principal } = fiber.getRef(RequestContext)
  return Effect.succeed({
    occurredAt: new Date(fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()),
    region: principal.region,
    correlationId,
    traceParent: traceParentOf(fiber)
  })
})

/** Fresh event ids. */
export const eventIds = (count: number): Effect.Effect<ReadonlyArray<string>> => Effect.replicateEffect(Ids.next, count)
