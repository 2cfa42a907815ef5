import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import { homedir, tmpdir } from "node:os"
import { join } from "node:path"
import { freePort } from "@merkato/infra/runtime/Ports"
import * as RunningProcess from "@merkato/infra/runtime/RunningProcess"
import { apicurio } from "./Apicurio.ts"
import { cassandra } from "./Cassandra.ts"
import { clickhouse } from "./ClickHouse.ts"
import { debezium } from "./Debezium.ts"
import { kafka } from "./Kafka.ts"
import { mosquitto } from "./Mosquitto.ts"
import { opa } from "./Opa.ts"
import { opensearch } from "./OpenSearch.ts"
import * as Process from "./Process.ts"
import { rabbitmq } from "./RabbitMq.ts"
import { redis } from "./Redis.ts"
import { s3 } from "./S3.ts"
import { type Place, Refused, type Server } from "./Server.ts"
import { toxiproxy } from "./Toxiproxy.ts"

/** All there are; a further one is a file beside this one, and a name here and in compose.yaml. */
export const servers: ReadonlyArray<Server> = [
  kafka,
  redis,
  opensearch,
  cassandra,
  clickhouse,
  s3,
  toxiproxy,
  apicurio,
  debezium,
  opa,
  mosquitto,
  rabbitmq
]

export interface Where {
  /** Downloads, shared and kept. */
  readonly cache: string
  /** Configurations, data, logs, and what runs: a folder for each server. */
  readonly folder: string
}

/** Outside of any clone: what is there once is there for all of them. */
export const defaultCache = (): string =>
  process.env["MERKATO_CACHE_DIR"] ??
  join(
    process.env["XDG_CACHE_HOME"] ?? join(process.env["HOME"] === undefined ? tmpdir() : homedir(), ".cache"),
    "merkato"
  )

type Ports = Readonly<Record<string, number>>
type Settings = Readonly<Record<string, string>>

/** What is written down about a server that was started. */
interface Running extends RunningProcess.RunningProcess {
  readonly version: string
  readonly ports: Ports
}

const folderOf = ({ folder }: Where, { name }: Server) => join(folder, name)
const runningIn = (where: Where, server: Server) => join(folderOf(where, server), "running.json")
const portsIn = (where: Where, server: Server) => join(folderOf(where, server), "ports.json")
export const logOf = (where: Where, server: Server): string => join(folderOf(where, server), "log")

const read = <A>(path: string): A | undefined => {
  try {
    return JSON.parse(readFileSync(path, "utf8"))
  } catch {
    return undefined
  }
}

/** The server that runs in this place, if one does. */
const running = (where: Where, server: Server): Running | undefined => {
  const written = read<Running>(runningIn(where, server))
  return written !== undefined && RunningProcess.isRunning(written) ? written : undefined
}

export const say = (server: Server, line: string): void => console.error(`${server.name} ${server.version}: ${line}`)

const placeOf = (where: Where, server: Server, ports: Ports, needed: Settings = {}): Place => ({
  cache: where.cache,
  folder: folderOf(where, server),
  say: (line) => say(server, line),
  port: (name) => {
    const port = ports[name]
    if (port === undefined) throw new Error(`${server.name} has no port called ${name}`)
    return port
  },
  setting: (name) => {
    const value = needed[name]
    if (value === undefined) throw new Error(`${server.name} needs no server that tells ${name}`)
    return value
  }
})

/** Whether somebody listens at a port. (Connections of a server that is gone may still hold it for a minute: no matter.) */
const isTaken = (port: number) =>
  new Promise<boolean>((resolve) => {
    const probe = connect({ port, host: "127.0.0.1" })
    const tell = (taken: boolean) => {
      probe.destroy()
      resolve(taken)
    }
    probe.once("connect", () => tell(true)).once("error", () => tell(false))
  })

/** The ports a server had here before; else free ones, or its own. */
const portsFor = async (where: Where, server: Server, options: UpOptions): Promise<Ports> => {
  const before = read<Ports>(portsIn(where, server))
  if (before !== undefined) return before
  if (!options.freePorts) return server.ports
  const ports: Record<string, number> = {}
  for (const name of Object.keys(server.ports)) ports[name] = await freePort(options.owner)
  return ports
}

