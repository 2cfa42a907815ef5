import { Effect, Schema } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { IdempotencyKey } from "@merkato/domain/kernel/Ids"
import { Currency } from "@merkato/domain/kernel/Money"
import { CurrencyNotSupported } from "@merkato/domain/pricing/Quote"
import type { Order } from "@merkato/domain/orders/Order"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { Api } from "@merkato/rpc/rest/Api"
import { idempotencyKeyRequired, namedInBody } from "@merkato/rpc/rest/Problems"
import { ofError, problem } from "./Problems.ts"
import { answering, json, orderHistoryJson, orderJson, pageJson, replayedHeader } from "./Rest.ts"

const defaultLimit = 20
const isCurrency = Schema.is(Currency)
const isKey = Schema.is(IdempotencyKey)

/** Goes on with the request's Idempotency-Key; without one, or with one that cannot be one, the request is refused. */
const withKey = <R>(
  headers: { readonly "idempotency-key"?: string },
  use: (key: IdempotencyKey) => Effect.Effect<ReturnType<typeof json>, never, R>
) => {
  const key = headers["idempotency-key"]
  if (key !== undefined && isKey(key)) return use(key)
  return problem({
    status: 400,
    code: idempotencyKeyRequired,
    title: "Idempotency key required",
    detail: "Send an Idempotency-Key header: 1 to 255 printable ASCII characters, new for every new purchase"
  })
}

const answered =
  (status: number) =>
  ({ answer, replayed }: { readonly answer: Order; readonly replayed: boolean }) =>
    json(orderJson(answer), status, {
      location: `/api/v1/orders/${answer.orderId}`,
      ...(replayed ? replayedHeader : {})
    })

/** A held order is accepted and not done (RFC 9110, 15.3.3). */
const paidOrHeld = (status: number) => (done: { readonly answer: Order; readonly replayed: boolean }) =>
  answered(done.answer.status === "HELD" ? 202 : status)(done)

const deviceOf = (headers: { readonly "x-device-id"?: string }) =>
  headers["x-device-id"] === undefined ? {} : { deviceId: headers["x-device-id"] }

export const OrderRoutes = HttpApiBuilder.group(
  Api,
  "orders",
  Effect.fn(function* (handlers) {
    const orders = yield* OrdersRpc
    return handlers.handleAll({
      placeOrder: ({ headers, payload: { currency, ...payload } }) =>
        withKey(headers, (idempotencyKey) => {
          if (currency === undefined) {
            return answering(Effect.map(orders.Place({ ...payload, idempotencyKey }), answered(201)), namedInBody)
          }
          return isCurrency(currency)
            ? answering(Effect.map(orders.Place({ ...payload, currency, idempotencyKey }), answered(201)), namedInBody)
            : ofError(new CurrencyNotSupported({ currency }))
        }),
      listOrders: ({ query: { limit = defaultLimit, ...query } }) =>
        answering(Effect.map(orders.List({ ...query, limit }), (page) => json(pageJson(page, orderJson)))),
      getOrder: ({ params }) => answering(Effect.map(orders.Get(params), (order) => json(orderJson(order)))),
      orderHistory: ({ params }) =>
        answering(
          Effect.map(orders.History(params), (entries) =>
            json({ items: entries.map(orderHistoryJson), nextCursor: null })
          )
        ),
      payOrder: ({ params, headers, payload: { paymentToken, rail = "auto" } }) =>
        withKey(headers, (idempotencyKey) =>
          answering(
            Effect.map(
              orders.Pay({ ...params, idempotencyKey, paymentToken, rail, ...deviceOf(headers) }),
              paidOrHeld(200)
            )
          )
        ),
      checkout: ({ headers, payload: { rail = "auto", ...payload } }) =>
        withKey(headers, (idempotencyKey) =>
          answering(
            Effect.map(orders.Checkout({ ...payload, idempotencyKey, rail, ...deviceOf(headers) }), paidOrHeld(201)),
            { ...namedInBody, CartNotFound: 422 }
          )
        ),
      releaseOrder: ({ params }) => answering(Effect.map(orders.Release(params), (order) => json(orderJson(order)))),
      rejectOrder: ({ params }) => answering(Effect.map(orders.Reject(params), (order) => json(orderJson(order)))),
      cancelOrder: ({ params }) => answering(Effect.map(orders.Cancel(params), (order) => json(orderJson(order)))),
      fulfilOrder: ({ params }) => answering(Effect.map(orders.Fulfil(params), (order) => json(orderJson(order))))
    })
  })
)
