import { Effect, Result, Schema } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Id } from "@merkato/domain/kernel/Ids"
import type { Currency } from "@merkato/domain/kernel/Money"
import * as Envelope from "@merkato/infra/soap/Envelope"
import { fields } from "@merkato/infra/soap/Xml"
import * as Soap from "@merkato/rpc/payments/PaymentGatewaySoap"
import type { Operation } from "./Conduct.ts"
import { type Answer, declineOf, type Door, Doors } from "./Door.ts"
import { type Attempt, Psp, type Refusal } from "./Psp.ts"

const { namespace } = Soap

const faultCodes = {
  Unavailable: "Server.Unavailable",
  InvalidRequest: "Client.InvalidRequest",
  UnknownAttempt: "Client.UnknownAttempt",
  ConflictingRepeat: "Client.ConflictingRepeat",
  RefundRefused: "Client.RefundRefused"
} as const satisfies Record<Soap.GatewayFault["code"], string>

/** SOAP 1.1 over HTTP (section 6.2): every fault is a 500. */
const fault = (code: Soap.GatewayFault["code"], message: string): Answer => ({
  status: 500,
  body: Envelope.writeFault({
    code: faultCodes[code],
    reason: message,
    namespace,
    detail: { [Soap.faultElement]: { code, message } }
  })
})

const door: Door = {
  gateway: "soap",
  contentType: Envelope.contentType,
  unavailable: fault("Unavailable", "Down for maintenance; nothing was done"),
  misshapen: { status: 200, body: Envelope.write({ namespace, name: "OrderStatusResponse", fields: { status: "OK" } }) }
}

const told =
  (operation: Soap.Operation) =>
  ({ attemptId, order, reason, refundedMinor, status }: Attempt): Answer => ({
    status: 200,
    body: Envelope.write({
      namespace,
      name: `${operation}Response`,
      fields: {
        attemptId,
        orderId: order?.orderId,
        amount: order && Soap.decimalOf(order.amountMinor, order.currency),
        currency: order?.currency,
        status,
        reason: reason ?? undefined,
        refundedAmount: order && Soap.decimalOf(refundedMinor, order.currency)
      }
    })
  })

const refused = (error: Refusal): Effect.Effect<Answer> => Effect.succeed(fault(error._tag, error.message))

class InvalidRequest extends Schema.TaggedError<InvalidRequest>()("InvalidRequest", { reason: Schema.String }) {}

const isId = Schema.is(Id)
const isOperation = (name: string): name is Soap.Operation => Soap.operations.some((known) => known === name)

/** What is asked for, of which attempt, and with which fields. */
const requestOf = ({ body, headers }: Envelope.Message) => {
  const refuse = (reason: string) => Result.fail(new InvalidRequest({ reason }))
  const { name } = body
  if (body.namespace !== namespace) return refuse(`${name} has to be in the namespace ${namespace}`)
  if (!isOperation(name)) return refuse(`There is no operation ${name}: there are ${Soap.operations.join(", ")}`)
  const header = headers.find((header) => header.namespace === namespace && header.name === Soap.attemptHeader)
  const attemptId = header?.text.trim() ?? ""
  if (!isId(attemptId)) return refuse(`The header ${Soap.attemptHeader} has to carry the attempt's id`)
  const given = fields(body)
  return given === undefined
    ? refuse(`${name} is not as the WSDL has it`)
    : Result.succeed({ operation: name, attemptId, given })
}

const operations = {
  ProcessPayment: "process",
  Authorise: "authorise",
  Capture: "capture",
  Void: "void",
  Refund: "refund",
  GetPayment: "find"
} as const satisfies Record<Soap.Operation, Operation>

const minorOf = (amount: string, currency: Currency) =>
  Effect.fromResult(Result.mapError(Soap.minorOf(amount, currency), (reason) => new InvalidRequest({ reason })))

