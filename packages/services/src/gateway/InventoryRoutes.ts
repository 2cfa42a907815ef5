import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { Api } from "@merkato/rpc/rest/Api"
import { answering, heededKey, json, levelsJson, replayedHeader } from "./Rest.ts"

export const InventoryRoutes = HttpApiBuilder.group(
  Api,
  "inventory",
  Effect.fn(function* (handlers) {
    const inventory = yield* InventoryRpc
    return handlers.handleAll({
      levels: ({ params }) => answering(Effect.map(inventory.Levels(params), (levels) => json(levelsJson(levels)))),
      adjust: ({ params, headers, payload }) =>
        answering(
          Effect.gen(function* () {
            const { answer, replayed } = yield* inventory.Adjust({
              ...params,
              ...payload,
              ...(yield* heededKey(headers))
            })
            return json(levelsJson(answer), 201, replayed ? replayedHeader : {})
          })
        )
    })
  })
)
