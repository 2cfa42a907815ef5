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
import { EventStore } from "@merkato/infra/events/EventStore"

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
const decodeSeen = Schema.decodeUnknownEffect(Schema.Tuple([Seen]))

type Window = RiskRules["velocity"]["user"][number]

const secondsBefore = (at: Date, seconds: number) => new Date(at.getTime() - seconds * 1_000)

/** The SQL of risk. */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const events = yield* EventStore
  const fields = sql.literal(
    `assessment_id as "assessmentId", order_id as "orderId", user_id as "userId", score, decision, reasons,
     decided_at as "decidedAt"`
  )
  /** Rows of each window, newest first and never more than its steps can tell apart. */
  const counted = (windows: ReadonlyArray<Window>, whose: Statement.Fragment, at: Date) => sql`
    array(
      select (
        select count(*)::int from (
          select from risk.assessments where ${whose} and decided_at > w.since order by decided_at desc limit w.most
        ) as seen
      )
      from unnest(
        ${windows.map(({ windowSeconds }) => secondsBefore(at, windowSeconds).toISOString())}::text[]::timestamptz[],
        ${windows.map(({ steps }) => mostCounted(steps))}::int[]
      ) with ordinality as w (since, most, nth)
      order by nth
    )`

  /**
   * Others on the device, by jumping from user to user in the index: a step a user, however often each was there. The
   * user is passed like everybody, since leaving somebody out would mean to read all that is theirs.
   */
  const othersOn = (device: string, userId: UserId, most: number) => sql`
    (with recursive other (user_id, nth) as (
      (select user_id, 0 from risk.assessments where device = ${device} order by user_id limit 1)
      union all
      select (
        select user_id from risk.assessments
        where device = ${device} and user_id > other.user_id order by user_id limit 1
      ), nth + 1
      from other where other.user_id is not null and nth < ${most}
    ) select least(count(user_id), ${most})::int from other where user_id <> ${userId})`

  /**
   * Everything that a decision looks at, as one statement: the assessment, if it is there already, and the facts. Each
   * part ends after a bounded number of index entries: it either has an order that one index alone offers, or begins at
   * a place in an index (a row comparison) and looks afterwards whether what comes is the user's. Equalities would leave
   * the planner free to filter another index, or the table, where one user or device is most of it.
   */
  const look = Effect.fn("RiskStore.look")(function* (rules: RiskRules, attempt: Attempt, at: Date) {
    const { amountMinor, assessmentId, currency, device, region, userId } = attempt
    const regionsSince = secondsBefore(at, rules.mismatch.regions.windowSeconds)
    const most = mostCounted(rules.device.shared.steps) + 1
    const ofDevice =
      device === null
        ? sql.literal(`array[]::int[] as "deviceAttempts", false as "userHasDevices", false as known, 0 as others`)
        : sql`
          ${counted(rules.velocity.device, sql`device = ${device}`, at)} as "deviceAttempts",
          exists (
            select from (
              select device from risk.assessments where user_id = ${userId} order by decided_at desc limit ${recentAttempts}
            ) as recent where device is not null
          ) as "userHasDevices",
          exists (
            select from (
              select user_id, decision from risk.assessments
              where device = ${device} and (user_id, decision) >= (${userId}, 'allow') order by user_id, decision limit 1
            ) as next where user_id = ${userId} and decision = 'allow'
          ) as known,
          ${othersOn(device, userId, most)} as others`
    const rows = yield* sql`
      select
        (select to_jsonb(a) from (
          select ${fields} from risk.assessments where assessment_id = ${assessmentId}
        ) as a) as found,
        ${counted(rules.velocity.user, sql`user_id = ${userId}`, at)} as "userAttempts",
        array(
          select amount_minor from (
            select user_id, currency, amount_minor from risk.assessments
            where (user_id, currency, decided_at) <= (${userId}, ${currency}, ${at}) and decision = 'allow'
            order by user_id desc, currency desc, decided_at desc limit ${usualAmounts}
          ) as newest where user_id = ${userId} and currency = ${currency}
        ) as "usualMinor",
        (
          select count(distinct region)::int from (
            select region from risk.assessments where user_id = ${userId} and decided_at > ${regionsSince}
            order by decided_at desc limit ${recentAttempts}
          ) as recent where region <> ${region}
        ) as "otherRegions",
        ${ofDevice}`
    const [seen] = yield* Effect.orDie(decodeSeen(rows))
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
  })

  const find = Effect.fn("RiskStore.find")(function* (assessmentId: AssessmentId) {
    const rows = yield* sql`select ${fields} from risk.assessments where assessment_id = ${assessmentId}`
    const [row] = yield* Effect.orDie(decodeRows(rows))
    return row === undefined ? undefined : new Assessment(row)
  })

  /**
   * Writes an assessment and its event, if any, as one statement; false when somebody has assessed this attempt since.
   * An attempt that is judged again because its assessment was too old to be kept is not flagged again.
   */
  const insert = Effect.fn("RiskStore.insert")(function* (
    attempt: Attempt,
    assessment: Assessment,
    event: NewEvent | undefined
  ) {
    const at = new Date(assessment.decidedAt.epochMilliseconds)
    const flagging =
      event === undefined
        ? sql.literal("")
        : sql`, ${yield* events.appending(
            [event],
            at,
            sql`exists (select from assessed)
              and not exists (select from risk.events where aggregate_id = ${event.aggregateId})`
          )}`
    const rows = yield* sql`
      with assessed as (
        insert into risk.assessments (assessment_id, order_id, user_id, device, amount_minor, currency, region, units,
          lines, score, decision, reasons, decided_at)
        values (${attempt.assessmentId}, ${attempt.orderId}, ${attempt.userId}, ${attempt.device},
          ${attempt.amountMinor}::bigint, ${attempt.currency}, ${attempt.region}, ${attempt.units}, ${attempt.lines},
          ${assessment.score}, ${assessment.decision}, ${JSON.stringify(assessment.reasons)}::text::jsonb, ${at})
        on conflict (assessment_id) do nothing returning 1
      ) ${flagging}
      select from assessed`
    if (rows.length > 0 && event !== undefined) yield* events.committed
    return rows.length > 0
  })

  /** Newest first, each with its position, from which the next page goes on. */
  const list = Effect.fn("RiskStore.list")(function* (
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
  const expire = Effect.fn("RiskStore.expire")(function* (before: Date, limit: number) {
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
