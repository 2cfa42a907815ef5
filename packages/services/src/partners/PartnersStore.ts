import { Effect, Schema } from "effect"
import { SqlClient } from "effect/sql"
import type { Envelope } from "@merkato/domain/kernel/Event"
import { DeliveryId, EventId, Id, SubscriptionId, UserId } from "@merkato/domain/kernel/Ids"
import { ownerOf } from "@merkato/domain/partners/OpenToPartners"
import { DeliveryStatus, SubscriptionStatus } from "@merkato/domain/partners/Webhook"
import type { Delayed } from "@merkato/infra/delay/DelayQueue"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

const SubscriptionRow = Schema.Struct({
  subscriptionId: SubscriptionId,
  ownerId: UserId,
  url: Schema.String,
  eventTypes: Schema.Array(Schema.String),
  status: SubscriptionStatus,
  createdAt: Schema.DateTimeUtcFromDate
})
const decodeSubscriptions = Schema.decodeUnknownEffect(Schema.Array(SubscriptionRow))

const DeliveryRow = Schema.Struct({
  deliveryId: DeliveryId,
  subscriptionId: SubscriptionId,
  eventId: EventId,
  eventType: Schema.String,
  aggregateId: Id,
  status: DeliveryStatus,
  attempts: Schema.Int,
  createdAt: Schema.DateTimeUtcFromDate,
  deliveredAt: Schema.NullOr(Schema.DateTimeUtcFromDate),
  position: Schema.Int,
  body: Schema.String
})
const decodeDeliveries = Schema.decodeUnknownEffect(Schema.Array(DeliveryRow))
export type KeptDelivery = typeof DeliveryRow.Type

/** What is to be sent next, and to whom. */
const OwedRow = Schema.Struct({
  deliveryId: DeliveryId,
  eventId: EventId,
  eventType: Schema.String,
  attempts: Schema.Int,
  body: Schema.String,
  /** null: the subscription is gone. */
  ownerId: Schema.NullOr(UserId),
  url: Schema.NullOr(Schema.String),
  status: Schema.NullOr(SubscriptionStatus),
  secret: Schema.NullOr(Schema.String),
  previousSecret: Schema.NullOr(Schema.String),
  previousUntil: Schema.NullOr(Schema.Date)
})
const decodeOwed = Schema.decodeUnknownEffect(Schema.Array(OwedRow))
export type Owed = typeof OwedRow.Type

const AttemptRow = Schema.Struct({
  attemptedAt: Schema.DateTimeUtcFromDate,
  durationMs: Schema.Int,
  requestHeaders: Schema.Record(Schema.String, Schema.String),
  responseStatus: Schema.NullOr(Schema.Int),
  responseBody: Schema.NullOr(Schema.String),
  error: Schema.NullOr(Schema.String)
})
const decodeAttempts = Schema.decodeUnknownEffect(Schema.Array(AttemptRow))

/** What came of a try. */
export interface Tried {
  readonly at: number
  readonly durationMs: number
  readonly requestHeaders: Readonly<Record<string, string>>
  readonly responseStatus: number | null
  readonly responseBody: string | null
  readonly error: string | null
}

export interface NewSubscription {
  readonly subscriptionId: SubscriptionId
  readonly ownerId: UserId
  readonly hearsAll: boolean
  readonly url: string
  readonly eventTypes: ReadonlyArray<string>
  readonly secret: string
  readonly createdAt: Date
}

