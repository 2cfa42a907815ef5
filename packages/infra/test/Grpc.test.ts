// gRPC as a server and a client of ours hold to it, on real sockets.
import { describe, expect, test } from "bun:test"
import { Deferred, Duration, Effect, Exit, Fiber, Option, Scope } from "effect"
import * as GrpcChannel from "../src/grpc/GrpcChannel.ts"
import * as GrpcServer from "../src/grpc/GrpcServer.ts"
import { errorInfoOf } from "../src/grpc/GrpcStatus.ts"
import * as Protobuf from "../src/grpc/Protobuf.ts"
import healthProto from "../src/grpc/health.proto" with { type: "text" }

const proto = Protobuf.read(`
  syntax = "proto3";
  package test.v1;
  service Echo { rpc Say(Word) returns (Word); }
  message Word { string text = 1; }
`)
const [say] = proto.methods("test.v1.Echo")
const [check] = Protobuf.read(healthProto).methods("grpc.health.v1.Health")
if (say === undefined || check === undefined) throw new Error("no methods")

/** A server with this handler on a free port, a channel to it, and what stops the server. */
const serving = Effect.fnUntraced(function* (handler: GrpcServer.Handler, isReady = Effect.succeed(true)) {
  const scope = yield* Scope.make()
  const port = yield* GrpcServer.make({
    host: "127.0.0.1",
    port: 0,
    variable: "TEST_PORT",
    services: [{ proto, name: "test.v1.Echo", handlers: { Say: handler } }],
    isReady,
    drainTimeout: Duration.seconds(20)
  }).pipe(Scope.provide(scope))
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  return { port, stop: Scope.close(scope, Exit.void), channel: yield* GrpcChannel.make(`127.0.0.1:${port}`) }
})

const patient = { metadata: {}, timeoutMs: 30_000 }
const echo: GrpcServer.Handler = ({ message, metadata }) =>
  Effect.succeed({ metadata: { "correlation-id": metadata["correlation-id"] ?? "none" }, message })

const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Effect.scoped(effect))

describe("a gRPC server", () => {
  test("answers, and tells refusals with their details", () =>
    run(
      Effect.gen(function* () {
        const { channel } = yield* serving((call) =>
          call.message["text"] === ""
            ? Effect.succeed({
                metadata: {},
                fault: {
                  code: "FAILED_PRECONDITION",
                  message: "Nothing – said",
                  reason: "nothing_said",
                  domain: "test",
                  metadata: { traceId: "t" },
                  retryAfterSeconds: 2
                }
              })
            : echo(call)
        )
        expect(yield* channel.call(say, { text: "hä" }, patient)).toEqual({ text: "hä" })
        const refused = yield* Effect.flip(channel.call(say, {}, patient))
        expect(refused).toMatchObject({ code: "FAILED_PRECONDITION", details: "Nothing ? said" })
        expect(Option.getOrThrow(refused.info)).toEqual({
          reason: "nothing_said",
          domain: "test",
          metadata: { traceId: "t" }
        })
        expect(Option.isNone(errorInfoOf(Buffer.from("nonsense")))).toBe(true)
      })
    ))

  test("interrupts what nobody waits for any more, and tells handlers how long they are waited for", () =>
    run(
      Effect.gen(function* () {
        const [began, ended] = [Deferred.makeUnsafe<number>(), Deferred.makeUnsafe<void>()]
        const { channel } = yield* serving(({ timeLeftMs }) =>
          Effect.andThen(Deferred.succeed(began, timeLeftMs), Effect.never).pipe(
            Effect.onInterrupt(() => Deferred.succeed(ended, undefined))
          )
        )
        const calling = yield* Effect.forkChild(channel.call(say, { text: "a" }, patient))
        const timeLeftMs = yield* Deferred.await(began)
        expect(timeLeftMs).toBeGreaterThan(0)
        expect(timeLeftMs).toBeLessThanOrEqual(30_000)
        yield* Fiber.interrupt(calling)
        yield* Deferred.await(ended)
        const late = yield* Effect.flip(channel.call(say, { text: "a" }, { metadata: {}, timeoutMs: 50 }))
        expect(late.code).toBe("DEADLINE_EXCEEDED")
      })
    ))

  test("drains: what is under way is answered, nothing new is taken, and health says so", () =>
    run(
      Effect.gen(function* () {
        const [began, go] = [Deferred.makeUnsafe<void>(), Deferred.makeUnsafe<void>()]
        const { channel, port, stop } = yield* serving((call) =>
          Effect.andThen(Deferred.succeed(began, undefined), Deferred.await(go)).pipe(Effect.andThen(echo(call)))
        )
        const of = (service: string) => channel.call(check, { service }, patient)
        expect(yield* of("")).toEqual({ status: 1 })
        expect(yield* of("test.v1.Echo")).toEqual({ status: 1 })
        expect((yield* Effect.flip(of("test.v1.Other"))).code).toBe("NOT_FOUND")

        const calling = yield* Effect.forkChild(channel.call(say, { text: "last" }, patient))
        yield* Deferred.await(began)
        const stopping = yield* Effect.forkChild(stop, { startImmediately: true })
        const stranger = yield* GrpcChannel.make(`127.0.0.1:${port}`)
        const refused = yield* Effect.flip(stranger.call(say, { text: "new" }, patient)).pipe(
          Effect.retry({ times: 100 })
        )
        expect(refused.code).toBe("UNAVAILABLE")
        yield* Deferred.succeed(go, undefined)
        expect(yield* Fiber.join(calling)).toEqual({ text: "last" })
        yield* Fiber.join(stopping)
      })
    ))

  test("is not ready while something is missing, and says which port it cannot have", () =>
    run(
      Effect.gen(function* () {
        const { channel, port } = yield* serving(echo, Effect.succeed(false))
        expect(yield* channel.call(check, {}, patient)).toEqual({ status: 2 })
        const taken = yield* GrpcServer.make({
          host: "127.0.0.1",
          port,
          variable: "TEST_PORT",
          services: [],
          isReady: Effect.succeed(true),
          drainTimeout: Duration.seconds(1)
        }).pipe(Effect.flip)
        expect(taken.message).toMatch(/^TEST_PORT cannot be used: .*127\.0\.0\.1/)
      })
    ))
})
