import { Layer } from "effect"
import * as BoundedContext from "@merkato/infra/context/BoundedContext"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import { flashSalePriceMapCopy } from "./FlashPriceMap.ts"
import { FlashSales, telling } from "./FlashSales.ts"
import { Pricing as PricingUseCases } from "./Pricing.ts"
import { PricingHandlers } from "./PricingHandlers.ts"

/** What things cost now. The prices on the shelf are the catalogue's, those of flash sales its own. */
export const Pricing = BoundedContext.make("pricing", {
  contract: PricingRpc,
  handlers: PricingHandlers,
  useCases: Layer.merge(PricingUseCases.layer, FlashSales.layer),
  topic: "promo.events",
  migrations: new URL("./migrations", import.meta.url),
  needs: [CatalogueRpc],
  copies: [flashSalePriceMapCopy],
  background: telling
})
