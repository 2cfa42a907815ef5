import { Context, Effect, Result, Schema } from "effect"
import { FetchHttpClient, HttpClient, HttpClientRequest } from "effect/http"

/** OpenSearch does not answer, or cannot do now what it is asked. */
export class OpenSearchUnavailable extends Schema.TaggedError<OpenSearchUnavailable>()("OpenSearchUnavailable", {
  cause: Schema.Defect()
}) {}

/** OpenSearch says no, and will say it again. */
export class OpenSearchRefused extends Schema.TaggedError<OpenSearchRefused>()("OpenSearchRefused", {
  status: Schema.Int,
  /** In its own words, as in `index_not_found_exception`. */
  kind: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `OpenSearch answers ${this.status}: ${this.kind}: ${this.reason}`
  }
}

export type OpenSearchError = OpenSearchUnavailable | OpenSearchRefused

export interface Ask {
  readonly method: "GET" | "PUT" | "POST" | "DELETE"
  /** Below the URL, with its query. */
  readonly path: string
  /** A JSON document; a list is sent as lines, one document each. */
  readonly body?: object | ReadonlyArray<object>
}

/** The OpenSearch of the shop. */
export class OpenSearch extends Context.Service<
  OpenSearch,
  {
    readonly ask: (ask: Ask) => Effect.Effect<unknown, OpenSearchError>
    /** What the names of the shop's indexes begin with: others may use the same server. */
    readonly prefix: string
  }
>()("merkato/infra/OpenSearch") {}

/** Milliseconds after which nobody waits for an answer any more; who has less time says so himself. */
const patienceMs = 10_000

const Refusal = Schema.fromJsonString(
  Schema.Struct({ error: Schema.Struct({ type: Schema.String, reason: Schema.NullOr(Schema.String) }) })
)
const decodeRefusal = Schema.decodeUnknownResult(Refusal)
const parse = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.Unknown))

const lines = (documents: ReadonlyArray<unknown>) =>
  documents.map((document) => `${JSON.stringify(document)}\n`).join("")

/** Too busy, or not able yet: its own refusals of what is wrong are all others of 4xx. */
const isAway = (status: number) => status === 429 || status >= 500

/** Asks the OpenSearch at a base URL, which may have a user and a password. */
export const make = Effect.fnUntraced(function* (url: URL, prefix: string) {
  const http = yield* HttpClient.HttpClient
  const { username, password } = url
  const base = `${url.origin}${url.pathname.replace(/\/+$/, "")}`
  const credentials =
    username === ""
      ? undefined
      : Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString("base64")

  const requestOf = ({ method, path, body }: Ask) => {
    const plain = HttpClientRequest.make(method)(`${base}/${path}`)
    const request =
      credentials === undefined ? plain : HttpClientRequest.setHeader(plain, "authorization", `Basic ${credentials}`)
    if (body === undefined) return request
    return Array.isArray(body)
      ? HttpClientRequest.bodyText(request, lines(body), "application/x-ndjson")
      : HttpClientRequest.bodyText(request, JSON.stringify(body), "application/json")
  }

  const ask = (asked: Ask): Effect.Effect<unknown, OpenSearchError> =>
    Effect.gen(function* () {
      const response = yield* http.execute(requestOf(asked))
      const text = yield* response.text
      const { status } = response
      if (status < 300) return yield* parse(text)
      if (isAway(status)) return yield* new OpenSearchUnavailable({ cause: new Error(`status ${status}`) })
      const refusal = decodeRefusal(text)
      return yield* Result.isSuccess(refusal)
        ? new OpenSearchRefused({
            status,
            kind: refusal.success.error.type,
            reason: refusal.success.error.reason ?? ""
          })
        : new OpenSearchRefused({ status, kind: "unknown", reason: text.slice(0, 200) })
    }).pipe(
      Effect.timeout(patienceMs),
      Effect.provideService(FetchHttpClient.RequestInit, { redirect: "manual" }),
      Effect.catchTags({
        HttpClientError: (cause) => Effect.fail(new OpenSearchUnavailable({ cause })),
        TimeoutError: (cause) => Effect.fail(new OpenSearchUnavailable({ cause })),
        SchemaError: (cause) => Effect.fail(new OpenSearchUnavailable({ cause }))
      })
    )

  return OpenSearch.of({ ask, prefix })
})
