// Schemathesis, which we did not write, against the whole REST surface of a running shop: what the document at /openapi.json
// allows and forbids is asked, and every answer has to be one that it promises. Chance is for the night: `bun run nightly:fuzz`.
import { afterAll, beforeAll, expect, test } from "bun:test"
import { join } from "node:path"
import { fuzz, type Fuzzing, install } from "../scripts/fuzz/Fuzz.ts"
import { furnish } from "../scripts/fuzz/Furnished.ts"
import { Refused } from "../scripts/server/Server.ts"
import { temporaryFolder } from "./support/Processes.ts"
import { restShop } from "./support/RestShop.ts"

const shop = restShop()
const folder = temporaryFolder()
afterAll(folder.remove)

let missing: string | undefined
beforeAll(async () => {
  await install().catch((error: unknown) => {
    if (!(error instanceof Refused) || process.env["CI"] === "true") throw error
    missing = error.message.split("\n")[0]
  })
}, 600_000)

/** Operations that the document has. */
const documented = async () => {
  const { paths } = Object(await (await fetch(`${shop().url}/openapi.json`)).json())
  return Object.values(paths).flatMap((path) => Object.keys(Object(path))).length
}

test("whoever asks, and for whatever: no answer is a 500, or any that the document does not promise", async () => {
  if (missing !== undefined) return console.log(`NOT RUN: the REST surface fuzzed: ${missing}`)
  const [shopper, admin] = await Promise.all([shop().token("FUZZY"), shop().token("ADMIN", "admin")])
  const known = await furnish(shop().url, shopper, admin)
  const ask = (who: string, token: string | undefined, mode: Fuzzing["mode"]) =>
    fuzz({ url: shop().url, token, known, seed: 1, phases: ["coverage"], mode, folder: join(folder.path, who) })
  const found = await Promise.all([
    ask("nobody", undefined, "positive"),
    ask("shopper", shopper, "all"),
    ask("admin", admin, "all")
  ])
  for (const { ok, output } of found) if (!ok) console.log(output)
  const operations = await documented()
  expect(found.map(({ ok, operations }) => ({ ok, operations }))).toEqual(found.map(() => ({ ok: true, operations })))
  for (const { requests } of found) expect(requests).toBeGreaterThan(operations)
  expect(shop().output).not.toContain("nobody foresaw")
}, 600_000)
