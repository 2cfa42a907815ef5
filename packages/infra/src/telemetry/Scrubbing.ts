import { Cause, Effect, Exit, Layer, Logger, References, Tracer } from "effect"
import { scrub, scrubNamed, scrubText } from "./Scrubber.ts"

const named = (record: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(record).map(([name, value]) => [name, scrubNamed(name, value)]))

/** A cause that reads as this one, without secrets. */
const cleanCause = (cause: Cause.Cause<unknown>): Cause.Cause<unknown> =>
  Cause.fromReasons(
    cause.reasons.map((reason) =>
      Cause.isFailReason(reason)
        ? Cause.makeFailReason(scrub(reason.error))
        : Cause.isDieReason(reason)
          ? Cause.makeDieReason(scrub(reason.defect))
          : reason
    )
  )

/** A logger that never gets to see a secret: not in the message, not in the cause, not in the annotations. */
export const scrubbing = <Output>(logger: Logger.Logger<unknown, Output>): Logger.Logger<unknown, Output> =>
  Logger.make((options) => {
    const { fiber } = options
    const annotations = named(fiber.getRef(References.CurrentLogAnnotations))
    return logger.log({
      ...options,
      message: scrub(options.message),
      cause: options.cause.reasons.length === 0 ? options.cause : cleanCause(options.cause),
      // Loggers read annotations off the fiber.
      fiber: new Proxy(fiber, {
        get: (target, name) => {
          if (name === "getRef") {
            return (ref: unknown) =>
              ref === References.CurrentLogAnnotations
                ? annotations
                : target.getRef(ref as typeof References.LogToStderr)
          }
          const value: unknown = Reflect.get(target, name, target)
          return typeof value === "function" ? value.bind(target) : value
        }
      })
    })
  })

/** Makes a span clean what it is told: attributes, events, and how it ended. */
const cleanSpan = (span: Tracer.Span): Tracer.Span => {
  const { attribute, event, end } = span
  return Object.assign(span, {
    attribute: (name: string, value: unknown) => attribute.call(span, name, scrubNamed(name, value)),
    event: (name: string, at: bigint, attributes?: Record<string, unknown>) =>
      event.call(span, scrubText(name), at, attributes === undefined ? undefined : named(attributes)),
    end: (at: bigint, exit: Exit.Exit<unknown, unknown>) =>
      end.call(span, at, Exit.isFailure(exit) ? Exit.failCause(cleanCause(exit.cause)) : exit)
  })
}

export const scrubbingTracer = (tracer: Tracer.Tracer): Tracer.Tracer =>
  Tracer.make({
    span: (options) => cleanSpan(tracer.span({ ...options, name: scrubText(options.name) })),
    ...(tracer.context === undefined ? {} : { context: tracer.context })
  })

/** Puts the scrubber between everything that is told and everybody who writes it down: put it over loggers and tracers. */
export const layer = Layer.mergeAll(
  Layer.effect(
    Logger.CurrentLoggers,
    Effect.map(Logger.CurrentLoggers, (loggers) => new Set([...loggers].map((logger) => scrubbing(logger))))
  ),
  Layer.effect(Tracer.Tracer, Effect.map(Tracer.Tracer, scrubbingTracer))
)
