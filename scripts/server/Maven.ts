import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join, relative } from "node:path"
import { installPackages } from "./Apt.ts"
import { java } from "./Java.ts"
import { type Installing, Refused, runPatiently, tool } from "./Server.ts"

/** Jars that run as one server: what is asked for by name, and what that needs. */
export interface Jars {
  readonly name: string
  /** `group:artifact:version`, or `group:artifact:version:type:classifier` for a file that is taken without what it needs. */
  readonly artifacts: ReadonlyArray<string>
}

const pom = ({ name, artifacts }: Jars) => `<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>merkato.servers</groupId><artifactId>${name}</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
${artifacts
  .map((artifact) => {
    const [group, id, version, type, classifier] = artifact.split(":")
    const alone =
      type === undefined
        ? ""
        : `<type>${type}</type><classifier>${classifier}</classifier>` +
          "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"
    return `    <dependency><groupId>${group}</groupId><artifactId>${id}</artifactId><version>${version}</version>${alone}</dependency>`
  })
  .join("\n")}
  </dependencies>
</project>
`

/** Where a server's jars and their checksums are written down: `sha256  path`, sorted; every one of them, and no other. */
const lockOf = ({ name }: Jars) => join(import.meta.dir, `${name}.sha256`)

const repositoryOf = ({ cache }: Installing) => join(cache, "maven")

const sha256 = (path: string) => new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex")

const listed = (jars: Jars) =>
  readFileSync(lockOf(jars), "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [sum = "", path = ""] = line.split("  ")
      return { sum, path }
    })

/** Which jars are missing or are not what they should be. */
const wrong = (jars: Jars, place: Installing): ReadonlyArray<string> =>
  listed(jars)
    .filter(({ sum, path }) => {
      try {
        return sha256(join(repositoryOf(place), path)) !== sum
      } catch {
        return true
      }
    })
    .map(({ path }) => path)

/** Lets Maven fetch the jars; their paths within the repository. */
const resolve = async (jars: Jars, place: Installing): Promise<ReadonlyArray<string>> => {
  await java({ major: 17 }, place)
  if (tool("mvn") === undefined) await installPackages(["maven"], "Maven", place)
  mkdirSync(place.cache, { recursive: true })
  const work = mkdtempSync(join(place.cache, `.${jars.name}-`))
  try {
    writeFileSync(join(work, "pom.xml"), pom(jars))
    const [repository, list] = [repositoryOf(place), join(work, "classpath")]
    const { code, output } = await runPatiently(
      [
        "mvn",
        "-q",
        "-B",
        "-ntp",
        "-C",
        `-Dmaven.repo.local=${repository}`,
        `-Dmdep.outputFile=${list}`,
        "-Dmdep.includeScope=runtime",
        "dependency:build-classpath"
      ],
      place,
      {},
      work
    )
    if (code !== 0) throw new Refused(`Maven could not fetch the jars of ${jars.name}:\n${output}`)
    return readFileSync(list, "utf8")
      .trim()
      .split(":")
      .map((path) => relative(repository, path))
      .toSorted()
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

/** Fetches the jars, unless each of them is in the cache and right. */
export const install = async (jars: Jars, place: Installing): Promise<void> => {
  const missing = wrong(jars, place)
  if (missing.length === 0) return
  place.say(`fetching ${missing.length} jars (once) …`)
  // Maven takes what is there for right.
  for (const path of missing) rmSync(dirname(join(repositoryOf(place), path)), { recursive: true, force: true })
  const paths = await resolve(jars, place)
  const expected = listed(jars).map(({ path }) => path)
  const differ = [...paths.filter((path) => !expected.includes(path)), ...wrong(jars, place)]
  if (differ.length > 0) {
    throw new Refused(`Of ${jars.name}, these are not the jars that ${lockOf(jars)} lists:\n${differ.join("\n")}`)
  }
}

/** Where the files lie. */
export const paths = (jars: Jars, place: Installing): ReadonlyArray<string> =>
  listed(jars).map(({ path }) => join(repositoryOf(place), path))

/** What Java is to be given as its class path. */
export const classPath = (jars: Jars, place: Installing): string => paths(jars, place).join(":")

/** Writes down the jars as they are served now: after a change of version, and to be looked at before it is committed. */
export const pin = async (jars: Jars, place: Installing): Promise<number> => {
  const paths = await resolve(jars, place)
  const lock = lockOf(jars)
  writeFileSync(`${lock}.new`, paths.map((path) => `${sha256(join(repositoryOf(place), path))}  ${path}\n`).join(""))
  renameSync(`${lock}.new`, lock)
  return paths.length
}
