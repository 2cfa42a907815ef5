import { Effect } from "effect"
import { PartnersGroup } from "@merkato/rpc/partners/PartnersRpc"
import { Webhooks } from "./Webhooks.ts"

export const PartnersHandlers = PartnersGroup.toLayer(
  Effect.gen(function* () {
    const webhooks = yield* Webhooks
    return PartnersGroup.of({
      Subscribe: (request) => webhooks.subscribe(request),
      ListSubscriptions: (options) => webhooks.list(options),
      GetSubscription: ({ subscriptionId }) => webhooks.get(subscriptionId),
      Unsubscribe: ({ subscriptionId }) => webhooks.unsubscribe(subscriptionId),
      RotateSecret: ({ subscriptionId }) => webhooks.rotateSecret(subscriptionId),
      Enable: ({ subscriptionId }) => webhooks.enable(subscriptionId),
      ListDeliveries: (options) => webhooks.listDeliveries(options),
      GetDelivery: ({ deliveryId }) => webhooks.getDelivery(deliveryId),
      Redeliver: ({ deliveryId }) => webhooks.redeliver(deliveryId),
      Replay: (options) => webhooks.replay(options)
    })
  })
)
