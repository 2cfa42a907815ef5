import { Duration, Layer, type Redacted } from "effect"
import { KeepsHouse } from "@merkato/infra/context/BoundedContext"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { contextNames } from "@merkato/services/contexts"
import * as Deployment from "@merkato/services/deployment"
import * as PaymentProviders from "@merkato/services/paymentProviders"
import { gateway } from "@merkato/services/gateway/index"
import { seeding } from "@merkato/services/seed"

export interface Place {
  readonly port: number
  readonly dataDir: string
}

/** Connections for the contexts of all processes together, and what one has at least and at most. */
const connections = { together: 32, least: 6, most: 16 } as const

const drainTimeout = Duration.seconds(10)

/** All contexts and the edge in one process of `processes`; the first one keeps house for all. */
export const everything = (
  {
    port,
    dataDir,
    processes,
    first,
    seed
  }: Place & {
    readonly processes: number
    readonly first: boolean
    readonly seed: boolean
  },
  url: Redacted.Redacted
) => {
  const maxConnections = Math.max(
    connections.least,
    Math.min(connections.most, Math.ceil(connections.together / processes))
  )
  return Deployment.http(
    Layer.mergeAll(
      gateway(contextNames),
      first ? Deployment.grpc(contextNames, { hostname: "0.0.0.0", drainTimeout }) : Layer.empty,
      seed ? seeding : Layer.empty
    ).pipe(
      Layer.provide(Deployment.caches(url)),
      Layer.provide(Deployment.live(url)),
      Layer.provide(Deployment.running(contextNames, { contexts: () => url, bus: url, maxConnections })),
      Layer.provide(Deployment.readiness(Deployment.needsOf(contextNames, true))),
      Layer.provide(PaymentProviders.paymentGateway(url)),
      Layer.provide(Deployment.policies(dataDir)),
      Layer.provide(Deployment.security(dataDir)),
      Layer.provide(Switchboard.layer)
    ),
    { port, hostname: "0.0.0.0", reusePort: processes > 1, drainTimeout }
  ).pipe(Layer.provide(Layer.succeed(KeepsHouse, first)))
}
