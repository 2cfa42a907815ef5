import { Config, Effect, Layer, Option, Schema } from "effect"
import { FetchHttpClient } from "effect/http"
import { ServerUnreachable } from "../config/ServerUnreachable.ts"
import { lastCause } from "../runtime/LastCause.ts"
import * as OpenSearch from "./OpenSearch.ts"

/** Milliseconds for the first answer. */
const firstAnswerMs = 5_000

const Greeting = Schema.Struct({ version: Schema.Struct({ distribution: Schema.Literal("opensearch") }) })
const isGreeting = Schema.is(Greeting)

const addressOf = (given: string) => {
  const url = URL.canParse(given) ? new URL(given) : undefined
  return url !== undefined && /^https?:$/.test(url.protocol) ? url : undefined
}

const reasonOf = (error: OpenSearch.OpenSearchError) =>
  error instanceof OpenSearch.OpenSearchRefused ? error.message : lastCause(error.cause)

/** The OpenSearch at this URL, once it has answered. */
const at = (given: string, prefix: string) =>
  Layer.effect(
    OpenSearch.OpenSearch,
    Effect.gen(function* () {
      const url = addressOf(given)
      const refuse = (address: string, reason: string) =>
        new ServerUnreachable({ variable: "OPENSEARCH_URL", address, reason })
      if (url === undefined) return yield* refuse("", "expected http://host:port or https://host")
      const server = yield* OpenSearch.make(url, prefix)
      const greeting = yield* server.ask({ method: "GET", path: "" }).pipe(
        Effect.timeout(firstAnswerMs),
        Effect.catchTags({
          OpenSearchUnavailable: (error) => Effect.fail(refuse(url.host, reasonOf(error))),
          OpenSearchRefused: (error) => Effect.fail(refuse(url.host, reasonOf(error))),
          TimeoutError: () => Effect.fail(refuse(url.host, `no answer in ${firstAnswerMs / 1_000} s`))
        })
      )
      return isGreeting(greeting) ? server : yield* refuse(url.host, "what answers there is no OpenSearch")
    })
  ).pipe(Layer.provide(FetchHttpClient.layer))

/**
 * The OpenSearch that `OPENSEARCH_URL` names, none without it; its indexes begin with `OPENSEARCH_INDEX_PREFIX`, `merkato_`
 * unless told. Fails with `ServerUnreachable` when it does not answer at the start.
 */
export const layer = Layer.unwrap(
  Effect.gen(function* (): Effect.fn.Return<
    Layer.Layer<never, ServerUnreachable>,
    ServerUnreachable | Config.ConfigError
  > {
    const url = yield* Config.option(Config.String("OPENSEARCH_URL"))
    if (Option.isNone(url)) return Layer.empty
    const prefix = yield* Config.String("OPENSEARCH_INDEX_PREFIX").pipe(Config.withDefault("merkato_"))
    if (!/^[a-z][a-z0-9_]{0,40}$/.test(prefix)) {
      const reason = "expected a to z first, then a to z, 0 to 9 and _, at most 41 of them"
      return yield* new ServerUnreachable({ variable: "OPENSEARCH_INDEX_PREFIX", address: "", reason })
    }
    return at(url.value, prefix)
  })
)
