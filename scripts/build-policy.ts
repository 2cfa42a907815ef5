// Makes the wasm that the shop evaluates of the policy in Rego, and writes down of what it was made: a test compares.
//   bun scripts/build-policy.ts     (with the OPA of scripts/servers, which is built first where it is missing)
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { actionsPath, verdictPath } from "@merkato/infra/authorizer/OpaPolicy"
import { opa, opaIn } from "./server/Opa.ts"
import { run } from "./server/Server.ts"
import * as Servers from "./server/Servers.ts"

export const folder = new URL("../packages/infra/src/authorizer/policy/", import.meta.url).pathname
export const rego = join(folder, "authz.rego")
export const wasm = join(folder, "authz.wasm")
/** The checksums of the Rego, and of the wasm that was made of it. */
const sums = () =>
  [rego, wasm]
    .map(
      (path) =>
        `${new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex")}  ${path.slice(folder.length)}\n`
    )
    .join("")

const succeed = async (command: ReadonlyArray<string>, cwd: string) => {
  const { code, output } = await run(command, {}, cwd)
  if (code !== 0) throw new Error(`${command.join(" ")} failed:\n${output}`)
}

/** The wasm that this OPA makes of the policy. The same OPA makes the same of the same. */
export const built = async (opa: string): Promise<Uint8Array> => {
  const work = mkdtempSync(join(tmpdir(), "merkato-policy-"))
  try {
    const entrypoints = [verdictPath, actionsPath].flatMap((path) => ["-e", path])
    await succeed([opa, "build", "-t", "wasm", ...entrypoints, "-o", join(work, "bundle.tar.gz"), "authz.rego"], folder)
    await succeed(["tar", "-xzf", "bundle.tar.gz", "/policy.wasm"], work)
    return readFileSync(join(work, "policy.wasm"))
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

if (import.meta.main) {
  const cache = Servers.defaultCache()
  await Servers.fetch([opa], { cache, folder: join(cache, "servers") })
  writeFileSync(wasm, await built(opaIn(cache)))
  writeFileSync(join(folder, "authz.sha256"), sums())
}
