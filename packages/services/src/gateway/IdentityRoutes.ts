import { Effect } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { defaultRegion } from "@merkato/domain/kernel/Region"
import type { Session } from "@merkato/domain/identity/Identity"
import { InvalidCredentials } from "@merkato/domain/identity/Identity"
import { Email, Password } from "@merkato/domain/identity/Identity"
import { Schema } from "effect"
import { IdentityRpc } from "@merkato/rpc/identity/IdentityRpc"
import { Api } from "@merkato/rpc/rest/Api"
import { answering, json } from "./Rest.ts"

const isCredentials = Schema.is(Schema.Struct({ email: Email, password: Password }))

const sessionJson = ({ userId, accessToken, refreshToken, expiresIn }: Session) =>
  json({ userId, accessToken, refreshToken, expiresIn }, 201, { "cache-control": "no-store" })

export const IdentityRoutes = HttpApiBuilder.group(
  Api,
  "identity",
  Effect.fn(function* (handlers) {
    const identity = yield* IdentityRpc
    return handlers.handleAll({
      register: ({ payload }) =>
        answering(
          Effect.map(identity.Register({ ...payload, region: payload.region ?? defaultRegion }), ({ userId }) =>
            json({ userId }, 201)
          )
        ),
      // What cannot be anybody's address or password is not looked up, and not told apart from a wrong one.
      signIn: ({ payload }) =>
        answering(
          isCredentials(payload)
            ? Effect.map(identity.SignIn(payload), sessionJson)
            : Effect.fail(new InvalidCredentials())
        ),
      refresh: ({ payload }) => answering(Effect.map(identity.Refresh(payload), sessionJson)),
      signOut: () => answering(Effect.as(identity.SignOut({}), HttpServerResponse.empty({ status: 204 })))
    })
  })
)
