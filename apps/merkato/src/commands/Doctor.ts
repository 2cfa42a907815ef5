import { Console, Effect } from "effect"
import { Command } from "effect/cli"
import { checks, type Finding } from "../Checkup.ts"
import { CommandFailed } from "../Failure.ts"
import * as Flags from "../Flags.ts"

const line = ({ state, subject, found, action }: Finding): string =>
  `${state.padEnd(4)}  ${subject.padEnd(12)}  ${found}${action === undefined ? "" : ` → ${action}`}`

export const doctor = Command.make(
  "doctor",
  { dataDir: Flags.dataDir, port: Flags.port },
  Effect.fn("doctor")(function* (options) {
    let failed = 0
    for (const check of checks(options)) {
      const finding = yield* check
      if (finding.state === "fail") failed += 1
      yield* Console.log(line(finding))
    }
    if (failed > 0)
      return yield* new CommandFailed({ reason: `${failed} of these must be put right before a shop can run.` })
  })
).pipe(
  Command.withDescription(
    "Check this installation and say what to do about what is not as it should be; exit code 1 if a shop could not run"
  ),
  Command.withShortDescription("Check this installation")
)