/**
 * The SQL of partners. A transaction locks lanes (`DelayQueue`) first, then a subscription, then deliveries in the order of
 * their positions: whoever sends has the lane, and all who ask for deliveries, or end them, meet at the same three.
 */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const subscriptionFields = sql.literal(
    `subscription_id as "subscriptionId", owner_id as "ownerId", url, event_types as "eventTypes", status,
     created_at as "createdAt"`
  )
  const deliveryFields = sql.literal(
    `delivery_id as "deliveryId", subscription_id as "subscriptionId", event_id as "eventId", event_type as "eventType",
     aggregate_id as "aggregateId", status, attempts, created_at as "createdAt", delivered_at as "deliveredAt", position, body`
  )
  const subscriptionsIn = (rows: ReadonlyArray<unknown>) => Effect.orDie(decodeSubscriptions(rows))
  const deliveriesIn = (rows: ReadonlyArray<unknown>) => Effect.orDie(decodeDeliveries(rows))

  /** False when its owner has `most` already. */
  const insert = Effect.fnUntraced(function* (subscription: NewSubscription, most: number) {
    yield* sql`select pg_advisory_xact_lock(hashtextextended(${`partners.owner:${subscription.ownerId}`}, 0))`
    const rows = yield* sql`
      insert into partners.webhook_subscriptions
        (subscription_id, owner_id, hears_all, url, event_types, status, secret, created_at)
      select ${subscription.subscriptionId}, ${subscription.ownerId}, ${subscription.hearsAll}::boolean, ${subscription.url},
        ${subscription.eventTypes}::text[], 'ACTIVE', ${subscription.secret}, ${subscription.createdAt}::timestamptz
      where (select count(*) from partners.webhook_subscriptions where owner_id = ${subscription.ownerId}) < ${most}::int
      returning subscription_id`
    return rows.length > 0
  })

  const find = Effect.fnUntraced(function* (subscriptionId: string) {
    const rows = yield* sql`
      select ${subscriptionFields} from partners.webhook_subscriptions where subscription_id = ${subscriptionId}`
    const [found] = yield* subscriptionsIn(rows)
    return found
  })

  const list = Effect.fnUntraced(function* (ownerId: UserId, before: string | undefined, limit: number) {
    const beyond = before === undefined ? sql.literal("") : sql`and subscription_id < ${before}`
    return yield* subscriptionsIn(
      yield* sql`
        select ${subscriptionFields} from partners.webhook_subscriptions where owner_id = ${ownerId} ${beyond}
        order by subscription_id desc limit ${limit}`
    )
  })

  const remove = (subscriptionId: SubscriptionId) =>
    sql`delete from partners.webhook_subscriptions where subscription_id = ${subscriptionId}`

  const rotate = (subscriptionId: SubscriptionId, secret: string, previousUntil: Date) => sql`
    update partners.webhook_subscriptions set previous_secret = secret, previous_until = ${previousUntil}, secret = ${secret}
    where subscription_id = ${subscriptionId}`

  const setStatus = (subscriptionId: SubscriptionId, status: SubscriptionStatus) => sql`
    update partners.webhook_subscriptions set status = ${status}, given_up = 0 where subscription_id = ${subscriptionId}`

  /** What it is owed is not sent any more. */
  const skipOwed = (subscriptionId: string) => sql`
    with owed as materialized (
      select delivery_id from partners.webhook_deliveries where subscription_id = ${subscriptionId} and status = 'PENDING'
      order by position for update
    )
    update partners.webhook_deliveries d set status = 'SKIPPED' from owed where d.delivery_id = owed.delivery_id`

  /** Not by their envelopes alone: whom an order's event is about says who else may hear of it. */
  const owe = Tracing.fn("PartnersStore.owe")(function* (events: ReadonlyArray<Envelope>, now: Date) {
    const rows = yield* sql<{ subscriptionId: string; aggregateId: string; status: DeliveryStatus }>`
      insert into partners.webhook_deliveries as known
        (delivery_id, subscription_id, aggregate_id, event_id, event_type, body, status, attempts, created_at)
      select 'DLV-' || md5(s.subscription_id || ' ' || e.event_id), s.subscription_id, e.aggregate_id, e.event_id, e.event_type,
        e.body, case s.status when 'ACTIVE' then 'PENDING' else 'SKIPPED' end, 0, ${now}::timestamptz
      from unnest(
        ${events.map((event) => event.partitionKey)}::text[], ${events.map((event) => event.eventId)}::text[],
        ${events.map((event) => event.eventType)}::text[],
        ${events.map((event) => ownerOf(event.eventType, event.payload) ?? "")}::text[],
        ${events.map((event) => JSON.stringify(event))}::text[]
      ) with ordinality as e (aggregate_id, event_id, event_type, about, body, line)
      join partners.webhook_subscriptions s on s.event_types @> array[e.event_type]
        and (s.hears_all or e.about in ('', s.owner_id))
      -- What was owed before: a conflict would lock it, and who sends it has the lane that is wanted next. A scalar "exists"
      -- stays a look-up by key.
      where not (select exists (
        select from partners.webhook_deliveries d
        where d.delivery_id = 'DLV-' || md5(s.subscription_id || ' ' || e.event_id) and d.status <> 'FAILED'
      ))
      order by e.line, s.subscription_id
      -- Given up, and requeued by somebody from the dead letters.
      on conflict (delivery_id) do update set status = 'PENDING', attempts = 0
        where known.status = 'FAILED' and excluded.status = 'PENDING'
      returning subscription_id as "subscriptionId", aggregate_id as "aggregateId", status`
    return rows.filter(({ status }) => status === "PENDING").map(laneOf)
  })

  /** The oldest that is owed to a subscription about an aggregate. */
  const next = Effect.fnUntraced(function* ({ group, key }: Delayed) {
    const rows = yield* sql`
      select d.delivery_id as "deliveryId", d.event_id as "eventId", d.event_type as "eventType", d.attempts, d.body,
        s.owner_id as "ownerId", s.url, s.status, s.secret, s.previous_secret as "previousSecret",
        s.previous_until as "previousUntil"
      from partners.webhook_deliveries d left join partners.webhook_subscriptions s using (subscription_id)
      where d.subscription_id = ${group} and d.aggregate_id = ${key} and d.status = 'PENDING'
      order by d.position limit 1`
    const [owed] = yield* Effect.orDie(decodeOwed(rows))
    return owed
  })

  const owes = ({ group, key }: Delayed) =>
    Effect.map(
      sql`select from partners.webhook_deliveries
        where subscription_id = ${group} and aggregate_id = ${key} and status = 'PENDING' limit 1`,
      (rows) => rows.length > 0
    )

  /** One more try of a delivery, and how it stands now. */
  const tried = Effect.fnUntraced(function* (deliveryId: DeliveryId, status: DeliveryStatus, attempt: Tried) {
    const at = new Date(attempt.at)
    const deliveredAt = status === "DELIVERED" ? at : null
    yield* sql`
      with noted as (
        insert into partners.webhook_delivery_attempts
          (delivery_id, attempted_at, duration_ms, request_headers, response_status, response_body, error)
        values (${deliveryId}, ${at}, ${attempt.durationMs}, ${JSON.stringify(attempt.requestHeaders)}::text::jsonb,
          ${attempt.responseStatus}, ${attempt.responseBody}, ${attempt.error})
      )
      update partners.webhook_deliveries set status = ${status}, attempts = attempts + 1, delivered_at = ${deliveredAt}
      where delivery_id = ${deliveryId}`
  })

  const arrives = (subscriptionId: string) => sql`
    update partners.webhook_subscriptions set given_up = 0 where subscription_id = ${subscriptionId} and given_up > 0`

  /** Counts a delivery that was given up: how many in a row that makes, and the version of the event that tells of it. */
  const givesUp = Effect.fnUntraced(function* (subscriptionId: string) {
    const [row] = yield* sql<{ givenUp: number; version: number }>`
      update partners.webhook_subscriptions set given_up = given_up + 1, version = version + 1
      where subscription_id = ${subscriptionId} returning given_up as "givenUp", version`
    return row
  })

  const findDelivery = Effect.fnUntraced(function* (deliveryId: string) {
    const [found] = yield* deliveriesIn(
      yield* sql`select ${deliveryFields} from partners.webhook_deliveries where delivery_id = ${deliveryId}`
    )
    return found
  })

  const listDeliveries = Effect.fnUntraced(function* (options: {
    readonly subscriptionId: SubscriptionId
    readonly status: DeliveryStatus | undefined
    readonly before: number | undefined
    readonly limit: number
  }) {
    const { subscriptionId, status, before, limit } = options
    const only = status === undefined ? sql.literal("") : sql`and status = ${status}`
    const beyond = before === undefined ? sql.literal("") : sql`and position < ${before}`
    return yield* deliveriesIn(
      yield* sql`
        select ${deliveryFields} from partners.webhook_deliveries
        where subscription_id = ${subscriptionId} ${only} ${beyond} order by position desc limit ${limit}`
    )
  })

  const attemptsOf = Effect.fnUntraced(function* (deliveryId: DeliveryId) {
    const rows = yield* sql`
      select attempted_at as "attemptedAt", duration_ms as "durationMs", request_headers as "requestHeaders",
        response_status as "responseStatus", response_body as "responseBody", error
      from partners.webhook_delivery_attempts where delivery_id = ${deliveryId} order by attempt_id desc limit 100`
    return yield* Effect.orDie(decodeAttempts(rows))
  })

  /** What came to a subscription after a position, oldest first. */
  const after = Effect.fnUntraced(function* (subscriptionId: SubscriptionId, position: number, limit: number) {
    return yield* deliveriesIn(
      yield* sql`
        select ${deliveryFields} from partners.webhook_deliveries
        where subscription_id = ${subscriptionId} and position > ${position} order by position limit ${limit}`
    )
  })

  /** Makes deliveries owed again, from their first try on. */
  const oweAgain = (deliveries: ReadonlyArray<KeptDelivery>) => sql`
    with asked as materialized (
      select delivery_id from partners.webhook_deliveries
      where delivery_id = any(${deliveries.map(({ deliveryId }) => deliveryId)}::text[]) order by position for update
    )
    update partners.webhook_deliveries d set status = 'PENDING', attempts = 0, delivered_at = null
    from asked where d.delivery_id = asked.delivery_id`

  return {
    insert,
    find,
    list,
    remove,
    rotate,
    setStatus,
    skipOwed,
    owe,
    next,
    owes,
    tried,
    arrives,
    givesUp,
    findDelivery,
    listDeliveries,
    attemptsOf,
    after,
    oweAgain
  }
})

/** Events of one aggregate go to a subscription one after the other. */
export const laneOf = ({ subscriptionId, aggregateId }: { subscriptionId: string; aggregateId: string }): Delayed => ({
  group: subscriptionId,
  key: aggregateId
})

/** What a subscription's secrets are encrypted for. */
export const secretAbout = (subscriptionId: string) => `webhook:${subscriptionId}`
