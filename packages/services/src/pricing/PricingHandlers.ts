import { Effect } from "effect"
import { PricingGroup } from "@merkato/rpc/pricing/PricingRpc"
import { Pricing } from "./Pricing.ts"

export const PricingHandlers = PricingGroup.toLayer(
  Effect.gen(function* () {
    const pricing = yield* Pricing
    return PricingGroup.of({ Quote: (request) => pricing.quote(request) })
  })
)
