import { describe, expect, test } from "bun:test"
import { Arbitrary, Effect, Schema } from "effect"
import { CartFull, CartNotFound, InvalidGuestToken } from "../src/cart/Cart.ts"
import { ProductNotFound, Sku, SkuTaken, VersionConflict } from "../src/catalogue/Product.ts"
import { EmailTaken, InvalidCredentials, InvalidRefreshToken } from "../src/identity/Identity.ts"
import { OutOfStock, ReservationClosed, StockWouldBeNegative, StockWouldOverflow } from "../src/inventory/Stock.ts"
import {
  AssessmentId,
  AttemptId,
  ProductId,
  OrderId,
  RefundId,
  ReservationId,
  SaleId,
  SubscriptionId
} from "../src/kernel/Ids.ts"
import { InexactAmount } from "../src/kernel/Money.ts"
import {
  codeOf,
  Forbidden,
  IdempotencyKeyReused,
  InvalidValue,
  RequestInProgress,
  ServiceUnavailable,
  statusOf,
  titleOf,
  Unauthenticated
} from "../src/kernel/Problem.ts"
import {
  CartEmpty,
  CartOrdered,
  NotCancelable,
  NotFulfillable,
  NotHeld,
  NotPayable,
  NotYourOrder,
  OrderNotFound,
  PaymentInProgress,
  PriceChanged,
  RiskBlocked
} from "../src/orders/Order.ts"
import { ImpossibleHistory } from "../src/orders/OrderEvents.ts"
import { OrderProcessNotFound } from "../src/orders/OrderProcess.ts"
import {
  NotRefundable,
  PaymentDeclined,
  PaymentUnavailable,
  PaymentUnknown,
  PaymentVoided,
  RefundDenied,
  RefundExceedsPayment,
  RefundIdReused
} from "../src/payments/Payment.ts"
import { ImpossiblePayment } from "../src/payments/PaymentEvents.ts"
import { FlashSaleNotFound, FlashSaleOverlaps, PriceNotLower } from "../src/pricing/FlashSale.ts"
import { CurrencyNotSupported } from "../src/pricing/Quote.ts"
import {
  DeliveryNotFound,
  SubscriptionNotActive,
  SubscriptionNotFound,
  TooManySubscriptions
} from "../src/partners/Webhook.ts"
import { DeltaRefused } from "../src/inventory/DeviceDelta.ts"
import { AssessmentNotFound } from "../src/risk/Assessment.ts"
import { errorNames, modules } from "./modules.ts"

interface Problem extends Error {
  readonly _tag: string
}

const productId = ProductId.make("P1")
const attemptId = AttemptId.make("ATTEMPT-1")

/** Codes and statuses that contracts.md promises. */
const promised: ReadonlyArray<readonly [Problem, string, number]> = [
  [new Unauthenticated({ reason: "Sign in first" }), "unauthenticated", 401],
  [new Forbidden({ action: "order.fulfil" }), "forbidden", 403],
  [new EmailTaken(), "email_taken", 409],
  [new SkuTaken({ sku: Sku.make("APPLE") }), "sku_taken", 409],
  // The gateway answers 422 where an order names it: there the order is at fault, not the address.
  [new ProductNotFound({ productIds: ["P1"] }), "product_not_found", 404],
  [new StockWouldBeNegative({ productId, available: 1 }), "stock_would_be_negative", 409],
  [new OutOfStock({ products: [{ productId, requested: 2, available: 1 }] }), "out_of_stock", 409],
  [new PriceChanged({ expectedTotal: 1, actualTotal: 2, currency: "USD" }), "price_changed", 409],
  [new CurrencyNotSupported({ currency: "USD" }), "currency_not_supported", 422],
  [new FlashSaleNotFound({ saleId: "SALE-1" }), "flash_sale_not_found", 404],
  [new FlashSaleOverlaps({ saleId: SaleId.make("SALE-1") }), "flash_sale_overlaps", 409],
  [new PriceNotLower({ price: 1.5, currency: "USD" }), "price_not_lower", 422],
  [new IdempotencyKeyReused({ key: "k" }), "idempotency_key_reused", 422],
  [new RequestInProgress({ retryAfterSeconds: 1 }), "request_in_progress", 409],
  [new PaymentDeclined({ reason: "no funds" }), "payment_declined", 402],
  [new PaymentInProgress({ retryAfterSeconds: 1 }), "payment_in_progress", 409],
  [new PaymentUnavailable({ retryAfterSeconds: 1 }), "payment_unavailable", 503],
  [new NotRefundable({ attemptId, paymentStatus: null }), "not_refundable", 409],
  [new RefundExceedsPayment({ attemptId, refundableMinor: 1 }), "refund_exceeds_payment", 409],
  [new RefundIdReused({ refundId: RefundId.make("REFUND-1") }), "refund_id_reused", 422],
  [new RefundDenied({ refundId: RefundId.make("REFUND-1"), reason: "too late" }), "refund_denied", 409],
  [new NotPayable({ orderStatus: "PAID" }), "not_payable", 409],
  [new NotYourOrder(), "not_your_order", 403],
  [new NotCancelable({ orderStatus: "PAID" }), "not_cancelable", 409],
  [new NotFulfillable({ orderStatus: "PENDING" }), "not_fulfillable", 409],
  [new RiskBlocked(), "risk_blocked", 403]
]

