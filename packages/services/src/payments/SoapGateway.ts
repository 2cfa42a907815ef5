import { Effect, Result, Schema } from "effect"
import { HttpClientRequest } from "effect/http"
import type { Currency } from "@merkato/domain/kernel/Money"
import * as Envelope from "@merkato/infra/soap/Envelope"
import { fields, type Element, type Fields } from "@merkato/infra/soap/Xml"
import * as Soap from "@merkato/rpc/payments/PaymentGatewaySoap"
import * as GatewayCall from "./GatewayCall.ts"
import { gatewayOf, Refusal, type Reported, senseless } from "./GatewayWire.ts"
import { GatewayDown, GatewayUnknown } from "./PaymentGateways.ts"

const { namespace } = Soap

const decodePayment = Schema.decodeUnknownEffect(Soap.Payment)
const decodeRefunded = Schema.decodeUnknownEffect(Soap.Refunded)
const decodeFault = Schema.decodeUnknownEffect(Soap.GatewayFault)

const codes = {
  UnknownAttempt: "unknown_attempt",
  ConflictingRepeat: "conflicting_repeat",
  RefundRefused: "refund_refused"
} as const

/** A fault in the gateway's own words. One without our detail is the SOAP stack's, and tells nothing of the money. */
const refused = ({ code, detail, reason }: Envelope.Fault) => {
  const ours = detail?.namespace === namespace && detail.name === Soap.faultElement ? fields(detail) : undefined
  return decodeFault(ours).pipe(
    Effect.mapError(() => new GatewayUnknown({ reason: `fault ${code}: ${reason}` })),
    Effect.flatMap(
      (fault): Effect.Effect<never, GatewayDown | Refusal> =>
        fault.code === "Unavailable" || fault.code === "InvalidRequest"
          ? Effect.fail(new GatewayDown({ reason: fault.message }))
          : Effect.fail(new Refusal({ code: codes[fault.code], reason: fault.message }))
    )
  )
}

const minorOf = (amount: string, currency: Currency) =>
  Effect.fromResult(Result.mapError(Soap.minorOf(amount, currency), senseless))

/** A gateway that is spoken to in SOAP 1.1 as its WSDL has it, at its endpoint's URL. */
export const make = Effect.fnUntraced(function* (endpoint: string) {
  const call = yield* GatewayCall.make

  /** The content of the response that an operation has. */
  const ask = Effect.fnUntraced(function* (operation: Soap.Operation, attemptId: string, content: Fields) {
    const { body, status } = yield* call(
      HttpClientRequest.post(endpoint, { headers: { soapaction: `"${Soap.soapAction(operation)}"` } }).pipe(
        HttpClientRequest.bodyText(
          Envelope.write({ namespace, headers: { [Soap.attemptHeader]: attemptId }, name: operation, fields: content }),
          Envelope.contentType
        )
      )
    )
    // 503 says that nothing was done, whoever on the way says it.
    if (status === 503) return yield* new GatewayDown({ reason: "the gateway is down" })
    if (status !== 200 && status !== 500) return yield* new GatewayUnknown({ reason: `status ${status}` })
    const message = yield* Effect.fromResult(Result.mapError(Envelope.read(body), ({ reason }) => senseless(reason)))
    const fault = Envelope.faultOf(message)
    if (fault !== undefined) return yield* refused(fault)
    return yield* contentOf(message.body, operation, status)
  })

  const payment = Effect.fnUntraced(function* (operation: Soap.Operation, attemptId: string, content: Fields = {}) {
    const given = yield* ask(operation, attemptId, content)
    const told = yield* Effect.mapError(decodePayment(given), () => senseless("not a payment"))
    const { amount, currency, orderId, status } = told
    const order =
      amount === undefined || currency === undefined || orderId === undefined
        ? undefined
        : { orderId, amountMinor: yield* minorOf(amount, currency), currency }
    return { attemptId: told.attemptId, order, status, reason: told.reason ?? null } satisfies Reported
  })

  return gatewayOf({
    name: "soap",
    operation: "payment.soap",
    authorise: ({ amountMinor, attemptId, currency, orderId, token }) =>
      payment("Authorise", attemptId, { orderId, amount: Soap.decimalOf(amountMinor, currency), currency, token }),
    find: (attemptId) => payment("GetPayment", attemptId),
    capture: (attemptId) => payment("Capture", attemptId),
    void: (attemptId) => payment("Void", attemptId),
    refund: Effect.fnUntraced(function* ({ amountMinor, attemptId, currency, refundId }) {
      const amount = Soap.decimalOf(amountMinor, currency)
      const given = yield* ask("Refund", attemptId, { refundId, amount, currency })
      const told = yield* Effect.mapError(decodeRefunded(given), () => senseless("not a refund"))
      return { ...told, amountMinor: yield* minorOf(told.amount, told.currency) }
    })
  })
})

const contentOf = (body: Element, operation: Soap.Operation, status: number) => {
  const content = fields(body)
  return status === 200 && body.namespace === namespace && body.name === `${operation}Response` && content !== undefined
    ? Effect.succeed(content)
    : Effect.fail(senseless(`${body.name} with status ${status}`))
}
