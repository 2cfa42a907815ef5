import { Effect, Layer } from "effect"
import { Redis } from "effect/persistence"
import { SharedCache, SharedCacheUnavailable } from "./SharedCache.ts"

/** A hash with the fields `version` and `value`; one that was dropped has no value. */
const put = Redis.script((key: string, version: number, value: string, ttlMs: number) => [key, version, value, ttlMs], {
  numberOfKeys: 1,
  lua: `
      local known = redis.call('HGET', KEYS[1], 'version')
      if known and tonumber(known) > tonumber(ARGV[1]) then return end
      redis.call('HSET', KEYS[1], 'version', ARGV[1], 'value', ARGV[2])
      redis.call('PEXPIRE', KEYS[1], ARGV[3])`
})

const drop = Redis.script((key: string, version: number, ttlMs: number) => [key, version, ttlMs], {
  numberOfKeys: 1,
  lua: `
    local known = redis.call('HGET', KEYS[1], 'version')
    if known and tonumber(known) >= tonumber(ARGV[1]) then return end
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], 'version', ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[2])`
})

const isText = (value: unknown): value is string => typeof value === "string"

/** The shared cache in Redis. */
export const layer = Layer.effect(
  SharedCache,
  Effect.map(Redis.Redis, (redis) => {
    const away = Effect.mapError(({ cause }: Redis.RedisError) => new SharedCacheUnavailable({ cause }))
    return SharedCache.of({
      find: (key) =>
        redis.send<ReadonlyArray<unknown>>("HMGET", key, "version", "value").pipe(
          Effect.map(([version, value]) =>
            isText(version) && isText(value) ? { version: Number(version), value } : undefined
          ),
          away
        ),
      put: (key, version, value, ttlMs) => away(redis.eval(put)(key, version, value, ttlMs)),
      drop: (key, version, ttlMs) => away(redis.eval(drop)(key, version, ttlMs))
    })
  })
)
