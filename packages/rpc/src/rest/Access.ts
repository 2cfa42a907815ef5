import { HttpApiMiddleware, HttpApiSecurity, OpenApi } from "effect/http-api"

const bearer = HttpApiSecurity.bearer.pipe(
  HttpApiSecurity.annotateMerge(
    OpenApi.annotations({
      format: "JWT",
      description: "The accessToken of POST /api/v1/sessions, or the guestToken of POST /api/v1/carts"
    })
  )
)

/** Endpoints that need to know who asks. Without a token they answer 401, whatever else the request says. */
export class SignedIn extends HttpApiMiddleware.Service<SignedIn>()("merkato/rest/SignedIn", {
  security: { bearer }
}) {}

/**
 * What a body has to be before its fields are looked at: `application/json`, not compressed, UTF-8, no name twice in an
 * object (RFC 7493, section 2.3), and not nested without end.
 */
export class JsonBody extends HttpApiMiddleware.Service<JsonBody>()("merkato/rest/JsonBody") {}
