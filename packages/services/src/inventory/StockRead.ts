import { Context, Effect, Layer, Option, Schema } from "effect"
import { Redis } from "effect/persistence"
import { StockLevels } from "@merkato/domain/inventory/Stock"
import * as Ids from "@merkato/domain/kernel/Ids"
import type { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import * as HitRatio from "@merkato/infra/cache/HitRatio"
import * as RedisRows from "@merkato/infra/cache/RedisRows"
import { Policies } from "@merkato/infra/policy/Policies"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { inRedis, inventorySnapshot } from "./InventorySnapshot.ts"
import { Inventory } from "./Inventory.ts"

/** The stock of a product for who looks at it. Nothing is sold by it: that is decided by the locked rows of Postgres. */
export class StockRead extends Context.Service<
  StockRead,
  {
    /** Zeros for a product that never had stock. */
    readonly levels: (productId: Ids.ProductId) => Effect.Effect<StockLevels, ServiceUnavailable>
  }
>()("merkato/inventory/StockRead") {}

const decodeLevels = Schema.decodeUnknownOption(StockLevels)

/** What all warehouses have together; undefined where nothing is known of it, or nothing that can be. */
const levelsOf = (productId: Ids.ProductId, rows: ReturnType<typeof RedisRows.rowsOf>): StockLevels | undefined => {
  if (rows.length === 0) return undefined
  const sum = (column: string) => rows.reduce((total, row) => total + Number(row[column]), 0)
  const [onHand, reserved] = [sum("on_hand"), sum("reserved")]
  const version = Math.max(...rows.map((row) => row.version))
  return Option.getOrUndefined(decodeLevels({ productId, onHand, reserved, available: onHand - reserved, version }))
}

/**
 * In Redis, which the events have set; in Postgres while it is away, slow or not built yet, and for what it does not know: the
 * first event of a product may be on its way.
 */
const behindRedis = Effect.fnUntraced(function* (
  redis: typeof Redis.Redis.Service,
  { levels }: Pick<typeof Inventory.Service, "levels">
) {
  const read = RedisRows.reader(inventorySnapshot, inRedis, redis)
  const guarded = (yield* Policies).guard<Redis.RedisError | RedisRows.NotBuilt>("inventory.snapshot", {
    transient: ({ _tag }) => _tag === "RedisError"
  })
  const count = HitRatio.make("inventory", "Share of the reads of stock that were answered from Redis")
  return StockRead.of({
    levels: (productId) =>
      guarded(read([productId])).pipe(
        Tracing.withSpan("StockRead.levels"),
        Effect.map((rows) => levelsOf(productId, rows)),
        Effect.orElseSucceed(() => undefined),
        Effect.tap((found) => count(found !== undefined)),
        Effect.flatMap((found) => (found === undefined ? levels(productId) : Effect.succeed(found)))
      )
  })
})

/** In Redis where there is one, else in Postgres. */
export const layer = Layer.effect(
  StockRead,
  Effect.gen(function* () {
    const inventory = yield* Inventory
    const redis = yield* Effect.serviceOption(Redis.Redis)
    return Option.isSome(redis)
      ? yield* behindRedis(redis.value, inventory)
      : StockRead.of({ levels: inventory.levels })
  })
)
