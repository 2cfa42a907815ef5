/** Compares a projection that was built anew with the live one, row by row. */
import { Clock, Effect } from "effect"
import { SqlClient, type Statement } from "effect/sql"
import type { Topic } from "@merkato/domain/kernel/Event"
import { EventBus } from "../events/EventBus.ts"
import type { Build } from "./Build.ts"
import { groupOf, keyTexts, keyValues, names, nextOf, recordset, tableOf } from "./PostgresProjection.ts"
import { columnsOf, type Projection } from "./Projection.ts"

type Columns = Readonly<Record<string, unknown>>

/** A row that is not the same on both sides; null where it is missing. */
export interface Difference {
  readonly live: Columns | null
  readonly rebuilt: Columns | null
}

export interface Parity {
  /** Rows that are on either side. */
  readonly compared: number
  readonly differences: number
  /** Some of them. */
  readonly examples: ReadonlyArray<Difference>
}

/** Rows compared with one statement. */
const chunk = 5_000

/** Rows that are looked at again, since the live table may not have heard of their last event yet. */
export const mostSuspects = 10_000

export const mostExamples = 10

/** The live side is given so long for what is under way to it, when there is always something. */
const patienceMs = 10_000
const lookAgain = "100 millis"

/** A group so far behind is waited for before anything is compared, as long as it comes nearer. */
const nearEnough = 500
const standstillMs = 5_000

const same = (projection: Projection): string => {
  const columns = Object.keys(columnsOf(projection))
  return `(${names(columns, "l")}) is not distinct from (${names(columns, "n")})`
}

const keyOf = (projection: Projection, { live, rebuilt }: Difference): Columns => {
  const row = live ?? rebuilt ?? {}
  return Object.fromEntries(Object.keys(projection.key).map((column) => [column, row[column]]))
}

/** Who makes rows of the events of a context. */
export interface Followers {
  readonly context: string
  readonly topic: Topic
  readonly groups: ReadonlyArray<string>
}

const followersOf = (projection: Projection): Followers => ({ ...projection, groups: [groupOf(projection)] })

/** Events that are not in the rows of each of them yet: unpublished, or on the bus. */
const underWay = Effect.fnUntraced(function* ({ context, topic, groups }: Followers) {
  const sql = yield* SqlClient.SqlClient
  const bus = yield* EventBus
  const [outbox] = yield* sql<{ waiting: number }>`
    select count(*) as waiting from (select from ${sql(`${context}.outbox`)} limit ${nearEnough + 1}) as waiting`
  const behind = yield* Effect.forEach(groups, (group) => bus.lag(group, [topic]))
  return behind.reduce((sum, events) => sum + events, outbox?.waiting ?? 0)
})

/** Waits until they are nearly up to date; not for one that stands still. */
export const caughtUp = Effect.fnUntraced(function* (followers: Followers) {
  let least = Number.POSITIVE_INFINITY
  let since = yield* Clock.currentTimeMillis
  while (true) {
    const waiting = yield* underWay(followers)
    if (waiting <= nearEnough) return
    const now = yield* Clock.currentTimeMillis
    if (waiting < least) since = now
    least = Math.min(least, waiting)
    if (now - since > standstillMs) return
    yield* Effect.sleep(lookAgain)
  }
})

/** All rows of both sides, in chunks of keys: how many there are, and those that differ at the moment they are looked at. */
const compareAll = Effect.fnUntraced(function* (projection: Projection, tells: (compared: number) => void) {
  const sql = yield* SqlClient.SqlClient
  const [live, next] = [sql(tableOf(projection)), sql(nextOf(projection))]
  const key = sql.literal(names(Object.keys(projection.key)))
  const all = sql.literal(names(Object.keys(columnsOf(projection))))
  const texts = sql.literal(keyTexts(projection))
  const suspects: Array<Difference> = []
  let [compared, differences] = [0, 0]
  let beyond: Statement.Fragment = sql`true`
  while (true) {
    const last = (table: typeof live) =>
      sql`(select ${key} from ${table} where ${beyond} order by ${key} offset ${chunk - 1} limit 1)`
    const [bound] = yield* sql<Columns>`
      select ${texts} from (${last(live)} union all ${last(next)}) as b order by b limit 1`
    const range = bound === undefined ? beyond : sql`${beyond} and (${key}) <= (${keyValues(sql, projection, bound)})`
    const [found] = yield* sql<{ compared: number; differing: ReadonlyArray<Difference> }>`
      select count(*) as compared,
        coalesce(json_agg(json_build_object('live', l, 'rebuilt', n)) filter (where not ${sql.literal(same(projection))}), '[]')
          as differing
      from (select ${all} from ${live} where ${range}) l
      full join (select ${all} from ${next} where ${range}) n using (${key})`
    compared += found?.compared ?? 0
    for (const difference of found?.differing ?? []) {
      differences += 1
      if (suspects.length < mostSuspects) suspects.push(difference)
    }
    tells(compared)
    if (bound === undefined) return { compared, suspects, beyond: differences - suspects.length }
    beyond = sql`(${key}) > (${keyValues(sql, projection, bound)})`
  }
})

/** Those that still differ. */
const compareAgain = Effect.fnUntraced(function* (projection: Projection, suspects: ReadonlyArray<Difference>) {
  const sql = yield* SqlClient.SqlClient
  const key = sql.literal(names(Object.keys(projection.key)))
  const keys = yield* recordset(
    projection.key,
    suspects.map((suspect) => keyOf(projection, suspect))
  )
  return yield* sql<Difference>`
    select to_json(l) as live, to_json(n) as rebuilt from ${keys}
    left join ${sql(tableOf(projection))} l using (${key}) left join ${sql(nextOf(projection))} n using (${key})
    where not ${sql.literal(same(projection))} order by ${key}`
})

/** Looks again at what differed, until nothing is under way, or patience is over; what differs still. */
export const untilNothingIsUnderWay = Effect.fnUntraced(function* <A, E, R>(
  followers: Followers,
  suspects: ReadonlyArray<A>,
  lookAt: (left: ReadonlyArray<A>) => Effect.Effect<ReadonlyArray<A>, E, R>
) {
  const begun = yield* Clock.currentTimeMillis
  let left = suspects
  while (left.length > 0) {
    const nothingLeft = (yield* underWay(followers)) === 0
    left = yield* lookAt(left)
    if (nothingLeft || (yield* Clock.currentTimeMillis) - begun > patienceMs) break
    yield* Effect.sleep(lookAgain)
  }
  return left
})

/**
 * Compares the live table with the one that is built, while both are written. Each row is looked at on both sides at the same
 * moment, and consumers write both at once; so what differs is wrong, unless it is of an event that the log has and the
 * consumer has not: rows that differ are looked at again until nothing is under way, or patience is over.
 */
export const compare = Effect.fnUntraced(function* (
  { projection }: Build,
  tells: (compared: number, about: number) => void = () => {}
) {
  const sql = yield* SqlClient.SqlClient
  const followers = followersOf(projection)
  yield* caughtUp(followers)
  const [size] = yield* sql<{ rows: number }>`
    select reltuples::bigint as rows from pg_class where oid = ${nextOf(projection)}::regclass`
  const { compared, suspects, beyond } = yield* compareAll(projection, (compared) => tells(compared, size?.rows ?? 0))
  const left = yield* untilNothingIsUnderWay(followers, suspects, (left) => compareAgain(projection, left))
  return { compared, differences: left.length + beyond, examples: left.slice(0, mostExamples) } satisfies Parity
})
