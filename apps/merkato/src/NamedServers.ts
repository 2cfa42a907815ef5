/** The servers besides Postgres that variables name: a shop does not start while one of them is away. */
import { Config, Effect, Option } from "effect"
import { connect } from "node:net"
import * as Addresses from "@merkato/infra/config/Addresses"

/** Where a variable says that its servers are; undefined when it cannot be read. */
type Read = (text: string) => ReadonlyArray<Addresses.Address> | undefined

/** Milliseconds for a connection to come about. */
const connectMs = 3_000

/** The ports of URLs that tell none. */
const usualPorts: Readonly<Record<string, number>> = {
  "http:": 80,
  "https:": 443,
  "redis:": 6379,
  "rediss:": 6379,
  "mqtt:": 1883,
  "mqtts:": 8883,
  "amqp:": 5672,
  "amqps:": 5671
}

const url: Read = (text) => {
  const { hostname, port, protocol } = URL.canParse(text) ? new URL(text) : { hostname: "", port: "", protocol: "" }
  const usual = usualPorts[protocol]
  if (usual === undefined || hostname === "") return undefined
  return [{ host: hostname.replaceAll(/[[\]]/g, ""), port: port === "" ? usual : Number(port) }]
}

const variables: ReadonlyArray<readonly [variable: string, read: Read]> = [
  ["KAFKA_BROKERS", (text) => Addresses.parse(text)],
  ["SCHEMA_REGISTRY_URL", url],
  ["REDIS_URL", url],
  ["OPENSEARCH_URL", url],
  ["CASSANDRA_CONTACT_POINTS", (text) => Addresses.parse(text, 9042)],
  ["CLICKHOUSE_URL", url],
  ["RABBITMQ_URL", url],
  ["AMQP_URL", url],
  ["MQTT_URL", url],
  ["OPA_URL", url]
]

/** Connects and hangs up; fails with the reason why it cannot. */
const reach = ({ host, port }: Addresses.Address): Effect.Effect<void, string> =>
  Effect.acquireUseRelease(
    Effect.sync(() => connect({ host, port })),
    (socket) =>
      Effect.callback<void, string>((resume) => {
        socket.once("connect", () => resume(Effect.void))
        socket.once("error", ({ message }) => resume(Effect.fail(`${host}:${port}: ${message}`)))
      }),
    (socket) => Effect.sync(() => socket.destroy())
  ).pipe(
    Effect.timeoutOrElse({
      duration: connectMs,
      orElse: () => Effect.fail(`${host}:${port}: no answer in ${connectMs / 1_000} s`)
    })
  )

/** Whether somebody listens where the variables say (one of several is enough): those that are named, and why some are not there. */
export const look = Effect.gen(function* () {
  const named: Array<string> = []
  const away: Array<string> = []
  for (const [variable, read] of variables) {
    // RABBITMQ_URL goes before AMQP_URL.
    if (variable === "AMQP_URL" && named.includes("RABBITMQ_URL")) continue
    const given = yield* Effect.orDie(Config.option(Config.String(variable)))
    if (Option.isNone(given)) continue
    named.push(variable)
    const addresses = read(given.value)
    if (addresses === undefined) away.push(`${variable} names no server`)
    else {
      yield* Effect.firstSuccessOf(addresses.map(reach)).pipe(
        Effect.catch((reason) => Effect.sync(() => away.push(`${variable}: ${reason}`)))
      )
    }
  }
  return { named, away }
})
