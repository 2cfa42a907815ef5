import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, Result } from "effect"
import { lastCause } from "@merkato/infra/runtime/LastCause"
import { connecting } from "@merkato/infra/delay/RabbitConnection"
import { unpackPackages } from "./Apt.ts"
import { type Installing, type Place, Refused, type Server } from "./Server.ts"

const version = "3.10.8"

/** The server, the parts of Erlang that it names, and a library that a plain machine may lack. */
const packages = [
  "rabbitmq-server",
  "libsctp1",
  ...["asn1", "base", "crypto", "eldap", "inets", "mnesia", "os-mon", "parsetools", "public-key", "runtime-tools"].map(
    (part) => `erlang-${part}`
  ),
  ...["snmp", "ssl", "syntax-tools", "tools", "xmerl"].map((part) => `erlang-${part}`)
]

const rootIn = ({ cache }: Installing) => join(cache, `rabbitmq-${version}`)

interface Program {
  /** Where Erlang is, and its machine within. */
  readonly erlang: string
  readonly machine: string
  /** Where RabbitMQ is. */
  readonly home: string
}

const programUnder = (root: string): Program | undefined => {
  const erlang = join(root, "usr/lib/erlang")
  const home = join(root, `usr/lib/rabbitmq/lib/rabbitmq_server-${version}`)
  const machine = existsSync(erlang) ? readdirSync(erlang).find((name) => name.startsWith("erts-")) : undefined
  return machine === undefined || !existsSync(home)
    ? undefined
    : { erlang, machine: join(erlang, machine, "bin"), home }
}

/** The machine's own, or the one in the cache. */
const programOf = (place: Installing): Program | undefined => programUnder("/") ?? programUnder(rootIn(place))

const shop = "merkato"

const secretIn = ({ folder }: Place) => join(folder, "secret")
/** Made for this place: who takes it is the one that was started here. Erlang's nodes know each other by it, too. */
const secretOf = (place: Place): string => readFileSync(secretIn(place), "utf8")
const urlOf = (place: Place) => `amqp://${shop}:${secretOf(place)}@127.0.0.1:${place.port("amqp")}`

/** RabbitMQ: what is to be done later waits there. */
export const rabbitmq: Server = {
  name: "rabbitmq",
  version,
  image: `rabbitmq:${version}`,
  ports: { amqp: 5672, nodes: 25672 },
  needs: [],
  readyWithinMs: 90_000,
  install: async (place) => {
    if (programOf(place) !== undefined) return
    await unpackPackages(packages, rootIn(place), `RabbitMQ ${version}`, place)
    if (programOf(place) === undefined) throw new Refused(`No RabbitMQ ${version} is to be had here: install one.`)
  },
  prepare: async (place) => {
    const program = programOf(place)
    if (program === undefined) throw new Refused(`RabbitMQ ${version} is gone.`)
    const [config, plugins, data] = [
      join(place.folder, "rabbitmq.conf"),
      join(place.folder, "enabled_plugins"),
      join(place.folder, "data")
    ]
    mkdirSync(data, { recursive: true })
    if (!existsSync(secretIn(place))) writeFileSync(secretIn(place), crypto.randomUUID(), { mode: 0o600 })
    writeFileSync(
      config,
      `listeners.tcp.1 = 127.0.0.1:${place.port("amqp")}
default_user = ${shop}
default_pass = ${secretOf(place)}
log.console = true
log.console.level = warning
`,
      { mode: 0o600 }
    )
    writeFileSync(plugins, "[].\n")
    const { erlang, machine, home } = program
    const boot = ["-noinput", "-boot", join(erlang, "bin/start_sasl"), "-s", "rabbit", "boot"]
    // Nobody turns round and round while there is nothing to do.
    const calm = ["+W", "w", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"]
    // A node of its own, on this machine alone, and without the daemon that would tell others of it.
    const node = [
      ["-sname", "rabbit@localhost", "-start_epmd", "false", "-erl_epmd_port", String(place.port("nodes"))],
      ["-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-kernel", "prevent_overlapping_partitions", "false"]
    ].flat()
    const quiet = ["-syslog", "logger", "[]", "-syslog", "syslog_error_logger", "false"]
    // Erlang takes the cookie from the home folder: on the command line everybody could read it.
    const cookie = join(data, ".erlang.cookie")
    if (!existsSync(cookie)) writeFileSync(cookie, secretOf(place), { mode: 0o400 })
    return {
      command: [join(machine, "erlexec"), ...boot, ...calm, ...node, ...quiet],
      environment: {
        ROOTDIR: erlang,
        BINDIR: machine,
        EMU: "beam",
        PROGNAME: "erl",
        HOME: data,
        ERL_LIBS: join(home, "plugins"),
        ERL_CRASH_DUMP: join(data, "erl_crash.dump"),
        RABBITMQ_HOME: home,
        RABBITMQ_NODENAME: "rabbit@localhost",
        RABBITMQ_CONF_ENV_FILE: join(data, "rabbitmq-env.conf"),
        RABBITMQ_CONFIG_FILE: config,
        RABBITMQ_ADVANCED_CONFIG_FILE: join(data, "advanced.config"),
        RABBITMQ_GENERATED_CONFIG_DIR: join(data, "config"),
        RABBITMQ_ENABLED_PLUGINS_FILE: plugins,
        RABBITMQ_PLUGINS_DIR: join(home, "plugins"),
        RABBITMQ_PLUGINS_EXPAND_DIR: join(data, "plugins"),
        RABBITMQ_MNESIA_BASE: join(data, "mnesia"),
        RABBITMQ_QUORUM_DIR: join(data, "quorum"),
        RABBITMQ_STREAM_DIR: join(data, "stream"),
        RABBITMQ_FEATURE_FLAGS_FILE: join(data, "feature_flags"),
        RABBITMQ_PID_FILE: join(data, "pid"),
        RABBITMQ_LOG_BASE: join(data, "log"),
        RABBITMQ_LOGS: "-",
        RABBITMQ_UPGRADE_LOG: join(data, "log", "upgrade.log")
      }
    }
  },
  isReady: async (place) => {
    const answer = await connecting(urlOf(place), "ready?").pipe(Effect.scoped, Effect.result, Effect.runPromise)
    if (Result.isSuccess(answer)) return true
    const reason = lastCause(answer.failure.cause)
    if (/ACCESS_REFUSED|VERSION|COMMAND_INVALID/.test(reason)) {
      throw new Refused(`At 127.0.0.1:${place.port("amqp")} answers another server: ${reason}.`)
    }
    return false
  },
  settings: (place) => ({ RABBITMQ_URL: urlOf(place) })
}
