import { Clock, Context, DateTime, Effect, Layer } from "effect"
import type { Price } from "@merkato/domain/catalogue/Product"
import { FlashPrice } from "@merkato/domain/pricing/FlashSale"
import {
  events as pricingEvents,
  FlashSaleCanceled,
  FlashSaleEnded,
  FlashSaleScheduled,
  FlashSaleStarted
} from "@merkato/domain/pricing/PricingEvents"
import { priceInSale } from "@merkato/domain/pricing/Quote"
import type { Envelope } from "@merkato/domain/kernel/Event"
import type { ProductId } from "@merkato/domain/kernel/Ids"
import { fromDecimal, toDecimal } from "@merkato/domain/kernel/Money"
import type * as Cursor from "@merkato/infra/paging/Cursor"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import type * as Json from "@merkato/rpc/rest/Json"

/** Windows that are kept at most; products of further ones are shown with the price of the shelf. */
const most = 10_000

/** Milliseconds between two looks at the whole map, whatever the events said. */
const lookEveryMs = 60_000

/** What the price map looks like from the edge. Orders are never priced by it. */
export interface FlashPrices {
  /** The sale of a product that runs at a moment, in milliseconds. */
  readonly at: (productId: string, nowMs: number) => FlashPrice | undefined
  readonly put: (price: FlashPrice) => void
  /** Forgets a sale, and remembers that it is gone: who read it before comes too late. */
  readonly drop: (saleId: string, nowMs: number) => void
  /** What a look at the whole map begins with. */
  readonly moment: () => number
  /** Takes over the whole map as it was read since the moment; what events have put since then stays. */
  readonly replace: (prices: ReadonlyArray<FlashPrice>, moment: number, nowMs: number) => void
}

export const make = (): FlashPrices => {
  const bySale = new Map<string, { readonly price: FlashPrice; readonly moment: number }>()
  const byProduct = new Map<string, ReadonlyArray<FlashPrice>>()
  /** Sales that are gone, and when that may be forgotten. */
  const gone = new Map<string, number>()
  let moment = 0

  const remove = (saleId: string) => {
    const known = bySale.get(saleId)
    if (known === undefined) return
    bySale.delete(saleId)
    const { productId } = known.price
    const left = (byProduct.get(productId) ?? []).filter((price) => price.saleId !== saleId)
    if (left.length === 0) byProduct.delete(productId)
    else byProduct.set(productId, left)
  }
  const put = (price: FlashPrice) => {
    if (gone.has(price.saleId)) return
    remove(price.saleId)
    if (bySale.size >= most) return
    bySale.set(price.saleId, { price, moment: ++moment })
    byProduct.set(price.productId, [...(byProduct.get(price.productId) ?? []), price])
  }

  return {
    at: (productId, nowMs) =>
      byProduct
        .get(productId)
        ?.find(({ startsAt, endsAt }) => startsAt.epochMilliseconds <= nowMs && nowMs < endsAt.epochMilliseconds),
    put,
    drop: (saleId, nowMs) => {
      remove(saleId)
      gone.set(saleId, nowMs + 2 * lookEveryMs)
    },
    moment: () => moment,
    replace: (prices, since, nowMs) => {
      for (const [saleId, until] of gone) if (until <= nowMs) gone.delete(saleId)
      const current = new Set(prices.map(({ saleId }) => saleId as string))
      for (const [saleId, known] of bySale) if (known.moment <= since && !current.has(saleId)) remove(saleId)
      for (const price of prices) put(price)
    }
  }
}

/**
 * The windows of sales that are not over (`flash_price:{productId}` of the caches): kept by the events of pricing, and each
 * good until its sale ends by the clock. Without a bus there is none, and pricing is asked.
 */
export const KeptFlashPrices = Context.Reference<FlashPrices | undefined>("merkato/gateway/FlashPrices", {
  defaultValue: () => undefined
})

/** The sales that run now. Without a memory of them, pricing is asked; while it is away, there are none to be seen. */
export const makeSalesOf = Effect.gen(function* () {
  const pricing = yield* PricingRpc
  const kept = yield* KeptFlashPrices
  return Effect.fnUntraced(function* (productIds: ReadonlyArray<ProductId>) {
    const now = yield* Clock.currentTimeMillis
    if (kept !== undefined) return (productId: ProductId) => kept.at(productId, now)
    if (productIds.length === 0) return () => undefined
    const { items } = yield* pricing
      .PriceMap({ productIds, limit: productIds.length })
      .pipe(Effect.orElseSucceed(() => ({ items: [] })))
    return (productId: ProductId) => items.find((sale) => sale.productId === productId)
  })
})

const types: ReadonlySet<string> = new Set(pricingEvents.map(({ type }) => type))

/** What an event says about the map; whether it was one of those. */
export const follow = Effect.fnUntraced(function* (prices: FlashPrices, { eventType, payload }: Envelope) {
  if (!types.has(eventType)) return false
  const now = yield* Clock.currentTimeMillis
  if (eventType === FlashSaleScheduled.type || eventType === FlashSaleStarted.type) {
    const { price, ...sale } = yield* FlashSaleScheduled.decode(payload)
    const minor = fromDecimal(price, sale.currency)
    if (minor._tag === "Success" && DateTime.toEpochMillis(sale.endsAt) > now) {
      prices.put(new FlashPrice({ ...sale, priceMinor: minor.success }))
    }
  } else {
    const { saleId } = yield* (eventType === FlashSaleEnded.type ? FlashSaleEnded : FlashSaleCanceled).decode(payload)
    prices.drop(saleId, now)
  }
  return true
})

const wholeMap = Effect.fnUntraced(function* () {
  const pricing = yield* PricingRpc
  const prices: Array<FlashPrice> = []
  let cursor: string | null = null
  do {
    const page: Cursor.Page<FlashPrice> = yield* pricing.PriceMap({
      limit: 100,
      ...(cursor === null ? {} : { cursor })
    })
    prices.push(...page.items)
    cursor = page.nextCursor
  } while (cursor !== null && prices.length < most)
  return prices
})

/** Reads the whole map when the edge starts, and once in a while. While pricing is away, as soon as it is back. */
export const looking = Layer.effectDiscard(
  Effect.gen(function* () {
    const prices = yield* KeptFlashPrices
    if (prices === undefined) return
    const look = Effect.gen(function* () {
      const moment = prices.moment()
      prices.replace(yield* wholeMap(), moment, yield* Clock.currentTimeMillis)
      return lookEveryMs
    })
    yield* Effect.forkScoped(
      Effect.forever(
        look.pipe(
          Effect.catchCause(() => Effect.succeed(1_000)),
          Effect.flatMap((pauseMs) => Effect.sleep(pauseMs))
        )
      ).pipe(Effect.withTracerEnabled(false))
    )
  })
)

/** What a product's JSON says of a sale; nothing when the sale is no bargain any more. */
export const flashSaleJson = (
  shelf: Price,
  sale: FlashPrice | undefined
): (typeof Json.ProductJson.Encoded)["flashSale"] =>
  sale === undefined || priceInSale(shelf, sale) !== sale
    ? undefined
    : {
        saleId: sale.saleId,
        price: toDecimal(sale.priceMinor, sale.currency),
        endsAt: DateTime.formatIso(sale.endsAt)
      }
