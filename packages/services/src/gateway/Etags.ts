import { HttpServerRequest, HttpServerResponse } from "effect/http"
import { sha256 } from "@merkato/infra/idempotency/Digest"

/** Whether If-None-Match names this tag (RFC 9110, section 13.1.2: weak comparison, or `*`). */
export const matches = (request: HttpServerRequest.HttpServerRequest, etag: string): boolean => {
  const given = request.headers["if-none-match"]
  if (given === undefined) return false
  const strong = etag.replace(/^W\//, "")
  return given.trim() === "*" || given.split(",").some((tag) => tag.trim().replace(/^W\//, "") === strong)
}

/** JSON text with its entity tag; 304 without a body for who has it already. */
export const tagged = (request: HttpServerRequest.HttpServerRequest, text: string, etag: string) => {
  const headers = { etag, "cache-control": "no-cache" }
  return matches(request, etag)
    ? HttpServerResponse.empty({ status: 304, headers })
    : HttpServerResponse.text(text, { contentType: "application/json", headers })
}

/** JSON with an entity tag made from it. */
export const cacheable = (request: HttpServerRequest.HttpServerRequest, body: unknown) => {
  const text = JSON.stringify(body)
  return tagged(request, text, `W/"${sha256(text).slice(0, 32)}"`)
}
