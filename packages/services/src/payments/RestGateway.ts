import { Effect, Result, Schema } from "effect"
import { HttpClientRequest } from "effect/http"
import { type Currency, fromDecimal, toDecimal } from "@merkato/domain/kernel/Money"
import * as Rest from "@merkato/rpc/payments/PaymentGatewayRest"
import * as GatewayCall from "./GatewayCall.ts"
import { gatewayOf, Refusal, type Reported, senseless } from "./GatewayWire.ts"
import { GatewayDown, GatewayUnknown } from "./PaymentGateways.ts"

const decodeAttempt = Schema.decodeUnknownEffect(Schema.fromJsonString(Rest.Attempt))
const decodeRefunded = Schema.decodeUnknownEffect(Schema.fromJsonString(Rest.Refunded))
const decodeRefusal = Schema.decodeUnknownEffect(Schema.fromJsonString(Rest.Refusal))

/** A refusal in the gateway's own words. A status without them may be any server's on the way, and tells nothing. */
const refused = ({ body, status }: GatewayCall.GatewayAnswer) =>
  decodeRefusal(body).pipe(
    Effect.mapError(() => new GatewayUnknown({ reason: `status ${status}` })),
    Effect.flatMap(
      ({ code, message }): Effect.Effect<never, GatewayDown | Refusal> =>
        code === "unavailable" || code === "invalid_request"
          ? Effect.fail(new GatewayDown({ reason: message }))
          : Effect.fail(new Refusal({ code, reason: message }))
    )
  )

const minorOf = (amount: number, currency: Currency) =>
  Effect.fromResult(Result.mapError(fromDecimal(amount, currency), () => senseless("not an amount")))

/** A gateway that is spoken to over REST, at a base URL. */
export const make = Effect.fnUntraced(function* (baseUrl: string) {
  const call = yield* GatewayCall.make

  const ask = Effect.fnUntraced(function* (request: HttpClientRequest.HttpClientRequest) {
    const answer = yield* call(request)
    // 503 says that nothing was done, whoever on the way says it.
    if (answer.status === 503) return yield* new GatewayDown({ reason: "the gateway is down" })
    return answer.status === 200 ? answer.body : yield* refused(answer)
  })

  const url = (attemptId: string, step: string) => `${baseUrl}/v1/attempts/${encodeURIComponent(attemptId)}${step}`
  const post = (attemptId: string, step: string) => HttpClientRequest.post(url(attemptId, step))

  const attempt = Effect.fnUntraced(function* (request: HttpClientRequest.HttpClientRequest) {
    const told = yield* Effect.mapError(decodeAttempt(yield* ask(request)), () => senseless("not an attempt"))
    const { amount, attemptId, currency, orderId, reason, status } = told
    const order =
      amount === null || currency === null || orderId === null
        ? undefined
        : { orderId, amountMinor: yield* minorOf(amount, currency), currency }
    return { attemptId, order, status, reason } satisfies Reported
  })

  return gatewayOf({
    name: "rest",
    operation: "payment.rest",
    authorise: ({ amountMinor, attemptId, currency, orderId, token }) =>
      attempt(
        HttpClientRequest.bodyJsonUnsafe(post(attemptId, "/authorise"), {
          orderId,
          amount: toDecimal(amountMinor, currency),
          currency,
          token
        })
      ),
    find: (attemptId) => attempt(HttpClientRequest.get(url(attemptId, ""))),
    capture: (attemptId) => attempt(post(attemptId, "/capture")),
    void: (attemptId) => attempt(post(attemptId, "/void")),
    refund: Effect.fnUntraced(function* ({ amountMinor, attemptId, currency, refundId }) {
      const body = yield* ask(
        HttpClientRequest.bodyJsonUnsafe(post(attemptId, "/refunds"), {
          refundId,
          amount: toDecimal(amountMinor, currency),
          currency
        })
      )
      const told = yield* Effect.mapError(decodeRefunded(body), () => senseless("not a refund"))
      return { ...told, amountMinor: yield* minorOf(told.amount, told.currency) }
    })
  })
})
