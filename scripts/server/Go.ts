import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs"
import { join } from "node:path"
import { installPackages } from "./Apt.ts"
import { type Installing, Refused, run, runPatiently, tool } from "./Server.ts"

/** A program that is built from a module of Go. What is fetched for it is verified by Go's own checksum database. */
export interface Program {
  readonly name: string
  /** `github.com/owner/repository/cmd/name` */
  readonly package: string
  /** As in `v1.2.3`. */
  readonly version: string
  /** The Go it wants at least, as in `1.25`. */
  readonly go: string
}

const folderOf = ({ name, version }: Program, { cache }: Installing) => join(cache, `${name}-${version}`)

export const pathOf = (program: Program, place: Installing): string => join(folderOf(program, place), program.name)

const isAtLeast = (found: string, wanted: string): boolean => {
  const [major = 0, minor = 0] = found.split(".").map(Number)
  const [wantedMajor = 0, wantedMinor = 0] = wanted.split(".").map(Number)
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)
}

const versionOf = async (go: string): Promise<string | undefined> => {
  const { code, output } = await run([go, "version"], { GOTOOLCHAIN: "local" })
  return code === 0 ? /go(\d+\.\d+)/.exec(output)?.[1] : undefined
}

const find = async (accepts: (version: string) => boolean): Promise<string | undefined> => {
  for (const go of [tool("go"), "/usr/local/go/bin/go"]) {
    const version = go !== undefined && existsSync(go) ? await versionOf(go) : undefined
    if (go !== undefined && version !== undefined && accepts(version)) return go
  }
  return undefined
}

/** The Go that is fetched where there is none, or an older one: as a module, the way newer ones fetch each other. */
const toolchain = `golang.org/toolchain@v0.0.1-go1.26.8.linux-${process.arch === "arm64" ? "arm64" : "amd64"}`

const Downloaded = /"Dir": "([^"]+)"/

/** A Go of at least this version, fetched into the work folder by the distribution's own when there is no such Go. */
const go = async (wanted: string, work: string, place: Installing): Promise<string> => {
  const found = await find((version) => isAtLeast(version, wanted))
  if (found !== undefined) return found
  const older = await find(() => true)
  if (older === undefined) await installPackages(["golang-go"], `Go ${wanted}`, place)
  const helper = older ?? (await find(() => true))
  if (helper === undefined) throw new Refused("Go was installed but cannot be found.")
  const { code, output } = await runPatiently([helper, "mod", "download", "-json", toolchain], place, environment(work))
  const folder = Downloaded.exec(output)?.[1]
  if (code !== 0 || folder === undefined) throw new Refused(`Go ${wanted} could not be fetched:\n${output}`)
  // What is in a module is not executable to an older Go.
  await run([
    "find",
    join(folder, "bin"),
    join(folder, "pkg", "tool"),
    "-type",
    "f",
    "-exec",
    "chmod",
    "u+x",
    "{}",
    "+"
  ])
  return join(folder, "bin", "go")
}

/** Nothing of this machine's, and everything in one folder that goes afterwards. */
const environment = (work: string) => ({
  GOBIN: join(work, "bin"),
  GOPATH: join(work, "path"),
  GOCACHE: join(work, "cache"),
  GOMODCACHE: join(work, "modules"),
  GOFLAGS: "-buildvcs=false -modcacherw",
  GOTOOLCHAIN: "local",
  CGO_ENABLED: "0"
})

/**
 * Builds the program, unless it is in the cache. Not optimised, which takes a third less of the machine, and with caches of
 * its own that go afterwards: the program is all that is wanted.
 */
export const install = async (program: Program, place: Installing): Promise<void> => {
  if (existsSync(pathOf(program, place))) return
  const [folder, work] = [folderOf(program, place), join(place.cache, `.${program.name}-building`)]
  place.say(`building ${program.package}@${program.version} (once) …`)
  rmSync(work, { recursive: true, force: true })
  mkdirSync(work, { recursive: true })
  try {
    const { code, output } = await runPatiently(
      [
        await go(program.go, work, place),
        "install",
        "-gcflags=all=-N -l",
        "-ldflags=-s -w",
        `${program.package}@${program.version}`
      ],
      place,
      environment(work)
    )
    if (code !== 0) throw new Refused(`${program.package}@${program.version} could not be built:\n${output}`)
    const [built] = readdirSync(join(work, "bin"))
    if (built === undefined) throw new Refused(`Go built no program of ${program.package}.`)
    mkdirSync(folder, { recursive: true })
    renameSync(join(work, "bin", built), pathOf(program, place))
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}
