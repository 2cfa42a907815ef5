import * as BoundedContext from "@merkato/infra/context/BoundedContext"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import { Pricing as PricingUseCases } from "./Pricing.ts"
import { PricingHandlers } from "./PricingHandlers.ts"

/** Keeps nothing of its own yet: prices are the catalogue's. */
export const Pricing = BoundedContext.make("pricing", {
  contract: PricingRpc,
  handlers: PricingHandlers,
  useCases: PricingUseCases.layer,
  needs: [CatalogueRpc]
})
