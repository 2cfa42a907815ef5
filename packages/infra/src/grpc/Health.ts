/** grpc.health.v1: whether a server, and each of its services, answers. */
import * as grpc from "@grpc/grpc-js"
import { Effect, type Fiber, FiberSet } from "effect"
import healthProto from "./health.proto" with { type: "text" }
import { codes } from "./GrpcStatus.ts"
import * as Protobuf from "./Protobuf.ts"

const service = "grpc.health.v1.Health"
const proto = Protobuf.read(healthProto)
const request = proto.message("grpc.health.v1.HealthCheckRequest")
const response = proto.message("grpc.health.v1.HealthCheckResponse")

/** Clients that watch at a time; balancers do, and there are few. */
const maxWatchers = 100

/** How often is looked whether something has changed for those who watch. */
const lookEvery = "1 second"

/** An object also for the empty name: a falsy message is none to grpc-js. */
interface Asked {
  readonly service: string
}

type Status = "SERVING" | "NOT_SERVING" | "SERVICE_UNKNOWN"

const statusCodes: Readonly<Record<Status, number>> = { SERVING: 1, NOT_SERVING: 2, SERVICE_UNKNOWN: 3 }

export const make = Effect.fnUntraced(function* (options: {
  readonly names: ReadonlyArray<string>
  readonly isServing: Effect.Effect<boolean>
}) {
  const known = new Set(["", service, ...options.names])
  const fork = yield* FiberSet.makeRuntime<never>()
  const watchers = new Map<grpc.ServerWritableStream<Asked, Status>, Fiber.Fiber<unknown>>()

  const statusOf = (name: string): Effect.Effect<Status> =>
    known.has(name)
      ? Effect.map(options.isServing, (serving) => (serving ? "SERVING" : "NOT_SERVING"))
      : Effect.succeed("SERVICE_UNKNOWN")

  const serialize = (status: Status) => response.encode({ status: statusCodes[status] })
  const deserialize = (bytes: Buffer): Asked => ({ service: String(request.decode(bytes)["service"]) })

  const check: grpc.handleUnaryCall<Asked, Status> = (call, reply) => {
    const answer = Effect.map(statusOf(call.request.service), (status) =>
      status === "SERVICE_UNKNOWN"
        ? reply({ code: codes.NOT_FOUND, details: `There is no service ${call.request.service} here` })
        : reply(null, status)
    )
    fork(answer)
  }

  const watch: grpc.handleServerStreamingCall<Asked, Status> = (call) => {
    if (watchers.size >= maxWatchers) {
      call.emit("error", { code: codes.RESOURCE_EXHAUSTED, details: `${maxWatchers} clients watch already` })
      return
    }
    let told: Status | undefined
    const fiber = fork(
      statusOf(call.request.service).pipe(
        Effect.tap((status) =>
          Effect.sync(() => {
            if (status !== told) call.write(status)
            told = status
          })
        ),
        Effect.andThen(Effect.sleep(lookEvery)),
        Effect.forever
      )
    )
    watchers.set(call, fiber)
    call.once("cancelled", () => {
      watchers.delete(call)
      fiber.interruptUnsafe()
    })
  }

  return {
    protos: [proto],
    addTo: (server: grpc.Server) => {
      server.register(`/${service}/Check`, check, serialize, deserialize, "unary")
      server.register(`/${service}/Watch`, watch, serialize, deserialize, "serverStream")
    },
    /** Tells those who watch, and lets them go. */
    stop: Effect.sync(() => {
      for (const [call, fiber] of watchers) {
        fiber.interruptUnsafe()
        call.write("NOT_SERVING")
        call.end()
      }
      watchers.clear()
    })
  }
})
