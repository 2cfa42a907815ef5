// The clients that packages/rpc publishes, on a real shop of two processes, whose doors ask the policy in Rego.
import { describe, expect, test } from "bun:test"
import { Effect, Redacted } from "effect"
import * as Ids from "@merkato/domain/kernel/Ids"
import { OutOfStock } from "@merkato/domain/inventory/Stock"
import { OrderNotFound } from "@merkato/domain/orders/Order"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import type { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import * as ShopClient from "@merkato/rpc/client/ShopClient"
import { invalidCancellationsAreDenied } from "./support/Cancellations.ts"
import { servedShop } from "./support/ServedShop.ts"

const shop = servedShop(() => ({ OPA_WASM: "built-in" }))

test(
  "the policy in Rego denies invalid cancellations over REST and RPC, and reads of others' orders in the graph",
  () => invalidCancellationsAreDenied(shop()),
  60_000
)

describe("a purchase", () => {
  test("is made with the client over REST, and what is refused is a problem with its code", async () => {
    const productId = Ids.ProductId.make(await shop().product(3))
    const token = Redacted.make(await shop().token("REST-ADA"))
    await Effect.gen(function* () {
      const ada = yield* ShopClient.make({ baseUrl: shop().url, token })
      const order = (qty: number) =>
        ada.orders.placeOrder({
          headers: { "idempotency-key": `order-${qty}` },
          payload: { items: [{ productId, qty }] }
        })
      const placed = yield* order(2)
      expect(placed).toMatchObject({ status: "PENDING", totalAmount: 2, currency: "USD" })
      expect(yield* order(2)).toEqual(placed)
      expect(yield* Effect.flip(order(4))).toMatchObject({ status: 409, code: "out_of_stock" })

      const { orderId } = placed
      const pay = (paymentToken: string) =>
        ada.orders.payOrder({
          params: { orderId },
          headers: { "idempotency-key": paymentToken },
          payload: { paymentToken: PaymentToken.make(paymentToken) }
        })
      expect(yield* Effect.flip(pay("tok_declined"))).toMatchObject({ status: 402, code: "payment_declined" })
      expect(yield* pay("tok_ok")).toMatchObject({ orderId, status: "PAID" })
      expect(yield* ada.orders.getOrder({ params: { orderId } })).toMatchObject({ status: "PAID" })

      const nobody = yield* ShopClient.make({ baseUrl: shop().url })
      expect(yield* nobody.catalogue.getProduct({ params: { productId }, headers: {} })).toMatchObject({ price: 1 })
      expect(yield* Effect.flip(nobody.orders.getOrder({ params: { orderId } }))).toMatchObject({ status: 401 })
    }).pipe(Effect.runPromise)
  })

  test("is made with the client over RPC, on behalf of a shopper, and what is refused is the domain's error", async () => {
    const productId = Ids.ProductId.make(await shop().product(3))
    const ada = <A, E>(ask: (orders: OrdersRpc["Service"]) => Effect.Effect<A, E>) =>
      shop().rpc("RPC-ADA", "shopper", ask)
    const order = (qty: number) =>
      ada((orders) =>
        orders.Place({ idempotencyKey: Ids.IdempotencyKey.make(`order-${qty}`), items: [{ productId, qty }] })
      )
    const placed = await order(2)
    if (!("answer" in placed)) throw placed
    expect(placed).toMatchObject({ answer: { status: "PENDING", userId: "RPC-ADA" }, replayed: false })
    expect(await order(2)).toEqual({ ...placed, replayed: true })
    expect(await order(4)).toEqual(new OutOfStock({ products: [{ productId, requested: 4, available: 1 }] }))

    const { orderId } = placed.answer
    const pay = (paymentToken: string) =>
      ada((orders) =>
        orders.Pay({
          idempotencyKey: Ids.IdempotencyKey.make(paymentToken),
          orderId,
          paymentToken: PaymentToken.make(paymentToken),
          rail: "auto"
        })
      )
    expect(await pay("tok_declined")).toMatchObject({ _tag: "PaymentDeclined" })
    expect(await pay("tok_ok")).toMatchObject({ answer: { orderId, status: "PAID" }, replayed: false })
    expect(await shop().rpc("EVE", "shopper", (orders) => orders.Get({ orderId }))).toEqual(
      new OrderNotFound({ orderId })
    )
  })
})
