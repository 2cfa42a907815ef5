import { Config, ConfigProvider, Effect, Layer, Logger, Option, References } from "effect"
import { FetchHttpClient } from "effect/http"
import { Otlp, OtlpSerialization } from "effect/observability"
import * as Scrubbing from "./Scrubbing.ts"

const logLevel = Config.LogLevel("MERKATO_LOG_LEVEL").pipe(Config.withDefault("Info" as const))
const logFormat = Config.Literals(["json", "pretty"], "MERKATO_LOG_FORMAT").pipe(Config.option)
const endpoint = Config.String("OTEL_EXPORTER_OTLP_ENDPOINT")

/** Logs, on stderr: a JSON object a line, or coloured text on a terminal; `MERKATO_LOG_FORMAT` and `MERKATO_LOG_LEVEL` decide. */
const logs = Layer.unwrap(
  Effect.gen(function* () {
    const level = yield* logLevel
    const format = Option.getOrElse(yield* logFormat, () => (process.stderr.isTTY ? "pretty" : "json"))
    return Layer.mergeAll(
      Logger.layer([format === "json" ? Logger.withConsoleError(Logger.formatJson) : Logger.consolePretty()]),
      Layer.succeed(References.MinimumLogLevel, level),
      Layer.succeed(Logger.LogToStderr, true)
    )
  })
)

/** Whether somebody is named who takes these signals. */
const isWanted = (signal: "TRACES" | "METRICS" | "LOGS") =>
  Config.String(`OTEL_EXPORTER_OTLP_${signal}_ENDPOINT`).pipe(
    Config.orElse(() => endpoint),
    Config.option,
    Config.map(Option.isSome)
  )

/** What OpenTelemetry's specification says when these variables are not set; Effect would then export nothing. */
const defaults = ConfigProvider.layerAdd(
  ConfigProvider.fromUnknown({
    OTEL_TRACES_EXPORTER: ["otlp"],
    OTEL_METRICS_EXPORTER: ["otlp"],
    OTEL_LOGS_EXPORTER: ["otlp"]
  })
)

/**
 * Traces, metrics and logs over OTLP when `OTEL_EXPORTER_OTLP_ENDPOINT` (or one of its siblings) is set, under the usual
 * `OTEL_…` variables. When nobody takes traces no spans are made at all, and trace ids come from the edge.
 */
const otlp = (serviceName: string) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const traces = yield* isWanted("TRACES")
      const spans = traces ? Layer.empty : Layer.succeed(References.TracerEnabled, false)
      if (!traces && !(yield* isWanted("METRICS")) && !(yield* isWanted("LOGS"))) return spans
      return Otlp.layerFromConfig({ resource: { serviceName }, loggerMergeWithExisting: true }).pipe(
        Layer.provide(OtlpSerialization.layerProtobuf),
        Layer.provide(FetchHttpClient.layer),
        Layer.provide(defaults),
        Layer.merge(spans)
      )
    })
  )

/** What a process tells about itself, without secrets. */
export const layer = (serviceName: string) =>
  Scrubbing.layer.pipe(Layer.provideMerge(Layer.provideMerge(otlp(serviceName), logs)))
