import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { java } from "./Java.ts"
import * as Maven from "./Maven.ts"
import { type Installing, type Place, Refused, run, type Server } from "./Server.ts"

const version = "2.6.13.Final"

/** Everything it is made of, as one archive. */
export const jars: Maven.Jars = {
  name: "apicurio",
  artifacts: [`io.apicurio:apicurio-registry-app:${version}:tar.gz:all`]
}

const programIn = ({ cache }: Installing) => join(cache, `apicurio-${version}`)

/** Unpacked beside its place and renamed: what is there is whole. */
const unpack = async (place: Installing): Promise<void> => {
  const program = programIn(place)
  if (existsSync(program)) return
  const draft = mkdtempSync(`${program}-`)
  const { code, output } = await run(["tar", "-xzf", Maven.paths(jars, place)[0] ?? "", "-C", draft])
  if (code !== 0) {
    rmSync(draft, { recursive: true, force: true })
    throw new Refused(`Apicurio's archive could not be unpacked:\n${output}`)
  }
  renameSync(draft, program)
}

const markIn = ({ folder }: Place) => join(folder, "mark")

const header = "X-Merkato-Server"

/** The API that Confluent's registry has, too. */
const urlOf = ({ port }: Place) => `http://127.0.0.1:${port("http")}/apis/ccompat/v7`

export const apicurio: Server = {
  name: "apicurio",
  version,
  image: `apicurio/apicurio-registry-mem:${version}`,
  ports: { http: 8081 },
  needs: [],
  readyWithinMs: 120_000,
  install: async (place) => {
    await Maven.install(jars, place)
    await unpack(place)
  },
  prepare: async (place) => {
    const program = await java({ major: 17 }, place)
    mkdirSync(place.folder, { recursive: true })
    const mark = crypto.randomUUID()
    writeFileSync(markIn(place), mark)
    return {
      command: [
        program,
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
        "-Xms128m",
        "-Xmx384m",
        "-XX:+UseSerialGC",
        "-Dquarkus.http.host=127.0.0.1",
        `-Dquarkus.http.port=${place.port("http")}`,
        // Each answer tells which server gave it.
        `-Dquarkus.http.header."${header}".value=${mark}`,
        "-jar",
        join(programIn(place), `apicurio-registry-app-${version}-runner.jar`)
      ]
    }
  },
  isReady: async (place) => {
    const response = await fetch(`${urlOf(place)}/subjects`, { signal: AbortSignal.timeout(2_000) }).catch(
      () => undefined
    )
    // While it starts it answers anything.
    if (response?.ok !== true) return false
    if (response.headers.get(header) !== readFileSync(markIn(place), "utf8")) {
      throw new Refused(`At 127.0.0.1:${place.port("http")} answers another server.`)
    }
    return true
  },
  settings: (place) => ({ SCHEMA_REGISTRY_URL: urlOf(place) })
}
