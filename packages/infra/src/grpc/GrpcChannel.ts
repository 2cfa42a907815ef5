/** Calls another process over gRPC, on one connection that is made when it is first wanted, and again when it is lost. */
import * as grpc from "@grpc/grpc-js"
import { Data, Effect, Option, type Scope } from "effect"
import { detailsKey, type ErrorInfo, errorInfoOf, nameOf } from "./GrpcStatus.ts"
import { toMetadata } from "./Metadata.ts"
import type { Fields, Method } from "./Protobuf.ts"

/** A call did not end well: refused by the peer, or by what lies between. */
export class CallFailed extends Data.TaggedError("CallFailed")<{
  /** As in `UNAVAILABLE`. */
  readonly code: string
  readonly details: string
  /** None when it does not come from a handler of ours. */
  readonly info: Option.Option<ErrorInfo>
}> {
  override get message() {
    return `${this.code}: ${this.details}`
  }
}

export interface CallOptions {
  readonly metadata: Readonly<Record<string, string>>
  /** Told to the peer, and held to here. */
  readonly timeoutMs: number
}

export interface GrpcChannel {
  readonly call: (method: Method, message: Fields, options: CallOptions) => Effect.Effect<Fields, CallFailed>
}

const options = {
  // A peer that was away for a while is back at once: the default waits up to two minutes.
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1_000,
  // Finds peers that are gone without a word.
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  // Who calls has a policy.
  "grpc.enable_retries": 0,
  "grpc.enable_http_proxy": 0,
  "grpc.service_config_disable_resolution": 1
}

// Whatever it would write to stderr, past our logs, comes as an error to whoever can do something about it.
grpc.setLogVerbosity(grpc.logVerbosity.NONE)

const failed = ({ code, details, metadata }: grpc.ServiceError) => {
  const [bytes] = metadata.get(detailsKey)
  return new CallFailed({
    code: nameOf(code),
    details,
    info: bytes instanceof Uint8Array ? errorInfoOf(bytes) : Option.none()
  })
}

/** A channel to `host:port`, open until the scope closes. */
export const make = (address: string): Effect.Effect<GrpcChannel, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => new grpc.Client(address, grpc.credentials.createInsecure(), options)),
      (client) => Effect.sync(() => client.close())
    ),
    (client) => ({
      call: (method, message, { metadata, timeoutMs }) =>
        Effect.callback<Fields, CallFailed>((resume) => {
          const call = client.makeUnaryRequest(
            method.path,
            method.request.encode,
            method.response.decode,
            message,
            toMetadata(metadata),
            { deadline: Date.now() + timeoutMs },
            (error, answer) => {
              if (error !== null) return resume(Effect.fail(failed(error)))
              resume(
                answer === undefined
                  ? Effect.fail(new CallFailed({ code: "INTERNAL", details: "No answer came", info: Option.none() }))
                  : Effect.succeed(answer)
              )
            }
          )
          return Effect.sync(() => call.cancel())
        })
    })
  )
