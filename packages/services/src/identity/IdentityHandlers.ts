import { Effect } from "effect"
import { IdentityGroup } from "@merkato/rpc/identity/IdentityRpc"
import { Identity } from "./Identity.ts"

export const IdentityHandlers = IdentityGroup.toLayer(
  Effect.gen(function* () {
    const identity = yield* Identity
    return IdentityGroup.of({
      Register: (person) => identity.register(person),
      SignIn: (credentials) => identity.signIn(credentials),
      Refresh: ({ refreshToken }) => identity.refresh(refreshToken),
      SignOut: () => identity.signOut
    })
  })
)
