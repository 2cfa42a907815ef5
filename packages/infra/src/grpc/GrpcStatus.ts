/** How a gRPC call ends that does not end well, and what it tells (google.rpc.Status, AIP-193). */
import { Option } from "effect"
import detailsProto from "./details.proto" with { type: "text" }
import * as Protobuf from "./Protobuf.ts"

/** The status codes of the protocol. */
export const codes = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16
} as const

export type Code = keyof typeof codes

const names = new Map(Object.entries(codes).map(([name, code]) => [code as number, name]))

export const nameOf = (code: number): string => names.get(code) ?? String(code)

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

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null

const isInfo = ({ type_url }: Readonly<Record<string, unknown>>) =>
  typeof type_url === "string" && type_url.endsWith("/google.rpc.ErrorInfo")

/** What a peer says about a call that failed, if it says it in these words. */
export const errorInfoOf: (details: Uint8Array) => Option.Option<ErrorInfo> = Option.liftThrowable((details) => {
  const all = status.decode(details)["details"]
  const info = Array.isArray(all) ? all.filter(isRecord).find(isInfo) : undefined
  if (!(info?.["value"] instanceof Uint8Array)) throw new Error("There is no ErrorInfo")
  const { reason, domain, metadata } = errorInfo.decode(info["value"])
  return {
    reason: String(reason),
    domain: String(domain),
    metadata: Object.fromEntries(Object.entries(isRecord(metadata) ? metadata : {}).map(([k, v]) => [k, String(v)]))
  }
})
