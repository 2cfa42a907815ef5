/** How a program of ours meets whoever types its command: help on stdout, a sentence on stderr when something is wrong. */
import { Console, Layer } from "effect"
import { CliConfig, CliOutput, GlobalFlag } from "effect/cli"

/** What was asked wrongly goes to stderr alone: stdout may be somebody's variable. */
const presenter = CliOutput.layerPresenter({
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? Console.error(
          [...event.errors.map(({ message }) => message), `Try: ${event.commandPath.join(" ")} --help`].join("\n")
        )
      : CliOutput.defaultPresenter.present(event)
})

/** Flags of every command. `--log-level` is none of them: `MERKATO_LOG_LEVEL` decides what is logged. */
const config = CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] })

export const layer = Layer.mergeAll(presenter, config)
