// Asks a shop of its own whatever its OpenAPI document allows and forbids, as nobody, as a shopper and as an administrator, and
// ends with 1 when an answer is not what the document promises. For a nightly job (tests/fuzz.test.ts does a little of it).
import { chmodSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { freePort } from "@merkato/infra/runtime/Ports"
import { fuzz, install } from "./fuzz/Fuzz.ts"
import { furnish } from "./fuzz/Furnished.ts"
import * as Options from "./Options.ts"

const usage = `bun run nightly:fuzz [--seconds 600] [--seed N]
Asks a shop of its own whatever its OpenAPI document allows and forbids; ends with 1 when an answer is not what it promises.
  --seconds  for each of three: nobody, a shopper, an administrator
  --seed     with the one that a run printed, the same requests come again
  --install  only fetches the fuzzer`

const options = Options.read(usage, {
  install: { type: "boolean", default: false },
  seconds: { type: "string", default: "600" },
  seed: { type: "string", default: String(Math.floor(Math.random() * 1e9)) }
})
const [seconds, seed] = [Options.count("seconds", options.seconds), Options.count("seed", options.seed, 0)]

const root = resolve(import.meta.dir, "..")

/** A shop on an embedded Postgres, in a folder that goes with it. */
const openShop = async () => {
  const folder = mkdtempSync(join(tmpdir(), "merkato-fuzz-"))
  chmodSync(folder, 0o755)
  const port = await freePort()
  const child = Bun.spawn(
    [process.execPath, "apps/shop/src/main.ts", "--no-seed", "--data-dir", folder, "--port", String(port)],
    {
      cwd: root,
      env: { ...process.env, MERKATO_TRACE_SAMPLING: "0", MERKATO_LOG_FORMAT: "json", MERKATO_LOG_LEVEL: "Error" },
      stdio: ["ignore", Bun.file(join(folder, "log")), "inherit"]
    }
  )
  const url = `http://127.0.0.1:${port}`
  const isReady = () =>
    fetch(`${url}/readyz`).then(
      ({ ok }) => ok,
      () => false
    )
  while (!(await isReady())) {
    if (child.exitCode !== null) throw new Error("The shop did not start")
    await Bun.sleep(200)
  }
  const tokenOf = async (role: "shopper" | "admin") => {
    const command = ["apps/merkato/src/main.ts", "token", "--user", "USER-1", "--role", role, "--data-dir", folder]
    const asked = Bun.spawn([process.execPath, ...command], { cwd: root, stdio: ["ignore", "pipe", "inherit"] })
    return (await new Response(asked.stdout).text()).trim()
  }
  const close = async () => {
    child.kill("SIGTERM")
    await child.exited
    rmSync(folder, { recursive: true, force: true })
  }
  return { url, folder, tokenOf, close }
}

const main = async (): Promise<boolean> => {
  const shop = await openShop()
  try {
    const known = await furnish(shop.url, await shop.tokenOf("shopper"), await shop.tokenOf("admin"))
    let good = true
    for (const who of ["nobody", "shopper", "admin"] as const) {
      const token = who === "nobody" ? undefined : await shop.tokenOf(who)
      console.log(`── ${who}, seed ${seed}, ${seconds} s`)
      const { ok, operations, requests, output } = await fuzz({
        url: shop.url,
        token,
        known,
        seed,
        phases: ["coverage", "fuzzing", "stateful"],
        mode: "all",
        // Time ends it.
        examples: 10_000,
        seconds,
        folder: join(shop.folder, who)
      })
      console.log(ok ? `ok: ${requests} requests to ${operations} operations` : output)
      good &&= ok
    }
    return good
  } finally {
    await shop.close()
  }
}

await install()
if (!options.install) process.exit((await main()) ? 0 : 1)
