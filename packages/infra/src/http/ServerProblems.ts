export interface Problem {
  readonly status: number
  readonly code: string
  readonly title: string
  readonly detail: string
  readonly headers?: Readonly<Record<string, string>>
}
const lastAnswer = { connection: "close", "retry-after": "1" }
export const internal: Problem = {
  status: 500,
  code: "internal",
  title: "Internal Server Error",
  detail: "Something went wrong on our side; it has been logged."
}
export const starting: Problem = {
  status: 503,
  code: "starting",
  title: "Service Unavailable",
  detail: "The server is starting.",
  headers: { "retry-after": "1" }
}
export const draining: Problem = {
  status: 503,
  code: "draining",
  title: "Service Unavailable",
  detail: "The server is stopping and takes no new requests.",
  headers: lastAnswer
}
export const payloadTooLarge = (maxBodyBytes: number): Problem => ({
  status: 413,
  code: "payload_too_large",
  title: "Content Too Large",
  detail: `The request's body is larger than ${maxBodyBytes} bytes.`,
  headers: { connection: "close" }
})

/** Errors that Effect's HTTP modules answer without a body get the one that our API promises (RFC 9457). */
export const bodyless: { readonly [status: number]: Problem } = {
  400: {
    status: 400,
    code: "bad_request",
    title: "Bad Request",
    detail: "The request could not be read."
  },
  404: { status: 404, code: "not_found", title: "Not Found", detail: "There is nothing at this path." },
  413: {
    status: 413,
    code: "payload_too_large",
    title: "Content Too Large",
    detail: "The request's body is too large."
  },
  500: internal,
  503: {
    status: 503,
    code: "unavailable",
    title: "Service Unavailable",
    detail: "The server cannot answer at the moment.",
    headers: { "retry-after": "1" }
  }
}

export const problem = (
  { headers: own, ...body }: Problem,
  more?: Record<string, string> | globalThis.Headers
): Response => {
  const headers = new globalThis.Headers(more)
  for (const name in own) headers.set(name, own[name] ?? "")
  headers.set("content-type", "application/problem+json")
  headers.delete("content-length")
  const trace = headers.get("traceparent")
  const traceId = trace === null ? undefined : trace.slice(3, 35)
  return new Response(JSON.stringify({ type: "about:blank", ...body, traceId }), { status: body.status, headers })
}
