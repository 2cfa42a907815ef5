// What `scripts/servers` does once Bun and the dependencies are there. Its help is in the script.
import { existsSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { parseArgs } from "node:util"
import { jars as cassandraJars } from "./server/Cassandra.ts"
import { jars as apicurioFiles } from "./server/Apicurio.ts"
import { jars as debeziumJars } from "./server/Debezium.ts"
import { jars as kafkaJars, toolJars as kafkaToolJars } from "./server/Kafka.ts"
import * as Maven from "./server/Maven.ts"
import { jars as openSearchJars } from "./server/OpenSearch.ts"
import { Refused } from "./server/Server.ts"
import * as Servers from "./server/Servers.ts"

const options = {
  dir: { type: "string" },
  cache: { type: "string" },
  "free-ports": { type: "boolean", default: false },
  "as-long-as": { type: "string" },
  wipe: { type: "boolean", default: false },
  env: { type: "boolean", default: false },
  lines: { type: "string", default: "50" }
} as const

const parse = (args: ReadonlyArray<string>) => {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true, strict: true })
  } catch (error) {
    throw new Refused(`${error instanceof Error ? error.message : String(error)} (--help tells more)`)
  }
}

const number = (text: string, flag: string): number => {
  if (!/^\d+$/.test(text)) throw new Refused(`--${flag} wants a number, not ${text}`)
  return Number(text)
}

const print = (settings: Readonly<Record<string, string>>) => {
  for (const [name, value] of Object.entries(settings)) console.log(`${name}=${value}`)
}

/** A path as who called the script means it. */
const path = (given: string) => resolve(process.env["MERKATO_CALLED_FROM"] ?? ".", given)

const main = async (args: ReadonlyArray<string>): Promise<number> => {
  const { positionals, values } = parse(args)
  const [verb, ...names] = positionals
  const cache = path(values.cache ?? Servers.defaultCache())
  const where: Servers.Where = { cache, folder: values.dir === undefined ? join(cache, "servers") : path(values.dir) }
  const wanted = names.length === 0 ? Servers.servers : names.map(Servers.named)
  const owner = values["as-long-as"] === undefined ? undefined : number(values["as-long-as"], "as-long-as")
  switch (verb) {
    case "up":
      print(await Servers.up(wanted, where, { freePorts: values["free-ports"], owner }))
      return 0
    case "fetch":
      await Servers.fetch(wanted, where)
      return 0
    case "down":
      await Servers.down(wanted, where, { wipe: values.wipe })
      return 0
    case "status": {
      const all = await Promise.all(wanted.map((server) => Servers.status(where, server)))
      for (const { server, state, pid, ports, settings } of all) {
        if (values.env) print(settings)
        else {
          const at = Object.entries(ports).map(([name, port]) => `${name} 127.0.0.1:${port}`)
          console.log(
            [server.name, server.version, state, ...(pid === undefined ? [] : [`process ${pid}`]), ...at].join("  ")
          )
        }
      }
      return names.length === 0 || all.every(({ state }) => state === "up") ? 0 : 1
    }
    case "logs":
      for (const server of wanted) {
        const log = Servers.logOf(where, server)
        const lines = existsSync(log) ? readFileSync(log, "utf8").trimEnd().split("\n") : []
        console.log(`── ${server.name} (${log})`)
        for (const line of lines.slice(-number(values.lines, "lines"))) console.log(line)
      }
      return 0
    case "pin":
      const all = [kafkaJars, kafkaToolJars, openSearchJars, cassandraJars, apicurioFiles, debeziumJars]
      for (const jars of all) {
        console.log(`${jars.name}: ${await Maven.pin(jars, { cache, say: console.error })} jars`)
      }
      return 0
    default:
      throw new Refused(`Say what to do: up, fetch, down, status or logs (--help tells more)`)
  }
}

if (import.meta.main) {
  main(process.argv.slice(2)).then(
    (code) => process.exit(code),
    (error: unknown) => {
      console.error(error instanceof Refused ? error.message : error)
      process.exit(1)
    }
  )
}
