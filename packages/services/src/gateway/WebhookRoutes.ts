import { DateTime, Effect } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import {
  DeliveryNotFound,
  type Delivery,
  type DeliveryLog,
  type SecretShown,
  type Subscription
} from "@merkato/domain/partners/Webhook"
import { PartnersRpc } from "@merkato/rpc/partners/PartnersRpc"
import { Api } from "@merkato/rpc/rest/Api"
import type * as Json from "@merkato/rpc/rest/Json"
import { answering, json, pageJson } from "./Rest.ts"

const defaultLimit = 20

const timeOf = (at: DateTime.DateTime | null) => (at === null ? null : DateTime.formatIso(at))

const subscriptionJson = (subscription: Subscription): typeof Json.SubscriptionJson.Encoded => ({
  subscriptionId: subscription.subscriptionId,
  url: subscription.url,
  eventTypes: subscription.eventTypes,
  status: subscription.status,
  createdAt: DateTime.formatIso(subscription.createdAt)
})

const secretShownJson = (shown: SecretShown): typeof Json.SecretShownJson.Encoded => ({
  ...subscriptionJson(shown.subscription),
  secret: shown.secret,
  previousSecretUntil: timeOf(shown.previousUntil)
})

const deliveryJson = (delivery: Delivery | DeliveryLog): typeof Json.DeliveryJson.Encoded => ({
  deliveryId: delivery.deliveryId,
  subscriptionId: delivery.subscriptionId,
  eventId: delivery.eventId,
  eventType: delivery.eventType,
  aggregateId: delivery.aggregateId,
  status: delivery.status,
  attempts: delivery.attempts,
  createdAt: DateTime.formatIso(delivery.createdAt),
  deliveredAt: timeOf(delivery.deliveredAt)
})

const deliveryLogJson = (delivery: DeliveryLog): typeof Json.DeliveryLogJson.Encoded => ({
  ...deliveryJson(delivery),
  body: delivery.body,
  log: delivery.log.map((attempt) => ({ ...attempt, attemptedAt: DateTime.formatIso(attempt.attemptedAt) }))
})

export const WebhookRoutes = HttpApiBuilder.group(
  Api,
  "webhooks",
  Effect.fn(function* (handlers) {
    const partners = yield* PartnersRpc
    const redelivered = (delivery: Delivery) => json(deliveryJson(delivery), 202)
    return handlers.handleAll({
      subscribe: ({ payload }) =>
        answering(
          Effect.map(partners.Subscribe(payload), (shown) =>
            json(secretShownJson(shown), 201, {
              location: `/api/v1/webhooks/subscriptions/${shown.subscription.subscriptionId}`
            })
          )
        ),
      listSubscriptions: ({ query: { limit = defaultLimit, ...query } }) =>
        answering(
          Effect.map(partners.ListSubscriptions({ ...query, limit }), (page) => json(pageJson(page, subscriptionJson)))
        ),
      getSubscription: ({ params }) =>
        answering(Effect.map(partners.GetSubscription(params), (found) => json(subscriptionJson(found)))),
      unsubscribe: ({ params }) =>
        answering(Effect.as(partners.Unsubscribe(params), HttpServerResponse.empty({ status: 204 }))),
      rotateSecret: ({ params }) =>
        answering(Effect.map(partners.RotateSecret(params), (shown) => json(secretShownJson(shown)))),
      enableSubscription: ({ params }) =>
        answering(Effect.map(partners.Enable(params), (enabled) => json(subscriptionJson(enabled)))),
      listDeliveries: ({ params, query: { limit = defaultLimit, ...query } }) =>
        answering(
          Effect.map(partners.ListDeliveries({ ...params, ...query, limit }), (page) =>
            json(pageJson(page, deliveryJson))
          )
        ),
      replayDeliveries: ({ params, payload: { limit = 100, ...payload } }) =>
        answering(Effect.map(partners.Replay({ ...params, ...payload, limit }), (replayed) => json(replayed, 202))),
      getDelivery: ({ params }) =>
        answering(Effect.map(partners.GetDelivery(params), (found) => json(deliveryLogJson(found)))),
      redeliver: ({ params: { subscriptionId, deliveryId } }) =>
        answering(
          Effect.gen(function* () {
            const found = yield* partners.GetDelivery({ deliveryId })
            if (found.subscriptionId !== subscriptionId) return yield* new DeliveryNotFound({ deliveryId })
            return redelivered(yield* partners.Redeliver({ deliveryId }))
          })
        ),
      redeliverById: ({ params }) => answering(Effect.map(partners.Redeliver(params), redelivered))
    })
  })
)
