import { Effect } from "effect"
import { PricingGroup } from "@merkato/rpc/pricing/PricingRpc"
import { FlashSales } from "./FlashSales.ts"
import { Pricing } from "./Pricing.ts"

export const PricingHandlers = PricingGroup.toLayer(
  Effect.gen(function* () {
    const pricing = yield* Pricing
    const sales = yield* FlashSales
    return PricingGroup.of({
      Quote: (request) => pricing.quote(request),
      ScheduleFlashSale: (request) => sales.schedule(request),
      CancelFlashSale: ({ saleId }) => sales.cancel(saleId),
      GetFlashSale: ({ saleId }) => sales.get(saleId),
      ListFlashSales: (options) => sales.list(options),
      PriceMap: (options) => sales.priceMap(options)
    })
  })
)
