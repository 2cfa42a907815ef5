import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Go from "./Go.ts"
import { type Place, Refused, type Server } from "./Server.ts"

const version = "1.22.0"

/** The server, and what tests policies and makes wasm of them. */
const program: Go.Program = {
  name: "opa",
  package: "github.com/open-policy-agent/opa",
  version: `v${version}`,
  go: "1.25"
}

/** The shop's own policy. */
const policy = new URL("../../packages/infra/src/authorizer/policy/authz.rego", import.meta.url).pathname

/** Where it is, once it is built. */
export const opaIn = (cache: string): string => Go.pathOf(program, { cache, say: () => {} })

const addressOf = ({ port }: Place) => `http://127.0.0.1:${port("opa")}`

/** Data that is nowhere else: who has it is the one that was started here. */
const markIn = ({ folder }: Place) => join(folder, "mark.json")

/** Decides who may do what, by the policy of this clone. */
export const opa: Server = {
  name: "opa",
  version,
  image: `openpolicyagent/opa:${version}`,
  ports: { opa: 8181 },
  needs: [],
  readyWithinMs: 20_000,
  isBuilt: true,
  install: (place) => Go.install(program, place),
  prepare: async (place) => {
    if (!existsSync(markIn(place))) writeFileSync(markIn(place), JSON.stringify(crypto.randomUUID()))
    const address = `127.0.0.1:${place.port("opa")}`
    return {
      command: [
        Go.pathOf(program, place),
        "run",
        "--server",
        "--addr",
        address,
        "--disable-telemetry",
        "--log-level",
        "error",
        policy,
        "place.mark:mark.json"
      ]
    }
  },
  isReady: async (place) => {
    const answer: unknown = await fetch(`${addressOf(place)}/v1/data/place/mark`).then(
      (response) => (response.ok ? response.json() : undefined),
      () => undefined
    )
    if (answer === undefined) return false
    if (Object(answer).result === JSON.parse(readFileSync(markIn(place), "utf8"))) return true
    throw new Refused(`At ${addressOf(place)} answers another OPA.`)
  },
  settings: (place) => ({ OPA_URL: addressOf(place) })
}
