import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema } from "effect/http-api"
import { Email, Password, PersonName } from "@merkato/domain/identity/Identity"
import * as Ids from "@merkato/domain/kernel/Ids"
import { Region } from "@merkato/domain/kernel/Region"
import { IdentityGroup } from "../../identity/IdentityRpc.ts"
import { SignedIn } from "../Access.ts"
import { created, summary } from "../Endpoint.ts"
import * as Json from "../Json.ts"
import { problems } from "../Problems.ts"

export class Identity extends HttpApiGroup.make("identity").add(
  HttpApiEndpoint.post("register", "/customers", {
    payload: Schema.Struct({ email: Email, password: Password, name: PersonName, region: Schema.optionalKey(Region) }),
    success: Schema.Struct({ userId: Ids.UserId }).pipe(created),
    error: problems(IdentityGroup, "Register")
  }).annotateMerge(summary("Register as a shopper")),
  HttpApiEndpoint.post("signIn", "/sessions", {
    payload: Schema.Struct({ email: Schema.String, password: Schema.String.check(Schema.isMaxCodePoints(1_024)) }),
    success: Json.SessionJson.pipe(created),
    error: problems(IdentityGroup, "SignIn")
  }).annotateMerge(summary("Sign in: an access token for 15 minutes and a refresh token that works once")),
  HttpApiEndpoint.post("refresh", "/sessions/refresh", {
    payload: Schema.Struct({ refreshToken: Schema.String.check(Schema.isMaxCodePoints(1_024)) }),
    success: Json.SessionJson.pipe(created),
    error: problems(IdentityGroup, "Refresh")
  }).annotateMerge(summary("Go on with a session; the refresh token used is spent")),
  HttpApiEndpoint.delete("signOut", "/sessions", {
    success: HttpApiSchema.NoContent,
    error: problems(IdentityGroup, "SignOut")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("End the session; its access token lives on until it expires"))
) {}
