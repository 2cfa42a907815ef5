import { Effect, Schema } from "effect"
import { SqlClient, type Statement } from "effect/sql"
import type { NewEvent } from "@merkato/domain/kernel/Event"
import { AssessmentId, OrderId, type UserId } from "@merkato/domain/kernel/Ids"
import * as Ids from "@merkato/domain/kernel/Ids"
import { type Currency, Minor } from "@merkato/domain/kernel/Money"
import type { Region } from "@merkato/domain/kernel/Region"
import { Assessment, Decision, Points, Reason } from "@merkato/domain/risk/Assessment"
import type { RiskRules } from "@merkato/domain/risk/RiskRules"
import { type Facts, mostCounted, recentAttempts, usualAmounts } from "@merkato/domain/risk/Score"
import { EventStore, type StampedEvent } from "@merkato/infra/events/EventStore"
import { stamp } from "@merkato/infra/events/Stamp"
import * as Combined from "@merkato/infra/postgres/Combined"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

/** An attempt to pay, as it is judged and kept. */
export interface Attempt {
  readonly assessmentId: AssessmentId
  readonly orderId: OrderId
  readonly userId: UserId
  readonly amountMinor: number
  readonly currency: Currency
  readonly region: Region
  readonly units: number
  readonly lines: number
  /** A digest; null when the client did not name its device. */
  readonly device: string | null
}

const Row = Schema.Struct({
  assessmentId: AssessmentId,
  orderId: OrderId,
  userId: Ids.UserId,
  score: Points,
  decision: Decision,
  reasons: Schema.Array(Reason),
  decidedAt: Schema.DateTimeUtcFromDate
})
const decodeRows = Schema.decodeUnknownEffect(Schema.Array(Row))

/** With its place in the list. */
const Listed = Schema.Struct({ ...Row.fields, position: Schema.Int })
const decodeListed = Schema.decodeUnknownEffect(Schema.Array(Listed))

/** An assessment inside of another row: its time is text there. */
const Found = Schema.Struct({ ...Row.fields, decidedAt: Schema.DateTimeUtcFromString })
const Seen = Schema.Struct({
  found: Schema.NullOr(Found),
  userAttempts: Schema.Array(Schema.Int),
  deviceAttempts: Schema.Array(Schema.Int),
  usualMinor: Schema.Array(Minor),
  otherRegions: Schema.Int,
  userHasDevices: Schema.Boolean,
  known: Schema.Boolean,
  others: Schema.Int
})
const decodeSeen = Schema.decodeUnknownEffect(Schema.Array(Seen))

/** An attempt that is about to be judged, and when. */
interface Ask {
  readonly attempt: Attempt
  readonly at: Date
}

/** What is decided about an attempt, and what is told of it where it was not simply allowed. */
interface Judgement {
  readonly attempt: Attempt
  readonly assessment: Assessment
  readonly flag: StampedEvent | undefined
}

/** What is known about an attempt: its assessment, if there is one already, and the facts. */
const sightOf = ({ amountMinor, currency, device, region }: Attempt, seen: typeof Seen.Type) => {
  const { known, others, userHasDevices } = seen
  const facts: Facts = {
    amountMinor,
    currency,
    region,
    userAttempts: seen.userAttempts.map((earlier) => earlier + 1),
    deviceAttempts: seen.deviceAttempts.map((earlier) => earlier + 1),
    usualMinor: seen.usualMinor,
    otherRegions: seen.otherRegions,
    device: device === null ? null : { known, userHasDevices, others }
  }
  return { found: seen.found === null ? undefined : new Assessment(seen.found), facts }
}

type Window = RiskRules["velocity"]["user"][number]

