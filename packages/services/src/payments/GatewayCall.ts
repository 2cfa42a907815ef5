import { Effect, Stream } from "effect"
import { FetchHttpClient, HttpClient, type HttpClientError, type HttpClientRequest } from "effect/http"
import { GatewayDown, GatewayUnknown } from "./PaymentGateways.ts"

/** A gateway's answer is about a kilobyte; what is longer than this is not read to its end. */
const maxAnswerBytes = 64 * 1024

/** Codes of connections that never came about. A host that cannot be reached may just as well have gone silent later. */
const neverConnected: ReadonlySet<unknown> = new Set(["ECONNREFUSED", "ConnectionRefused", "ENOTFOUND", "EAI_AGAIN"])

/** Whether the gateway cannot have received anything: the request was not made, or nobody took the connection. */
const neverSent = ({ cause, reason }: HttpClientError.HttpClientError): boolean => {
  if (reason._tag === "EncodeError" || reason._tag === "InvalidUrlError") return true
  return reason._tag === "TransportError" && cause instanceof Error && "code" in cause && neverConnected.has(cause.code)
}

/** What a gateway answered, whatever it means. */
export interface GatewayAnswer {
  readonly status: number
  readonly body: string
}

/**
 * Sends one request, once. There is no retry and no time limit here: both are the policy of who calls. Interrupting it
 * ends the request. Redirects are not followed: money is not moved at addresses that nobody configured.
 */
export const make = Effect.gen(function* () {
  const http = yield* HttpClient.HttpClient
  return (request: HttpClientRequest.HttpClientRequest): Effect.Effect<GatewayAnswer, GatewayDown | GatewayUnknown> =>
    Effect.gen(function* () {
      const response = yield* http.execute(request)
      const { headers, status } = response
      // At once where it says how long it is, and is not packed; what does not is counted as it comes.
      if (Number(headers["content-length"]) <= maxAnswerBytes && headers["content-encoding"] === undefined) {
        return { status, body: yield* response.text }
      }
      const decoder = new TextDecoder()
      let bytes = 0
      const parts = yield* response.stream.pipe(
        Stream.mapEffect((chunk) => {
          bytes += chunk.byteLength
          return bytes > maxAnswerBytes
            ? Effect.fail(new GatewayUnknown({ reason: `an answer of more than ${maxAnswerBytes} bytes` }))
            : Effect.succeed(decoder.decode(chunk, { stream: true }))
        }),
        Stream.runCollect
      )
      return { status, body: `${parts.join("")}${decoder.decode()}` }
    }).pipe(
      Effect.provideService(FetchHttpClient.RequestInit, { redirect: "manual" }),
      Effect.catchTag("HttpClientError", (error) =>
        Effect.fail(
          neverSent(error)
            ? new GatewayDown({ reason: "the gateway cannot be reached" })
            : // Not the error's own words: they may hold what was sent.
              new GatewayUnknown({ reason: `the connection failed: ${error.reason._tag}` })
        )
      )
    )
})
