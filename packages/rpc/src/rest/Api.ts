import { HttpApi, OpenApi } from "effect/http-api"
import { JsonBody } from "./Access.ts"
import { documented } from "./Document.ts"
import { Carts } from "./groups/Carts.ts"
import { Catalogue } from "./groups/Catalogue.ts"
import { FlashSales } from "./groups/FlashSales.ts"
import { Identity } from "./groups/Identity.ts"
import { Inventory } from "./groups/Inventory.ts"
import { Notifications } from "./groups/Notifications.ts"
import { Ops } from "./groups/Ops.ts"
import { Orders } from "./groups/Orders.ts"
import { Webhooks } from "./groups/Webhooks.ts"

/** The REST surface of the shop. Stable: extended, never broken. */
export class Api extends HttpApi.make("merkato")
  .add(Identity)
  .add(Catalogue)
  .add(FlashSales)
  .add(Inventory)
  .add(Carts)
  .add(Orders)
  .add(Notifications)
  .add(Webhooks)
  .prefix("/api/v1")
  .add(Ops)
  .middleware(JsonBody)
  // Unknown fields are somebody's mistake: better told than ignored. All mistakes are told at once.
  .annotate(HttpApi.PayloadParseOptions, { onExcessProperty: "error", errors: "all" })
  .annotate(HttpApi.QueryParseOptions, { errors: "all" })
  .annotateMerge(
    OpenApi.annotations({
      title: "Merkato",
      version: "1",
      description:
        "A grocery shop. Money is a decimal number with its currency; times are RFC 3339 UTC; errors are RFC 9457 problems with a stable `code`.",
      transform: documented
    })
  ) {}
