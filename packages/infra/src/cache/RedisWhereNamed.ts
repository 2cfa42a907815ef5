import { Config, Effect, Layer, Option } from "effect"
import { Redis } from "effect/persistence"
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
 * The Redis at this URL. Fails with `ServerUnreachable` when it does not answer at the start; later on a lost connection is
 * made again, and what is asked in between fails at once. Its client is loaded here and not before: a shop without Redis
 * does without it.
 */
export const connected = (url: string) =>
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
      return NodeRedis.layer({ url, disableOfflineQueue: true, socket: { connectTimeout: connectMs } }).pipe(
        Layer.catchTag("RedisError", ({ cause }) =>
          Layer.effectContext(new ServerUnreachable({ variable: "REDIS_URL", address, reason: lastCause(cause) }))
        )
      )
    })
  )

/** The Redis that `REDIS_URL` names, none without it. One connection for all that is built together. */
export const connection = Layer.unwrap(
  Effect.map(
    Config.option(Config.String("REDIS_URL")),
    (url): Layer.Layer<never, ServerUnreachable> => (Option.isSome(url) ? connected(url.value) : Layer.empty)
  )
)

/** The cache that processes share, in the Redis that is named; none without it. */
export const sharedCache = Layer.unwrap(
  Effect.map(Effect.serviceOption(Redis.Redis), (redis) =>
    Option.isSome(redis) ? Layer.provide(RedisCache.layer, Layer.succeed(Redis.Redis, redis.value)) : Layer.empty
  )
).pipe(Layer.provide(connection))

/** The shared cache in the Redis at this URL. */
export const layer = (url: string) => RedisCache.layer.pipe(Layer.provide(connected(url)))