/** What the shop says where the contract is silent; stable all the same. */
const further: ReadonlyArray<readonly [Problem, string, number]> = [
  [new InvalidCredentials(), "invalid_credentials", 401],
  [new InvalidRefreshToken(), "invalid_refresh_token", 401],
  [new VersionConflict({ current: 3 }), "version_conflict", 412],
  [new StockWouldOverflow({ productId }), "stock_would_overflow", 409],
  [new ReservationClosed({ reservationId: ReservationId.make("RES-1"), status: "expired" }), "reservation_closed", 409],
  [new CartNotFound({ cartId: "CART-1" }), "cart_not_found", 404],
  [new CartFull(), "cart_full", 409],
  [new InvalidGuestToken(), "invalid_guest_token", 422],
  [new CartEmpty({ cartId: "CART-1" }), "cart_empty", 409],
  [new CartOrdered({ cartId: "CART-1", orderId: OrderId.make("ORDER-1") }), "cart_ordered", 409],
  [new OrderNotFound({ orderId: "ORDER-1" }), "order_not_found", 404],
  [new NotHeld({ orderStatus: "PENDING" }), "not_held", 409],
  [new OrderProcessNotFound({ id: "SAGA-1" }), "order_process_not_found", 404],
  [new SubscriptionNotFound({ subscriptionId: "HOOK-1" }), "subscription_not_found", 404],
  [new DeliveryNotFound({ deliveryId: "DLV-1" }), "delivery_not_found", 404],
  [
    new SubscriptionNotActive({ subscriptionId: SubscriptionId.make("HOOK-1"), status: "GONE" }),
    "subscription_not_active",
    409
  ],
  [new TooManySubscriptions({ most: 20 }), "too_many_subscriptions", 409],
  [new AssessmentNotFound({ assessmentId: AssessmentId.make("RISK-1") }), "assessment_not_found", 404],
  [new ServiceUnavailable({ service: "pricing", retryAfterSeconds: 1 }), "service_unavailable", 503],
  [new InvalidValue({ path: "price", reason: "too many decimals" }), "invalid_value", 400]
]

/** Errors that stay between our own parts. Should one get out, it is a mistake of ours: 500. */
const internal: ReadonlyArray<readonly [Problem, string, number]> = [
  [new DeltaRefused({ code: "unknown_sku", reason: "No product has the SKU A" }), "delta_refused", 500],
  [new InexactAmount({ amount: 0.001, currency: "USD" }), "inexact_amount", 500],
  [new ImpossibleHistory({ event: "e", version: 1, reason: "r" }), "impossible_history", 500],
  [new ImpossiblePayment({ event: "e", version: 1 }), "impossible_payment", 500],
  [new PaymentUnknown({ attemptId }), "payment_unknown", 500],
  [new PaymentVoided({ attemptId }), "payment_voided", 500]
]

const all = [...promised, ...further, ...internal]

describe("problem codes", () => {
  test("every error that the domain exports is in the tables above, once", () => {
    expect(all.map(([error]) => error._tag).toSorted()).toEqual([...errorNames])
  })

  for (const [error, code, status] of all) {
    test(`${error._tag} is ${status} ${code}`, () => {
      expect([codeOf(error._tag), statusOf(error)]).toEqual([code, status])
    })
  }

  test("no two errors have the same code", () => {
    expect(new Set(all.map(([error]) => codeOf(error._tag))).size).toBe(all.length)
  })

  test("a class is named like its tag, so its code can be told from its name", () => {
    for (const [error] of all) expect(error.constructor.name).toBe(error._tag)
  })

  test("what is no error of ours is 500", () => {
    for (const error of [new Error("x"), {}, new Date(0)]) {
      expect(statusOf(error)).toBe(500)
    }
  })

  test("a code is snake_case of the tag, digits included", () => {
    expect(["A", "Ab", "AbCd", "NotYourOrder", "Sha256Mismatch"].map(codeOf)).toEqual([
      "a",
      "ab",
      "ab_cd",
      "not_your_order",
      "sha256_mismatch"
    ])
  })
})

describe("how a problem reads", () => {
  test("its title is its code in words", () => {
    expect([titleOf("OutOfStock"), titleOf("EmailTaken"), titleOf("Forbidden")]).toEqual([
      "Out of stock",
      "Email taken",
      "Forbidden"
    ])
  })

  test("what people get to see says what is wrong in a sentence of its own", () => {
    for (const [error] of [...promised, ...further]) {
      expect(error.message).not.toBe("")
      expect(error.message).not.toContain("undefined")
      expect(error.message).not.toContain("[object")
    }
  })

  test("a sign-in that failed does not say whether the address is known", () => {
    expect(new InvalidCredentials().message).toBe("E-mail address or password is wrong")
  })
})

describe("an error on its way between our own parts", () => {
  const isErrorSchema = (value: unknown): value is Schema.Codec<Problem, unknown> => Schema.isSchema(value)
  const schemas = modules
    .flatMap(({ exports }) => Object.entries(exports))
    .flatMap(([name, value]) => (errorNames.includes(name) && isErrorSchema(value) ? [{ name, value }] : []))

  test("has a schema, unless it never leaves the domain", () => {
    expect(schemas.map(({ name }) => name).toSorted()).toEqual(errorNames.filter((name) => name !== "InexactAmount"))
  })

  for (const { name, value } of schemas) {
    test(`${name} arrives as it was sent`, async () => {
      const codec = Schema.toCodecJson(value)
      const [encode, decode] = [Schema.encodeSync(codec), Schema.decodeUnknownSync(codec)]
      const isSame = Schema.toEquivalence(value)
      const result = await Effect.runPromise(
        Arbitrary.checkEffect(
          Arbitrary.schema(value),
          (error) => {
            const arrived = decode(JSON.parse(JSON.stringify(encode(error))))
            return (
              isSame(arrived, error) &&
              arrived._tag === name &&
              arrived.message === error.message &&
              statusOf(arrived) === statusOf(error)
            )
          },
          { runs: 20 }
        )
      )
      expect(Arbitrary.formatCheckFailure(result)).toBeUndefined()
    })
  }
})
