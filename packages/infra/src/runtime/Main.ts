import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Cause, Config, Console, Effect, Runtime, Schema, SchemaIssue } from "effect"

const issuesOf = SchemaIssue.makeFormatterStandardSchemaV1()

/** The variable that cannot be read, and what it should be; never what it is. */
const ofConfig = ({ cause }: Config.ConfigError): string => {
  if (!Schema.isSchemaError(cause)) return cause.message
  const [issue] = issuesOf(cause.issue).issues
  const path = (issue?.path ?? []).map((segment) => (typeof segment === "object" ? segment.key : segment))
  return `${path.map(String).join("_")} cannot be used: ${issue?.message ?? "not what is expected"}`
}

/** What an error has to say; one without words of its own speaks through its cause. */
const wordsOf = (error: unknown): string => {
  if (error instanceof Config.ConfigError) return ofConfig(error)
  if (!(error instanceof Error)) return String(error)
  return error.message === "" && error.cause !== undefined ? wordsOf(error.cause) : error.message || error.name
}

/**
 * Why a program ended, for whoever started it. An expected failure (in the type, or a setting that cannot be read) is one
 * sentence; anything else is a mistake of ours and is told with all that is known of it.
 */
const explain = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return Cause.hasFails(cause) || error instanceof Config.ConfigError ? wordsOf(error) : Cause.pretty(cause)
}

/**
 * Runs an app until it ends or is told to (SIGINT, SIGTERM), and lets it put its things away. The exit code is 130 after
 * a signal and 1 after a failure, which is explained on stderr.
 */
export const run = <A, E>(program: Effect.Effect<A, E>): void =>
  program.pipe(
    Effect.tapCause((cause) =>
      Cause.hasInterruptsOnly(cause) || !Runtime.getErrorReported(Cause.squash(cause))
        ? Effect.void
        : Console.error(explain(cause))
    ),
    NodeRuntime.runMain({ disableErrorReporting: true })
  )
