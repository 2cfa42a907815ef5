import { Clock, Context, DateTime, Effect, Layer, Schema } from "effect"
import { dayMs } from "@merkato/domain/kernel/Day"
import type { Envelope } from "@merkato/domain/kernel/Event"
import * as Ids from "@merkato/domain/kernel/Ids"
import { type Forbidden, InvalidValue, type ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import {
  Delivery,
  DeliveryLog,
  DeliveryNotFound,
  type DeliveryStatus,
  SecretShown,
  Subscription,
  SubscriptionNotActive,
  SubscriptionNotFound,
  TooManySubscriptions
} from "@merkato/domain/partners/Webhook"
import { Encryption } from "@merkato/infra/auth/Encryption"
import { Secrets } from "@merkato/infra/auth/Secrets"
import { secretOf } from "@merkato/infra/auth/WebhookSignature"
import { allowed, authorize } from "@merkato/infra/authorizer/Authorizer"
import * as Provided from "@merkato/infra/context/Provided"
import * as Retention from "@merkato/infra/context/Retention"
import { Alarms } from "@merkato/infra/delay/Alarms"
import { DelayQueue } from "@merkato/infra/delay/DelayQueue"
import { PublicHttp } from "@merkato/infra/http/PublicHttp"
import * as Cursor from "@merkato/infra/paging/Cursor"
import { orUnavailable, transaction } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import * as PartnersStore from "./PartnersStore.ts"

/** Subscriptions that somebody may have. */
const most = 20

/** How long the secret before signs, too: time enough for receivers to learn the new one. */
const overlapMs = dayMs

const keptDays = 30
const setting = "MERKATO_KEEP_WEBHOOK_DELIVERIES_DAYS"

/** What was told, given up or skipped is no longer kept for replays, and neither is what came of its tries. */
export const oldDeliveries: Retention.Passing = {
  table: "webhook_deliveries",
  age: Retention.byTime("created_at"),
  days: keptDays,
  setting,
  where: (sql) => sql`status <> 'PENDING'`
}
export const oldAttempts: Retention.Passing = {
  table: "webhook_delivery_attempts",
  age: Retention.byTime("attempted_at"),
  days: keptDays,
  setting
}

const subscriptionCursor = Cursor.make(Schema.Struct({ subscriptionId: Ids.SubscriptionId }))
const deliveryCursor = Cursor.make(Schema.Struct({ position: Schema.Int }))

const deliveryOf = ({ position: _, body: __, ...row }: PartnersStore.KeptDelivery) => new Delivery(row)

/** The use cases of webhooks: who is told of what, what they are owed, and asking for it once more. */
export class Webhooks extends Context.Service<
  Webhooks,
  {
    subscribe(request: {
      readonly url: string
      readonly eventTypes: ReadonlyArray<string>
    }): Effect.Effect<SecretShown, Forbidden | InvalidValue | TooManySubscriptions | ServiceUnavailable>
    list(
      options: Cursor.Paging
    ): Effect.Effect<Cursor.Page<Subscription>, Forbidden | InvalidValue | ServiceUnavailable>
    get(id: Ids.SubscriptionId): Effect.Effect<Subscription, Forbidden | SubscriptionNotFound | ServiceUnavailable>
    unsubscribe(id: Ids.SubscriptionId): Effect.Effect<void, Forbidden | SubscriptionNotFound | ServiceUnavailable>
    rotateSecret(
      id: Ids.SubscriptionId
    ): Effect.Effect<SecretShown, Forbidden | SubscriptionNotFound | ServiceUnavailable>
    enable(id: Ids.SubscriptionId): Effect.Effect<Subscription, Forbidden | SubscriptionNotFound | ServiceUnavailable>
    listDeliveries(
      options: Cursor.Paging & { readonly subscriptionId: Ids.SubscriptionId; readonly status?: DeliveryStatus }
    ): Effect.Effect<Cursor.Page<Delivery>, Forbidden | InvalidValue | SubscriptionNotFound | ServiceUnavailable>
    getDelivery(id: Ids.DeliveryId): Effect.Effect<DeliveryLog, Forbidden | DeliveryNotFound | ServiceUnavailable>
    redeliver(
      id: Ids.DeliveryId
    ): Effect.Effect<Delivery, Forbidden | DeliveryNotFound | SubscriptionNotActive | ServiceUnavailable>
    replay(options: {
      readonly subscriptionId: Ids.SubscriptionId
      readonly after?: Ids.DeliveryId
      readonly limit: number
    }): Effect.Effect<
      { readonly queued: number; readonly nextAfter: Ids.DeliveryId | null },
      Forbidden | DeliveryNotFound | SubscriptionNotFound | SubscriptionNotActive | ServiceUnavailable
    >
    /** Makes events owed to all who want to be told of them. The same event again changes nothing. */
    owe(events: ReadonlyArray<Envelope>): Effect.Effect<void, ServiceUnavailable>
    /** What is kept of a delivery, for the shop itself. */
    kept(id: Ids.DeliveryId): Effect.Effect<PartnersStore.KeptDelivery | undefined, ServiceUnavailable>
  }
>()("merkato/partners/Webhooks") {
  static readonly layer = Layer.effect(
    Webhooks,
    Effect.gen(function* () {
      const store = yield* PartnersStore.make
      const queue = yield* DelayQueue
      const alarms = yield* Alarms
      const encryption = yield* Encryption
      const secrets = yield* Secrets
      const http = yield* PublicHttp
      const provided = yield* Provided.provided
      const orAway = orUnavailable("partners")

      /** One's own, or anybody's for an administrator; for all others there is no such subscription. */
      const own = Effect.fnUntraced(function* (subscriptionId: Ids.SubscriptionId) {
        yield* authorize("webhook.write")
        const found = yield* store.find(subscriptionId)
        return found !== undefined && (yield* allowed("webhook.use", { ownerId: found.ownerId }))
          ? new Subscription(found)
          : yield* new SubscriptionNotFound({ subscriptionId })
      })

      const ownDelivery = Effect.fnUntraced(function* (deliveryId: Ids.DeliveryId) {
        yield* authorize("webhook.write")
        const missing = new DeliveryNotFound({ deliveryId })
        const delivery = yield* store.findDelivery(deliveryId)
        if (delivery === undefined) return yield* missing
        const subscription = yield* own(delivery.subscriptionId).pipe(
          Effect.catchTag("SubscriptionNotFound", () => Effect.fail(missing))
        )
        return { delivery, subscription }
      })

      const active = ({ subscriptionId, status }: Subscription) =>
        status === "ACTIVE" ? Effect.void : Effect.fail(new SubscriptionNotActive({ subscriptionId, status }))

      const newSecret = Effect.fnUntraced(function* (subscriptionId: Ids.SubscriptionId) {
        const secret = secretOf(yield* secrets.token)
        return { secret, kept: yield* encryption.encrypt(secret, PartnersStore.secretAbout(subscriptionId)) }
      })

      const subscribe = Tracing.fn("Webhooks.subscribe")(
        function* ({ url, eventTypes }: { readonly url: string; readonly eventTypes: ReadonlyArray<string> }) {
          yield* authorize("webhook.write")
          const reason = http.objection(url)
          if (reason !== undefined) return yield* new InvalidValue({ path: "url", reason })
          const { principal } = yield* RequestContext
          const subscriptionId = yield* Ids.nextSubscriptionId
          const createdAt = yield* DateTime.nowAsDate
          const { secret, kept } = yield* newSecret(subscriptionId)
          const fields = { subscriptionId, ownerId: principal.userId, url, eventTypes }
          const hearsAll = principal.role === "admin"
          if (!(yield* transaction(store.insert({ ...fields, hearsAll, secret: kept, createdAt }, most)))) {
            return yield* new TooManySubscriptions({ most })
          }
          const subscription = new Subscription({
            ...fields,
            status: "ACTIVE",
            createdAt: DateTime.makeUnsafe(createdAt)
          })
          return new SecretShown({ subscription, secret, previousUntil: null })
        },
        orAway,
        provided
      )

      const list = Tracing.fn("Webhooks.list")(
        function* ({ limit, cursor }: Cursor.Paging) {
          yield* authorize("webhook.write")
          const { principal } = yield* RequestContext
          const before = (yield* subscriptionCursor.decode(cursor))?.subscriptionId
          const rows = yield* store.list(principal.userId, before, limit + 1)
          const page = Cursor.page(rows, limit, ({ subscriptionId }) => subscriptionCursor.encode({ subscriptionId }))
          return { ...page, items: page.items.map((row) => new Subscription(row)) }
        },
        orAway,
        provided
      )

      const get = Tracing.fn("Webhooks.get")(
        function* (id: Ids.SubscriptionId) {
          return yield* own(id)
        },
        orAway,
        provided
      )

      const unsubscribe = Tracing.fn("Webhooks.unsubscribe")(
        function* (id: Ids.SubscriptionId) {
          const { subscriptionId } = yield* own(id)
          yield* transaction(
            Effect.gen(function* () {
              yield* queue.drop(subscriptionId)
              yield* store.remove(subscriptionId)
              yield* store.skipOwed(subscriptionId)
            })
          )
        },
        orAway,
        provided
      )

      const rotateSecret = Tracing.fn("Webhooks.rotateSecret")(
        function* (id: Ids.SubscriptionId) {
          const subscription = yield* own(id)
          const previousUntil = new Date((yield* Clock.currentTimeMillis) + overlapMs)
          const { secret, kept } = yield* newSecret(id)
          yield* store.rotate(id, kept, previousUntil)
          return new SecretShown({ subscription, secret, previousUntil: DateTime.makeUnsafe(previousUntil) })
        },
        orAway,
        provided
      )

      const enable = Tracing.fn("Webhooks.enable")(
        function* (id: Ids.SubscriptionId) {
          const subscription = yield* own(id)
          if (subscription.status !== "ACTIVE") yield* store.setStatus(id, "ACTIVE")
          return new Subscription({ ...subscription, status: "ACTIVE" })
        },
        orAway,
        provided
      )

      const listDeliveries = Tracing.fn("Webhooks.listDeliveries")(
        function* ({
          subscriptionId,
          status,
          limit,
          cursor
        }: Cursor.Paging & { readonly subscriptionId: Ids.SubscriptionId; readonly status?: DeliveryStatus }) {
          yield* own(subscriptionId)
          const before = (yield* deliveryCursor.decode(cursor))?.position
          const rows = yield* store.listDeliveries({ subscriptionId, status, before, limit: limit + 1 })
          const page = Cursor.page(rows, limit, ({ position }) => deliveryCursor.encode({ position }))
          return { ...page, items: page.items.map(deliveryOf) }
        },
        orAway,
        provided
      )

      const getDelivery = Tracing.fn("Webhooks.getDelivery")(
        function* (id: Ids.DeliveryId) {
          const { delivery } = yield* ownDelivery(id)
          const { position: _, ...fields } = delivery
          return new DeliveryLog({ ...fields, log: yield* store.attemptsOf(id) })
        },
        orAway,
        provided
      )

      const redeliver = Tracing.fn("Webhooks.redeliver")(
        function* (id: Ids.DeliveryId) {
          const { delivery, subscription } = yield* ownDelivery(id)
          yield* active(subscription)
          const at = yield* DateTime.nowAsDate
          yield* transaction(
            Effect.andThen(queue.put([PartnersStore.laneOf(delivery)], { at, hurry: true }), store.oweAgain([delivery]))
          )
          yield* alarms.set([subscription.subscriptionId], at)
          return new Delivery({ ...deliveryOf(delivery), status: "PENDING", attempts: 0, deliveredAt: null })
        },
        orAway,
        provided
      )

      const replay = Tracing.fn("Webhooks.replay")(
        function* (options: {
          readonly subscriptionId: Ids.SubscriptionId
          readonly after?: Ids.DeliveryId
          readonly limit: number
        }) {
          const { subscriptionId, after, limit } = options
          yield* active(yield* own(subscriptionId))
          const last = after === undefined ? undefined : yield* store.findDelivery(after)
          if (after !== undefined && last?.subscriptionId !== subscriptionId) {
            return yield* new DeliveryNotFound({ deliveryId: after })
          }
          const at = yield* DateTime.nowAsDate
          const replayed = yield* transaction(
            Effect.gen(function* () {
              const found = yield* store.after(subscriptionId, last?.position ?? 0, limit + 1)
              const again = found.slice(0, limit)
              yield* queue.put(again.map(PartnersStore.laneOf), { at, hurry: true })
              yield* store.oweAgain(again)
              return {
                queued: again.length,
                nextAfter: found.length > limit ? (again.at(-1)?.deliveryId ?? null) : null
              }
            })
          )
          if (replayed.queued > 0) yield* alarms.set([subscriptionId], at)
          return replayed
        },
        orAway,
        provided
      )

      const owe = Tracing.fn("Webhooks.owe")(
        function* (events: ReadonlyArray<Envelope>) {
          const at = yield* DateTime.nowAsDate
          const each = [...new Map(events.map((event) => [event.eventId, event])).values()]
          const lanes = yield* transaction(
            Effect.tap(store.owe(each, at), (lanes) => queue.put(lanes, { at, hurry: false }))
          )
          yield* alarms.set(
            lanes.map(({ group }) => group),
            at
          )
        },
        orAway,
        provided
      )

      const kept = (id: Ids.DeliveryId) => orAway(store.findDelivery(id))

      return Webhooks.of({
        subscribe,
        list,
        get,
        unsubscribe,
        rotateSecret,
        enable,
        listDeliveries,
        getDelivery,
        redeliver,
        replay,
        owe,
        kept
      })
    })
  )
}
