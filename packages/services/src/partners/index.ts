import { Layer } from "effect"
import * as BoundedContext from "@merkato/infra/context/BoundedContext"
import { DelayQueue } from "@merkato/infra/delay/DelayQueue"
import { PublicHttp, Resolver } from "@merkato/infra/http/PublicHttp"
import { PartnersRpc } from "@merkato/rpc/partners/PartnersRpc"
import { deadLetters, owing } from "./PartnersConsumers.ts"
import { PartnersHandlers } from "./PartnersHandlers.ts"
import { dispatching } from "./Dispatching.ts"
import { WebhookDispatch } from "./WebhookDispatch.ts"
import { oldAttempts, oldDeliveries, Webhooks } from "./Webhooks.ts"

/** Where it stands when to look again at what is owed. */
export const delays = DelayQueue.layerPostgres("partners.webhook_delays")

/** Partners are told of what happens in the shop. */
export const Partners = BoundedContext.make("partners", {
  contract: PartnersRpc,
  handlers: PartnersHandlers,
  useCases: Layer.merge(Webhooks.layer, WebhookDispatch.layer).pipe(
    Layer.provide(delays),
    Layer.provide(PublicHttp.layer.pipe(Layer.provide(Resolver.layer)))
  ),
  topic: "partner.events",
  migrations: new URL("./migrations", import.meta.url),
  needs: [],
  consumers: [...owing, deadLetters],
  passing: [oldDeliveries, oldAttempts],
  background: dispatching
})
