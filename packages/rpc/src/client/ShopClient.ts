import { Effect, Redacted } from "effect"
import { FetchHttpClient, HttpClient, HttpClientRequest } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import { Api } from "../rest/Api.ts"

export interface Options {
  /** As in `https://shop.example`. */
  readonly baseUrl: string
  /** The accessToken of a session; without it one is nobody. */
  readonly token?: Redacted.Redacted
}

/**
 * The shop over REST, for programs of others: a method per operation of the OpenAPI document, with its types. What the shop
 * refuses is a `Problem`, to be told apart by its `code`; a write that moves money wants an idempotency-key, which the caller
 * keeps and sends again when the answer was lost.
 *
 *     const shop = yield* ShopClient.make({ baseUrl, token })
 *     const order = yield* shop.orders.placeOrder({
 *       headers: { "idempotency-key": key },
 *       payload: { items: [{ productId, qty: 2 }] }
 *     })
 */
export const make = ({ baseUrl, token }: Options) =>
  HttpApiClient.make(Api, {
    baseUrl,
    transformClient: (client) =>
      token === undefined ? client : HttpClient.mapRequest(client, HttpClientRequest.bearerToken(Redacted.value(token)))
  }).pipe(Effect.provide(FetchHttpClient.layer))
