import { Context, Effect, Schema } from "effect"
import { FindMyWay } from "effect/http"
import { HttpApi } from "effect/http-api"
import { Api } from "@merkato/rpc/rest/Api"
import type { Answer } from "./Client.ts"

interface Documented {
  readonly operationId: string
  readonly bodies: ReadonlyMap<number, ReadonlyArray<Schema.Top>>
}

/** The codecs of the API need nothing from their surroundings. */
const nothing = Context.makeUnsafe<unknown>(new Map())

const isProblem = Schema.is(
  Schema.Struct({
    type: Schema.Literal("about:blank").pipe((blank) =>
      Schema.Union([blank, Schema.String.check(Schema.isPattern(/^urn:merkato:problem:[a-z_]+$/))])
    ),
    title: Schema.NonEmptyString,
    status: Schema.Int,
    detail: Schema.NonEmptyString,
    code: Schema.String.check(Schema.isPattern(/^[a-z]+(?:_[a-z]+)*$/)),
    traceId: Schema.String.check(Schema.isPattern(/^[0-9a-f]{32}$/))
  })
)

const isErrors = Schema.is(Schema.NonEmptyArray(Schema.Struct({ path: Schema.String, message: Schema.NonEmptyString })))

/** Codes of bad input: they say what of it is bad. */
const badInput = new Set<unknown>(["validation_failed", "invalid_value"])

/** Holds answers against what the API promises: its schemas, and what every answer carries. */
export class RestContract {
  /** What was answered, by operation. */
  readonly seen = new Map<string, Set<number>>()
  /** The names of headers that answers had, by operation and status: `orders.getOrder 200`. */
  readonly headersSeen = new Map<string, Set<string>>()
  private readonly operations = FindMyWay.make<Documented>()

  constructor() {
    HttpApi.reflect(Api, {
      onGroup: () => {},
      onEndpoint: ({ group, endpoint, successes, errors }) => {
        if (!isPath(endpoint.path)) throw new Error(`no path: ${endpoint.path}`)
        this.operations.on(endpoint.method, endpoint.path, {
          operationId: `${group.identifier}.${endpoint.identifier}`,
          bodies: new Map([...successes, ...errors])
        })
      }
    })
  }

  /** Throws when the answer is not as promised. */
  check(method: string, path: string, answer: Answer): void {
    const { status, headers, body } = answer
    const told = `${method} ${path.slice(0, 200)}: ${status} ${JSON.stringify(body).slice(0, 600)}`
    const must = (condition: boolean, what: string) => {
      if (!condition) throw new Error(`${what}, in ${told}`)
    }
    must(/^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/.test(headers.get("traceparent") ?? ""), "no traceparent")
    must((headers.get("correlation-id") ?? "") !== "", "no Correlation-Id")
    must(headers.get("x-content-type-options") === "nosniff", "no nosniff")
    if (status >= 400 && method !== "HEAD") {
      must(headers.get("content-type") === "application/problem+json", "not a problem")
      must(isProblem(body), "not a whole problem")
      must(body["status"] === status, "another status in the body")
      must(body["traceId"] === headers.get("traceparent")?.slice(3, 35), "another trace in the body")
      must(badInput.has(body["code"]) ? isErrors(body["errors"]) : body["errors"] === undefined, "wrong errors")
      if (status === 401) must(headers.get("www-authenticate") === "Bearer", "no WWW-Authenticate")
      if (status === 503 || String(body["code"]).endsWith("_in_progress")) {
        must(/^[1-9][0-9]*$/.test(headers.get("retry-after") ?? ""), "no Retry-After")
      }
      if (body["code"] === "route_not_found" || body["code"] === "method_not_allowed") return
    }
    const operation = this.operations.find(method, path)?.handler
    if (operation === undefined) return
    const schemas = operation.bodies.get(status)
    must(schemas !== undefined, `${operation.operationId} does not document ${status}`)
    this.seen.set(operation.operationId, (this.seen.get(operation.operationId) ?? new Set<number>()).add(status))
    const answered = `${operation.operationId} ${status}`
    this.headersSeen.set(answered, new Set([...(this.headersSeen.get(answered) ?? []), ...headers.keys()]))
    if (status === 204 || status === 304) {
      must(headers.get("content-type") === null && Object.keys(body).length === 0, "a body where there is none")
      return
    }
    if (status < 400) must(headers.get("content-type") === "application/json", "not JSON")
    Schema.decodeUnknownEffect(Schema.Union(schemas ?? []), { onExcessProperty: "error", errors: "all" })(body).pipe(
      Effect.provideContext(nothing),
      Effect.mapError((error) => new Error(`${error.message}, in ${told}`)),
      Effect.runSync
    )
  }
}

const isPath = (path: string): path is `/${string}` => path.startsWith("/")
