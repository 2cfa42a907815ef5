import { Effect, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { UserId } from "@merkato/domain/kernel/Ids"
import { Region } from "@merkato/domain/kernel/Region"
import { Role } from "@merkato/domain/kernel/RequestContext"
import * as Retention from "@merkato/infra/context/Retention"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

const User = Schema.Struct({ userId: UserId, region: Region, role: Role, passwordHash: Schema.String })
const decodeUsers = Schema.decodeUnknownEffect(Schema.Array(User))
const Owner = Schema.Struct({ userId: UserId, region: Region, role: Role, sessionId: Schema.String })
const decodeOwners = Schema.decodeUnknownEffect(Schema.Array(Owner))

/** Sessions that nobody can refresh any more, since they ended by themselves a day ago. */
export const endedSessions: Retention.Passing = { table: "sessions", age: Retention.byTime("expires_at"), days: 1 }

/** The SQL of identity. */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const role = sql.literal(
    `case when exists (select from identity.roles r where r.user_id = u.user_id and r.role = 'admin') then 'admin' else 'shopper' end as role`
  )

  const insert = Tracing.fn("IdentityStore.insert")(function* (user: {
    readonly userId: string
    readonly email: string
    readonly passwordHash: string
    readonly name: string
    readonly region: string
    readonly createdAt: Date
  }) {
    yield* sql`
      with added as (
        insert into identity.users (user_id, email, password_hash, name, region, created_at)
        values (${user.userId}, ${user.email}, ${user.passwordHash}, ${user.name}, ${user.region}, ${user.createdAt})
        returning user_id
      )
      insert into identity.roles (user_id, role) select user_id, 'shopper' from added`
  })

  const findByEmail = Tracing.fn("IdentityStore.findByEmail")(function* (email: string) {
    const rows = yield* sql`
      select user_id as "userId", region, password_hash as "passwordHash", ${role}
      from identity.users u where email = ${email}`
    return (yield* Effect.orDie(decodeUsers(rows)))[0]
  })

  const openSession = Tracing.fn("IdentityStore.openSession")(function* (session: {
    readonly sessionId: string
    readonly userId: string
    readonly refreshHash: string
    readonly createdAt: Date
    readonly expiresAt: Date
  }) {
    yield* sql`
      insert into identity.sessions (session_id, user_id, refresh_hash, expires_at, created_at)
      values (${session.sessionId}, ${session.userId}, ${session.refreshHash}, ${session.expiresAt}, ${session.createdAt})`
  })

  /** Puts the next token in the place of the one that was used; undefined when that is not (or no longer) the present one. */
  const rotate = Tracing.fn("IdentityStore.rotate")(function* (used: string, next: string, now: Date, expiresAt: Date) {
    const rows = yield* sql`
      update identity.sessions s set refresh_hash = ${next}, previous_hash = ${used}, expires_at = ${expiresAt}
      from identity.users u
      where s.refresh_hash = ${used} and s.expires_at > ${now} and u.user_id = s.user_id
      returning s.user_id as "userId", s.session_id as "sessionId", u.region, ${role}`
    return (yield* Effect.orDie(decodeOwners(rows)))[0]
  })

  const endStolen = Tracing.fn("IdentityStore.endStolen")(function* (used: string) {
    const rows = yield* sql`delete from identity.sessions where previous_hash = ${used} returning 1`
    return rows.length > 0
  })

  const endSession = Tracing.fn("IdentityStore.endSession")(function* (sessionId: string, userId: string) {
    yield* sql`delete from identity.sessions where session_id = ${sessionId} and user_id = ${userId}`
  })

  return { insert, findByEmail, openSession, rotate, endStolen, endSession }
})
