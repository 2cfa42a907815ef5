import { Cause, Context, Effect, Fiber, Layer, Option, Predicate, References, type Scope, Tracer } from "effect"
import { Headers, type HttpClient } from "effect/http"
import { Rpc, RpcClient, type RpcClientError, type RpcGroup, RpcSerialization, RpcServer } from "effect/rpc"
import { SqlClient } from "effect/sql"
import { RequestId } from "effect/rpc/RpcMessage"
import { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import { CallInsideTransaction, UnservedContract } from "./ContractDefects.ts"
import { fromHeaders, ServiceTokens, toHeaders } from "./ServiceCall.ts"
import { IsQuery } from "./Operation.ts"

/** What a context can be asked, wherever it runs: a method per operation. */
export type ContractClient<Rpcs extends Rpc.Any> = {
  readonly [R in Rpcs as R["_tag"]]: (
    payload: Rpc.Payload<R>
  ) => Effect.Effect<Rpc.Success<R>, Rpc.Error<R> | ServiceUnavailable>
}

type Call = (payload: unknown) => Effect.Effect<unknown, unknown>
type Calls = ReadonlyMap<string, Call>

/**
 * Who answers which contract in this deployment: handlers of this process, or a client of another one. Filled while the
 * layers are built and read at each call, so contexts may need each other in circles.
 */
export class Switchboard extends Context.Service<
  Switchboard,
  {
    readonly connect: (contract: string, calls: Calls) => Effect.Effect<void>
    readonly calls: (contract: string) => Calls | undefined
    /** Contracts that somebody answers; readiness compares them with what the contexts need. */
    readonly connected: Effect.Effect<ReadonlyArray<string>>
  }
>()("merkato/rpc/Switchboard") {
  static readonly layer = Layer.sync(Switchboard, () => {
    const contracts = new Map<string, Calls>()
    return Switchboard.of({
      connect: (contract, calls) => Effect.sync(() => void contracts.set(contract, calls)),
      calls: (contract) => contracts.get(contract),
      connected: Effect.sync(() => [...contracts.keys()])
    })
  })
}

/** The path under which a context answers RPC over HTTP. */
export const rpcPath = (contract: string): `/${string}` => `/rpc/${contract}`

/** How long another process may take to answer; after that nobody knows what it did, and the caller repeats by key. */
const answerWithin = "15 seconds"

const onTop = <I, S>(context: Context.Context<never>, caller: Context.Context<never>, key: Context.Key<I, S>) => {
  const value = Context.getOrUndefined(caller, key)
  return value === undefined ? context : Context.addUnsafe<never, never, S>(context, key.key, value)
}

/**
 * A handler's services, and what of its caller's fiber it may see: the span, whether tracing is on, the request context,
 * the ids for its logs. Put on top one by one: to merge would copy all the services of both at each call.
 */
const seenFrom = (handler: Context.Context<never>, caller: Context.Context<never>): Context.Context<never> => {
  let context = onTop(handler, caller, Tracer.ParentSpan)
  context = onTop(context, caller, Tracer.DisablePropagation)
  context = onTop(context, caller, RequestContext)
  context = onTop(context, caller, References.TracerEnabled)
  return onTop(context, caller, References.CurrentLogAnnotations)
}

/**
 * A contract is an RpcGroup with a name and a service tag for its typed client. The client is always there and finds its
 * answerer at the call; calling from inside a database transaction is a defect, because the two would be atomic only by
 * accident of deployment.
 */
export const Contract =
  <Self>() =>
  <const Name extends string, Rpcs extends Rpc.Any>(name: Name, group: RpcGroup.RpcGroup<Rpcs>) => {
    const operations = [...group.requests.values()]

    /** The handlers of this process as plain calls: no serialization, and nothing of the caller's database leaks in. */
    const localCalls = Effect.fnUntraced(function* () {
      const handlers = yield* Effect.context<Rpc.ToHandler<Rpcs>>()
      const scope = yield* Effect.scope
      const client = new Rpc.ServerClient(0)
      const call = (rpc: Rpcs): Call => {
        // The group's own `toHandlers` put a `Rpc.Handler` under this key; the erased map forgets it.
        const handler = handlers.mapUnsafe.get(rpc.key) as Rpc.Handler<string>
        const isQuery = Context.get(rpc.annotations, IsQuery)
        const own = Context.makeUnsafe<never>(new Map(handler.context.mapUnsafe), { maxDepth: 16 })
        return (payload) => {
          const answer = Effect.suspend(
            () =>
              handler.handler(payload, {
                client,
                requestId: RequestId(0),
                headers: Headers.empty,
                rpc
              }) as Effect.Effect<unknown, unknown>
          )
          const run = Effect.updateContext(answer, (caller: Context.Context<never>) => seenFrom(own, caller))
          return isQuery ? run : detached(run, scope)
        }
      }
      return new Map(operations.map((rpc) => [rpc._tag, call(rpc)]))
    })

    // Every contract extends this class and is its own Self.
    // @effect-diagnostics-next-line classSelfMismatch:off
    class Client extends Context.Service<Self, ContractClient<Rpcs>>()(`merkato/rpc/${name}`) {
      static readonly contract: Name = name
      static readonly group = group

      /** The typed client, for everyone who needs this contract. */
      static readonly client = Layer.effect(
        Client,
        Effect.gen(function* () {
          const switchboard = yield* Switchboard
          const sql = yield* Effect.serviceOption(SqlClient.SqlClient)
          const call = (tag: string) => (payload: unknown) =>
            Effect.withFiber((fiber) => {
              // The client is one for all contexts of the process, and each may have a database of its own.
              const callers = Context.getOption(fiber.context, SqlClient.SqlClient)
              const inTransaction = [sql, callers].some(
                (database) =>
                  Option.isSome(database) &&
                  Context.getOrUndefined(fiber.context, database.value.transactionService) !== undefined
              )
              if (inTransaction) return Effect.die(new CallInsideTransaction({ contract: name, operation: tag }))
              const answer = switchboard.calls(name)?.get(tag)
              return answer === undefined ? Effect.die(new UnservedContract({ contract: name })) : answer(payload)
            })
          return Object.fromEntries(
            operations.map((rpc) => [rpc._tag, call(rpc._tag)])
          ) as unknown as ContractClient<Rpcs>
        })
      ) as Layer.Layer<Self, never, Switchboard>

      /** Answers the contract with the handlers of this process. */
      static readonly serve: Layer.Layer<never, never, Switchboard | Rpc.ToHandler<Rpcs>> = Layer.effectDiscard(
        Effect.gen(function* () {
          yield* (yield* Switchboard).connect(name, yield* localCalls())
        })
      )

      /** Answers the contract through another process of the shop, at `baseUrl`. */
      static readonly remote = (baseUrl: string) =>
        Layer.effectDiscard(
          Effect.gen(function* () {
            const tokens = yield* ServiceTokens
            const client = yield* RpcClient.make(group, { disableTracing: true })
            const methods = client as unknown as Record<string, (payload: unknown) => Effect.Effect<unknown, unknown>>
            const call = (tag: string): Call => {
              const method = methods[tag]
              return (payload) =>
                Effect.gen(function* () {
                  const request = yield* RequestContext
                  const headers = toHeaders(request, yield* tokens.issue)
                  return yield* RpcClient.withHeaders(method === undefined ? Effect.void : method(payload), headers)
                }).pipe(
                  Effect.timeout(answerWithin),
                  Effect.mapError((error) =>
                    isTransport(error) || Cause.isTimeoutError(error) ? unreachable(name) : error
                  )
                )
            }
            yield* (yield* Switchboard).connect(name, new Map(operations.map((rpc) => [rpc._tag, call(rpc._tag)])))
          })
        ).pipe(
          Layer.provide(RpcClient.layerProtocolHttp({ url: baseUrl + rpcPath(name) })),
          Layer.provide(RpcSerialization.layerSchemaBinary())
        ) as Layer.Layer<never, never, Switchboard | ServiceTokens | HttpClient.HttpClient>

      /** Answers one operation in another way than the rest of the contract, which is connected already. */
      static readonly reroute = <const Tag extends Rpcs["_tag"]>(tag: Tag, call: ContractClient<Rpcs>[Tag]) =>
        Effect.gen(function* () {
          const switchboard = yield* Switchboard
          yield* switchboard.connect(name, new Map([...(switchboard.calls(name) ?? []), [tag, call as Call]]))
        })

      /** Serves the contract to other processes, over HTTP at `/rpc/<name>`; callers prove themselves with a service token. */
      static readonly http = Layer.unwrap(
        Effect.gen(function* () {
          const switchboard = yield* Switchboard
          const own = yield* Effect.context<ServiceTokens>()
          const handlers = operations.map((rpc) => {
            const handler = (payload: unknown, { headers }: { readonly headers: Headers.Headers }) =>
              Effect.flatMap(Effect.orDie(fromHeaders(headers)), ({ request, parent }) => {
                const answer = switchboard.calls(name)?.get(rpc._tag)
                return (
                  answer === undefined ? Effect.die(new UnservedContract({ contract: name })) : answer(payload)
                ).pipe(Effect.provideService(RequestContext, request), continueTrace(parent))
              })
            return [rpc.key, { tag: rpc._tag, handler, context: own }] as const
          })
          return RpcServer.layerHttp({
            group,
            path: rpcPath(name),
            protocol: "http",
            disableTracing: true,
            disableFatalDefects: true
          }).pipe(
            Layer.provide(
              Layer.succeedContext(Context.makeUnsafe<Rpc.ToHandler<Rpcs>>(new Map<string, unknown>(handlers)))
            ),
            Layer.provide(RpcSerialization.layerSchemaBinary())
          )
        })
      )
    }
    return Client
  }

/** A command belongs to its context: the caller may go away, and only stops waiting. */
const detached = (command: Effect.Effect<unknown, unknown>, scope: Scope.Scope) =>
  Effect.flatMap(Effect.forkIn(command, scope, { startImmediately: true }), Fiber.join)

const continueTrace =
  (parent: Option.Option<Tracer.ExternalSpan>) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Option.isSome(parent) && parent.value.sampled
      ? Effect.withParentSpan(effect, parent.value)
      : Effect.withTracerEnabled(effect, false)

const isTransport = (error: unknown): error is RpcClientError.RpcClientError =>
  Predicate.isTagged(error, "RpcClientError")

const unreachable = (service: string) => new ServiceUnavailable({ service, retryAfterSeconds: 1 })
