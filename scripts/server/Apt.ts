import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs"
import { join } from "node:path"
import { type Installing, Refused, run, runPatiently, tool } from "./Server.ts"

const environment = { DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C" }
const patience = ["-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=180"]

/** The package lists are fetched once a run. */
let updated: Promise<void> | undefined
/** One at a time: dpkg has one lock. */
let before: Promise<unknown> = Promise.resolve()

const apt = async (place: Installing, folder: string, ...args: ReadonlyArray<string>): Promise<void> => {
  const { code, output } = await runPatiently(["apt-get", "-q", "-y", ...patience, ...args], place, environment, folder)
  if (code !== 0) throw new Refused(`apt-get ${args.join(" ")} failed:\n${output}`)
}

const inTurn = (work: () => Promise<void>): Promise<void> => {
  const mine = before.then(work)
  before = mine.catch(() => {})
  return mine
}

const isRoot = () => process.getuid?.() === 0

/** The list of what there is, once for this process. */
const upToDate = (place: Installing) => (updated ??= apt(place, "/", "update"))

/**
 * Unpacks packages of the distribution, which apt verifies, into a folder, and leaves the machine as it is: to install a server
 * would also start one.
 */
export const unpackPackages = (
  names: ReadonlyArray<string>,
  folder: string,
  what: string,
  place: Installing
): Promise<void> =>
  inTurn(async () => {
    if (existsSync(folder)) return
    if (tool("apt-get") === undefined || tool("dpkg") === undefined || !isRoot()) {
      throw new Refused(
        `${what} is missing and cannot be had by this user: install it (on Debian: ${names.join(", ")}).`
      )
    }
    place.say(`unpacking ${names.join(", ")} …`)
    await upToDate(place)
    // Nobody finds it there before it is whole.
    const part = `${folder}.${process.pid}`
    mkdirSync(part, { recursive: true })
    try {
      await apt(place, part, "download", ...names)
      for (const file of readdirSync(part)) {
        const { code, output } = await run(["dpkg", "-x", join(part, file), join(part, "root")])
        if (code !== 0) throw new Refused(`${file} cannot be unpacked:\n${output}`)
      }
      if (!existsSync(folder)) renameSync(join(part, "root"), folder)
    } finally {
      rmSync(part, { recursive: true, force: true })
    }
  })

/** Installs packages of the distribution, which apt verifies; says what to do where it may not. */
export const installPackages = (names: ReadonlyArray<string>, what: string, place: Installing): Promise<void> =>
  inTurn(async () => {
    const list = names.join(" ")
    if (tool("apt-get") === undefined || !isRoot()) {
      throw new Refused(`${what} is missing and cannot be installed by this user: install it (on Debian: ${list}).`)
    }
    place.say(`installing ${list} …`)
    await upToDate(place)
    await apt(place, "/", "install", "--no-install-recommends", ...names)
  })
