/** How a script meets whoever types its command: help on stdout, a sentence on stderr and exit code 2 when something is wrong. */
import { parseArgs, type ParseArgsOptionsConfig } from "node:util"

/** Ends the script. */
export const refuse = (reason: string): never => {
  console.error(`${reason}\n--help tells more`)
  process.exit(2)
}

/** Reads a script's options, and nothing but options. With `--help` or `-h` it prints `usage` and ends the script. */
export const read = <const Options extends ParseArgsOptionsConfig>(
  usage: string,
  options: Options,
  args: ReadonlyArray<string> = process.argv.slice(2)
) => {
  if (args.includes("--help") || args.includes("-h")) {
    console.log(usage)
    process.exit(0)
  }
  try {
    return parseArgs({ args: [...args], options }).values
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error))
  }
}

/** A whole number of at least so much. */
export const count = (name: string, text: string, least = 1): number =>
  /^\d{1,15}$/.test(text) && Number(text) >= least
    ? Number(text)
    : refuse(`--${name} wants a whole number from ${least} on, not "${text}"`)
