/**
 * Whose build of a read model it is, by the context's register: one at a time, and only as long as its builder says that it
 * lives. Consumers write into the build that stands there.
 */
import { Clock, Effect } from "effect"
import { SqlClient } from "effect/sql"
import { ReplayFailed } from "./ReplayFailed.ts"

/** How long a builder that says nothing is believed to live, and how often one says something. */
const leaseMs = 15_000
const renewEvery = "3 seconds"

/** A build as the context's register has it. */
export interface Entry {
  readonly register: string
  readonly name: string
  readonly id: string
}

export const lost = ({ name }: Entry) =>
  new ReplayFailed({
    reason: `The replay of ${name} was silent for more than ${leaseMs / 1_000} s and has lost its place: run it again.`
  })

/** Puts a build into the register, once the place for it is made and nobody else builds: who was killed is waited for. */
export const take = Effect.fnUntraced(function* <E, R>(
  { register, name, id }: Entry,
  makePlace: Effect.Effect<void, E, R>,
  waits: Effect.Effect<void>
) {
  const sql = yield* SqlClient.SqlClient
  const attempt = sql.withTransaction(
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const [entry] = yield* sql<{ leaseUntil: Date | null }>`
        select lease_until as "leaseUntil" from ${sql(register)} where name = ${name} for update`
      if (entry === undefined) return yield* new ReplayFailed({ reason: `${name} is not in ${register}.` })
      if (entry.leaseUntil !== null && entry.leaseUntil.getTime() > now) return false
      yield* makePlace
      yield* sql`
        update ${sql(register)} set building = ${id}, lease_until = ${new Date(now + leaseMs)} where name = ${name}`
      return true
    })
  )
  const begun = yield* Clock.currentTimeMillis
  for (let tries = 0; !(yield* attempt); tries++) {
    if ((yield* Clock.currentTimeMillis) - begun > 2 * leaseMs) {
      return yield* new ReplayFailed({ reason: `Somebody else replays ${name} at the moment.` })
    }
    if (tries === 0) yield* waits
    yield* Effect.sleep("1 second")
  }
})

/** Says that we live, as long as the scope is open. */
export const renewing = ({ register, name, id }: Entry) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const leaseUntil = new Date((yield* Clock.currentTimeMillis) + leaseMs)
    yield* sql`
      update ${sql(register)} set lease_until = ${leaseUntil} where name = ${name} and building = ${id}`
  }).pipe(
    // Whether we still have our place is looked at when the new table is to be put in its own.
    Effect.ignore,
    Effect.andThen(Effect.sleep(renewEvery)),
    Effect.forever,
    Effect.forkScoped
  )

/** Takes a build out of the register, so that nobody writes into it any more; whether it was still there. */
export const release = Effect.fnUntraced(function* ({ register, name, id }: Entry) {
  const sql = yield* SqlClient.SqlClient
  const mine = yield* sql`
    update ${sql(register)} set building = null, lease_until = null where name = ${name} and building = ${id} returning 1`
  return mine.length > 0
})

/** As `release`, for who wants to use what was built: no consumer passed it over, and none will before the transaction ends. */
export const close = (entry: Entry) =>
  Effect.flatMap(release(entry), (wasOurs) => (wasOurs ? Effect.void : Effect.fail(lost(entry))))

/** Writes while the place is ours: who takes it over waits for that, and who has lost it writes nothing. */
export const whileOurs = <A, E, R>(entry: Entry, writing: Effect.Effect<A, E, R>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql.withTransaction(
      Effect.gen(function* () {
        const { register, name, id } = entry
        const mine = yield* sql`
          select from ${sql(register)} where name = ${name} and building = ${id} for key share`
        if (mine.length === 0) return yield* lost(entry)
        return yield* writing
      })
    )
  )
