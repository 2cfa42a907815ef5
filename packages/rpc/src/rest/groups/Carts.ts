import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import * as Ids from "@merkato/domain/kernel/Ids"
import { Quantity } from "@merkato/domain/pricing/Quote"
import { CartGroup } from "../../cart/CartRpc.ts"
import { SignedIn } from "../Access.ts"
import { created, summary } from "../Endpoint.ts"
import * as Json from "../Json.ts"
import { problems } from "../Problems.ts"

export class Carts extends HttpApiGroup.make("carts").add(
  HttpApiEndpoint.post("createCart", "/carts", {
    success: Json.NewCartJson.pipe(created),
    error: problems(CartGroup, "CreateCart")
  })
    .annotateMerge(summary("A new cart; without a token also the guestToken that it is used with from then on"))
    .annotate(OpenApi.Override, { security: [{}, { bearer: [] }] }),
  HttpApiEndpoint.get("getCart", "/carts/:cartId", {
    params: { cartId: Ids.CartId },
    success: Json.CartJson,
    error: problems(CartGroup, "GetCart")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("A cart of one's own")),
  HttpApiEndpoint.put("setItem", "/carts/:cartId/items/:productId", {
    params: { cartId: Ids.CartId, productId: Ids.ProductId },
    payload: Schema.Struct({ qty: Quantity }),
    success: Json.CartJson,
    error: problems(CartGroup, "SetItem")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Put so many units of a product into the cart")),
  HttpApiEndpoint.delete("removeItem", "/carts/:cartId/items/:productId", {
    params: { cartId: Ids.CartId, productId: Ids.ProductId },
    success: Json.CartJson,
    error: problems(CartGroup, "RemoveItem")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Take a product out of the cart; also when it is not in it")),
  HttpApiEndpoint.post("mergeCart", "/carts/:cartId/merge", {
    params: { cartId: Ids.CartId },
    payload: Schema.Struct({ guestToken: Schema.String.check(Schema.isMaxCodePoints(4_096)) }),
    success: Json.CartJson,
    error: problems(CartGroup, "MergeCart")
  })
    .middleware(SignedIn)
    .annotateMerge(
      summary(
        "Add a guest's carts to this one, at most 99 a line; they are empty afterwards, so a repeat changes nothing"
      )
    )
) {}