/** The SOAP gateway, and its WSDL at `?wsdl`. */
export const SoapDoor = HttpRouter.use(
  Effect.fn(function* (router) {
    const psp = yield* Psp
    const doors = yield* Doors

    const decoded =
      <A>(schema: Schema.ConstraintDecoder<A>, name: Soap.Operation) =>
      (given: Readonly<Record<string, string>>) =>
        Schema.decodeUnknownEffect(schema)(given).pipe(
          Effect.mapError(
            (error) => new InvalidRequest({ reason: `${name} is not as the WSDL has it: ${error.message}` })
          )
        )
    const processRequest = decoded(Soap.ProcessPayment, "ProcessPayment")
    const authoriseRequest = decoded(Soap.Authorise, "Authorise")
    const refundRequest = decoded(Soap.Refund, "Refund")

    const work = Effect.fnUntraced(function* (
      operation: Soap.Operation,
      attemptId: string,
      given: Readonly<Record<string, string>>
    ) {
      const answered = <E>(asked: Effect.Effect<Attempt, E>) => Effect.map(asked, told(operation))
      switch (operation) {
        case "ProcessPayment": {
          const { amount, currency, orderId } = yield* processRequest(given)
          const amountMinor = yield* minorOf(amount, currency)
          const held = psp.authorise("soap", { attemptId, orderId, amountMinor, currency, declined: null })
          const taken = Effect.andThen(held, psp.capture("soap", attemptId))
          return { token: undefined, work: answered(taken).pipe(Effect.catch(refused)) }
        }
        case "Authorise": {
          const { amount, currency, orderId, token } = yield* authoriseRequest(given)
          const amountMinor = yield* minorOf(amount, currency)
          const declined = declineOf(token)
          const asked = answered(psp.authorise("soap", { attemptId, orderId, amountMinor, currency, declined }))
          return { token, work: asked.pipe(Effect.catch(refused)) }
        }
        case "Refund": {
          const { amount, currency, refundId } = yield* refundRequest(given)
          const amountMinor = yield* minorOf(amount, currency)
          if (amountMinor === 0) return yield* new InvalidRequest({ reason: "Nothing is no refund" })
          const answer: Answer = {
            status: 200,
            body: Envelope.write({
              namespace,
              name: "RefundResponse",
              fields: { attemptId, refundId, amount: Soap.decimalOf(amountMinor, currency), currency }
            })
          }
          const asked = psp.refund("soap", { attemptId, refundId, amountMinor, currency })
          return { token: undefined, work: asked.pipe(Effect.as(answer), Effect.catch(refused)) }
        }
        case "Capture":
          return { token: undefined, work: answered(psp.capture("soap", attemptId)).pipe(Effect.catch(refused)) }
        case "Void":
          return { token: undefined, work: answered(psp.void("soap", attemptId)) }
        case "GetPayment":
          return { token: undefined, work: answered(psp.find("soap", attemptId)).pipe(Effect.catch(refused)) }
      }
    })

    const respond = ({ body, status }: Answer) =>
      Effect.succeed(HttpServerResponse.text(body, { status, contentType: door.contentType }))

    yield* router.add(
      "POST",
      "/soap/payments",
      Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        const message = yield* Effect.fromResult(Envelope.read(yield* request.text, [Soap.attemptHeader]))
        const { attemptId, given, operation } = yield* Effect.fromResult(requestOf(message))
        const asked = yield* work(operation, attemptId, given)
        return yield* doors.answer(
          door,
          { operation: operations[operation], attemptId, token: asked.token },
          asked.work
        )
      }).pipe(
        Effect.catchTags({
          InvalidRequest: ({ reason }) => respond(fault("InvalidRequest", reason)),
          HttpServerError: () => respond(fault("InvalidRequest", "The request cannot be read")),
          NotSoap: ({ code, reason }) =>
            respond({ status: 500, body: Envelope.writeFault({ code, reason, namespace }) })
        })
      )
    )

    yield* router.add(
      "GET",
      "/soap/payments",
      Effect.gen(function* () {
        const { headers, url } = yield* HttpServerRequest.HttpServerRequest
        if (!/\?wsdl$/i.test(url))
          return HttpServerResponse.text("SOAP is spoken by POST; its WSDL is at ?wsdl", {
            status: 405,
            headers: { allow: "POST" }
          })
        const body = Soap.wsdl(`http://${headers["host"] ?? "localhost"}/soap/payments`)
        return HttpServerResponse.text(body, { contentType: Envelope.contentType })
      })
    )
  })
)
