import { Effect, Option, Tracer } from "effect"
import { Headers, HttpTraceContext } from "effect/http"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import type { BusMessage } from "../events/EventBus.ts"

/** Goes on with a trace that came with a message or a request; without a sampled one, tracing is off for the effect. */
export const continuing =
  (traceParent: string, correlationId: string) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
    const parent = HttpTraceContext.w3c(Headers.fromInput({ traceparent: traceParent }))
    const inContext = Effect.updateService(effect, RequestContext, (request) => ({
      ...request,
      traceParent,
      correlationId
    }))
    return Option.isSome(parent) && parent.value.sampled
      ? Effect.provideService(inContext, Tracer.ParentSpan, parent.value).pipe(Effect.withTracerEnabled(true))
      : Effect.withTracerEnabled(inContext, false)
  }

/** An effect on one event, as a span of the event's own trace (OpenTelemetry's messaging conventions). */
export const traced = <A, E, R>(
  name: string,
  kind: "producer" | "consumer",
  message: BusMessage,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, Tracer.ParentSpan>> =>
  effect.pipe(
    Effect.withSpan(name, {
      kind,
      attributes: {
        "messaging.system": "merkato",
        "messaging.destination.name": message.topic,
        "messaging.message.id": message.envelope.eventId,
        "messaging.kafka.message.key": message.key,
        eventType: message.envelope.eventType
      }
    }),
    continuing(message.traceParent, message.envelope.correlationId)
  )
