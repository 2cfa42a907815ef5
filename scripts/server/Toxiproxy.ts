import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Go from "./Go.ts"
import { type Place, Refused, type Server } from "./Server.ts"

const version = "2.12.0"

const program: Go.Program = {
  name: "toxiproxy",
  package: "github.com/Shopify/toxiproxy/v2/cmd/server",
  version: `v${version}`,
  go: "1.23"
}

const addressOf = ({ port }: Place) => `http://127.0.0.1:${port("toxiproxy")}`

/** A link that leads nowhere and is named for this place: who has it is the one that was started here. */
const markIn = ({ folder }: Place) => join(folder, "mark")
const configurationIn = ({ folder }: Place) => join(folder, "proxies.json")

/** Links that can be slowed, silenced and cut: what stands between the shop and its servers when that is tested. */
export const toxiproxy: Server = {
  name: "toxiproxy",
  version,
  image: `ghcr.io/shopify/toxiproxy:${version}`,
  ports: { toxiproxy: 8474 },
  needs: [],
  readyWithinMs: 20_000,
  isBuilt: true,
  install: (place) => Go.install(program, place),
  prepare: async (place) => {
    if (!existsSync(markIn(place))) writeFileSync(markIn(place), crypto.randomUUID())
    const mark = readFileSync(markIn(place), "utf8")
    const links = [{ name: mark, listen: "127.0.0.1:0", upstream: "127.0.0.1:1", enabled: false }]
    writeFileSync(configurationIn(place), JSON.stringify(links))
    const port = String(place.port("toxiproxy"))
    return {
      command: [Go.pathOf(program, place), "-host", "127.0.0.1", "-port", port, "-config", configurationIn(place)]
    }
  },
  isReady: async (place) => {
    const links: unknown = await fetch(`${addressOf(place)}/proxies`).then(
      (answer) => (answer.ok ? answer.json() : undefined),
      () => undefined
    )
    if (links === undefined) return false
    // It answers before it has read its configuration.
    if (Object.keys(Object(links)).length === 0) return false
    if (readFileSync(markIn(place), "utf8") in Object(links)) return true
    throw new Refused(`At ${addressOf(place)} answers another Toxiproxy.`)
  },
  settings: (place) => ({ TOXIPROXY_URL: addressOf(place) })
}
