import { Config, Effect, Layer, Option, Schema, Scope } from "effect"
import { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import { ServerUnreachable } from "@merkato/infra/config/ServerUnreachable"
import type { CallFailed } from "@merkato/infra/grpc/GrpcChannel"
import * as Deadline from "@merkato/infra/policy/Deadline"
import { Policies } from "@merkato/infra/policy/Policies"
import { isPolicyError } from "@merkato/infra/policy/PolicyError"
import { ServiceTokens, toHeaders } from "@merkato/rpc/contract/ServiceCall"
import * as Grpc from "@merkato/rpc/grpc/InventoryGrpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"

const variable = "MERKATO_INVENTORY_GRPC"
const operation = "stock.reserve"

/** As in `inventory.internal:9090`. */
const isAddress = (text: string) => /^(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):\d{1,5}$/.test(text)

/** Milliseconds for an attempt where the policy sets no limit. */
const longestMs = 15_000

const unavailable = (retryAfterSeconds: number) => new ServiceUnavailable({ service: "inventory", retryAfterSeconds })

/** What may be otherwise the next time; the rest is a mistake of whoever put these processes together. */
const passing = new Set(["UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED"])

/** The error that the contract has for it. Without words of ours it came from the network, or from a process that stops. */
const errorOf = (failure: CallFailed) => {
  const info = Option.filter(failure.info, ({ domain }) => domain === Grpc.domain)
  const refusal = Option.flatMap(info, ({ reason, metadata }) => Grpc.reserveRefusal(reason, metadata))
  if (Option.isSome(refusal)) return Effect.fail(refusal.value)
  const isMistake = Option.isSome(info) && failure.code === "INTERNAL"
  return passing.has(failure.code) && !isMistake ? Effect.fail(unavailable(1)) : Effect.die(failure)
}

const decodeReply = Schema.decodeUnknownEffect(Grpc.ReserveReply)

/** The method on a channel to this address, open until the scope closes. */
const reserveAt = Effect.fnUntraced(function* (address: string) {
  const [GrpcChannel, Protobuf] = yield* Effect.promise(() =>
    Promise.all([import("@merkato/infra/grpc/GrpcChannel"), import("@merkato/infra/grpc/Protobuf")])
  )
  const channel = yield* GrpcChannel.make(address)
  const method = Protobuf.read(Grpc.inventoryProto)
    .methods(Grpc.service)
    .find(({ name }) => name === "ReserveStock")
  if (method === undefined) return yield* Effect.die(new Error("inventory.proto has no ReserveStock"))
  return (request: Grpc.Reserve, metadata: Readonly<Record<string, string>>, timeoutMs: number) =>
    channel.call(method, Grpc.fromReserve(request), { metadata, timeoutMs })
})

/**
 * Where `MERKATO_INVENTORY_GRPC` says at which host and port the stock answers gRPC, reservations go there, and the rest of
 * its contract goes on over RPC. A call that has a deadline is under the policy of whoever makes it, and is tried once here;
 * one without gets the policy of reservations, so that attempts never multiply.
 */
export const layer = Layer.effectDiscard(
  Effect.gen(function* () {
    const given = yield* Config.option(Config.String(variable))
    if (Option.isNone(given)) return
    if (!isAddress(given.value)) {
      return yield* new ServerUnreachable({ variable, address: "", reason: "expected host:port" })
    }
    const policies = yield* Policies
    const tokens = yield* ServiceTokens
    const scope = yield* Effect.scope
    // Loaded by the first reservation: who makes none does without it.
    const reserve = yield* reserveAt(given.value).pipe(
      Effect.provideService(Scope.Scope, scope),
      Effect.uninterruptible,
      Effect.cached
    )

    const attempt = Effect.fnUntraced(function* (request: Grpc.Reserve) {
      const metadata = toHeaders(yield* RequestContext, yield* tokens.issue)
      const { attemptTimeoutMs } = yield* policies.limits(operation)
      const timeoutMs = Math.min(yield* Deadline.remainingMs, attemptTimeoutMs ?? longestMs)
      const reply = yield* Effect.catch((yield* reserve)(request, metadata, timeoutMs), errorOf)
      const { order_id: orderId } = yield* Effect.orDie(decodeReply(reply))
      return { orderId }
    })

    const underPolicy = (request: Grpc.Reserve) =>
      attempt(request).pipe(
        policies.guard<Effect.Error<ReturnType<typeof attempt>>>(operation, {
          transient: (error) => error instanceof ServiceUnavailable
        }),
        Effect.catchIf(isPolicyError, (error) => Effect.fail(unavailable(error.retryAfterSeconds)))
      )

    yield* InventoryRpc.reroute("Reserve", (request) =>
      Effect.flatMap(Deadline.Deadline, (at) => (at === Infinity ? underPolicy(request) : attempt(request)))
    )
  })
)
