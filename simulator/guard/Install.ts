/**
 * To be imported before anything of the shop is: a named import of `node:crypto` cannot be replaced once it is bound, so
 * the modules that are simulated get ours instead, while they are loaded.
 */
import { plugin } from "bun"
import { readFileSync } from "node:fs"

// A fiber would else carry a context of its own for node:async_hooks, made anew each time it waits: nobody here reads it.
Object.assign(process, { getBuiltinModule: undefined })

const simulated = /\/(packages\/[^/]+\/src|node_modules\/(@effect\/[^/]+|effect)\/(dist|src))\/.*\.(ts|js)$/
const ours = JSON.stringify(new URL("./Crypto.ts", import.meta.url).pathname)

plugin({
  name: "merkato-simulator-guard",
  setup: (build) => {
    build.onLoad({ filter: simulated }, ({ path }) => ({
      contents: readFileSync(path, "utf8").replaceAll(/(\bfrom\s*)["'](?:node:)?crypto["']/g, `$1${ours}`),
      loader: path.endsWith(".ts") ? "ts" : "js"
    }))
  }
})
