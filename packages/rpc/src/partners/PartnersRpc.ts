import { Schema } from "effect"
import { RpcGroup } from "effect/rpc"
import { DeliveryId, SubscriptionId } from "@merkato/domain/kernel/Ids"
import { Forbidden, InvalidValue } from "@merkato/domain/kernel/Problem"
import {
  Delivery,
  DeliveryLog,
  DeliveryNotFound,
  DeliveryStatus,
  EventTypes,
  SecretShown,
  Subscription,
  SubscriptionNotActive,
  SubscriptionNotFound,
  TooManySubscriptions,
  WebhookUrl
} from "@merkato/domain/partners/Webhook"
import { Contract } from "../contract/Contract.ts"
import { command, page, paging, query } from "../contract/Operation.ts"

const subscription = { subscriptionId: SubscriptionId }

export const PartnersGroup = RpcGroup.make(
  /** Tells the caller of events from now on. An administrator hears of everybody's orders, others of their own. */
  command("Subscribe", {
    payload: { url: WebhookUrl, eventTypes: EventTypes },
    success: SecretShown,
    errors: [Forbidden, InvalidValue, TooManySubscriptions]
  }),
  /** The caller's, newest first. */
  query("ListSubscriptions", { payload: paging, success: page(Subscription), errors: [Forbidden, InvalidValue] }),
  query("GetSubscription", { payload: subscription, success: Subscription, errors: [Forbidden, SubscriptionNotFound] }),
  /** What it is owed is not sent any more. */
  command("Unsubscribe", {
    payload: subscription,
    success: Schema.Void,
    errors: [Forbidden, SubscriptionNotFound]
  }),
  /** A new secret; the one before signs as well for a day. */
  command("RotateSecret", {
    payload: subscription,
    success: SecretShown,
    errors: [Forbidden, SubscriptionNotFound]
  }),
  /** Makes it active again, whatever ended it. What came meanwhile is sent by a replay. */
  command("Enable", { payload: subscription, success: Subscription, errors: [Forbidden, SubscriptionNotFound] }),
  /** What it is and was owed, newest first. */
  query("ListDeliveries", {
    payload: { ...subscription, ...paging, status: Schema.optionalKey(DeliveryStatus) },
    success: page(Delivery),
    errors: [Forbidden, InvalidValue, SubscriptionNotFound]
  }),
  query("GetDelivery", {
    payload: { deliveryId: DeliveryId },
    success: DeliveryLog,
    errors: [Forbidden, DeliveryNotFound]
  }),
  /** Sends it once more, whatever came of it before, with all its retries. */
  command("Redeliver", {
    payload: { deliveryId: DeliveryId },
    success: Delivery,
    errors: [Forbidden, DeliveryNotFound, SubscriptionNotActive]
  }),
  /**
   * Sends again everything that came after a delivery (from the oldest that is kept on without one), in order; so much at a
   * time, and says where to go on.
   */
  command("Replay", {
    payload: { ...subscription, after: Schema.optionalKey(DeliveryId), limit: paging.limit },
    success: Schema.Struct({ queued: Schema.Int, nextAfter: Schema.NullOr(DeliveryId) }),
    errors: [Forbidden, DeliveryNotFound, SubscriptionNotFound, SubscriptionNotActive]
  })
)

export class PartnersRpc extends Contract<PartnersRpc>()("partners", PartnersGroup) {}
