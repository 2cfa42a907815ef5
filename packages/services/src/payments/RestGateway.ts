import { Config, Duration, Effect, Layer, Schema } from "effect"
import { HttpClient, type HttpClientError, HttpClientRequest, type HttpClientResponse } from "effect/http"
import { toDecimal } from "@merkato/domain/kernel/Money"
import {
  AttemptNotFound,
  GatewayDown,
  GatewayStatus,
  GatewayUnknown,
  type PaymentGateway,
  PaymentGateways,
  RefundRefused
} from "./PaymentGateways.ts"

const Attempt = Schema.Struct({ status: GatewayStatus, reason: Schema.NullOr(Schema.String) })
const decode = Schema.decodeUnknownEffect(Attempt)

/** Milliseconds a call to the gateway may take; 2,000 unless `MERKATO_PAYMENT_TIMEOUT_MS` says otherwise. */
const timeoutMs = Config.Int("MERKATO_PAYMENT_TIMEOUT_MS").pipe(Config.withDefault(2_000))

/** The connection never came about: the request cannot have been received. */
const neverSent = (error: HttpClientError.HttpClientError): boolean => {
  const cause = error.cause
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined
  return code === "ECONNREFUSED" || code === "ConnectionRefused" || code === "ENOTFOUND"
}

/** The built-in test gateway, spoken to over REST. */
export const layer = (baseUrl: string) =>
  Layer.effect(
    PaymentGateways,
    Effect.gen(function* () {
      const http = yield* HttpClient.HttpClient
      const limit = Duration.millis(yield* Effect.orDie(timeoutMs))

      const read = Effect.fnUntraced(function* (response: HttpClientResponse.HttpClientResponse) {
        // A gateway that says 503 says that it did nothing; any other surprise leaves the outcome open.
        if (response.status === 503) return yield* new GatewayDown({ reason: "the gateway is down" })
        if (response.status === 404) return yield* new AttemptNotFound()
        if (response.status !== 200) return yield* new GatewayUnknown({ reason: `status ${response.status}` })
        return yield* Effect.flatMap(response.json, decode)
      })

      const send = (request: HttpClientRequest.HttpClientRequest) =>
        http.execute(request).pipe(
          Effect.flatMap(read),
          Effect.timeout(limit),
          Effect.catchTags({
            HttpClientError: (error) =>
              Effect.fail(
                neverSent(error)
                  ? new GatewayDown({ reason: "connection refused" })
                  : new GatewayUnknown({ reason: error.message })
              ),
            SchemaError: () => Effect.fail(new GatewayUnknown({ reason: "an answer that makes no sense" })),
            TimeoutError: () => Effect.fail(new GatewayUnknown({ reason: "no answer in time" }))
          })
        )

      const url = (attemptId: string, step: string) => `${baseUrl}/v1/attempts/${attemptId}${step}`
      const known = <A, E, R>(effect: Effect.Effect<A, E | AttemptNotFound, R>) =>
        Effect.catchIf(
          effect,
          (error): error is Extract<E | AttemptNotFound, AttemptNotFound> => error instanceof AttemptNotFound,
          () => Effect.fail(new GatewayUnknown({ reason: "the gateway does not know the attempt" }))
        )

      const gateway: PaymentGateway = {
        name: "rest",
        operation: "payment.rest",
        authorise: ({ attemptId, orderId, amountMinor, currency, token }) =>
          known(
            send(
              HttpClientRequest.post(url(attemptId, "/authorise")).pipe(
                HttpClientRequest.bodyJsonUnsafe({ orderId, amount: toDecimal(amountMinor, currency), currency, token })
              )
            )
          ),
        find: (attemptId) => send(HttpClientRequest.get(url(attemptId, ""))),
        capture: (attemptId) => known(send(HttpClientRequest.post(url(attemptId, "/capture")))),
        void: (attemptId) => known(send(HttpClientRequest.post(url(attemptId, "/void")))),
        refund: ({ attemptId, refundId, amountMinor, currency }) =>
          send(
            HttpClientRequest.post(url(attemptId, `/refunds/${refundId}`)).pipe(
              HttpClientRequest.bodyJsonUnsafe({ amount: toDecimal(amountMinor, currency), currency })
            )
          ).pipe(
            Effect.asVoid,
            Effect.catchTag("AttemptNotFound", () => Effect.fail(new RefundRefused({ reason: "unknown attempt" })))
          )
      }
      return PaymentGateways.of({ inOrder: [gateway] })
    })
  )
