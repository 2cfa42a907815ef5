/** Runs the operators' command: an expected failure is a sentence, and the exit code says whether it did what it was asked. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Console, Effect, Logger, Runtime } from "effect"
import { Command } from "effect/cli"
import * as CommandLine from "@merkato/infra/runtime/CommandLine"

const version = "0.1.0"

const sentenceOf = (error: unknown): string =>
  error instanceof Error && error.message !== "" ? error.message : String(error)

/** An expected failure is a sentence; a defect is a mistake of ours and shows where. */
const report = (cause: Cause.Cause<unknown>) => {
  if (Cause.hasInterruptsOnly(cause)) return Effect.void
  const error = Cause.squash(cause)
  if (!Runtime.getErrorReported(error)) return Effect.void
  return Console.error(cause.reasons.some(Cause.isDieReason) ? Cause.pretty(cause) : sentenceOf(error))
}

/** Runs a command with these arguments as a program would; fails as the command fails, after saying why. */
export const runWith =
  <Name extends string, Input, E, R, ContextInput>(command: Command.Command<Name, Input, ContextInput, E, R>) =>
  (args: ReadonlyArray<string>) =>
    Command.runWith(command, { version })(args).pipe(
      Effect.tapCause(report),
      Effect.provideService(Logger.LogToStderr, true),
      Effect.provide(CommandLine.layer)
    )

/** Runs a command as this process's program: exit code 0, 1 when it failed, 130 when it was interrupted. */
export const main = <Name extends string, Input, E, ContextInput>(
  command: Command.Command<Name, Input, ContextInput, E, Command.Environment>
): void =>
  runWith(command)(process.argv.slice(2)).pipe(
    Effect.provide(NodeServices.layer),
    NodeRuntime.runMain({ disableErrorReporting: true })
  )
