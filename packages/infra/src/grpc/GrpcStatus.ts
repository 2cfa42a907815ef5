/** How a gRPC call ends that does not end well, and what it tells (google.rpc.Status, AIP-193). */
import { status as codes } from "@grpc/grpc-js"
import { Option, Predicate } from "effect"
import detailsProto from "./details.proto" with { type: "text" }
import * as Protobuf from "./Protobuf.ts"

export { codes }
export type Code = keyof typeof codes

/** The name of a status code, as in `UNAVAILABLE`. */
export const nameOf = (code: number): string => codes[code] ?? String(code)

/** A refusal or a failure, in words that programs compare. */
export interface Fault {
  readonly code: Code
  readonly message: string
  /** Of the ErrorInfo. */
  readonly reason: string
  readonly domain: string
  readonly metadata: Readonly<Record<string, string>>
  /** When it may be worth asking again. */
  readonly retryAfterSeconds?: number
  /** What of the request is wrong, by the path in its message. */
  readonly violations?: ReadonlyArray<{ readonly field: string; readonly description: string }>
}

const proto = Protobuf.read(detailsProto)
const status = proto.message("google.rpc.Status")
const errorInfo = proto.message("google.rpc.ErrorInfo")
const retryInfo = proto.message("google.rpc.RetryInfo")
const badRequest = proto.message("google.rpc.BadRequest")

const any = (type: string, message: Protobuf.Message, fields: Protobuf.Fields) => ({
  type_url: `type.googleapis.com/${type}`,
  value: message.encode(fields)
})

/** The trailer that carries the details. */
export const detailsKey = "grpc-status-details-bin"

/** A fault as the bytes of a google.rpc.Status. */
export const encode = ({ code, message, reason, domain, metadata, retryAfterSeconds, violations }: Fault): Buffer =>
  status.encode({
    code: codes[code],
    message,
    details: [
      any("google.rpc.ErrorInfo", errorInfo, { reason, domain, metadata }),
      ...(retryAfterSeconds === undefined
        ? []
        : [any("google.rpc.RetryInfo", retryInfo, { retry_delay: { seconds: retryAfterSeconds } })]),
      ...(violations === undefined
        ? []
        : [any("google.rpc.BadRequest", badRequest, { field_violations: violations.map((each) => ({ ...each })) })])
    ]
  })

export interface ErrorInfo {
  readonly reason: string
  readonly domain: string
  readonly metadata: Readonly<Record<string, string>>
}

const isInfo = ({ type_url }: { readonly [key: PropertyKey]: unknown }) =>
  typeof type_url === "string" && type_url.endsWith("/google.rpc.ErrorInfo")

/** What a peer says about a call that failed, if it says it in these words. */
export const errorInfoOf: (details: Uint8Array) => Option.Option<ErrorInfo> = Option.liftThrowable((details) => {
  const all = status.decode(details)["details"]
  const info = Array.isArray(all) ? all.filter((each) => Predicate.isObject(each)).find(isInfo) : undefined
  if (!(info?.["value"] instanceof Uint8Array)) throw new Error("There is no ErrorInfo")
  const { reason, domain, metadata } = errorInfo.decode(info["value"])
  return {
    reason: String(reason),
    domain: String(domain),
    metadata: Object.fromEntries(
      Object.entries(Predicate.isObject(metadata) ? metadata : {}).map(([k, v]) => [k, String(v)])
    )
  }
})
