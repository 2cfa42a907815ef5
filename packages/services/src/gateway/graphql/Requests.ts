import { Data, Effect, Schema } from "effect"
import type { HttpServerRequest } from "effect/http"
import type { Asked } from "@merkato/infra/graphql/Graph"
import { isJson, isPlain } from "../JsonBody.ts"
import { issuesOf } from "../Problems.ts"
import { faultOf } from "../StrictJson.ts"

const Variables = Schema.Record(Schema.String, Schema.Unknown)
const Extensions = Schema.StructWithRest(
  Schema.Struct({
    persistedQuery: Schema.optionalKey(
      Schema.Struct({
        version: Schema.Literal(1),
        sha256Hash: Schema.String.check(Schema.isPattern(/^[0-9a-f]{64}$/))
      })
    )
  }),
  [Schema.Record(Schema.String, Schema.Unknown)]
)
const orNull = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

/** The parameters of a request (GraphQL over HTTP, section 5.1); others are passed over. */
const Parameters = Schema.Struct({
  query: orNull(Schema.String),
  operationName: orNull(Schema.String),
  variables: orNull(Variables),
  extensions: orNull(Extensions)
}).check(
  Schema.makeFilter(({ query, extensions }) =>
    typeof query !== "string" && extensions?.persistedQuery === undefined
      ? { path: ["query"], issue: "Expected a query" }
      : undefined
  )
)
const decodeParameters = Schema.decodeUnknownEffect(Parameters)

/** What is wrong with a request that does not come to be a query. */
export class Unreadable extends Data.TaggedError("Unreadable")<{
  readonly status: 400 | 406 | 415
  readonly code: string
  readonly detail: string
  readonly errors?: ReadonlyArray<{ readonly path: string; readonly message: string }>
  readonly headers?: Readonly<Record<string, string>>
}> {}

const invalid = (errors: ReadonlyArray<{ readonly path: string; readonly message: string }>) =>
  new Unreadable({
    status: 400,
    code: "validation_failed",
    detail: errors.map(({ path, message }) => (path === "" ? message : `${path}: ${message}`)).join("; "),
    errors
  })

const decode = (input: unknown) =>
  decodeParameters(input).pipe(
    Effect.mapBoth({
      onFailure: (error) => invalid(issuesOf(error)),
      onSuccess: ({ query, operationName, variables, extensions }): Asked => ({
        query: query ?? undefined,
        operationName: operationName ?? undefined,
        variables: variables ?? {},
        persisted: extensions?.persistedQuery?.sha256Hash
      })
    })
  )

const parsed = (path: string, text: string): Effect.Effect<unknown, Unreadable> => {
  const fault = faultOf(text)
  return fault === undefined
    ? Effect.try({ try: (): unknown => JSON.parse(text), catch: () => invalid([{ path, message: "Expected JSON" }]) })
    : Effect.fail(invalid([{ path, message: fault }]))
}

/** A request by GET: the parameters as they are, `variables` and `extensions` in JSON. */
const ofUrl = Effect.fnUntraced(function* (url: string) {
  const given = new URL(url, "http://localhost").searchParams
  const parameters: Record<string, unknown> = {}
  for (const name of ["query", "operationName"]) {
    const value = given.get(name)
    if (value !== null && value !== "") parameters[name] = value
  }
  for (const name of ["variables", "extensions"]) {
    const value = given.get(name)
    if (value !== null && value !== "") parameters[name] = yield* parsed(name, value)
  }
  return yield* decode(parameters)
})

const ofBody = Effect.fnUntraced(function* ({ headers, text }: HttpServerRequest.HttpServerRequest) {
  const contentType = headers["content-type"]
  if (contentType === undefined || !isJson(contentType)) {
    return yield* new Unreadable({
      status: 415,
      code: "unsupported_media_type",
      detail: "Send the query as application/json",
      headers: { accept: "application/json" }
    })
  }
  if (!isPlain(headers["content-encoding"])) {
    return yield* new Unreadable({
      status: 415,
      code: "unsupported_media_type",
      detail: "Send the query as it is, not compressed",
      headers: { "accept-encoding": "identity" }
    })
  }
  return yield* decode(yield* parsed("", yield* Effect.orDie(text)))
})

/** What a request asks for (GraphQL over HTTP, sections 5.2 and 5.3). */
export const read = (request: HttpServerRequest.HttpServerRequest): Effect.Effect<Asked, Unreadable> =>
  request.method === "POST" ? ofBody(request) : ofUrl(request.url)

export type MediaType = "application/graphql-response+json" | "application/json"

/** The kind of answer that Accept wants most; without a wish, or with any, the one that every client knows. Undefined: neither. */
export const mediaTypeOf = (accept: string | undefined): MediaType | undefined => {
  if (accept === undefined || accept.trim() === "") return "application/json"
  const weights = new Map<string, number>()
  for (const range of accept.split(",")) {
    const [type = "", ...parameters] = range.split(";").map((part) => part.trim().toLowerCase())
    const q = parameters.find((parameter) => parameter.startsWith("q="))
    weights.set(type, q === undefined ? 1 : Number(q.slice(2)) || 0)
  }
  const any = weights.get("application/*") ?? weights.get("*/*") ?? 0
  const own = weights.get("application/graphql-response+json") ?? 0
  const json = weights.get("application/json") ?? any
  if (own === 0 && json === 0) return undefined
  return own >= json ? "application/graphql-response+json" : "application/json"
}
