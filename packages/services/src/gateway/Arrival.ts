import { Clock, Context, Metric, Random } from "effect"
import * as Ids from "@merkato/domain/kernel/Ids"

const latency = Metric.histogram("http_request_duration_ms", {
  description: "Milliseconds from request to answer",
  boundaries: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000]
})
const classes = [1, 2, 3, 4, 5].map((hundred) =>
  Metric.counter("http_requests_total", {
    description: "Requests answered",
    incremental: true,
    attributes: { status: `${hundred}xx` }
  })
)

/** What a Correlation-Id may be; another is replaced, since it goes into logs and headers. */
const correlationIdPattern = /^[\x21-\x7e]{1,128}$/

const hex = (random: Random.Random, digits: number) => {
  let text = ""
  while (text.length < digits)
    text += Math.floor(random.nextDoubleUnsafe() * 2 ** 32)
      .toString(16)
      .padStart(8, "0")
  return text.slice(0, digits)
}

const correlationIdOf = (given: string | undefined, now: number, random: Random.Random): string =>
  given !== undefined && correlationIdPattern.test(given) ? given : Ids.uuidV7(now, () => random.nextDoubleUnsafe())

/** A trace that is not recorded: the caller's, or a fresh one. */
const unsampled = (given: string | undefined, random: Random.Random): string => {
  const id = given === undefined ? undefined : /^00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$/.exec(given)?.[1]
  const traceId = id !== undefined && !/^0+$/.test(id) ? id : hex(random, 32)
  return `00-${traceId}-${hex(random, 16)}-00`
}

/** When a request came, and what it and everything done for it is known by. */
export interface Arrival {
  /** Milliseconds of the Clock. */
  readonly at: number
  readonly correlationId: string
  /** W3C trace context, present even when the request is not sampled. */
  readonly traceParent: string
}

interface Span {
  readonly traceId: string
  readonly spanId: string
}

/** The arrival of a request with these headers; `span` is its own if it is traced. */
export const arrive = (
  services: Context.Context<never>,
  header: (name: string) => string | undefined,
  span?: Span
): Arrival => {
  const random = Context.get(services, Random.Random)
  const at = Context.get(services, Clock.Clock).currentTimeMillisUnsafe()
  return {
    at,
    correlationId: correlationIdOf(header("correlation-id"), at, random),
    traceParent: span === undefined ? unsampled(header("traceparent"), random) : `00-${span.traceId}-${span.spanId}-01`
  }
}

/** Counts the answer to a request. */
export const depart = (services: Context.Context<never>, { at }: Arrival, status: number): void => {
  // What has become a WebSocket is answered when that ends.
  if (status !== 101) latency.updateUnsafe(Context.get(services, Clock.Clock).currentTimeMillisUnsafe() - at, services)
  classes[Math.floor(status / 100) - 1]?.updateUnsafe(1, services)
}

/**
 * What every answer says to browsers (OWASP REST Security): believe the content type, do not frame, load nothing. The
 * pages for people say themselves what they load. Answers of the API are not stored, unless they say otherwise (products
 * do, with their entity tags).
 */
const protection: Readonly<Record<string, string>> = {
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'"
}
const ofTheApi: Readonly<Record<string, string>> = { "cache-control": "no-store", ...protection }

/** What every answer carries, and then what this one says itself. */
export const headersOf = (
  { correlationId, traceParent }: Arrival,
  path: string,
  own: Readonly<Record<string, string>>
) => ({
  ...(path.startsWith("/api/") ? ofTheApi : protection),
  ...own,
  "correlation-id": correlationId,
  traceparent: traceParent
})

/** The token of an Authorization header; empty if it holds none that can be read. */
export const bearer = (authorization: string | undefined): string | undefined =>
  authorization === undefined ? undefined : (/^Bearer +(\S+)$/i.exec(authorization)?.[1] ?? "")
