import { Clock, Effect, Option, Result, Schema } from "effect"
import { Redis } from "effect/persistence"
import type { EventDefinition } from "@merkato/domain/kernel/Event"
import { fromDecimal } from "@merkato/domain/kernel/Money"
import { FlashPrice } from "@merkato/domain/pricing/FlashSale"
import {
  FlashSaleCanceled,
  FlashSaleEnded,
  FlashSaleScheduled,
  FlashSaleStarted
} from "@merkato/domain/pricing/PricingEvents"
import * as HitRatio from "@merkato/infra/cache/HitRatio"
import * as RedisRows from "@merkato/infra/cache/RedisRows"
import { Policies } from "@merkato/infra/policy/Policies"
import * as Copy from "@merkato/infra/projection/Copy"
import * as Projection from "@merkato/infra/projection/Projection"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

type State = "SCHEDULED" | "RUNNING" | "ENDED" | "CANCELED"

/** What every event of a sale knows. */
const line = (
  { productId, saleId }: { readonly productId: string; readonly saleId: string },
  { aggregateVersion }: Projection.ProjectedEvent,
  state: State
): Projection.Row => ({
  product_id: productId,
  sale_id: saleId,
  price_minor: null,
  currency: null,
  starts_at: null,
  ends_at: null,
  state,
  version: aggregateVersion
})

type Sale = Effect.Success<ReturnType<typeof FlashSaleScheduled.decode>>

const window = (definition: EventDefinition<Sale>, state: State) =>
  Projection.on(definition, (sale, event) => [
    {
      ...line(sale, event, state),
      price_minor: Result.getOrThrow(fromDecimal(sale.price, sale.currency)),
      currency: sale.currency,
      starts_at: new Date(sale.startsAt.epochMilliseconds).toISOString(),
      ends_at: new Date(sale.endsAt.epochMilliseconds).toISOString()
    }
  ])

/** What products cost in sales, and when. A sale has its row for as long as its price might hold. */
export const flashSalePriceMap = Projection.make({
  name: "flash_sale_price_map",
  context: "pricing",
  topic: "promo.events",
  key: { product_id: "text", sale_id: "text" },
  once: { price_minor: "bigint", currency: "text", starts_at: "timestamptz", ends_at: "timestamptz" },
  latest: { state: "text" },
  events: [
    window(FlashSaleScheduled, "SCHEDULED"),
    window(FlashSaleStarted, "RUNNING"),
    Projection.on(FlashSaleEnded, ({ reason, endedAt, ...sale }, event) => [
      reason === "over"
        ? { ...line(sale, event, "ENDED"), ends_at: new Date(endedAt.epochMilliseconds).toISOString() }
        : line(sale, event, "CANCELED")
    ]),
    Projection.on(FlashSaleCanceled, (sale, event) => [line(sale, event, "CANCELED")])
  ]
})

/** `flash_price:{productId}` of the caches, until the last of its sales is over. */
const shape: RedisRows.Shape = { prefix: "flash_price:", until: "ends_at" }

const isOver = ({ state, ends_at }: Projection.Row, nowMs: number): boolean =>
  state === "ENDED" || state === "CANCELED" || (typeof ends_at === "string" && Date.parse(ends_at) <= nowMs)

/** It lies in Redis, where there is one; Postgres has the sales themselves. */
export const flashSalePriceMapCopy = Copy.make({
  name: "flash_sale_price_map",
  projection: flashSalePriceMap,
  truth: "pricing.flash_sale_price_map",
  variable: "REDIS_URL",
  isOver,
  store: Effect.map(Effect.serviceOption(Redis.Redis), (server) =>
    Option.isSome(server) ? RedisRows.make(flashSalePriceMap, shape, server.value) : undefined
  )
})

const decodePrice = Schema.decodeUnknownOption(FlashPrice)

/** A row as a price; none where not all of it is known, or it is no price. */
const priceOf = (row: Projection.Row) =>
  Option.toArray(
    decodePrice({
      saleId: row["sale_id"],
      productId: row["product_id"],
      priceMinor: row["price_minor"],
      currency: row["currency"],
      startsAt: row["starts_at"],
      endsAt: row["ends_at"]
    })
  )

const nobody = () => Effect.undefined

/**
 * The prices that hold now, by sale, as Redis has them from the events; undefined where there is none, or it is away, slow or not
 * built: then Postgres is asked. For who shows prices. What an order costs is not read from here.
 */
export const reading = Effect.gen(function* () {
  const redis = yield* Effect.serviceOption(Redis.Redis)
  if (Option.isNone(redis)) return nobody
  const read = RedisRows.reader(flashSalePriceMap, shape, redis.value)
  const guarded = (yield* Policies).guard<Redis.RedisError | RedisRows.NotBuilt>("pricing.map", {
    transient: ({ _tag }) => _tag === "RedisError"
  })
  const count = HitRatio.make("flash_price", "Share of the reads of sale prices that were answered from Redis")
  return (productIds: ReadonlyArray<string>) =>
    guarded(read([...new Set(productIds)])).pipe(
      Tracing.withSpan("FlashPriceMap.running"),
      Effect.zipWith(Clock.currentTimeMillis, (rows, now) =>
        rows
          .filter((row) => !isOver(row, now))
          .flatMap(priceOf)
          .filter(({ startsAt }) => startsAt.epochMilliseconds <= now)
          .toSorted((left, right) => (left.saleId < right.saleId ? -1 : 1))
      ),
      Effect.orElseSucceed(() => undefined),
      Effect.tap((found) => count(found !== undefined))
    )
})
