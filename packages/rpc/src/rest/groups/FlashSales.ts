import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema } from "effect/http-api"
import * as Ids from "@merkato/domain/kernel/Ids"
import { Instant } from "@merkato/domain/kernel/Instant"
import { FlashSaleStatus } from "@merkato/domain/pricing/FlashSale"
import { PricingGroup } from "../../pricing/PricingRpc.ts"
import { SignedIn } from "../Access.ts"
import { created, idempotent, paging, priceFields, summary } from "../Endpoint.ts"
import * as Json from "../Json.ts"
import { namedInBody, problems } from "../Problems.ts"

export class FlashSales extends HttpApiGroup.make("flash-sales").add(
  HttpApiEndpoint.post("scheduleFlashSale", "/flash-sales", {
    headers: idempotent,
    payload: Schema.Struct({ productId: Ids.ProductId, ...priceFields, startsAt: Instant, endsAt: Instant }),
    success: Json.FlashSaleJson.pipe(created),
    error: problems(PricingGroup, "ScheduleFlashSale", { statuses: namedInBody })
  })
    .middleware(SignedIn)
    .annotateMerge(
      summary("Sell a product for less from startsAt until before endsAt (admin); an Idempotency-Key is heeded if sent")
    ),
  HttpApiEndpoint.get("listFlashSales", "/flash-sales", {
    query: {
      ...paging,
      productId: Schema.optionalKey(Ids.ProductId),
      status: Schema.optionalKey(FlashSaleStatus)
    },
    success: Json.pageOf(Json.FlashSaleJson),
    error: problems(PricingGroup, "ListFlashSales")
  }).annotateMerge(summary("Flash sales, newest first")),
  HttpApiEndpoint.get("getFlashSale", "/flash-sales/:saleId", {
    params: { saleId: Ids.SaleId },
    success: Json.FlashSaleJson,
    error: problems(PricingGroup, "GetFlashSale")
  }).annotateMerge(summary("One flash sale")),
  HttpApiEndpoint.delete("cancelFlashSale", "/flash-sales/:saleId", {
    params: { saleId: Ids.SaleId },
    success: HttpApiSchema.NoContent,
    error: problems(PricingGroup, "CancelFlashSale")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Call a sale off, or end it now (admin); one that is over stays as it is"))
) {}
