import { Effect, Option, Tracer } from "effect"
import { Headers, HttpTraceContext } from "effect/http"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import type { BusMessage } from "../events/EventBus.ts"

type Make = (
  ...parts: ReadonlyArray<never>
) => (...args: ReadonlyArray<unknown>) => Effect.Effect<unknown, unknown, unknown>

/**
 * `Effect.fn` that makes its span only where somebody traces: a span that nobody sees costs tens of microseconds, with the
 * stack it remembers and the context it changes twice.
 */
export const fn = (name: string): Effect.fn.Untraced => {
  // The overloads are for those who call it; whatever it is made of is only handed on.
  const [without, within] = [Effect.fnUntraced as Make, Effect.fn(name) as Make]
  const make: Make = (...parts) => {
    const [untraced, traced] = [without(...parts), within(...parts)]
    return (...args) => Effect.withFiber((fiber) => (fiber.cache.tracerEnabled ? traced : untraced)(...args))
  }
  return make as Effect.fn.Untraced
}

/** `Effect.withSpan` in the same way. */
export const withSpan =
  (name: string, options?: Tracer.SpanOptionsNoTrace) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, Exclude<R, Tracer.ParentSpan>> =>
    Effect.withFiber((fiber): Effect.Effect<A, E, Exclude<R, Tracer.ParentSpan>> => {
      if (fiber.cache.tracerEnabled) return Effect.withSpan(effect, name, options)
      // Who reads its parent span wants to be traced, and does without where nobody is.
      return effect as Effect.Effect<A, E, Exclude<R, Tracer.ParentSpan>>
    })

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
    withSpan(name, {
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
