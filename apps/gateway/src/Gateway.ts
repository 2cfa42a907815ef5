import { Config, Console, Duration, Effect, Layer, Option, Redacted } from "effect"
import { Command, Flag } from "effect/cli"
import { KeepsHouse } from "@merkato/infra/context/BoundedContext"
import * as DatabaseUrl from "@merkato/infra/postgres/DatabaseUrl"
import * as Telemetry from "@merkato/infra/telemetry/Telemetry"
import * as Folder from "@merkato/infra/runtime/Folder"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import * as Deployment from "@merkato/services/deployment"
import { gateway as routes } from "@merkato/services/gateway/index"
import { parsePeer } from "@merkato/services/peers"

const flags = {
  peer: Flag.String("peer").pipe(
    Flag.withDescription("Where contexts answer, as in orders,cart=http://127.0.0.1:8101; may be repeated"),
    Flag.atLeast(1)
  ),
  port: Flag.Int("port").pipe(Flag.withDescription("Port to listen on (default 8080)"), Flag.withDefault(8080)),
  host: Flag.String("host").pipe(
    Flag.withDescription("Address to listen on (default 0.0.0.0)"),
    Flag.withDefault("0.0.0.0")
  ),
  dataDir: Folder.dataDir("Folder with the keys that the processes of the shop share, or MERKATO_SIGNING_KEYS")
}

/** The bus, for live connections: Kafka where `KAFKA_BROKERS` names one, else at a database that is named, else none. */
const live = Effect.gen(function* () {
  const brokers = yield* Config.option(Config.String("KAFKA_BROKERS"))
  if (Option.isSome(brokers)) return Deployment.live(Redacted.make(""))
  for (const variable of ["MERKATO_BUS_DATABASE_URL", "DATABASE_URL"]) {
    const url = yield* Config.option(Config.Redacted(variable))
    if (Option.isNone(url)) continue
    yield* DatabaseUrl.check(url.value, variable)
    return Deployment.live(url.value)
  }
  return Layer.empty
})

const run = Effect.fnUntraced(
  function* (options: {
    readonly peers: ReadonlyArray<Deployment.Peer>
    readonly port: number
    readonly hostname: string
    readonly dataDir: string
  }) {
    const { peers, port, hostname, dataDir } = options
    const edge = Deployment.http(
      routes(peers.flatMap(({ names }) => names)).pipe(
        Layer.provide(yield* live),
        Layer.provide(Deployment.remote(peers)),
        Layer.provide(Deployment.policyPeers(peers)),
        Layer.provide(Deployment.readiness(Deployment.needsOf([], true))),
        Layer.provide(Deployment.policies(dataDir)),
        Layer.provide(Deployment.security(dataDir)),
        Layer.provide(Switchboard.layer)
      ),
      { port, hostname, drainTimeout: Duration.seconds(10) }
    ).pipe(Layer.provide(Layer.succeed(KeepsHouse, false)))
    yield* Layer.build(edge)
    yield* Console.log(`The gateway is open at http://localhost:${port}`)
    return yield* Effect.never
  },
  Effect.scoped,
  Effect.provide(Telemetry.layer("merkato-gateway"))
)

export const gateway = Command.make(
  "gateway",
  flags,
  Effect.fnUntraced(function* ({ peer, port, host, dataDir }) {
    const peers = yield* Effect.forEach(peer, parsePeer)
    return yield* run({ peers, port, hostname: host, dataDir })
  })
).pipe(Command.withDescription("Run the edge of the shop alone; the contexts answer elsewhere"))
