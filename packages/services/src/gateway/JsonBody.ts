import { Effect, Layer } from "effect"
import { HttpServerRequest } from "effect/http"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import { JsonBody, SignedIn } from "@merkato/rpc/rest/Access"
import { invalid, problem } from "./Problems.ts"
import { faultOf } from "./StrictJson.ts"

/** Whether a body is sent as JSON; one of which nothing is said is taken for it. */
export const isJson = (contentType: string | undefined) =>
  contentType === undefined || /^application\/json\s*(?:;|$)/i.test(contentType.trim())

export const isPlain = (contentEncoding: string | undefined) =>
  contentEncoding === undefined || contentEncoding.trim().toLowerCase() === "identity"

const unsupported = (detail: string, headers: Record<string, string>) =>
  problem({ status: 415, code: "unsupported_media_type", title: "Unsupported media type", detail, headers })

/** Looks at the body of those endpoints that take one, before anything is decoded. */
export const layer = Layer.succeed(JsonBody, (handler, { endpoint }) => {
  if (endpoint.payload.size === 0) return handler
  const needsToken = [...endpoint.middlewares].some((middleware) => middleware.key === SignedIn.key)
  return Effect.gen(function* () {
    // Who has to sign in first is told that first.
    if (needsToken && (yield* RequestContext).principal.role === "anonymous") return yield* handler
    const request = yield* HttpServerRequest.HttpServerRequest
    if (!isJson(request.headers["content-type"])) {
      return yield* unsupported("Send the body as application/json", { accept: "application/json" })
    }
    if (!isPlain(request.headers["content-encoding"])) {
      return yield* unsupported("Send the body as it is, not compressed", { "accept-encoding": "identity" })
    }
    const fault = faultOf(yield* Effect.orDie(request.text))
    return fault === undefined ? yield* handler : yield* invalid("body", [{ path: "", message: fault }])
  })
})
