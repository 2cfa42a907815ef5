import { existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { installPackages } from "./Apt.ts"
import { type Installing, type Place, Refused, run, type Server, tool } from "./Server.ts"

const version = "7.0.15"
/** The distribution mends its Redis without asking: the series is what is pinned. */
const series = version.replace(/\.\d+$/, ".")

const versionOf = async (program: string): Promise<string | undefined> =>
  /v=(\S+)/.exec((await run([program, "--version"])).output)?.[1]

const fits = async (program: string): Promise<boolean> => ((await versionOf(program)) ?? "").startsWith(series)

/**
 * Debian's server and its checking tool are one program that goes by its name. Taken from redis-tools, since installing
 * redis-server would also start one.
 */
const linkIn = ({ cache }: Installing) => join(cache, `redis-${version}`, "redis-server")

const find = async (place: Installing): Promise<string | undefined> => {
  for (const program of [tool("redis-server"), existsSync(linkIn(place)) ? linkIn(place) : undefined]) {
    if (program !== undefined && (await fits(program))) return program
  }
  return undefined
}

/** What Redis says about itself. */
const about = async ({ port }: Place): Promise<Readonly<Record<string, string>> | undefined> =>
  new Promise((resolve) => {
    let answer = ""
    const end = () => resolve(answer.includes("run_id:") ? Object.fromEntries(fieldsOf(answer)) : undefined)
    Bun.connect({
      hostname: "127.0.0.1",
      port: port("redis"),
      socket: {
        open: (socket) => void socket.write("INFO server\r\nQUIT\r\n"),
        data: (_, chunk) => void (answer += chunk.toString()),
        close: end,
        error: end,
        connectError: end
      }
    }).catch(end)
  })

const fieldsOf = (info: string) =>
  info.split("\r\n").flatMap((line) => {
    const at = line.indexOf(":")
    return at > 0 ? [[line.slice(0, at), line.slice(at + 1)] as const] : []
  })

export const redis: Server = {
  name: "redis",
  version,
  image: `redis:${version}`,
  ports: { redis: 6379 },
  needs: [],
  readyWithinMs: 20_000,
  install: async (place) => {
    if ((await find(place)) !== undefined) return
    if (tool("redis-check-rdb") === undefined) await installPackages(["redis-tools"], `Redis ${series}x`, place)
    const program = tool("redis-check-rdb")
    if (program !== undefined && !existsSync(linkIn(place))) {
      mkdirSync(join(linkIn(place), ".."), { recursive: true })
      symlinkSync(program, linkIn(place))
    }
    if ((await find(place)) === undefined) throw new Refused(`No Redis ${series}x is to be had here: install one.`)
  },
  prepare: async (place) => {
    const program = await find(place)
    if (program === undefined) throw new Refused(`Redis ${series}x is gone.`)
    const [config, data] = [join(place.folder, "redis.conf"), join(place.folder, "data")]
    mkdirSync(data, { recursive: true })
    writeFileSync(
      config,
      `bind 127.0.0.1\nport ${place.port("redis")}\ndir ${data}\ndaemonize no\nappendonly yes\nmaxmemory 256mb\n`
    )
    return { command: [program, config] }
  },
  isReady: async (place, pid) => {
    const redis = await about(place)
    if (redis === undefined) return false
    if (Number(redis["process_id"]) !== pid) {
      throw new Refused(`At 127.0.0.1:${place.port("redis")} answers another Redis (process ${redis["process_id"]}).`)
    }
    return redis["redis_version"]?.startsWith(series) === true
  },
  settings: ({ port }) => ({ REDIS_URL: `redis://127.0.0.1:${port("redis")}` })
}
