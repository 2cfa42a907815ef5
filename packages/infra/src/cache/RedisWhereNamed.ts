import { Effect, Layer } from "effect"
import { ServerUnreachable } from "../config/ServerUnreachable.ts"
import { lastCause } from "../runtime/LastCause.ts"
import * as RedisCache from "./RedisCache.ts"

/** Milliseconds for a connection to come about. */
const connectMs = 2_000

/** The part of `redis://user:password@host:port/0` that may be told. */
const addressOf = (url: string) => {
  const { protocol, host } = URL.canParse(url) ? new URL(url) : { protocol: "", host: "" }
  return /^rediss?:$/.test(protocol) && host !== "" ? host : undefined
}

/**
 * The shared cache in the Redis that is named, as in `REDIS_URL`. Fails with `ServerUnreachable` when it does not answer at
 * the start; later on a lost connection is made again, and what is asked in between fails at once. Its client is loaded
 * here and not before: a shop without Redis does without it.
 */
export const layer = (url: string) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const address = addressOf(url)
      if (address === undefined) {
        return yield* new ServerUnreachable({
          variable: "REDIS_URL",
          address: "",
          reason: "expected redis://host:port"
        })
      }
      const NodeRedis = yield* Effect.promise(() => import("@effect/platform-node/NodeRedis"))
      const client = NodeRedis.layer({ url, disableOfflineQueue: true, socket: { connectTimeout: connectMs } })
      return RedisCache.layer.pipe(
        Layer.provide(client),
        Layer.catchTag("RedisError", ({ cause }) =>
          Layer.effectContext(new ServerUnreachable({ variable: "REDIS_URL", address, reason: lastCause(cause) }))
        )
      )
    })
  )
