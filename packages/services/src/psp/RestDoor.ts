import { Effect, Result, Schema } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Id } from "@merkato/domain/kernel/Ids"
import { type Currency, fromDecimal, toDecimal } from "@merkato/domain/kernel/Money"
import * as Rest from "@merkato/rpc/payments/PaymentGatewayRest"
import { type Answer, declineOf, type Door, Doors } from "./Door.ts"
import { type Attempt, Psp, type Refusal, type UnknownAttempt } from "./Psp.ts"

const statuses = {
  unavailable: 503,
  invalid_request: 400,
  unknown_attempt: 404,
  conflicting_repeat: 409,
  refund_refused: 422
} as const satisfies Record<Rest.Refusal["code"], number>

const refusal = (code: Rest.Refusal["code"], message: string): Answer => ({
  status: statuses[code],
  body: JSON.stringify({ code, message } satisfies Rest.Refusal)
})

const door: Door = {
  gateway: "rest",
  contentType: "application/json",
  unavailable: refusal("unavailable", "Down for maintenance; nothing was done"),
  misshapen: { status: 200, body: JSON.stringify({ result: "OK", errors: [] }) }
}

const told = ({ attemptId, order, reason, refundedMinor, status }: Attempt): Answer => ({
  status: 200,
  body: JSON.stringify({
    attemptId,
    orderId: order?.orderId ?? null,
    amount: order === undefined ? null : toDecimal(order.amountMinor, order.currency),
    currency: order?.currency ?? null,
    status,
    reason,
    refundedAmount: order === undefined ? null : toDecimal(refundedMinor, order.currency)
  })
})

const codes = {
  UnknownAttempt: "unknown_attempt",
  ConflictingRepeat: "conflicting_repeat",
  RefundRefused: "refund_refused"
} as const satisfies Record<Refusal["_tag"], Rest.Refusal["code"]>

const refused = (error: Refusal): Effect.Effect<Answer> => Effect.succeed(refusal(codes[error._tag], error.message))

const Params = Schema.Struct({ attemptId: Id })
const attemptIdOf = Effect.map(HttpRouter.schemaPathParams(Params), (params) => params.attemptId)

class BadAmount extends Schema.TaggedError<BadAmount>()("BadAmount", { reason: Schema.String }) {}

const minorOf = (amount: number, currency: Currency) =>
  Effect.fromResult(Result.mapError(fromDecimal(amount, currency), ({ message }) => new BadAmount({ reason: message })))

const invalid = (message: string) => {
  const { body, status } = refusal("invalid_request", message)
  return Effect.succeed(HttpServerResponse.text(body, { status, contentType: door.contentType }))
}
const badRequest = {
  SchemaError: () => invalid("The request is not what is expected here"),
  HttpServerError: () => invalid("The request cannot be read"),
  BadAmount: ({ reason }: BadAmount) => invalid(reason)
}

/** The REST gateway: `/v1/attempts/{id}`, and behind it `/authorise`, `/capture`, `/void` and `/refunds`. */
export const RestDoor = HttpRouter.use(
  Effect.fn(function* (router) {
    const psp = yield* Psp
    const doors = yield* Doors
    const path = "/v1/attempts/:attemptId"

    yield* router.add(
      "POST",
      `${path}/authorise`,
      Effect.gen(function* () {
        const attemptId = yield* attemptIdOf
        const { amount, currency, orderId, token } = yield* HttpServerRequest.schemaBodyJson(Rest.Authorise)
        const amountMinor = yield* minorOf(amount, currency)
        const request = { attemptId, orderId, amountMinor, currency, declined: declineOf(token) }
        const work = psp.authorise("rest", request).pipe(Effect.map(told), Effect.catch(refused))
        return yield* doors.answer(door, { operation: "authorise", attemptId, token }, work)
      }).pipe(Effect.catchTags(badRequest))
    )
    yield* router.add(
      "POST",
      `${path}/refunds`,
      Effect.gen(function* () {
        const attemptId = yield* attemptIdOf
        const { amount, currency, refundId } = yield* HttpServerRequest.schemaBodyJson(Rest.Refund)
        const amountMinor = yield* minorOf(amount, currency)
        if (amountMinor === 0) return yield* new BadAmount({ reason: "Nothing is no refund" })
        const answer: Answer = { status: 200, body: JSON.stringify({ attemptId, refundId, amount, currency }) }
        const work = psp
          .refund("rest", { attemptId, refundId, amountMinor, currency })
          .pipe(Effect.as(answer), Effect.catch(refused))
        return yield* doors.answer(door, { operation: "refund", attemptId, token: undefined }, work)
      }).pipe(Effect.catchTags(badRequest))
    )
    const simple = [
      ["POST", `${path}/capture`, "capture", psp.capture],
      ["POST", `${path}/void`, "void", psp.void],
      ["GET", path, "find", psp.find]
    ] as const
    for (const [method, route, operation, does] of simple) {
      yield* router.add(
        method,
        route,
        Effect.gen(function* () {
          const attemptId = yield* attemptIdOf
          const asked: Effect.Effect<Attempt, UnknownAttempt> = does("rest", attemptId)
          const work = asked.pipe(Effect.map(told), Effect.catch(refused))
          return yield* doors.answer(door, { operation, attemptId, token: undefined }, work)
        }).pipe(Effect.catchTag("SchemaError", badRequest.SchemaError))
      )
    }
  })
)
