import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import { AdjustmentReason, Delta } from "@merkato/domain/inventory/Stock"
import * as Ids from "@merkato/domain/kernel/Ids"
import { InventoryGroup } from "../../inventory/InventoryRpc.ts"
import { SignedIn } from "../Access.ts"
import { created, idempotent, summary } from "../Endpoint.ts"
import * as Json from "../Json.ts"
import { problems } from "../Problems.ts"

export class Inventory extends HttpApiGroup.make("inventory").add(
  HttpApiEndpoint.get("levels", "/inventory/:productId", {
    params: { productId: Ids.ProductId },
    success: Json.LevelsJson,
    error: problems(InventoryGroup, "Levels")
  }).annotateMerge(summary("Stock of a product; zeros for one that never had any")),
  HttpApiEndpoint.post("adjust", "/inventory/:productId/adjustments", {
    params: { productId: Ids.ProductId },
    headers: idempotent,
    payload: Schema.Struct({ delta: Delta, reason: AdjustmentReason }),
    success: Json.LevelsJson.pipe(created),
    error: problems(InventoryGroup, "Adjust")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Change what is on hand (admin); an Idempotency-Key is heeded if sent"))
) {}
