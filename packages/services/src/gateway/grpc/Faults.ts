/** Whatever goes wrong with a call, as gRPC tells it: the codes, words and fields of the problems of REST. */
import { Schema } from "effect"
import { Unauthenticated } from "@merkato/domain/kernel/Problem"
import type { Fault } from "@merkato/infra/grpc/GrpcStatus"
import { DeadlineExceeded } from "@merkato/infra/policy/PolicyError"
import * as Refusals from "@merkato/rpc/grpc/Refusals"
import type { Arrival } from "../Arrival.ts"
import { issuesOf, optionsOf, type Tagged } from "../Problems.ts"

/** Whose codes they are, and the trace to look for. */
export interface Told {
  readonly domain: string
  readonly arrival: Arrival
}

const traceOf = ({ arrival }: Told) => ({ traceId: arrival.traceParent.slice(3, 35) })

const invalid = (error: Schema.SchemaError, told: Told): Fault => ({
  code: "INVALID_ARGUMENT",
  message: "The message is not what is expected here",
  reason: "validation_failed",
  domain: told.domain,
  metadata: traceOf(told),
  violations: issuesOf(error).map(({ path, message }) => ({ field: path, description: message }))
})

/** A failure that is in the type. */
export const ofError = (error: Tagged | Schema.SchemaError, told: Told): Fault => {
  if (Schema.isSchemaError(error)) return invalid(error, told)
  const { status, code, detail, extensions } = optionsOf(error)
  const retryAfterSeconds =
    "retryAfterSeconds" in error && typeof error.retryAfterSeconds === "number" ? error.retryAfterSeconds : undefined
  const fields = { ...extensions, ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }) }
  return {
    code: error instanceof DeadlineExceeded ? "DEADLINE_EXCEEDED" : Refusals.statusOf(status),
    message: detail,
    reason: code,
    domain: told.domain,
    metadata: { ...Refusals.metadataOf(fields), ...traceOf(told) },
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds })
  }
}

export const signInFirst = new Unauthenticated({ reason: "Sign in first" })

/** What nobody foresaw is told without its innards. */
export const unforeseen = (told: Told): Fault => ({
  code: "INTERNAL",
  message: "Something went wrong on our side",
  reason: "internal",
  domain: told.domain,
  metadata: traceOf(told)
})
