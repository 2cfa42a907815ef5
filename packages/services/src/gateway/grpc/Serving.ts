import { Config, type Duration, Effect, Layer, Option } from "effect"

const variable = "MERKATO_GRPC_PORT"

/**
 * gRPC at the port that `MERKATO_GRPC_PORT` names; without it there is none, and nothing of it is loaded: it takes a second
 * port, and 30 MB, which only shops with other services or with foreign clients of the stock want.
 */
export const serving = (options: { readonly host: string; readonly drainTimeout: Duration.Duration }) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const given = yield* Config.option(Config.Port(variable))
      if (Option.isNone(given)) return
      const { serve } = yield* Effect.promise(() => import("./InventoryServer.ts"))
      yield* serve({ ...options, port: given.value, variable })
    })
  )
