import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { Api } from "@merkato/rpc/rest/Api"
import { answering, json, levelsJson } from "./Rest.ts"

export const InventoryRoutes = HttpApiBuilder.group(
  Api,
  "inventory",
  Effect.fn(function* (handlers) {
    const inventory = yield* InventoryRpc
    return handlers.handleAll({
      levels: ({ params }) => answering(Effect.map(inventory.Levels(params), (levels) => json(levelsJson(levels)))),
      adjust: ({ params, payload }) =>
        answering(Effect.map(inventory.Adjust({ ...params, ...payload }), (levels) => json(levelsJson(levels), 201)))
    })
  })
)