/** Milliseconds that ports are waited for: a server that was killed holds its own until the last of its memory is given back. */
const portsFreeWithinMs = 10_000

const refuseOccupied = async (server: Server, ports: Ports) => {
  const until = Date.now() + portsFreeWithinMs
  for (const [name, port] of Object.entries(ports)) {
    for (let told = false; await isTaken(port); told = true) {
      if (Date.now() > until) {
        throw new Refused(
          `${server.name}: port ${port} (${name}) is in use by another program; --free-ports takes others.`
        )
      }
      if (!told) say(server, `waits for port ${port} (${name}) …`)
      await Bun.sleep(50)
    }
  }
}

const lastLines = (path: string, from: number, count = 15) => {
  try {
    return readFileSync(path).subarray(from).toString().trimEnd().split("\n").slice(-count).join("\n")
  } catch {
    return ""
  }
}

const sizeOf = (path: string) => (existsSync(path) ? statSync(path).size : 0)

/** What is installed at the same time by this process waits in turn; another process waits for the lock. */
let lastInstall: Promise<unknown> = Promise.resolve()
const installing = ({ cache }: Where, server: Server, place: Place): Promise<void> => {
  const lock = server.isBuilt === true ? `install-${server.name}` : "install"
  const mine = lastInstall.then(() => alone(cache, lock, () => server.install(place)))
  lastInstall = mine.catch(() => {})
  return mine
}

/** Starts one server and waits until it is ready; nothing runs when it is not. */
const bringUp = async (
  where: Where,
  server: Server,
  options: UpOptions,
  needed: Settings,
  began: (kept: Process.Kept) => void
): Promise<Ports> => {
  const here = running(where, server)
  if (here !== undefined) {
    const place = placeOf(where, server, here.ports)
    if (here.version === server.version && (await server.isReady(place, here.pid))) {
      say(server, `runs already, at ${addresses(here.ports)}`)
      return here.ports
    }
    throw new Refused(
      `${server.name} ${here.version} runs here (process ${here.pid}) but does not answer: take it down first.`
    )
  }
  const ports = await portsFor(where, server, options)
  const place = placeOf(where, server, ports, needed)
  await refuseOccupied(server, ports)
  await installing(where, server, place)
  mkdirSync(place.folder, { recursive: true })
  const { command, environment = {} } = await server.prepare(place)
  const log = logOf(where, server)
  const from = sizeOf(log)
  const since = performance.now()
  say(server, "starting …")
  const kept = await Process.start(command, { log, environment, owner: options.owner, cwd: place.folder })
  if (kept === undefined) throw new Refused(`${server.name} ended at once:\n${lastLines(log, from)}`)
  began(kept)
  const { pid, startedAt } = kept
  writeFileSync(
    runningIn(where, server),
    JSON.stringify({ pid, startedAt, version: server.version, ports } satisfies Running)
  )
  writeFileSync(portsIn(where, server), JSON.stringify(ports))
  for (const until = Date.now() + server.readyWithinMs; !(await server.isReady(place, pid)); await Bun.sleep(100)) {
    if (!RunningProcess.isRunning(kept)) {
      throw new Refused(`${server.name} ended before it was ready:\n${lastLines(log, from)}`)
    }
    if (Date.now() > until) {
      throw new Refused(`${server.name} was not ready in ${server.readyWithinMs / 1_000} s:\n${lastLines(log, from)}`)
    }
  }
  if (!RunningProcess.isRunning(kept)) throw new Refused(`${server.name} ended:\n${lastLines(log, from)}`)
  say(server, `ready after ${((performance.now() - since) / 1_000).toFixed(1)} s, at ${addresses(ports)}`)
  return ports
}

const addresses = (ports: Ports) =>
  Object.values(ports)
    .map((port) => `127.0.0.1:${port}`)
    .join(", ")

export interface UpOptions {
  readonly freePorts: boolean
  /** A process without which the servers are not wanted: they end soon after it. */
  readonly owner: number | undefined
}

