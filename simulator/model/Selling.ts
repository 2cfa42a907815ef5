/** What admins do about flash sales. */
import { Clock, DateTime, Effect, Result } from "effect"
import * as Ids from "@merkato/domain/kernel/Ids"
import type { Product } from "@merkato/domain/catalogue/Product"
import { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import { insist, notAnswered } from "./Asking.ts"
import type { Asked, AskedCancel, Memory, SaleRequest } from "./Memory.ts"

/** More than any product costs on the shelf, in cents: such a sale is none. */
const aboveEveryShelf = 600

interface Wanted {
  readonly request: SaleRequest
  /** Whether it is another admin who asks for it. */
  readonly byOther: boolean
}

/**
 * The sales that an admin wants at once: mostly one, from now on or in a few seconds, for a minute or so; or the same twice,
 * one that begins when the first ends, or one that overlaps it, which is another admin's.
 */
export const wanted = (options: {
  readonly product: Product
  readonly now: number
  readonly key: (suffix: string) => Ids.IdempotencyKey
  /** Of the price, the start, the length and the second sale. */
  readonly chances: readonly [price: number, start: number, length: number, second: number]
}): ReadonlyArray<Wanted> => {
  const { product, now, key } = options
  const [price, start, length, second] = options.chances
  const startsAt = now + (start < 0.4 ? 0 : Math.floor(start * 8_000))
  const lengthMs = 4_000 + Math.floor(length * 70_000)
  const request = (suffix: string, offsetMs: number): SaleRequest => ({
    idempotencyKey: key(suffix),
    productId: product.productId,
    priceMinor: price < 0.08 ? aboveEveryShelf : 20 + Math.floor(price * 200),
    currency: "USD",
    startsAt: DateTime.makeUnsafe(startsAt + offsetMs),
    endsAt: DateTime.makeUnsafe(startsAt + offsetMs + lengthMs)
  })
  const first = { request: request("", 0), byOther: false }
  if (second < 0.25) return [first, { request: request("-other", Math.floor(lengthMs / 2)), byOther: true }]
  if (second < 0.4) return [first, first]
  if (second < 0.5) return [first, { request: request("-next", lengthMs), byOther: false }]
  return [first]
}

const windowOf = (sale: { readonly startsAt: DateTime.Utc; readonly endsAt: DateTime.Utc }) => ({
  startsAt: DateTime.toEpochMillis(sale.startsAt),
  endsAt: DateTime.toEpochMillis(sale.endsAt)
})

export const make = (memory: Memory) => {
  const startSale = (request: SaleRequest, userId: string): Effect.Effect<void, never, PricingRpc> =>
    Effect.gen(function* () {
      const { idempotencyKey: key, productId, priceMinor } = request
      const window = windowOf(request)
      const askedAt = memory.ask(userId, key, yield* Clock.currentTimeMillis)
      const answer = yield* insist((yield* PricingRpc).ScheduleFlashSale(request))
      const answeredAt = yield* Clock.currentTimeMillis
      const asked: Asked = { key, userId, repeat: "sale", request }
      const wrong = (why: string) => memory.complaints.push(`${userId} asked for a sale with ${key}: ${why}`)
      if (Result.isSuccess(answer)) {
        const sale = answer.success.answer
        memory.count("sale")
        const { startsAt, endsAt } = windowOf(sale)
        if (sale.productId !== productId || sale.priceMinor !== priceMinor) wrong(`${sale.saleId} is another`)
        if (startsAt !== window.startsAt || endsAt !== window.endsAt) wrong(`${sale.saleId} holds at another time`)
        if (priceMinor >= aboveEveryShelf) wrong(`${sale.saleId} is no bargain`)
        const told = `sale ${sale.saleId} as ${sale.status} ${sale.version}`
        return memory.compare(userId, key, told, () => {
          memory.answered.push({ ...asked, answer: told })
          memory.sales.push({ saleId: sale.saleId, productId, priceMinor, ...window, answeredAt })
        })
      }
      const refusal = answer.failure._tag === "Replayed" ? answer.failure.refusal : answer.failure
      memory.count(`sale: ${refusal._tag}`)
      if (notAnswered.has(refusal._tag)) return void memory.unanswered.push(asked)
      // That it would be over already is not kept: another process may see it otherwise.
      if (refusal._tag === "InvalidValue") return
      if (refusal._tag !== "FlashSaleOverlaps" && refusal._tag !== "PriceNotLower") return void wrong(refusal._tag)
      memory.compare(userId, key, refusal._tag, () => {
        memory.answered.push({ ...asked, answer: refusal._tag })
        if (refusal._tag !== "FlashSaleOverlaps") return
        memory.overlappingSales.push({ productId, ...window, askedAt, otherId: refusal.saleId })
      })
    })

  const cancelSale = (saleId: string): Effect.Effect<void, never, PricingRpc> =>
    Effect.gen(function* () {
      const asked: AskedCancel = { saleId, askedAt: yield* Clock.currentTimeMillis, answeredAt: undefined }
      memory.saleCancels.push(asked)
      const answer = yield* insist((yield* PricingRpc).CancelFlashSale({ saleId: Ids.SaleId.make(saleId) }))
      memory.count(Result.isSuccess(answer) ? "sale canceled" : `cancel of a sale: ${answer.failure._tag}`)
      if (Result.isSuccess(answer)) asked.answeredAt = yield* Clock.currentTimeMillis
      else if (!notAnswered.has(answer.failure._tag)) {
        memory.complaints.push(`sale ${saleId} was acknowledged and cannot be canceled: ${answer.failure._tag}`)
      }
    })

  return { startSale, cancelSale }
}
