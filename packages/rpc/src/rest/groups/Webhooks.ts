import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema } from "effect/http-api"
import * as Ids from "@merkato/domain/kernel/Ids"
import { DeliveryStatus, EventTypes, WebhookUrl } from "@merkato/domain/partners/Webhook"
import { PartnersGroup } from "../../partners/PartnersRpc.ts"
import { SignedIn } from "../Access.ts"
import { accepted, created, paging, summary } from "../Endpoint.ts"
import * as Json from "../Json.ts"
import { problems } from "../Problems.ts"

const subscription = { subscriptionId: Ids.SubscriptionId }

export class Webhooks extends HttpApiGroup.make("webhooks")
  .add(
    HttpApiEndpoint.post("subscribe", "/subscriptions", {
      payload: Schema.Struct({ url: WebhookUrl, eventTypes: EventTypes }),
      success: Json.SecretShownJson.pipe(created),
      error: problems(PartnersGroup, "Subscribe")
    })
      .middleware(SignedIn)
      .annotateMerge(
        summary(
          "Be told of events from now on: of one's own orders (an administrator of everybody's), of products, stock and sales. The secret is shown this once"
        )
      ),
    HttpApiEndpoint.get("listSubscriptions", "/subscriptions", {
      query: paging,
      success: Json.pageOf(Json.SubscriptionJson),
      error: problems(PartnersGroup, "ListSubscriptions")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("One's subscriptions, newest first")),
    HttpApiEndpoint.get("getSubscription", "/subscriptions/:subscriptionId", {
      params: subscription,
      success: Json.SubscriptionJson,
      error: problems(PartnersGroup, "GetSubscription")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("One subscription")),
    HttpApiEndpoint.delete("unsubscribe", "/subscriptions/:subscriptionId", {
      params: subscription,
      success: HttpApiSchema.NoContent,
      error: problems(PartnersGroup, "Unsubscribe")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("Be told no more; what is owed is not sent")),
    HttpApiEndpoint.post("rotateSecret", "/subscriptions/:subscriptionId/rotate-secret", {
      params: subscription,
      success: Json.SecretShownJson,
      error: problems(PartnersGroup, "RotateSecret")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("A new secret, shown this once; the one before signs as well until previousSecretUntil")),
    HttpApiEndpoint.post("enableSubscription", "/subscriptions/:subscriptionId/enable", {
      params: subscription,
      success: Json.SubscriptionJson,
      error: problems(PartnersGroup, "Enable")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("Be told again after DISABLED or GONE; a replay sends what came meanwhile")),
    HttpApiEndpoint.get("listDeliveries", "/subscriptions/:subscriptionId/deliveries", {
      params: subscription,
      query: { ...paging, status: Schema.optionalKey(DeliveryStatus) },
      success: Json.pageOf(Json.DeliveryJson),
      error: problems(PartnersGroup, "ListDeliveries")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("What a subscription is and was owed, newest first")),
    HttpApiEndpoint.post("replayDeliveries", "/subscriptions/:subscriptionId/replay", {
      params: subscription,
      payload: Schema.Struct({
        after: Schema.optionalKey(Ids.DeliveryId),
        limit: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100 })))
      }),
      success: Schema.Struct({ queued: Schema.Int, nextAfter: Schema.NullOr(Ids.DeliveryId) }).pipe(accepted),
      error: problems(PartnersGroup, "Replay")
    })
      .middleware(SignedIn)
      .annotateMerge(
        summary("Send again what came after a delivery, oldest first, limit at a time; go on with after = nextAfter")
      ),
    HttpApiEndpoint.get("getDelivery", "/deliveries/:deliveryId", {
      params: { deliveryId: Ids.DeliveryId },
      success: Json.DeliveryLogJson,
      error: problems(PartnersGroup, "GetDelivery")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("One delivery: what is sent, and what came of each try")),
    HttpApiEndpoint.post("redeliver", "/subscriptions/:subscriptionId/deliveries/:deliveryId/redeliver", {
      params: { ...subscription, deliveryId: Ids.DeliveryId },
      success: Json.DeliveryJson.pipe(accepted),
      error: problems(PartnersGroup, "Redeliver")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("Send a delivery once more, with all its retries")),
    HttpApiEndpoint.post("redeliverById", "/deliveries/:deliveryId/redeliver", {
      params: { deliveryId: Ids.DeliveryId },
      success: Json.DeliveryJson.pipe(accepted),
      error: problems(PartnersGroup, "Redeliver")
    })
      .middleware(SignedIn)
      .annotateMerge(summary("The same, by the delivery alone"))
  )
  .prefix("/webhooks") {}
