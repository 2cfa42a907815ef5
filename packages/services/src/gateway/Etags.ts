import { type HttpServerRequest, HttpServerResponse } from "effect/http"
import { sha256 } from "@merkato/infra/idempotency/Digest"

/** Whether If-None-Match names this tag (RFC 9110, section 13.1.2: weak comparison, or `*`). */
export const matches = (given: string | undefined, etag: string): boolean => {
  if (given === undefined) return false
  const strong = etag.replace(/^W\//, "")
  return given.trim() === "*" || given.split(",").some((tag) => tag.trim().replace(/^W\//, "") === strong)
}

/** JSON text that has an entity tag, as it is told: to be kept, and to be asked after each time. */
export const taggedHeaders = (etag: string) => ({ etag, "cache-control": "no-cache" })
export const taggedType = "application/json"

/** JSON text with its entity tag; 304 without a body for whoever has it already. */
export const tagged = (request: HttpServerRequest.HttpServerRequest, text: string, etag: string) => {
  const headers = taggedHeaders(etag)
  return matches(request.headers["if-none-match"], etag)
    ? HttpServerResponse.empty({ status: 304, headers })
    : HttpServerResponse.text(text, { contentType: taggedType, headers })
}

/** JSON text with an entity tag made from it. */
export const jsonWithTag = (value: unknown) => {
  const body = JSON.stringify(value)
  return { etag: `W/"${sha256(body).slice(0, 32)}"`, body }
}
