import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Python from "./Python.ts"
import { type Place, Refused, type Server } from "./Server.ts"

const version = "26.5.1"

/** The server itself is in no registry of packages: this is its engine, as a library. */
const engine: Python.Programs = {
  name: `clickhouse-engine-${version}`,
  requirements: join(import.meta.dir, "clickhouse.txt")
}

const program = join(import.meta.dir, "clickhouse.py")

const addressOf = ({ port }: Place) => `http://127.0.0.1:${port("http")}`

const passwordIn = ({ folder }: Place) => join(folder, "password")
const passwordOf = (place: Place) => readFileSync(passwordIn(place), "utf8")

/** ClickHouse's engine behind a small part of its HTTP interface; clickhouse.py tells which. */
export const clickhouse: Server = {
  name: "clickhouse",
  version,
  image: `clickhouse/clickhouse-server:${version}`,
  ports: { http: 8123 },
  needs: [],
  readyWithinMs: 60_000,
  isBuilt: true,
  install: (place) => Python.install(engine, place),
  prepare: async (place) => {
    mkdirSync(place.folder, { recursive: true })
    if (!existsSync(passwordIn(place))) writeFileSync(passwordIn(place), crypto.randomUUID(), { mode: 0o600 })
    return {
      command: [
        Python.pathOf(engine, "python", place),
        program,
        String(place.port("http")),
        join(place.folder, "data")
      ],
      environment: { CLICKHOUSE_PASSWORD: passwordOf(place) }
    }
  },
  isReady: async (place) => {
    const authorization = `Basic ${btoa(`default:${passwordOf(place)}`)}`
    const answer = await fetch(`${addressOf(place)}/?query=${encodeURIComponent("select version()")}`, {
      headers: { authorization },
      signal: AbortSignal.timeout(2_000)
    }).catch(() => undefined)
    if (answer === undefined) return false
    // Nobody else has the password.
    if (!answer.ok) throw new Refused(`At ${addressOf(place)} answers another server.`)
    return (await answer.text()).startsWith(`${version}.`)
  },
  settings: (place) => ({
    CLICKHOUSE_URL: addressOf(place)
      .replace("//", `//default:${passwordOf(place)}@`)
      .concat("/merkato")
  })
}
