import { realServer } from "./RealServer.ts"

/** What stands between a client and its server, and can make it worse. */
export interface Link {
  /** `host:port` for clients. */
  readonly address: string
  /** Everything takes so much longer, each way, give or take half of it. */
  readonly slow: (latencyMs: number) => Promise<void>
  /** Connections stay open, new ones are taken, and nothing comes through any more; or nothing this way alone. */
  readonly silence: (way?: Way) => Promise<void>
  /** Connections break, and new ones are refused. */
  readonly cut: () => Promise<void>
  readonly mend: () => Promise<void>
}

/** To the server, where the client's requests and acknowledgements go, or from it. */
export type Way = "upstream" | "downstream"

const ways: ReadonlyArray<Way> = ["upstream", "downstream"]

/** The same server through a link. */
export const through = (url: string, { address }: Link): string => {
  const copy = new URL(url)
  copy.host = address
  // Not over a Unix socket.
  copy.searchParams.delete("host")
  return copy.href
}

export const hostOf = (url: string) => new URL(url).host

export interface Links {
  readonly to: (name: string, upstream: string, port: number) => Promise<Link>
  readonly stop: () => Promise<void>
}

/** Links through a real Toxiproxy. */
export const links = async (what: string): Promise<Links | undefined> => {
  const server = await realServer("toxiproxy", what)
  if (server === undefined) return undefined
  const ask = async (method: "POST" | "DELETE", path: string, body?: unknown) => {
    const answer = await fetch(`${server.settings["TOXIPROXY_URL"]}/proxies${path}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
    if (!answer.ok) throw new Error(`Toxiproxy: ${method} ${path}: ${answer.status} ${await answer.text()}`)
  }
  return {
    to: async (name, upstream, port) => {
      const address = `127.0.0.1:${port}`
      await ask("POST", "", { name, listen: address, upstream, enabled: true })
      const toxics: Array<string> = []
      const add = async (type: string, attributes: unknown, streams = ways) => {
        for (const stream of streams) {
          await ask("POST", `/${name}/toxics`, { name: stream, type, stream, attributes })
          toxics.push(stream)
        }
      }
      return {
        address,
        slow: (latency) => add("latency", { latency, jitter: latency / 2 }),
        silence: (way) => add("timeout", { timeout: 0 }, way === undefined ? ways : [way]),
        cut: () => ask("POST", `/${name}`, { enabled: false }),
        mend: async () => {
          for (const toxic of toxics.splice(0)) await ask("DELETE", `/${name}/toxics/${toxic}`)
          await ask("POST", `/${name}`, { enabled: true })
        }
      }
    },
    stop: server.stop
  }
}
