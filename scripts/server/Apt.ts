import { type Installing, Refused, runPatiently, tool } from "./Server.ts"

const environment = { DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C" }
const patience = ["-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=180"]

/** The package lists are fetched once a run. */
let updated: Promise<void> | undefined
/** One at a time: dpkg has one lock. */
let before: Promise<unknown> = Promise.resolve()

const apt = async (place: Installing, ...args: ReadonlyArray<string>): Promise<void> => {
  const { code, output } = await runPatiently(["apt-get", "-q", "-y", ...patience, ...args], place, environment)
  if (code !== 0) throw new Refused(`apt-get ${args.join(" ")} failed:\n${output}`)
}

/** Installs a package of the distribution (or some, with spaces between), which apt verifies; says what to do where it may not. */
export const installPackage = (name: string, what: string, place: Installing): Promise<void> => {
  const mine = before.then(async () => {
    if (tool("apt-get") === undefined || process.getuid?.() !== 0) {
      throw new Refused(`${what} is missing and cannot be installed by this user: install it (on Debian: ${name}).`)
    }
    place.say(`installing ${name} …`)
    updated ??= apt(place, "update")
    await updated
    await apt(place, "install", "--no-install-recommends", ...name.split(" "))
  })
  before = mine.catch(() => {})
  return mine
}
