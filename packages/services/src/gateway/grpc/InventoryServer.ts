import { Cause, type Duration, Effect, References, Schema } from "effect"
import { Headers, HttpTraceContext } from "effect/http"
import { Forbidden } from "@merkato/domain/kernel/Problem"
import { anonymous, type Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"
import { Tokens } from "@merkato/infra/auth/Tokens"
import * as GrpcServer from "@merkato/infra/grpc/GrpcServer"
import * as Protobuf from "@merkato/infra/grpc/Protobuf"
import * as Deadline from "@merkato/infra/policy/Deadline"
import { isFromService, requestOf, ServiceTokens } from "@merkato/rpc/contract/ServiceCall"
import * as Grpc from "@merkato/rpc/grpc/InventoryGrpc"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { arrive, bearer } from "../Arrival.ts"
import { Readiness } from "../Health.ts"
import type { Tagged } from "../Problems.ts"
import { Sampler } from "../Sampling.ts"
import * as Faults from "./Faults.ts"

type Metadata = GrpcServer.Call["metadata"]

/** Services say for whom they call; people and their programs bring a token of their own. */
const callerOf = Effect.fnUntraced(function* (metadata: Metadata) {
  if (isFromService(metadata)) return (yield* requestOf(metadata)).principal
  const token = bearer(metadata["authorization"])
  return token === undefined ? anonymous : yield* (yield* Tokens).verify(token)
})

/**
 * Stock moves for services and administrators. Shoppers reserve through their orders: who could do it with a shopper's token
 * would keep goods from others without buying them.
 */
const mayMoveStock = (metadata: Metadata, { role }: Principal) => {
  if (isFromService(metadata) || role === "admin") return Effect.void
  return Effect.fail(role === "anonymous" ? Faults.signInFirst : new Forbidden({ action: "stock.reserve" }))
}

interface Method<Request, A, E> {
  readonly movesStock: boolean
  readonly request: Schema.Codec<Request, unknown>
  readonly run: (request: Request) => Effect.Effect<A, E>
  readonly reply: (answer: A) => Protobuf.Fields
}

export interface Options {
  readonly host: string
  readonly port: number
  readonly variable: string
  readonly drainTimeout: Duration.Duration
}

/** Answers gRPC with what the contexts answer to `InventoryRpc`, until the scope closes. Returns the port. */
export const serve = Effect.fnUntraced(function* (options: Options) {
  const inventory = yield* InventoryRpc
  const sampler = yield* Sampler
  const readiness = yield* Readiness
  const own = yield* Effect.context<ServiceTokens | Tokens>()

  /** The call as a span of its caller's trace, where one traces. */
  const traced = <A>(name: string, call: GrpcServer.Call, answer: Effect.Effect<A>): Effect.Effect<A> => {
    const path = `/${Grpc.service}/${name}`
    const { metadata } = call
    if (!sampler.isTraced(call, path, metadata["traceparent"])) return Effect.withTracerEnabled(answer, false)
    const parent = HttpTraceContext.fromHeaders(Headers.fromInput(metadata))
    const attributes = { "rpc.system": "grpc", "rpc.service": Grpc.service, "rpc.method": name }
    return Effect.withSpan(answer, path.slice(1), {
      kind: "server",
      attributes,
      ...(parent._tag === "Some" ? { parent: parent.value } : { root: true })
    })
  }

  const handler = <Request, A, E extends Tagged>(name: string, method: Method<Request, A, E>): GrpcServer.Handler => {
    const decode = Schema.decodeUnknownEffect(method.request, { errors: "all" })
    return (call) => {
      const answer = Effect.withFiber((fiber): Effect.Effect<GrpcServer.Answer, never, ServiceTokens | Tokens> => {
        const span = fiber.cache.tracerEnabled && fiber.cache.span?.sampled === true ? fiber.cache.span : undefined
        const arrival = arrive(fiber.context, (key) => call.metadata[key], span)
        const { correlationId, traceParent } = arrival
        const metadata = { "correlation-id": correlationId, traceparent: traceParent }
        const told = { domain: Grpc.domain, arrival }
        return Effect.gen(function* () {
          const principal = yield* callerOf(call.metadata)
          if (method.movesStock) yield* mayMoveStock(call.metadata, principal)
          const asked = yield* decode(call.message)
          const answer = yield* method
            .run(asked)
            .pipe(Effect.provideService(RequestContext, { principal, correlationId, traceParent }))
          return { metadata, message: method.reply(answer) }
        }).pipe(
          Deadline.within(name, call.timeLeftMs),
          Effect.catch((error) => Effect.succeed({ metadata, fault: Faults.ofError(error, told) })),
          Effect.catchCause((cause) =>
            Cause.hasInterruptsOnly(cause)
              ? Effect.failCause(cause)
              : Effect.as(Effect.logError("A gRPC call failed in a way that nobody foresaw", cause), {
                  metadata,
                  fault: Faults.unforeseen(told)
                })
          ),
          Effect.provideService(References.CurrentLogAnnotations, { traceId: traceParent.slice(3, 35), correlationId })
        )
      })
      return traced(name, call, Effect.provideContext(answer, own))
    }
  }

  return yield* GrpcServer.make({
    ...options,
    isReady: Effect.map(readiness, (missing) => missing.length === 0),
    services: [
      {
        proto: Protobuf.read(Grpc.inventoryProto),
        name: Grpc.service,
        handlers: {
          ReserveStock: handler("ReserveStock", {
            movesStock: true,
            request: Grpc.ReserveRequest,
            run: (request) => inventory.Reserve(Grpc.toReserve(request)),
            reply: ({ orderId }) => ({ order_id: orderId })
          }),
          ReleaseStock: handler("ReleaseStock", {
            movesStock: true,
            request: Grpc.ReleaseRequest,
            run: (request) => inventory.Release(Grpc.toRelease(request)),
            reply: () => ({})
          }),
          QueryStock: handler("QueryStock", {
            movesStock: false,
            request: Grpc.StockQuery,
            run: (request) => inventory.Levels(Grpc.toQuery(request)),
            reply: Grpc.fromLevels
          })
        }
      }
    ]
  })
})
