import { Cookies, type Headers, HttpServerResponse } from "effect/http"
import { bodyless, draining, problem } from "./ServerProblems.ts"

/**
 * Bun sets the length, and leaves out the body where the method or the status allows none. Texts and bytes with nothing
 * but a type, the common case, share their headers.
 */
export const toWeb = (response: HttpServerResponse.HttpServerResponse, isDraining: boolean): Response => {
  const { body, status } = response
  switch (body._tag) {
    case "Uint8Array": {
      const init = Cookies.isEmpty(response.cookies) && status === 200 ? plainInit(response.headers) : undefined
      return new Response(body.text ?? body.body, init ?? { status, headers: headersOf(response) })
    }
    case "Empty": {
      const error = bodyless[status]
      return error === undefined
        ? new Response(null, { status, headers: headersOf(response) })
        : problem(status === 503 && isDraining ? draining : error, headersOf(response))
    }
    case "Stream":
      return new Response(null, { status, headers: headersOf(response) })
    default:
      return HttpServerResponse.toWeb(response)
  }
}

const headersOf = (response: HttpServerResponse.HttpServerResponse): Record<string, string> | globalThis.Headers => {
  if (Cookies.isEmpty(response.cookies)) return response.headers
  const headers = new globalThis.Headers(response.headers)
  for (const cookie of Cookies.toSetCookieHeaders(response.cookies)) headers.append("set-cookie", cookie)
  return headers
}

const plainInits = new Map<string, ResponseInit>()
const plainInitsLimit = 64
const plainInit = (headers: Headers.Headers): ResponseInit | undefined => {
  let type: string | undefined
  for (const name in headers) {
    if (name === "content-type") type = headers[name]
    else if (name !== "content-length") return undefined
  }
  if (type === undefined) return undefined
  let init = plainInits.get(type)
  if (init === undefined) {
    init = { headers: new globalThis.Headers({ "content-type": type }) }
    if (plainInits.size < plainInitsLimit) plainInits.set(type, init)
  }
  return init
}
