import { existsSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { installPackages } from "./Apt.ts"
import { type Installing, Refused, run, runPatiently, tool } from "./Server.ts"

/** Programs of Python, in an environment of their own. */
export interface Programs {
  /** Of the folder in the cache; another version is another name. */
  readonly name: string
  /** Every package with its version and checksums, as pip reads it; pip takes nothing else. */
  readonly requirements: string
}

const folderOf = ({ name }: Programs, { cache }: Installing) => join(cache, name)
/** Written last: what has been broken off has none, and is made anew. */
const markOf = (programs: Programs, place: Installing) => join(folderOf(programs, place), "complete")

export const pathOf = (programs: Programs, program: string, place: Installing): string =>
  join(folderOf(programs, place), "bin", program)

const isComplete = (programs: Programs, place: Installing) =>
  existsSync(markOf(programs, place)) && existsSync(pathOf(programs, "python", place))

const fits = "import ensurepip, sys, venv; assert sys.version_info >= (3, 11); print(sys.executable)"

/** A Python of 3.11 or later that can make environments; Debian keeps what that takes in a package of its own. */
const find = async (): Promise<string | undefined> => {
  for (const python of [tool("python3"), "/usr/bin/python3"]) {
    if (python === undefined || !existsSync(python)) continue
    const { code, output } = await run([python, "-c", fits])
    if (code === 0) return output.trim()
  }
  return undefined
}

/**
 * Installs the programs, unless they are in the cache. A second time downloads nothing. What is imported is compiled then: compiling
 * all there is takes several times as long as the rest.
 */
export const install = async (programs: Programs, place: Installing): Promise<void> => {
  if (isComplete(programs, place)) return
  if ((await find()) === undefined) await installPackages(["python3-venv"], "Python 3.11 with venv", place)
  const python = await find()
  if (python === undefined) throw new Refused("There is no Python of 3.11 or later here that can make environments.")
  const folder = folderOf(programs, place)
  place.say(`installing ${programs.name} (once) …`)
  rmSync(folder, { recursive: true, force: true })
  const made = await run([python, "-m", "venv", folder])
  if (made.code !== 0) throw new Refused(`${python} could not make an environment:\n${made.output}`)
  const pip = [
    pathOf(programs, "python", place),
    "-m",
    "pip",
    "--disable-pip-version-check",
    "--no-cache-dir",
    "install"
  ]
  const { code, output } = await runPatiently(
    [
      ...pip,
      "--quiet",
      "--no-compile",
      "--only-binary",
      ":all:",
      "--require-hashes",
      "--requirement",
      programs.requirements
    ],
    place
  )
  if (code !== 0) throw new Refused(`${programs.name} could not be installed:\n${output}`)
  writeFileSync(markOf(programs, place), "")
}
