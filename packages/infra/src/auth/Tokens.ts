import { Clock, Context, Effect, Layer, Schema } from "effect"
import { errors, jwtVerify, SignJWT } from "jose"
import { Id, UserId } from "@merkato/domain/kernel/Ids"
import { Unauthenticated } from "@merkato/domain/kernel/Problem"
import { Region } from "@merkato/domain/kernel/Region"
import { Principal, Role } from "@merkato/domain/kernel/RequestContext"
import { KeyRing } from "./KeyRing.ts"

/** Seconds an access token lives. */
export const accessTokenSeconds = 15 * 60

/** Seconds a guest's token lives: as long as a cart is worth keeping. */
export const guestTokenSeconds = 30 * 24 * 60 * 60

/** Seconds a token between services lives. */
const serviceTokenSeconds = 60

/** Verified tokens that are remembered, so that a signature is checked once and not with every request. */
const remembered = 20_000

const issuer = "merkato"

/** Who may be spoken to with a token: the shop's edge, or its services among each other. */
type Audience = "merkato" | "merkato-services"

const Claims = Schema.Struct({
  sub: UserId,
  role: Role,
  region: Region,
  sid: Schema.optionalKey(Id),
  exp: Schema.Finite
})
const decodeClaims = Schema.decodeUnknownEffect(Claims)

/** Who a token speaks for, and until when, in milliseconds of the Clock. */
export interface Verified {
  readonly principal: Principal
  readonly expiresAt: number
}

/** JSON Web Tokens (RFC 7519), signed with Ed25519 (RFC 8037). */
export class Tokens extends Context.Service<
  Tokens,
  {
    readonly issue: (principal: Principal, seconds: number) => Effect.Effect<string>
    readonly verify: (token: string) => Effect.Effect<Principal, Unauthenticated>
    /** As `verify`, with the moment from which on the token is good no more: what outlives a request ends then. */
    readonly verifyUntil: (token: string) => Effect.Effect<Verified, Unauthenticated>
    /** Whether a token has been verified before and has not expired since; false says nothing about it. */
    readonly isKnown: (token: string, nowMs: number) => boolean
    readonly issueForServices: Effect.Effect<string>
    readonly verifyService: (token: string) => Effect.Effect<void, Unauthenticated>
  }
>()("merkato/infra/Tokens") {
  static readonly layer = Layer.effect(
    Tokens,
    Effect.gen(function* () {
      const keys = yield* KeyRing
      const verified = new Map<string, Verified>()

      const sign = Effect.fnUntraced(function* (
        claims: Record<string, string>,
        subject: string,
        audience: Audience,
        seconds: number
      ) {
        const now = Math.floor((yield* Clock.currentTimeMillis) / 1_000)
        return yield* Effect.promise(() =>
          new SignJWT(claims)
            .setProtectedHeader({ alg: "EdDSA", kid: keys.current.kid, typ: "JWT" })
            .setSubject(subject)
            .setIssuer(issuer)
            .setAudience(audience)
            .setIssuedAt(now)
            .setExpirationTime(now + seconds)
            .sign(keys.current.signing)
        )
      })

      const check = Effect.fnUntraced(function* (token: string, audience: Audience) {
        const now = yield* Clock.currentTimeMillis
        const { payload } = yield* Effect.tryPromise({
          try: () =>
            jwtVerify(
              token,
              ({ kid }) => {
                const key = keys.byId.get(kid ?? "")
                if (key === undefined) throw new errors.JWSSignatureVerificationFailed()
                return key.verifying
              },
              { issuer, audience, algorithms: ["EdDSA"], currentDate: new Date(now) }
            ),
          catch: (cause) =>
            new Unauthenticated({
              reason: cause instanceof errors.JWTExpired ? "The token has expired" : "The token is not valid"
            })
        })
        return payload
      })

      const issue = (principal: Principal, seconds: number) =>
        sign(
          {
            role: principal.role,
            region: principal.region,
            ...(principal.sessionId === undefined ? {} : { sid: principal.sessionId })
          },
          principal.userId,
          "merkato",
          seconds
        )

      const known = (token: string, nowMs: number) => {
        const known = verified.get(token)
        return known !== undefined && known.expiresAt > nowMs ? known : undefined
      }

      const verifyAnew = Effect.fnUntraced(function* (token: string) {
        const claims = yield* Effect.flatMap(check(token, "merkato"), decodeClaims).pipe(
          Effect.catchTag("SchemaError", () => Effect.fail(new Unauthenticated({ reason: "The token is not valid" })))
        )
        const principal = new Principal({
          userId: claims.sub,
          role: claims.role,
          region: claims.region,
          ...(claims.sid === undefined ? {} : { sessionId: claims.sid })
        })
        const [oldest] = verified.size < remembered ? [] : verified.keys()
        if (oldest !== undefined) verified.delete(oldest)
        const made: Verified = { principal, expiresAt: claims.exp * 1_000 }
        verified.set(token, made)
        return made
      })

      const verifyUntil = (token: string) =>
        Effect.flatMap(Clock.Clock, (clock) => {
          const verified = known(token, clock.currentTimeMillisUnsafe())
          return verified === undefined ? verifyAnew(token) : Effect.succeed(verified)
        })
      const verify = (token: string) => Effect.map(verifyUntil(token), ({ principal }) => principal)

      let current = { token: "", renewAt: 0 }
      const issueForServices = Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        if (now < current.renewAt) return current.token
        const token = yield* sign({}, "service", "merkato-services", serviceTokenSeconds)
        current = { token, renewAt: now + (serviceTokenSeconds * 1_000) / 2 }
        return token
      })

      const services = new Map<string, number>()
      const verifyService = Effect.fnUntraced(function* (token: string) {
        const now = yield* Clock.currentTimeMillis
        if ((services.get(token) ?? 0) > now) return
        const { exp } = yield* check(token, "merkato-services")
        if (services.size >= 100) services.clear()
        services.set(token, (exp ?? 0) * 1_000)
      })

      return Tokens.of({
        issue,
        verify,
        verifyUntil,
        isKnown: (token, nowMs) => known(token, nowMs) !== undefined,
        issueForServices,
        verifyService
      })
    })
  )
}
