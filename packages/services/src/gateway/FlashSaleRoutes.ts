import { DateTime, Effect } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { toDecimal } from "@merkato/domain/kernel/Money"
import type { FlashSale } from "@merkato/domain/pricing/FlashSale"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import { Api } from "@merkato/rpc/rest/Api"
import type * as Json from "@merkato/rpc/rest/Json"
import { namedInBody } from "@merkato/rpc/rest/Problems"
import { answering, heededKey, json, pageJson, priceOf, replayedHeader } from "./Rest.ts"

const defaultLimit = 20

const saleJson = (sale: FlashSale): typeof Json.FlashSaleJson.Encoded => ({
  saleId: sale.saleId,
  productId: sale.productId,
  price: toDecimal(sale.priceMinor, sale.currency),
  currency: sale.currency,
  startsAt: DateTime.formatIso(sale.startsAt),
  endsAt: DateTime.formatIso(sale.endsAt),
  status: sale.status,
  canceledAt: sale.canceledAt === null ? null : DateTime.formatIso(sale.canceledAt),
  createdAt: DateTime.formatIso(sale.createdAt)
})

export const FlashSaleRoutes = HttpApiBuilder.group(
  Api,
  "flash-sales",
  Effect.fn(function* (handlers) {
    const pricing = yield* PricingRpc
    return handlers.handleAll({
      scheduleFlashSale: ({ headers, payload: { price, ...payload } }) =>
        answering(
          Effect.gen(function* () {
            const priceMinor = yield* priceOf(price, payload.currency)
            const { answer, replayed } = yield* pricing.ScheduleFlashSale({
              ...payload,
              ...(yield* heededKey(headers)),
              priceMinor
            })
            return json(saleJson(answer), 201, {
              location: `/api/v1/flash-sales/${answer.saleId}`,
              ...(replayed ? replayedHeader : {})
            })
          }),
          namedInBody
        ),
      listFlashSales: ({ query: { limit = defaultLimit, ...query } }) =>
        answering(Effect.map(pricing.ListFlashSales({ ...query, limit }), (page) => json(pageJson(page, saleJson)))),
      getFlashSale: ({ params }) => answering(Effect.map(pricing.GetFlashSale(params), (sale) => json(saleJson(sale)))),
      cancelFlashSale: ({ params }) =>
        answering(Effect.as(pricing.CancelFlashSale(params), HttpServerResponse.empty({ status: 204 })))
    })
  })
)
