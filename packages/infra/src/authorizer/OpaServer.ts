import { Effect, Layer, Redacted, Schema } from "effect"
import { FetchHttpClient, HttpClient, HttpClientRequest, HttpClientResponse } from "effect/http"
import { ServerUnreachable } from "../config/ServerUnreachable.ts"
import { Policies } from "../policy/Policies.ts"
import { isPolicyError } from "../policy/PolicyError.ts"
import { lastCause } from "../runtime/LastCause.ts"
import { Authorizer, type Question } from "./Authorizer.ts"
import { actionsPath, inputOf, isVerdict, undecided, unfit, verdictPath } from "./OpaPolicy.ts"

/** OPA does not answer, or not with a verdict. */
class OpaUnavailable extends Schema.TaggedError<OpaUnavailable>()("OpaUnavailable", { cause: Schema.Defect() }) {}

/** Milliseconds for the first answer. */
const firstAnswerMs = 5_000

const Answer = Schema.Struct({ result: Schema.optionalKey(Schema.Unknown) })

const addressOf = (given: string): URL | undefined => {
  const url = URL.canParse(given) ? new URL(given) : undefined
  return url !== undefined && /^https?:$/.test(url.protocol) ? url : undefined
}

/** What the policy of the OPA at a base URL says; undefined where it says nothing. */
const make = Effect.fnUntraced(function* (url: URL, token: Redacted.Redacted | undefined) {
  const http = yield* HttpClient.HttpClient
  const base = `${url.origin}${url.pathname.replace(/\/+$/, "")}/v1/data/`
  const headers = token === undefined ? {} : { authorization: `Bearer ${Redacted.value(token)}` }
  return (path: string, input?: object) =>
    http
      .execute(HttpClientRequest.bodyText(HttpClientRequest.post(base + path, { headers }), JSON.stringify({ input })))
      .pipe(
        Effect.flatMap(HttpClientResponse.filterStatusOk),
        Effect.flatMap(HttpClientResponse.schemaBodyJson(Answer)),
        Effect.map(({ result }) => result),
        Effect.provideService(FetchHttpClient.RequestInit, { redirect: "manual" }),
        Effect.mapError((cause) => new OpaUnavailable({ cause }))
      )
})

/**
 * The policy of the OPA at this URL, asked at every decision, under `authorizer.decide`. Fails when it does not answer at the
 * start, or with a policy that is not for this shop.
 */
export const layer = (given: string, token: Redacted.Redacted | undefined) =>
  Layer.effect(
    Authorizer,
    Effect.gen(function* () {
      const url = addressOf(given)
      const refuse = (address: string, reason: string) =>
        new ServerUnreachable({ variable: "OPA_URL", address, reason })
      if (url === undefined) return yield* refuse("", "expected http://host:port or https://host")
      const ask = yield* make(url, token)
      const reason = unfit(
        yield* ask(actionsPath).pipe(
          Effect.timeout(firstAnswerMs),
          Effect.catchTags({
            OpaUnavailable: ({ cause }) => Effect.fail(refuse(url.host, lastCause(cause))),
            TimeoutError: () => Effect.fail(refuse(url.host, `no answer in ${firstAnswerMs / 1_000} s`))
          })
        )
      )
      if (reason !== undefined) return yield* refuse(url.host, reason)

      const policies = yield* Policies
      const guarded = policies.guard("authorizer.decide", { transient: () => true })
      const decide = (question: Question) =>
        ask(verdictPath, inputOf(question)).pipe(
          Effect.filterOrFail(
            isVerdict,
            (answer) => new OpaUnavailable({ cause: new Error(`The policy answers ${JSON.stringify(answer)}`) })
          ),
          guarded,
          Effect.tapError((error) => Effect.logWarning("OPA did not decide", error)),
          Effect.mapError((error) => undecided(isPolicyError(error) ? error.retryAfterSeconds : 1))
        )
      return Authorizer.of({ decide })
    })
  ).pipe(Layer.provide(FetchHttpClient.layer))
