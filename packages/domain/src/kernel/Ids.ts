import { Clock, Effect, Random, Schema } from "effect"

/** How every id looks to the outside: opaque, at most 64 of `[A-Za-z0-9_-]` (contracts: ids). */
export const Id = Schema.String.check(Schema.isPattern(/^[A-Za-z0-9_-]{1,64}$/u))

export const UserId = Id.pipe(Schema.brand("UserId"))
export type UserId = typeof UserId.Type
export const ProductId = Id.pipe(Schema.brand("ProductId"))
export type ProductId = typeof ProductId.Type
export const CartId = Id.pipe(Schema.brand("CartId"))
export type CartId = typeof CartId.Type
export const OrderId = Id.pipe(Schema.brand("OrderId"))
export type OrderId = typeof OrderId.Type
export const ReservationId = Id.pipe(Schema.brand("ReservationId"))
export type ReservationId = typeof ReservationId.Type
export const AttemptId = Id.pipe(Schema.brand("AttemptId"))
export type AttemptId = typeof AttemptId.Type
export const RefundId = Id.pipe(Schema.brand("RefundId"))
export type RefundId = typeof RefundId.Type
export const EventId = Id.pipe(Schema.brand("EventId"))
export type EventId = typeof EventId.Type
export const SaleId = Id.pipe(Schema.brand("SaleId"))
export type SaleId = typeof SaleId.Type
/** Of a partner's webhook subscription, and of one event that is owed to it. */
export const SubscriptionId = Id.pipe(Schema.brand("SubscriptionId"))
export type SubscriptionId = typeof SubscriptionId.Type
export const DeliveryId = Id.pipe(Schema.brand("DeliveryId"))
export type DeliveryId = typeof DeliveryId.Type
export const AssessmentId = Id.pipe(Schema.brand("AssessmentId"))
export type AssessmentId = typeof AssessmentId.Type

/** An Idempotency-Key header: 1 to 255 printable ASCII characters. */
export const IdempotencyKey = Schema.String.check(Schema.isPattern(/^[\x21-\x7e]{1,255}$/u)).pipe(
  Schema.brand("IdempotencyKey")
)
export type IdempotencyKey = typeof IdempotencyKey.Type

const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0")
const TWO_POW_16 = 2 ** 16
const TWO_POW_32 = 2 ** 32

/** A UUIDv7 (RFC 9562, section 5.7) of a time in milliseconds and a source of doubles in [0, 1). */
export const uuidV7 = (millis: number, next: () => number): string => {
  const time = hex(millis, 12)
  const a = Math.floor(next() * 0x1000)
  const b = Math.floor(next() * 0x4000) | 0x8000
  const c = Math.floor(next() * TWO_POW_16)
  const d = Math.floor(next() * TWO_POW_32)
  return `${time.slice(0, 8)}-${time.slice(8)}-7${hex(a, 3)}-${hex(b, 4)}-${hex(c, 4)}${hex(d, 8)}`
}

/** A fresh, time-sortable id. Time and randomness are the fiber's, so a seeded run makes the same ids again. */
export const next: Effect.Effect<string> = Effect.withFiber((fiber) => {
  const random = fiber.getRef(Random.Random)
  const millis = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
  return Effect.succeed(uuidV7(millis, () => random.nextDoubleUnsafe()))
})

const prefixed = <A>(prefix: string, brand: { make(value: string): A }): Effect.Effect<A> =>
  Effect.map(next, (id) => brand.make(`${prefix}-${id}`))

export const nextUserId = prefixed("USER", UserId)
export const nextGuestId = prefixed("GUEST", UserId)
export const nextProductId = prefixed("PROD", ProductId)
export const nextCartId = prefixed("CART", CartId)
export const nextOrderId = prefixed("ORDER", OrderId)
export const nextSaleId = prefixed("SALE", SaleId)
export const nextSubscriptionId = prefixed("HOOK", SubscriptionId)