/** With all that they need, in an order in which each comes after what it needs. */
const withNeeds = (wanted: ReadonlyArray<Server>): ReadonlyArray<Server> => {
  const all = new Set<Server>()
  const add = (server: Server) => {
    for (const name of server.needs) add(named(name))
    all.add(server)
  }
  wanted.forEach(add)
  return [...all]
}

export const named = (name: string): Server => {
  const server = servers.find((server) => server.name === name)
  if (server === undefined) {
    throw new Refused(`There is no server called ${name}; there are ${servers.map(({ name }) => name).join(", ")}.`)
  }
  return server
}

/** One `up` or `down` at a time in a place, and one that downloads at a time. */
export const alone = async <A>(folder: string, what: string, action: () => Promise<A>): Promise<A> => {
  mkdirSync(folder, { recursive: true })
  const lock = join(folder, `${what}.lock`)
  const mine = JSON.stringify(RunningProcess.self)
  for (let waited = false; ; await Bun.sleep(100)) {
    try {
      writeFileSync(lock, mine, { flag: "wx" })
      break
    } catch {
      const other = read<RunningProcess.RunningProcess>(lock)
      if (other === undefined || !RunningProcess.isRunning(other)) rmSync(lock, { force: true })
      else if (!waited) {
        console.error(`waiting for process ${other.pid}, which works in ${folder} …`)
        waited = true
      }
    }
  }
  try {
    return await action()
  } finally {
    rmSync(lock, { force: true })
  }
}

const settingsOf = (where: Where, server: Server, ports: Ports): Settings =>
  server.settings(placeOf(where, server, ports))

/** Starts servers, those that need each other one after another; all of them run in the end, or none that did not before. */
export const up = (wanted: ReadonlyArray<Server>, where: Where, options: UpOptions): Promise<Settings> =>
  alone(where.folder, "servers", async () => {
    const kept: Array<Process.Kept> = []
    const starting = new Map<Server, Promise<Ports>>()
    for (const server of withNeeds(wanted)) {
      const needed = server.needs.map(async (name) => {
        const other = named(name)
        return settingsOf(where, other, (await starting.get(other)) ?? {})
      })
      starting.set(
        server,
        Promise.all(needed).then((settings) =>
          bringUp(where, server, options, Object.assign({}, ...settings), (begun) => kept.push(begun))
        )
      )
    }
    const ended = await Promise.allSettled(starting.values())
    const failure = ended.find((result) => result.status === "rejected")
    if (failure !== undefined) {
      await Promise.all(kept.map(({ end }) => end()))
      throw failure.reason
    }
    await Promise.all(kept.map(({ letGo }) => letGo()))
    const settings: Record<string, string> = {}
    for (const [server, ports] of starting) Object.assign(settings, settingsOf(where, server, await ports))
    return settings
  })

/** Installs what servers run from, and starts nothing. */
export const fetch = async (wanted: ReadonlyArray<Server>, where: Where): Promise<void> => {
  for (const server of withNeeds(wanted)) {
    await installing(where, server, placeOf(where, server, server.ports))
  }
}

/** Stops servers, last ones first; what does not run is passed over. */
export const down = (wanted: ReadonlyArray<Server>, where: Where, options: { readonly wipe: boolean }): Promise<void> =>
  alone(where.folder, "servers", async () => {
    for (const server of withNeeds(wanted).toReversed()) {
      if (!wanted.includes(server)) continue
      const here = running(where, server)
      if (here !== undefined) {
        say(server, "stopping …")
        await Process.stop(here)
      }
      rmSync(runningIn(where, server), { force: true })
      if (options.wipe) rmSync(folderOf(where, server), { recursive: true, force: true })
      say(server, here === undefined ? "does not run" : "stopped")
    }
  })

export interface Status {
  readonly server: Server
  readonly state: "down" | "up" | "does not answer"
  readonly pid: number | undefined
  readonly ports: Ports
  readonly settings: Settings
}

export const status = async (where: Where, server: Server): Promise<Status> => {
  const here = running(where, server)
  if (here === undefined) return { server, state: "down", pid: undefined, ports: {}, settings: {} }
  const { pid, ports } = here
  const answers = await server.isReady(placeOf(where, server, ports), pid).catch(() => false)
  return { server, state: answers ? "up" : "does not answer", pid, ports, settings: settingsOf(where, server, ports) }
}
