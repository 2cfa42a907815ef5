// A small server for the tests of scripts/servers: tells at its port which one it is.
//   bun EchoServer.ts serve PORT ID      is one
//   bun EchoServer.ts up FOLDER PORT     starts one as scripts/servers does, and waits for an answer that never comes
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { type Server } from "../../scripts/server/Server.ts"
import * as Servers from "../../scripts/server/Servers.ts"

export const idAt = (port: number): Promise<string | undefined> =>
  fetch(`http://127.0.0.1:${port}/`, { signal: AbortSignal.timeout(5_000) }).then(
    (response) => response.text(),
    () => undefined
  )

/** Its id is what makes it known; whoever else answers is a stranger. */
export const echo = (name: string, port: number, more: Partial<Server> = {}): Server => ({
  name,
  version: "1",
  image: "none",
  ports: { http: port },
  needs: [],
  readyWithinMs: 20_000,
  install: async () => {},
  prepare: async (place) => {
    mkdirSync(join(place.folder, "data"), { recursive: true })
    return { command: [process.execPath, import.meta.path, "serve", String(place.port("http")), name] }
  },
  isReady: async (place) => (await idAt(place.port("http"))) === name,
  settings: (place) => ({ ECHO_URL: `http://127.0.0.1:${place.port("http")}` }),
  ...more
})

if (import.meta.main) {
  const [, , verb, first = "", second = ""] = process.argv
  if (verb === "serve") {
    Bun.serve({ hostname: "127.0.0.1", port: Number(first), fetch: () => new Response(second) })
  } else {
    const never = echo("slow", Number(second), { isReady: async () => false })
    await Servers.up([never], { cache: first, folder: first }, { freePorts: false, owner: undefined })
  }
}
