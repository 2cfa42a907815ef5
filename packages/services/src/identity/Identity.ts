import { Clock, Context, DateTime, Effect, Layer } from "effect"
import { EmailTaken, InvalidCredentials, InvalidRefreshToken, Session } from "@merkato/domain/identity/Identity"
import { UserRegistered } from "@merkato/domain/identity/IdentityEvents"
import { dayMs } from "@merkato/domain/kernel/Day"
import * as Ids from "@merkato/domain/kernel/Ids"
import type { Forbidden, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import type { Region } from "@merkato/domain/kernel/Region"
import { Principal, RequestContext, type Role } from "@merkato/domain/kernel/RequestContext"
import { Passwords } from "@merkato/infra/auth/Passwords"
import { Secrets } from "@merkato/infra/auth/Secrets"
import { accessTokenSeconds, Tokens } from "@merkato/infra/auth/Tokens"
import { authorize } from "@merkato/infra/authorizer/Authorizer"
import * as Provided from "@merkato/infra/context/Provided"
import { EventStore } from "@merkato/infra/events/EventStore"
import { sha256 } from "@merkato/infra/idempotency/Digest"
import { isUniqueViolation, orUnavailable, transaction } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import * as IdentityStore from "./IdentityStore.ts"

/** Milliseconds a refresh token lives: 30 days from its last use. */
const refreshTtlMs = 30 * dayMs

interface Registration {
  readonly email: string
  readonly password: string
  readonly name: string
  readonly region: Region
}

/** The use cases of identity: who somebody is, and proving it again and again. */
export class Identity extends Context.Service<
  Identity,
  {
    register(person: Registration): Effect.Effect<{ readonly userId: Ids.UserId }, EmailTaken | ServiceUnavailable>
    signIn(credentials: {
      readonly email: string
      readonly password: string
    }): Effect.Effect<Session, InvalidCredentials | ServiceUnavailable>
    /** Each refresh token works once. One that comes a second time ends its session: somebody has a copy. */
    refresh(refreshToken: string): Effect.Effect<Session, InvalidRefreshToken | ServiceUnavailable>
    /** Ends the session of the token at hand. Its access token lives on until it expires (15 minutes at most). */
    readonly signOut: Effect.Effect<void, Forbidden | ServiceUnavailable>
  }
>()("merkato/identity/Identity") {
  static readonly layer = Layer.effect(
    Identity,
    Effect.gen(function* () {
      const store = yield* IdentityStore.make
      const events = yield* EventStore
      const passwords = yield* Passwords
      const secrets = yield* Secrets
      const tokens = yield* Tokens
      const provided = yield* Provided.provided
      const orAway = orUnavailable("identity")

      /** Compared when nobody has the address, so that the answer takes as long as for a wrong password. */
      const decoy = yield* passwords.hash(yield* secrets.token)

      const register = Tracing.fn("Identity.register")(
        function* ({ email, password, name, region }: Registration) {
          const userId = yield* Ids.nextUserId
          const passwordHash = yield* passwords.hash(password)
          const createdAt = yield* DateTime.nowAsDate
          yield* transaction(
            Effect.andThen(
              store.insert({ userId, email: email.toLowerCase(), passwordHash, name, region, createdAt }),
              events.append([UserRegistered.of(userId, 1, { userId })], createdAt)
            )
          ).pipe(Effect.catchIf(isUniqueViolation, () => Effect.fail(new EmailTaken())))
          return { userId }
        },
        orAway,
        provided
      )

      const open = Effect.fnUntraced(function* (user: {
        readonly userId: Ids.UserId
        readonly role: Role
        readonly region: Region
        readonly sessionId: string
        readonly refreshToken: string
      }) {
        const principal = new Principal({
          userId: user.userId,
          role: user.role,
          region: user.region,
          sessionId: user.sessionId
        })
        return new Session({
          userId: user.userId,
          accessToken: yield* tokens.issue(principal, accessTokenSeconds),
          refreshToken: user.refreshToken,
          expiresIn: accessTokenSeconds
        })
      })

      const signIn = Tracing.fn("Identity.signIn")(function* ({
        email,
        password
      }: {
        readonly email: string
        readonly password: string
      }) {
        const user = yield* store.findByEmail(email.toLowerCase())
        const matches = yield* passwords.verify(password, user?.passwordHash ?? decoy)
        if (user === undefined || !matches) return yield* new InvalidCredentials()
        const sessionId = `SESSION-${yield* Ids.next}`
        const refreshToken = yield* secrets.token
        const now = yield* Clock.currentTimeMillis
        yield* store.openSession({
          sessionId,
          userId: user.userId,
          refreshHash: sha256(refreshToken),
          createdAt: new Date(now),
          expiresAt: new Date(now + refreshTtlMs)
        })
        return yield* open({ ...user, sessionId, refreshToken })
      }, orAway)

      const refresh = Tracing.fn("Identity.refresh")(function* (refreshToken: string) {
        const now = yield* Clock.currentTimeMillis
        const next = yield* secrets.token
        const used = sha256(refreshToken)
        const user = yield* store.rotate(used, sha256(next), new Date(now), new Date(now + refreshTtlMs))
        if (user !== undefined) return yield* open({ ...user, refreshToken: next })
        if (yield* store.endStolen(used)) {
          yield* Effect.logWarning("A refresh token was used twice; its session has been ended")
        }
        return yield* new InvalidRefreshToken()
      }, orAway)

      const signOut = Effect.gen(function* () {
        yield* authorize("session.end")
        const { principal } = yield* RequestContext
        if (principal.sessionId !== undefined) yield* store.endSession(principal.sessionId, principal.userId)
      }).pipe(orAway, provided, Tracing.withSpan("Identity.signOut"))

      return Identity.of({ register, signIn, refresh, signOut })
    })
  )
}