/** The SQL of risk. */
export const make = Effect.fnUntraced(function* (rules: RiskRules) {
  const sql = yield* SqlClient.SqlClient
  const events = yield* EventStore
  const fields = sql.literal(
    `assessment_id as "assessmentId", order_id as "orderId", user_id as "userId", score, decision, reasons,
     decided_at as "decidedAt"`
  )
  /** Rows of each window, newest first and never more than its steps can tell apart. */
  const counted = (windows: ReadonlyArray<Window>, whose: Statement.Fragment) => sql`
    array(
      select (
        select count(*)::int from (
          select from risk.assessments a
          where ${whose} and decided_at > ask.at - interval '1 second' * w.seconds order by decided_at desc limit w.most
        ) as seen
      )
      from unnest(
        ${windows.map(({ windowSeconds }) => windowSeconds)}::int[],
        ${windows.map(({ steps }) => mostCounted(steps))}::int[]
      ) with ordinality as w (seconds, most, nth)
      order by nth
    )`

  /**
   * Others on the device, by jumping from user to user in the index: a step a user, however often each was there. The
   * user is passed like everybody, since leaving somebody out would mean to read all that is theirs.
   */
  const others = (most: number) => sql`
    (with recursive other (user_id, nth) as (
      (select user_id, 0 from risk.assessments a where a.device = ask.device order by user_id limit 1)
      union all
      select (
        select user_id from risk.assessments a
        where a.device = ask.device and a.user_id > other.user_id order by user_id limit 1
      ), nth + 1
      from other where other.user_id is not null and nth < ${most}
    ) select least(count(user_id), ${most})::int from other where user_id <> ask.user_id)`

  /**
   * Everything that decisions look at, as one statement: for each attempt the assessment, if it is there already, and the
   * facts. Each part ends after a bounded number of index entries: it either has an order that one index alone offers, or
   * begins at a place in an index (a row comparison) and looks afterwards whether what comes is the user's. Equalities
   * would leave the planner free to filter another index, or the table, where one user or device is most of it.
   */
  const lookAll = Tracing.fn("RiskStore.lookAll")(function* (asks: ReadonlyArray<Ask>) {
    const each = <A>(of: (attempt: Attempt) => A) => asks.map(({ attempt }) => of(attempt))
    const rows = yield* sql`
      select
        (select to_jsonb(a) from (
          select ${fields} from risk.assessments a where a.assessment_id = ask.assessment_id
        ) as a) as found,
        ${counted(rules.velocity.user, sql`a.user_id = ask.user_id`)} as "userAttempts",
        array(
          select amount_minor from (
            select user_id, currency, amount_minor from risk.assessments a
            where (a.user_id, a.currency, a.decided_at) <= (ask.user_id, ask.currency, ask.at) and a.decision = 'allow'
            order by user_id desc, currency desc, decided_at desc limit ${usualAmounts}
          ) as newest where newest.user_id = ask.user_id and newest.currency = ask.currency
        ) as "usualMinor",
        (
          select count(distinct region)::int from (
            select region from risk.assessments a where a.user_id = ask.user_id
              and decided_at > ask.at - interval '1 second' * ${rules.mismatch.regions.windowSeconds}::int
            order by decided_at desc limit ${recentAttempts}
          ) as recent where recent.region <> ask.region
        ) as "otherRegions",
        case when ask.device is not null
          then ${counted(rules.velocity.device, sql`a.device = ask.device`)} else '{}' end as "deviceAttempts",
        ask.device is not null and exists (
          select from (
            select device from risk.assessments a where a.user_id = ask.user_id
            order by decided_at desc limit ${recentAttempts}
          ) as recent where recent.device is not null
        ) as "userHasDevices",
        ask.device is not null and exists (
          select from (
            select user_id, decision from risk.assessments a
            where a.device = ask.device and (a.user_id, a.decision) >= (ask.user_id, 'allow')
            order by user_id, decision limit 1
          ) as next where next.user_id = ask.user_id and next.decision = 'allow'
        ) as known,
        case when ask.device is not null
          then ${others(mostCounted(rules.device.shared.steps) + 1)} else 0 end as others
      from (
        select assessment_id, user_id, currency, region, nullif(named, '') as device, at, nth from unnest(
          ${each(({ assessmentId }) => assessmentId)}::text[],
          ${each(({ userId }) => userId)}::text[],
          ${each(({ currency }) => currency)}::text[],
          ${each(({ region }) => region)}::text[],
          ${each(({ device }) => device ?? "")}::text[],
          ${asks.map(({ at }) => at.toISOString())}::text[]::timestamptz[]
        ) with ordinality as given (assessment_id, user_id, currency, region, named, at, nth)
      ) as ask
      order by ask.nth`
    const seen = yield* Effect.orDie(decodeSeen(rows))
    return asks.map(({ attempt }, nth) => (seen[nth] === undefined ? undefined : sightOf(attempt, seen[nth])))
  })

  const offerLook = yield* Combined.make({
    name: "RiskStore.look together",
    together: (asks: ReadonlyArray<Ask>) => lookAll(asks)
  })

  /** What a decision looks at, with those of the same moment. */
  const look = Tracing.fn("RiskStore.look")(function* (attempt: Attempt, at: Date) {
    return (
      (yield* offerLook({ attempt, at })) ??
      (yield* Effect.die(new Error(`Nothing is told of ${attempt.assessmentId}`)))
    )
  })

  const find = Tracing.fn("RiskStore.find")(function* (assessmentId: AssessmentId) {
    const rows = yield* sql`select ${fields} from risk.assessments where assessment_id = ${assessmentId}`
    const [row] = yield* Effect.orDie(decodeRows(rows))
    return row === undefined ? undefined : new Assessment(row)
  })

  /**
   * Writes assessments and their events, if any, as one statement; for each, whether it was not there already. An attempt
   * that is judged again because its assessment was too old to be kept is not flagged again.
   */
  const insertAll = Tracing.fn("RiskStore.insertAll")(function* (
    judgements: ReadonlyArray<Judgement>,
    lockTimeoutMs: number
  ) {
    const each = <A>(of: (attempt: Attempt, assessment: Assessment) => A) =>
      judgements.map(({ assessment, attempt }) => of(attempt, assessment))
    const flags = judgements.flatMap(({ flag }) => flag ?? [])
    const flagging =
      flags.length === 0
        ? sql.literal("")
        : sql`, ${events.appendingEach(
            flags,
            // A scalar "exists" stays a look-up by key; as a join it may become a scan of the table.
            sql`(select assessment_id as id from assessed where decision <> 'allow'
              and not (select exists (select from risk.events e where e.aggregate_id = assessment_id))) as flagged`
          )}`
    const rows = yield* sql<{ assessmentId: string }>`
      with assessed as (
        insert into risk.assessments (assessment_id, order_id, user_id, device, amount_minor, currency, region, units,
          lines, score, decision, reasons, decided_at)
        select assessment_id, order_id, user_id, nullif(device, ''), amount_minor, currency, region, units, lines, score,
          decision, reasons, decided_at
        from unnest(
          ${each(({ assessmentId }) => assessmentId)}::text[],
          ${each(({ orderId }) => orderId)}::text[],
          ${each(({ userId }) => userId)}::text[],
          ${each(({ device }) => device ?? "")}::text[],
          ${each(({ amountMinor }) => String(amountMinor))}::text[]::bigint[],
          ${each(({ currency }) => currency)}::text[],
          ${each(({ region }) => region)}::text[],
          ${each(({ units }) => units)}::int[],
          ${each(({ lines }) => lines)}::int[],
          ${each((_, { score }) => score)}::int[],
          ${each((_, { decision }) => decision)}::text[],
          ${each((_, { reasons }) => JSON.stringify(reasons))}::text[]::jsonb[],
          ${each((_, { decidedAt }) => new Date(decidedAt.epochMilliseconds).toISOString())}::text[]::timestamptz[]
        ) as a (assessment_id, order_id, user_id, device, amount_minor, currency, region, units, lines, score, decision,
            reasons, decided_at),
          set_config('lock_timeout', ${String(lockTimeoutMs)}, true)
        order by assessment_id
        on conflict (assessment_id) do nothing returning assessment_id, decision
      ) ${flagging}
      select assessment_id as "assessmentId" from assessed`
    if (rows.length > 0 && flags.length > 0) yield* events.committed
    const assessed = new Set(rows.map(({ assessmentId }) => assessmentId))
    return each(({ assessmentId }) => assessed.has(assessmentId))
  })

  const offerJudgement = yield* Combined.make({
    name: "RiskStore.insert together",
    together: insertAll,
    keyOf: ({ attempt }) => attempt.assessmentId
  })

  /** Writes an assessment and its event, if any, with those of the same moment; false when it has been assessed since. */
  const insert = Tracing.fn("RiskStore.insert")(function* (
    attempt: Attempt,
    assessment: Assessment,
    event: NewEvent | undefined
  ) {
    const occurredAt = new Date(assessment.decidedAt.epochMilliseconds)
    const flag =
      event === undefined ? undefined : { event, eventId: yield* Ids.next, stamp: { ...(yield* stamp), occurredAt } }
    return yield* offerJudgement({ attempt, assessment, flag })
  })

  /** Newest first, each with its position, from which the next page goes on. */
  const list = Tracing.fn("RiskStore.list")(function* (
    decision: Decision | undefined,
    before: number | undefined,
    limit: number
  ) {
    const clauses = [
      ...(decision === undefined ? [] : [sql`decision = ${decision}`]),
      ...(before === undefined ? [] : [sql`position < ${before}::bigint`]),
      sql`true`
    ]
    const rows = yield* sql`
      select ${fields}, position from risk.assessments where ${sql.and(clauses)} order by position desc limit ${limit}`
    return (yield* Effect.orDie(decodeListed(rows))).map(({ position, ...row }) => ({
      position,
      assessment: new Assessment(row)
    }))
  })

  /** Deletes what is older than a time among the first so many; how many. */
  const expire = Tracing.fn("RiskStore.expire")(function* (before: Date, limit: number) {
    const rows = yield* sql`
      delete from risk.assessments where position in (
        select position from (
          select position, decided_at from risk.assessments order by position limit ${limit}
        ) as first where decided_at < ${before}
      ) returning 1`
    return rows.length
  })

  return { look, find, insert, list, expire }
})
