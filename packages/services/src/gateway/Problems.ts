import { Cause, Effect, Predicate, type Schema, SchemaIssue } from "effect"
import { HttpServerError, HttpServerRespondable, HttpServerResponse } from "effect/http"
import { HttpApiError } from "effect/http-api"
import { codeOf, InvalidValue, statusOf, titleOf, Unauthenticated } from "@merkato/domain/kernel/Problem"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import type { Statuses } from "@merkato/rpc/rest/Problems"
import { methodsAt } from "./Methods.ts"

export interface ProblemOptions {
  readonly status: number
  readonly code: string
  readonly title: string
  readonly detail: string
  readonly extensions?: Readonly<Record<string, unknown>>
  readonly headers?: Readonly<Record<string, string>>
}

/** A problem's members as RFC 9457 has them, with the trace to look for. No field of an error takes the place of one of its own. */
export const problemMembers = (
  { status, code, title, detail, extensions }: ProblemOptions,
  traceParent: string
): Readonly<Record<string, unknown>> => {
  const own = {
    type: `urn:merkato:problem:${code}`,
    title,
    status,
    detail,
    code,
    traceId: traceParent.slice(3, 35)
  }
  return { ...own, ...extensions, ...own }
}

export const problem = (options: ProblemOptions) =>
  Effect.map(RequestContext, ({ traceParent }) =>
    HttpServerResponse.jsonUnsafe(problemMembers(options, traceParent), {
      status: options.status,
      contentType: "application/problem+json",
      ...(options.headers === undefined ? {} : { headers: options.headers })
    })
  )

const reserved = new Set(["_tag", "message", "name", "stack", "cause"])

export interface Tagged {
  readonly _tag: string
  readonly message?: string
}

interface ErrorOptions {
  /** Statuses that this endpoint has for errors, instead of their own. */
  readonly statuses?: Statuses
  readonly headers?: Readonly<Record<string, string>>
}

/** A typed error of the domain: its tag is the code, its own fields stand beside it. */
export const optionsOf = (error: Tagged, { statuses = {}, headers = {} }: ErrorOptions = {}): ProblemOptions => {
  const { retryAfterSeconds, ...fields } = Object.fromEntries(
    Object.entries(error).filter(([field]) => !reserved.has(field))
  )
  const status = statuses[error._tag] ?? statusOf(error)
  return {
    status,
    code: codeOf(error._tag),
    title: titleOf(error._tag),
    detail: error.message ?? titleOf(error._tag),
    extensions: error instanceof InvalidValue ? { errors: [{ path: error.path, message: error.reason }] } : fields,
    headers: {
      ...headers,
      ...(status === 401 ? challenge : {}),
      ...(retryAfterSeconds === undefined ? {} : { "retry-after": String(retryAfterSeconds) })
    }
  }
}

export const ofError = (error: Tagged, options: ErrorOptions = {}) =>
  Effect.flatMap(RequestContext, ({ principal }) =>
    // Who is nobody is first asked to say who they are.
    error._tag === "Forbidden" && principal.role === "anonymous"
      ? unauthenticated("Sign in first")
      : problem(optionsOf(error, options))
  )

/** What a 401 has to say (RFC 9110, section 15.5.2). */
const challenge = { "www-authenticate": "Bearer" }

export const unauthenticatedOptions = (detail: string): ProblemOptions => ({
  status: 401,
  code: "unauthenticated",
  title: "Unauthenticated",
  detail,
  headers: challenge
})

export const unauthenticated = (detail: string) => problem(unauthenticatedOptions(detail))

const formatIssues = SchemaIssue.makeFormatterStandardSchemaV1()

/** What of the input is wrong, by path: `items[0].qty`. */
export const issuesOf = (error: Schema.SchemaError) =>
  formatIssues(error.issue)
    .issues.slice(0, 50)
    .map((issue) => ({
      path: (issue.path ?? [])
        .map((segment) => (typeof segment === "object" ? segment.key : segment))
        .reduce<string>(
          (path, key) =>
            typeof key === "number" ? `${path}[${key}]` : path === "" ? String(key) : `${path}.${String(key)}`,
          ""
        )
        .slice(0, 200),
      message: issue.message
    }))

export const invalid = (where: string, errors: ReadonlyArray<{ readonly path: string; readonly message: string }>) =>
  problem({
    status: 400,
    code: "validation_failed",
    title: "Validation failed",
    detail: `The ${where} of the request is not what is expected here`,
    extensions: { errors }
  })

/** What people call the parts of a request. */
const parts: Readonly<Record<string, string>> = { Params: "path", Query: "query", Headers: "header", Payload: "body" }

const payloadTooLarge = problem({
  status: 413,
  code: "payload_too_large",
  title: "Content Too Large",
  detail: "The body of the request is larger than is read here",
  // The rest of it is not read.
  headers: { connection: "close" }
})

const routeNotFound = (url: string) => {
  const methods = methodsAt(url)
  return methods.length === 0
    ? problem({ status: 404, code: "route_not_found", title: "Route not found", detail: "There is nothing here" })
    : problem({
        status: 405,
        code: "method_not_allowed",
        title: "Method not allowed",
        detail: `What is here answers to ${methods.join(", ")}`,
        headers: { allow: methods.join(", ") }
      })
}

/** Any failure of a request as a response; what nobody foresaw is reported and told without its innards. */
export const ofCause = (cause: Cause.Cause<unknown>) =>
  Effect.gen(function* () {
    for (const reason of cause.reasons) {
      const error = Cause.isFailReason(reason) ? reason.error : Cause.isDieReason(reason) ? reason.defect : undefined
      if (HttpApiError.HttpApiSchemaError.is(error) && error.kind !== "Body" && error.kind !== "ResponseHeaders") {
        return yield* invalid(parts[error.kind] ?? "body", issuesOf(error.cause))
      }
      if (error instanceof Unauthenticated) return yield* unauthenticated(error.reason)
      if (HttpServerError.isHttpServerError(error)) {
        if (error.reason._tag === "RouteNotFound") {
          return yield* routeNotFound(error.reason.request.url)
        }
        if (error.reason._tag === "RequestParseError") {
          if (error.reason.reason === "BodyTooLarge") return yield* payloadTooLarge
          return yield* invalid("body", [{ path: "", message: "Expected a body that can be read as UTF-8 text" }])
        }
      }
      if (HttpServerRespondable.isRespondable(error) && !Predicate.isTagged(error, "HttpApiSchemaError")) {
        return yield* HttpServerRespondable.toResponse(error)
      }
    }
    if (Cause.hasInterruptsOnly(cause)) return yield* Effect.interrupt
    yield* Effect.logError("A request failed in a way that nobody foresaw", cause)
    return yield* problem({
      status: 500,
      code: "internal",
      title: "Internal error",
      detail: "Something went wrong on our side"
    })
  })
