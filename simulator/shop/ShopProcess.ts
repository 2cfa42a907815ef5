import { ConfigProvider, Context, Effect, Layer, Random, Redacted, Schedule, Schema } from "effect"
import { Unauthenticated } from "@merkato/domain/kernel/Problem"
import { Principal } from "@merkato/domain/kernel/RequestContext"
import { Encryption } from "@merkato/infra/auth/Encryption"
import { Secrets } from "@merkato/infra/auth/Secrets"
import { Tokens } from "@merkato/infra/auth/Tokens"
import { Authorizer } from "@merkato/infra/authorizer/Authorizer"
import { EventBus } from "@merkato/infra/events/EventBus"
import * as Relay from "@merkato/infra/events/Relay"
import { Policies } from "@merkato/infra/policy/Policies"
import * as Combined from "@merkato/infra/postgres/Combined"
import * as Database from "@merkato/infra/postgres/Database"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { contexts } from "@merkato/services/contexts"
import { PaymentGateways } from "@merkato/services/payments/PaymentGateways"
import type { SimProcess, World } from "../kernel/World.ts"
import type { Gate } from "../wire/Gate.ts"
import { contracts } from "./Contracts.ts"
import type { Network } from "./Network.ts"
import type { ProviderBook } from "./ProviderBook.ts"
import type { Simulated } from "./Topology.ts"
import type { VirtualBus } from "./VirtualBus.ts"
import * as VirtualGateway from "./VirtualGateway.ts"

/** A process as the network sees it. */
export interface Host {
  readonly process: SimProcess
  readonly contracts: ReadonlySet<string>
  /** Its answers, once it has started. */
  calls: Switchboard["Service"]["calls"] | undefined
}

/** What all processes of a run share. */
export interface Surroundings {
  readonly world: World
  readonly gate: Gate
  readonly network: Network
  readonly bus: VirtualBus
  /** Of the provider that is asked over SOAP, and of the one over REST. */
  readonly books: readonly [soap: ProviderBook, rest: ProviderBook]
  /** Connections to the database that a process has at most. */
  readonly connections: number
}

/** Connections of a process: few, so that waiting for one is part of what is simulated. */
export const connections = 4

const encodePrincipal = Schema.encodeSync(Schema.fromJsonString(Principal))
const decodePrincipal = Schema.decodeUnknownEffect(Schema.fromJsonString(Principal))

/** Tokens without cryptography, which would be real randomness and real threads: nothing here tries to forge one. */
const verify = (token: string) =>
  Effect.mapError(decodePrincipal(token), () => new Unauthenticated({ reason: "The token is not valid" }))
const tokens = Layer.succeed(Tokens, {
  issue: (principal) => Effect.succeed(encodePrincipal(principal)),
  verify,
  verifyUntil: (token) => Effect.map(verify(token), (principal) => ({ principal, expiresAt: Number.MAX_SAFE_INTEGER })),
  issueForServices: Effect.succeed("service"),
  verifyService: () => Effect.void,
  isKnown: () => false
})

/** Secrets that the seed can guess, so that ciphertexts are the same again. */
const secrets = Layer.succeed(Secrets, {
  token: Effect.map(Effect.replicateEffect(Random.nextIntBetween(0, 256), 32), (bytes) =>
    Buffer.from(bytes).toString("base64url")
  )
})

/**
 * What the environment of every process says. Orders that are not small are looked at, so that some are. What only looks
 * around once in a while does so less often than in a real shop: finding nothing costs as much as finding something.
 */
const environment = ConfigProvider.fromUnknown({
  MERKATO_RESERVATION_SWEEP_MS: "8000",
  MERKATO_ORDER_PROCESS_SWEEP_MS: "6000",
  MERKATO_ENCRYPTION_KEYS: JSON.stringify({ keys: [{ kty: "oct", k: "A".repeat(43), kid: "simulated" }] }),
  MERKATO_RISK_RULES: JSON.stringify({
    review: 60,
    block: 90,
    amount: {
      high: {
        USD: [
          { over: 1_500, points: 60 },
          { over: 2_500, points: 95 }
        ]
      }
    }
  })
})

/** The pool of a process: the real one, over the gate. */
export const database = ({ gate, connections }: Surroundings, process: SimProcess) =>
  Database.layer({
    url: Redacted.make("postgres://shop@simulated:5432/shop?sslmode=disable"),
    maxConnections: connections,
    applicationName: process.name,
    stream: () => gate.connect(process)
  })

type AnyContextLayer = (typeof contexts)[Simulated]["layer"]
type ContextLayer = Layer.Layer<never, Layer.Error<AnyContextLayer>, Layer.Services<AnyContextLayer>>

const layerOf = (name: Simulated): ContextLayer => contexts[name].layer

/** The contexts of a process, wired as a deployment wires them. */
const shop = (surroundings: Surroundings, process: SimProcess, names: ReadonlyArray<Simulated>) => {
  const { world, network, bus, books } = surroundings
  const [soap, rest] = books
  const gateways = [
    VirtualGateway.connect(world, process, soap, "payment.soap"),
    VirtualGateway.connect(world, process, rest, "payment.rest")
  ] as const
  return names
    .map(layerOf)
    .reduce<ContextLayer>((all, layer) => Layer.merge(all, layer), Layer.empty)
    .pipe(
      Layer.provide(database(surroundings, process)),
      Layer.provide(Layer.succeed(EventBus, bus.portOf(process))),
      Layer.provide(Authorizer.layerRules),
      Layer.provide(tokens),
      Layer.provide(Encryption.layer("nowhere").pipe(Layer.provide(secrets))),
      Layer.provide(Layer.succeed(PaymentGateways, { inOrder: gateways })),
      Layer.provide(Policies.layerWith()),
      Layer.provideMerge(Layer.succeed(Switchboard, network.switchboardOf(process, contracts)))
    )
}

/** Polls that stand behind a wake-up come seldom, and what is published in one transaction is more than one event. */
const relayPace = { gatherMs: 300, pollMs: 30_000 }

/** Milliseconds before a process that could not start is started again. */
const restartAfterMs = 300

/** Starts contexts in a process of their own; the host answers as soon as they do. */
export const start = (surroundings: Surroundings, name: string, names: ReadonlyArray<Simulated>): Host => {
  const { world } = surroundings
  const process = world.spawn(name)
  const host: Host = { process, contracts: new Set(names), calls: undefined }
  const live: Effect.Effect<never, Layer.Error<ReturnType<typeof shop>>> = Effect.scoped(
    Effect.gen(function* () {
      const context = yield* Layer.build(shop(surroundings, process, names))
      host.calls = Context.get(context, Switchboard).calls
      return yield* Effect.never
    })
  ).pipe(
    Effect.provideService(ConfigProvider.ConfigProvider, environment),
    // The server's own clock is real: no statement may depend on it.
    Effect.provideService(Combined.LockPatience, 0),
    Effect.provideService(Relay.Pace, relayPace)
  )
  Effect.runForkWith(process.context)(
    live.pipe(
      Effect.tapCause((cause) => Effect.logWarning("A process could not start", cause)),
      Effect.retry(Schedule.spaced(restartAfterMs))
    )
  )
  return host
}
