import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import * as Ids from "@merkato/domain/kernel/Ids"
import { PaymentToken, Rail } from "@merkato/domain/payments/Payment"
import { Items } from "@merkato/domain/pricing/Quote"
import { DeviceId, OrdersGroup } from "../../orders/OrdersRpc.ts"
import { SignedIn } from "../Access.ts"
import { accepted, created, idempotent, paging, summary } from "../Endpoint.ts"
import * as Json from "../Json.ts"
import { idempotencyKeyRequired, namedInBody, type ProblemOptions, problems } from "../Problems.ts"

/** Headers of what moves money: the device, if the client names it, is for the assessment of risk. */
const paying = { ...idempotent, "x-device-id": Schema.optionalKey(DeviceId) }
const heldOrder = Json.OrderJson.pipe(accepted)
const keyRequired: ProblemOptions = { codes: [[400, idempotencyKeyRequired]] }

export class Orders extends HttpApiGroup.make("orders").add(
  HttpApiEndpoint.post("placeOrder", "/orders", {
    headers: idempotent,
    payload: Schema.Struct({
      items: Items,
      currency: Schema.optionalKey(Schema.String.check(Schema.isPattern(/^[A-Z]{3}$/u))),
      expectedTotal: Schema.optionalKey(Schema.Finite)
    }),
    success: Json.OrderJson.pipe(created),
    error: problems(OrdersGroup, "Place", { ...keyRequired, statuses: namedInBody })
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Order, with the stock reserved for 15 minutes")),
  HttpApiEndpoint.get("listOrders", "/orders", {
    query: paging,
    success: Json.pageOf(Json.OrderJson),
    error: problems(OrdersGroup, "List")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("One's orders, newest first; everybody's for an admin")),
  HttpApiEndpoint.get("getOrder", "/orders/:orderId", {
    params: { orderId: Ids.OrderId },
    success: Json.OrderJson,
    error: problems(OrdersGroup, "Get")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("An order of one's own; any for an admin")),
  HttpApiEndpoint.get("orderHistory", "/orders/:orderId/history", {
    params: { orderId: Ids.OrderId },
    success: Schema.Struct({ items: Schema.Array(Json.OrderHistoryJson), nextCursor: Schema.Null }),
    error: problems(OrdersGroup, "History")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("What happened to an order, oldest first")),
  HttpApiEndpoint.post("payOrder", "/orders/:orderId/pay", {
    params: { orderId: Ids.OrderId },
    headers: paying,
    payload: Schema.Struct({ paymentToken: PaymentToken, rail: Schema.optionalKey(Rail) }),
    success: [Json.OrderJson, heldOrder],
    error: problems(OrdersGroup, "Pay", keyRequired)
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Pay an order: it is PAID, or HELD (202) when its risk is to be looked at")),
  HttpApiEndpoint.post("checkout", "/checkout", {
    headers: paying,
    payload: Schema.Struct({
      cartId: Ids.CartId,
      paymentToken: PaymentToken,
      rail: Schema.optionalKey(Rail),
      expectedTotal: Schema.optionalKey(Schema.Finite)
    }),
    success: [Json.OrderJson.pipe(created), heldOrder],
    error: problems(OrdersGroup, "Checkout", { ...keyRequired, statuses: { ...namedInBody, CartNotFound: 422 } })
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Buy what is in a cart: the order is PAID, or HELD (202) when its risk is to be looked at")),
  HttpApiEndpoint.post("releaseOrder", "/orders/:orderId/release", {
    params: { orderId: Ids.OrderId },
    success: Json.OrderJson,
    error: problems(OrdersGroup, "Release")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Let a held order go on: it can be paid (admin)")),
  HttpApiEndpoint.post("rejectOrder", "/orders/:orderId/reject", {
    params: { orderId: Ids.OrderId },
    success: Json.OrderJson,
    error: problems(OrdersGroup, "Reject")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("End a held order; its stock goes back (admin)")),
  HttpApiEndpoint.post("cancelOrder", "/orders/:orderId/cancel", {
    params: { orderId: Ids.OrderId },
    success: Json.OrderJson,
    error: problems(OrdersGroup, "Cancel")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Cancel an order that is not paid; its stock goes back")),
  HttpApiEndpoint.post("fulfilOrder", "/orders/:orderId/fulfil", {
    params: { orderId: Ids.OrderId },
    success: Json.OrderJson,
    error: problems(OrdersGroup, "Fulfil")
  })
    .middleware(SignedIn)
    .annotateMerge(summary("Hand a paid order over (admin)"))
) {}
