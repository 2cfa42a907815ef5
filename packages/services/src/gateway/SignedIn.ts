import { Effect, Layer } from "effect"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import { SignedIn } from "@merkato/rpc/rest/Access"
import { unauthenticated } from "./Problems.ts"

/** The edge has read the token already; here nobody is refused who is somebody. What they may do the contexts decide. */
export const layer = Layer.succeed(SignedIn, {
  bearer: (handler) =>
    Effect.flatMap(RequestContext, ({ principal }) =>
      principal.role === "anonymous" ? unauthenticated("Sign in first") : handler
    )
})
