import { Config, Console, Duration, Effect, Layer, Option, type Redacted } from "effect"
import { Command, Flag } from "effect/cli"
import { HttpServer } from "effect/http"
import * as DatabaseUrl from "@merkato/infra/postgres/DatabaseUrl"
import * as Telemetry from "@merkato/infra/telemetry/Telemetry"
import * as Folder from "@merkato/infra/runtime/Folder"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import type { ContextName } from "@merkato/services/contexts"
import * as Deployment from "@merkato/services/deployment"
import * as PaymentProviders from "@merkato/services/paymentProviders"
import { Health } from "@merkato/services/gateway/Health"
import { BadTopology, parseContexts, parsePeer } from "@merkato/services/peers"

/** `MERKATO_ORDERS_DATABASE_URL` for a context with a database or role of its own, else `DATABASE_URL`; one that answers. */
const databaseUrl = Effect.fnUntraced(function* (name: string) {
  for (const variable of [`MERKATO_${name.toUpperCase()}_DATABASE_URL`, "DATABASE_URL"]) {
    const url = yield* Config.option(Config.Redacted(variable))
    if (Option.isNone(url)) continue
    yield* DatabaseUrl.check(url.value, variable)
    return url.value
  }
  return yield* new BadTopology({
    reason: "DATABASE_URL is not set; a service needs a Postgres that the others can reach, too"
  })
})

const drainTimeout = Duration.seconds(10)

const run = Effect.fnUntraced(
  function* (options: {
    readonly names: ReadonlyArray<ContextName>
    readonly peers: ReadonlyArray<Deployment.Peer>
    readonly port: number
    readonly hostname: string
    readonly dataDir: string
  }) {
    const { names, peers, port, hostname, dataDir } = options
    const urls = new Map<ContextName, Redacted.Redacted>()
    for (const name of names) {
      const url = yield* databaseUrl(name)
      urls.set(name, url)
      yield* Deployment.migrate([name], url)
    }
    const bus = yield* databaseUrl("bus")
    const service = Deployment.http(
      Layer.mergeAll(
        Deployment.rpcRoutes(names),
        Deployment.policyRoutes(names),
        Deployment.grpc(names, { hostname, drainTimeout }),
        Health
      ).pipe(
        Layer.provide(Deployment.running(names, { contexts: (name) => urls.get(name) ?? bus, bus })),
        Layer.provide(Deployment.remote(peers)),
        Layer.provide(Deployment.readiness(Deployment.needsOf(names, false))),
        Layer.provide(PaymentProviders.paymentGateway(urls.get("payments") ?? bus)),
        Layer.provide(Deployment.policies(dataDir)),
        Layer.provide(Deployment.security(dataDir)),
        Layer.provide(Switchboard.layer)
      ),
      { port, hostname, drainTimeout }
    )
    yield* Layer.build(
      Layer.provideMerge(
        Layer.effectDiscard(
          Effect.flatMap(HttpServer.HttpServer, ({ address }) =>
            Console.log(`${names.join(", ")} at port ${"port" in address ? address.port : port}`)
          )
        ),
        service
      )
    )
    return yield* Effect.never
  },
  Effect.scoped,
  Effect.provide(Telemetry.layer("merkato-service"))
)

const flags = {
  contexts: Flag.String("contexts").pipe(Flag.withDescription("Contexts to run here, as in orders,cart")),
  peer: Flag.String("peer").pipe(
    Flag.withDescription(
      "Where other contexts answer, as in inventory,payments=http://127.0.0.1:8102; may be repeated"
    ),
    Flag.atLeast(0)
  ),
  port: Flag.Int("port").pipe(Flag.withDescription("Port for RPC and health (default 8100)"), Flag.withDefault(8100)),
  host: Flag.String("host").pipe(
    Flag.withDescription("Address to listen on (default 127.0.0.1)"),
    Flag.withDefault("127.0.0.1")
  ),
  dataDir: Folder.dataDir("Folder with the keys that the processes of the shop share, or MERKATO_SIGNING_KEYS")
}

export const service = Command.make(
  "service",
  flags,
  Effect.fnUntraced(function* ({ contexts, peer, port, host, dataDir }) {
    const names = yield* parseContexts(contexts)
    const peers = yield* Effect.forEach(peer, parsePeer)
    return yield* run({ names, peers, port, hostname: host, dataDir })
  })
).pipe(Command.withDescription("Run some contexts of the shop as a service"))
