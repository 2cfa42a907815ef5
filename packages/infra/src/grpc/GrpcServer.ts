/** Answers gRPC, with health and reflection. Over plain HTTP/2: TLS ends in front of it, as with the HTTP server. */
import * as grpc from "@grpc/grpc-js"
import { Cause, Clock, Duration, Effect, Exit, Metric, Option, Schema, type Scope } from "effect"
import { codes, detailsKey, encode, type Fault } from "./GrpcStatus.ts"
import * as Health from "./Health.ts"
import { textsOf, toMetadata } from "./Metadata.ts"
import type { Fields, Method, Proto } from "./Protobuf.ts"
import * as Reflection from "./Reflection.ts"

export interface Call {
  /** The first value of each key; those that are text. */
  readonly metadata: Readonly<Record<string, string>>
  readonly message: Fields
  /** Milliseconds that the caller still waits; Infinity when it did not say. */
  readonly timeLeftMs: number
}

export type Answer = {
  /** Told before the message, or with the refusal. */
  readonly metadata: Readonly<Record<string, string>>
} & ({ readonly message: Fields } | { readonly fault: Fault })

/** Answers a call, whatever comes of it. Interrupted when the caller goes away. */
export type Handler = (call: Call) => Effect.Effect<Answer>

export interface Service {
  readonly proto: Proto
  readonly name: string
  readonly handlers: Readonly<Record<string, Handler>>
}

export interface Options {
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  /** The setting that the port is from, for whoever reads that it cannot be had. */
  readonly variable: string
  readonly services: ReadonlyArray<Service>
  /** Whether calls can be answered, for the health service. */
  readonly isReady: Effect.Effect<boolean>
  /** How long calls may take to end once the server drains. */
  readonly drainTimeout: Duration.Duration
}

/** Nobody can be answered at this address. */
export class CannotListen extends Schema.TaggedError<CannotListen>()("CannotListen", {
  variable: Schema.String,
  address: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `${this.variable} cannot be used: ${this.reason} (${this.address})`
  }
}

/** As many as of a request over HTTP. */
const maxMessageBytes = 1024 * 1024

const limits = {
  "grpc.max_receive_message_length": maxMessageBytes,
  "grpc.max_concurrent_streams": 1_024,
  // Finds peers that are gone without a word.
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 20_000
}

// Whatever it would write to stderr, past our logs, comes as an error to whoever can do something about it.
grpc.setLogVerbosity(grpc.logVerbosity.NONE)

const asIs = (bytes: Buffer) => bytes

const ended = (code: keyof typeof codes) =>
  Metric.counter("grpc_calls_total", {
    description: "gRPC calls answered",
    incremental: true,
    attributes: { code }
  })

/** Status messages are percent-encoded on the wire; what is not printable only makes them unreadable. */
const plain = (message: string) => message.replaceAll(/[^\x20-\x7e]/g, "?")

const refusal = ({ metadata }: Pick<Answer, "metadata">, fault: Fault) => {
  const trailers = toMetadata(metadata)
  trailers.set(detailsKey, encode(fault))
  return { code: codes[fault.code], details: plain(fault.message), metadata: trailers }
}

const unreadable = (cause: unknown): Fault => ({
  code: "INVALID_ARGUMENT",
  message: "The message is not of the type that is expected here",
  reason: "validation_failed",
  domain: "",
  metadata: {},
  violations: [{ field: "", description: cause instanceof Error ? cause.message : "cannot be read" }]
})

const unforeseen: Fault = {
  code: "INTERNAL",
  message: "Something went wrong on our side",
  reason: "internal",
  domain: "",
  metadata: {}
}

/**
 * Listens until the scope closes; then it drains: health says so, calls in flight are answered, no new ones are taken, and
 * whoever is left after `drainTimeout` is cut off. Returns the port.
 */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<number, CannotListen, Scope.Scope> {
  const services = yield* Effect.context<never>()
  const run = Effect.runForkWith(services)
  const server = new grpc.Server(limits)
  let draining = false

  const answered = (method: Method, handler: Handler, call: grpc.ServerUnaryCall<Buffer, Buffer>) =>
    Effect.gen(function* () {
      const deadline = Number(call.getDeadline())
      const timeLeftMs =
        deadline === Infinity ? Infinity : deadline - Clock.Clock.defaultValue().currentTimeMillisUnsafe()
      const message = yield* Effect.try({ try: () => method.request.decode(call.request), catch: unreadable })
      return yield* handler({ metadata: textsOf(call.metadata), message, timeLeftMs })
    }).pipe(
      Effect.catch((fault) => Effect.succeed<Answer>({ metadata: {}, fault })),
      Effect.catchCause((cause) =>
        Cause.hasInterruptsOnly(cause)
          ? Effect.failCause(cause)
          : Effect.as(Effect.logError("A gRPC call failed in a way that nobody foresaw", cause), {
              metadata: {},
              fault: unforeseen
            } satisfies Answer)
      ),
      Effect.tap((answer) => Metric.update(ended("fault" in answer ? answer.fault.code : "OK"), 1))
    )

  const unary =
    (method: Method, handler: Handler): grpc.handleUnaryCall<Buffer, Buffer> =>
    (call, reply) => {
      const fiber = run(answered(method, handler, call))
      call.once("cancelled", () => fiber.interruptUnsafe())
      fiber.addObserver((exit) => {
        // Interrupted: nobody waits any more.
        if (Exit.isFailure(exit)) return reply({ code: codes.CANCELLED, details: "The call was given up" })
        const answer = exit.value
        if ("fault" in answer) return reply(refusal(answer, answer.fault))
        call.sendMetadata(toMetadata(answer.metadata))
        reply(null, method.response.encode(answer.message))
      })
    }

  for (const { proto, name, handlers } of options.services) {
    for (const method of proto.methods(name)) {
      const handler = handlers[method.name]
      if (handler !== undefined) server.register(method.path, unary(method, handler), asIs, asIs, "unary")
    }
  }
  const health = yield* Health.make({
    names: options.services.map(({ name }) => name),
    isServing: Effect.suspend(() => (draining ? Effect.succeed(false) : options.isReady))
  })
  health.addTo(server)
  Reflection.addTo(server, [...options.services.map(({ proto }) => proto), ...health.protos])

  const address = `${options.host.includes(":") ? `[${options.host}]` : options.host}:${options.port}`
  const port = yield* Effect.callback<number, CannotListen>((resume) =>
    server.bindAsync(address, grpc.ServerCredentials.createInsecure(), (error, port) =>
      resume(
        error === null
          ? Effect.succeed(port)
          : Effect.fail(new CannotListen({ variable: options.variable, address, reason: error.message }))
      )
    )
  )

  const closed = Effect.callback<void>((resume) => server.tryShutdown(() => resume(Effect.void)))
  yield* Effect.addFinalizer(() =>
    Effect.gen(function* () {
      draining = true
      yield* health.stop
      const finished = yield* Effect.timeoutOption(Effect.interruptible(closed), options.drainTimeout)
      if (Option.isSome(finished)) return
      yield* Effect.logWarning(
        `gRPC calls were still in flight after ${Duration.format(options.drainTimeout)} of draining`
      )
      server.forceShutdown()
      // Sockets live in real time, whatever clock the program runs on.
    }).pipe(Effect.provideService(Clock.Clock, Clock.Clock.defaultValue()))
  )
  return port
})
