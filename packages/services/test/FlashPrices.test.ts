// What the edge knows of sales: whatever comes late, or is not heard of, does not bring back what is gone.
import { expect, test } from "bun:test"
import { DateTime, Effect } from "effect"
import type { Envelope } from "@merkato/domain/kernel/Event"
import { EventId, Id, ProductId, SaleId } from "@merkato/domain/kernel/Ids"
import { FlashPrice } from "@merkato/domain/pricing/FlashSale"
import { FlashSaleCanceled, FlashSaleEnded, FlashSaleScheduled } from "@merkato/domain/pricing/PricingEvents"
import { follow, make } from "../src/gateway/FlashPrices.ts"

const productId = ProductId.make("P1")

const sale = (name: string, startsAt: number, endsAt: number) =>
  new FlashPrice({
    saleId: SaleId.make(name),
    productId,
    priceMinor: 700,
    currency: "USD",
    startsAt: DateTime.makeUnsafe(startsAt),
    endsAt: DateTime.makeUnsafe(endsAt)
  })

const envelope = (eventType: string, payload: unknown): Envelope => ({
  eventId: EventId.make("E-1"),
  eventType,
  occurredAt: "2026-01-01T00:00:00.000Z",
  producer: "pricing-service",
  traceId: "",
  correlationId: "",
  schemaVersion: "1.0",
  partitionKey: Id.make("S1"),
  region: "us",
  aggregateVersion: 1,
  payload
})

test("the sale that runs is found by the clock, among those of before and after", () => {
  const prices = make()
  for (const each of [sale("S1", 0, 10), sale("S2", 10, 20), sale("S3", 30, 40)]) prices.put(each)
  const names = [0, 9, 10, 19, 20, 29, 30, 40].map((now) => prices.at(productId, now)?.saleId)
  expect(names.map(String)).toEqual(["S1", "S1", "S2", "S2", "undefined", "undefined", "S3", "undefined"])
  expect(prices.at("P2", 5)).toBeUndefined()
})

test("a sale that is gone does not come back with what was read or told before", () => {
  const prices = make()
  prices.put(sale("S1", 0, 100))
  const moment = prices.moment()
  prices.drop("S1", 5)
  prices.replace([sale("S1", 0, 100)], moment, 6)
  prices.put(sale("S1", 0, 100))
  expect(prices.at(productId, 10)).toBeUndefined()
})

test("a look at the whole map finds what no event told, and leaves what was told meanwhile", () => {
  const prices = make()
  prices.put(sale("S1", 0, 10))
  const moment = prices.moment()
  prices.put(sale("S2", 10, 20))
  // S1 was canceled and nobody heard of it; S3 was scheduled and nobody heard of it; S2 came after the look had begun.
  prices.replace([sale("S3", 20, 30)], moment, 0)
  expect([5, 15, 25].map((now) => String(prices.at(productId, now)?.saleId))).toEqual(["undefined", "S2", "S3"])
})

test("events say what the map is like", async () => {
  const prices = make()
  const saleId = SaleId.make("S1")
  const at = DateTime.makeUnsafe("2026-01-01T00:00:00Z")
  const ends = DateTime.makeUnsafe("2999-01-01T00:00:00Z")
  const told = (event: { readonly eventType: string; readonly payload: unknown }) =>
    Effect.runPromise(follow(prices, envelope(event.eventType, event.payload)))
  const scheduled = FlashSaleScheduled.of("S1", 1, {
    saleId,
    productId,
    price: 0.7,
    currency: "USD",
    startsAt: at,
    endsAt: ends
  })
  expect(await told(scheduled)).toBe(true)
  expect(prices.at(productId, at.epochMilliseconds)).toMatchObject({ saleId, priceMinor: 70 })
  await told(FlashSaleEnded.of("S1", 2, { saleId, productId, endedAt: at, reason: "canceled" }))
  await told(scheduled)
  expect(prices.at(productId, at.epochMilliseconds)).toBeUndefined()
  await told(FlashSaleCanceled.of("S1", 2, { saleId, productId, canceledAt: at }))
  expect(await told({ eventType: "ecommerce.pricing.other.thing.v1", payload: {} })).toBe(false)
})
