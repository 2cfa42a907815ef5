import { Schema } from "effect"
import { HttpApiSchema } from "effect/http-api"
import { codeOf } from "@merkato/domain/kernel/Problem"

/** An error as it goes over the wire: RFC 9457, with a stable `code` and the trace to look for. */
export const Problem = Schema.StructWithRest(
  Schema.Struct({
    type: Schema.String,
    title: Schema.String,
    status: Schema.Int,
    detail: Schema.String,
    code: Schema.String,
    traceId: Schema.String,
    errors: Schema.optionalKey(Schema.Array(Schema.Struct({ path: Schema.String, message: Schema.String })))
  }),
  [Schema.Record(Schema.String, Schema.Unknown)]
).annotate({ identifier: "Problem" })

/** The description stands around the schema, not on it: so the document has one Problem and not one per endpoint. */
const described = (status: number, codes: ReadonlyArray<string>) =>
  Schema.Union([Problem])
    .annotate({ description: codes.join(", ") })
    .pipe(HttpApiSchema.status(status), HttpApiSchema.asJson({ contentType: "application/problem+json" }))

/** What any request can be answered with, whatever it asks for: a token that is there has to be valid. */
const always: ReadonlyArray<readonly [number, string]> = [
  [400, "validation_failed"],
  [400, codeOf("InvalidValue")],
  [401, codeOf("Unauthenticated")],
  [413, "payload_too_large"],
  [415, "unsupported_media_type"],
  [500, "internal"],
  [503, codeOf("ServiceUnavailable")]
]

/** The code of a request without the Idempotency-Key that its operation needs. */
export const idempotencyKeyRequired = "idempotency_key_required"

/** Statuses of errors, by tag, where an endpoint answers with another one than the error's own. */
export type Statuses = Readonly<Record<string, number>>

/** A product that the body names and that does not exist is a mistake in the body; the address is there (RFC 9110, 15.5.21). */
export const namedInBody: Statuses = { ProductNotFound: 422 }

/** A code and its status, of an error class. */
const codeAndStatus = ({ ast }: Schema.Top, statuses: Statuses): readonly [number, string] => {
  const { identifier, httpApiStatus } = ast.annotations ?? {}
  const tag = typeof identifier === "string" ? identifier : "Internal"
  return [statuses[tag] ?? (typeof httpApiStatus === "number" ? httpApiStatus : 500), codeOf(tag)]
}

export interface ProblemOptions {
  readonly statuses?: Statuses
  readonly codes?: ReadonlyArray<readonly [number, string]>
}

/** The problems of an endpoint, one schema a status: those of the operation behind it, and those that are always there. */
export const problemsOf = (errors: ReadonlyArray<Schema.Top>, { statuses = {}, codes = [] }: ProblemOptions = {}) => {
  const byStatus = new Map<number, Set<string>>()
  for (const [status, code] of [...always, ...codes, ...errors.map((error) => codeAndStatus(error, statuses))]) {
    byStatus.set(status, (byStatus.get(status) ?? new Set()).add(code))
  }
  return [...byStatus].toSorted(([a], [b]) => a - b).map(([status, all]) => described(status, [...all]))
}

type Contract = { readonly requests: ReadonlyMap<string, object> }

/** The problems of an endpoint: the errors that the contract of its operation lists. */
export const problems = (group: Contract, operation: string, options?: ProblemOptions) => {
  const rpc = group.requests.get(operation)
  if (rpc === undefined || !("errorSchema" in rpc)) throw new Error(`No operation ${operation}`)
  const { errorSchema } = rpc
  const errors = hasMembers(errorSchema) ? errorSchema.members.filter((member) => !isReplayed(member)) : []
  return problemsOf(errors, options)
}

const hasMembers = (schema: unknown): schema is { readonly members: ReadonlyArray<Schema.Top> } =>
  typeof schema === "object" || typeof schema === "function" ? schema !== null && "members" in schema : false

/** A refusal that is given again has the status of the first time; the wrapper never reaches the wire. */
const isReplayed = (schema: Schema.Top): boolean => "fields" in schema && !("identifier" in schema)
