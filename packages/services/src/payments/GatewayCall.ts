import { Effect, type Tracer } from "effect"
import { FetchHttpClient } from "effect/http"
import { emptyTraceParent } from "@merkato/domain/kernel/RequestContext"
import { currentTraceParent } from "@merkato/infra/events/Stamp"
import { GatewayDown, GatewayUnknown } from "./PaymentGateways.ts"

/** A gateway's answer is about a kilobyte; what is longer than this is not read to its end. */
const maxAnswerBytes = 64 * 1024

/**
 * Codes of connections that never came about, or of an address that is none. A host that cannot be reached may just as
 * well have gone silent later.
 */
const neverConnected: ReadonlySet<unknown> = new Set([
  "ECONNREFUSED",
  "ConnectionRefused",
  "ENOTFOUND",
  "EAI_AGAIN",
  "ERR_INVALID_URL"
])

/** Whether the gateway cannot have received anything: the request was not made, or nobody took the connection. */
const neverSent = (cause: unknown): boolean =>
  cause instanceof Error && "code" in cause && neverConnected.has(cause.code)

/** A request in a gateway's own protocol. */
export interface GatewayRequest {
  readonly method: "GET" | "POST"
  readonly url: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: { readonly text: string; readonly contentType: string }
}

/** What a gateway answered, whatever it means. */
export interface GatewayAnswer {
  readonly status: number
  readonly body: string
}

/** The text of an answer; undefined when it is too long. */
const textOf = async (response: Response): Promise<string | undefined> => {
  const { body, headers } = response
  const length = headers.get("content-length")
  // What is compressed may be any length, and what does not tell its length, too.
  if (length !== null && !headers.has("content-encoding") && Number(length) <= maxAnswerBytes) {
    return new TextDecoder().decode(await response.arrayBuffer())
  }
  if (body === null) return ""
  const decoder = new TextDecoder()
  const parts: Array<string> = []
  let bytes = 0
  for await (const chunk of body) {
    bytes += chunk.byteLength
    // Leaving the loop ends the stream, and with it the connection.
    if (bytes > maxAnswerBytes) return undefined
    parts.push(decoder.decode(chunk, { stream: true }))
  }
  return parts.join("") + decoder.decode()
}

/**
 * Sends one request, once. There is no retry and no time limit here: both are the policy of who calls. Interrupting it
 * ends the request. Redirects are not followed: money is not moved at addresses that nobody configured.
 *
 * Done with `fetch` itself: the way through Effect's client costs three times as much as the request.
 */
export const make = Effect.gen(function* () {
  const fetch = yield* FetchHttpClient.Fetch

  const send = ({ body, headers, method, url }: GatewayRequest, traceParent: string) =>
    Effect.suspend((): Effect.Effect<GatewayAnswer, GatewayDown | GatewayUnknown> => {
      let answered = false
      return Effect.tryPromise({
        try: async (signal) => {
          const response = await fetch(url, {
            method,
            headers: {
              ...headers,
              ...(body === undefined ? undefined : { "content-type": body.contentType }),
              ...(traceParent === emptyTraceParent ? undefined : { traceparent: traceParent })
            },
            ...(body === undefined ? undefined : { body: body.text }),
            redirect: "manual",
            signal
          })
          answered = true
          return { status: response.status, body: await textOf(response) }
        },
        catch: (cause) =>
          !answered && neverSent(cause)
            ? new GatewayDown({ reason: "the gateway cannot be reached" })
            : // Not the error's own words: they may hold what was sent.
              new GatewayUnknown({ reason: answered ? "the answer broke off" : "the connection failed" })
      }).pipe(
        Effect.flatMap(({ body, status }) =>
          body === undefined
            ? Effect.fail(new GatewayUnknown({ reason: `an answer of more than ${maxAnswerBytes} bytes` }))
            : Effect.succeed({ status, body })
        )
      )
    })

  /** The same as a span of its own. */
  const traced = (request: GatewayRequest) => {
    const { host } = new URL(request.url)
    return Effect.useSpan(
      `http.client ${request.method}`,
      {
        kind: "client",
        attributes: { "http.request.method": request.method, "url.full": request.url, "server.address": host }
      },
      (span) =>
        Effect.tap(send(request, traceParentOf(span)), ({ status }) =>
          Effect.sync(() => span.attribute("http.response.status_code", status))
        )
    )
  }

  return (request: GatewayRequest): Effect.Effect<GatewayAnswer, GatewayDown | GatewayUnknown> =>
    Effect.withFiber((fiber) => {
      const { span, tracerEnabled } = fiber.cache
      return tracerEnabled && span?.sampled === true && URL.canParse(request.url)
        ? traced(request)
        : Effect.flatMap(currentTraceParent, (traceParent) => send(request, traceParent))
    })
})

const traceParentOf = ({ sampled, spanId, traceId }: Tracer.Span) => `00-${traceId}-${spanId}-${sampled ? "01" : "00"}`
