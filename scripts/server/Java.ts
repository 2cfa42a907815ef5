import { readdirSync } from "node:fs"
import { join } from "node:path"
import { installPackage } from "./Apt.ts"
import { type Installing, Refused, run, tool } from "./Server.ts"

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

/** A Java of at least this major version (or exactly this one), installed where that is possible. */
export const java = async (
  wanted: { readonly major: number; readonly exactly?: boolean },
  place: Installing
): Promise<string> => {
  const accepts = (major: number) => (wanted.exactly === true ? major === wanted.major : major >= wanted.major)
  const found = await find(accepts)
  if (found !== undefined) return found
  await installPackage(`openjdk-${wanted.major}-jre-headless`, `Java ${wanted.major}`, place)
  const installed = await find(accepts)
  if (installed === undefined) throw new Refused(`Java ${wanted.major} was installed but cannot be found in ${folder}.`)
  return installed
}
