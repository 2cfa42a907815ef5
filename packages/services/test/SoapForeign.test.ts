// Our SOAP against somebody else's: the `soap` package as a client of our test gateway by its WSDL, and as the server
// that our client talks to.
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { readFileSync } from "node:fs"
import { Effect, Exit, Layer, Logger, Scope } from "effect"
import { FetchHttpClient, HttpServer } from "effect/http"
import * as soap from "soap"
import { AttemptId, OrderId, RefundId } from "@merkato/domain/kernel/Ids"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import * as Envelope from "@merkato/infra/soap/Envelope"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { AttemptStatus } from "@merkato/rpc/payments/PaymentGatewayRest"
import * as Soap from "@merkato/rpc/payments/PaymentGatewaySoap"
import * as PaymentProviders from "../src/paymentProviders.ts"
import * as SoapGateway from "../src/payments/SoapGateway.ts"

const scope = Scope.makeUnsafe()
let endpoint = ""

beforeAll(
  () =>
    Effect.gen(function* () {
      const database = yield* TestDatabase.fresh
      const services = yield* Layer.build(PaymentProviders.testGateways(database.url, { port: 0, drainTimeout: 200 }))
      const { address } = yield* Effect.provideContext(HttpServer.HttpServer, services)
      endpoint = `http://127.0.0.1:${"port" in address ? address.port : 0}/soap/payments`
    }).pipe(Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Scope.provide(scope), Effect.runPromise),
  60_000
)

afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

let made = 0

/** A client that knows nothing but the WSDL, and asks about one attempt. */
const about = async (attemptId: string | undefined) => {
  const client = await soap.createClientAsync(`${endpoint}?wsdl`)
  if (attemptId !== undefined) client.addSoapHeader({ AttemptId: attemptId }, "", "tns", Soap.namespace)
  return async (operation: Soap.Operation, args: object = {}): Promise<unknown> => {
    const [result] = await client[`${operation}Async`](args)
    return result
  }
}

/** The typed fault that an operation fails with. */
const faultOf = async (asked: Promise<unknown>): Promise<unknown> => {
  const error: unknown = await asked.then(
    () => undefined,
    (error: unknown) => error
  )
  const root = Object(error).root
  const fault = root?.Envelope?.Body?.Fault
  return { faultcode: fault?.faultcode, code: fault?.detail?.GatewayFault?.code }
}

describe("a foreign client, by the WSDL", () => {
  test("pays in one step: ProcessPayment(orderId, amount, currency)", async () => {
    const ask = await about(`FOREIGN-${++made}`)
    const order = { orderId: "ORDER-1", amount: "129.50", currency: "USD" }
    const paid = { attemptId: `FOREIGN-${made}`, ...order, status: "captured", refundedAmount: "0.00" }
    expect(await ask("ProcessPayment", order)).toEqual(paid)
    expect(await ask("ProcessPayment", order)).toEqual(paid)
    expect(await ask("GetPayment")).toEqual(paid)
  })

  test("holds, takes and gives back, with the attempt's id in the header", async () => {
    const attemptId = `FOREIGN-${++made}`
    const ask = await about(attemptId)
    const order = { orderId: "ORDER-2", amount: "10.00", currency: "EUR" }
    const held = { attemptId, ...order, status: "authorised", refundedAmount: "0.00" }
    expect(await ask("Authorise", { ...order, token: "tok_ok" })).toEqual(held)
    expect(await ask("Capture")).toEqual({ ...held, status: "captured" })
    expect(await ask("Refund", { refundId: "BACK", amount: "2.50", currency: "EUR" })).toEqual({
      attemptId,
      refundId: "BACK",
      amount: "2.50",
      currency: "EUR"
    })
    expect(await ask("GetPayment")).toEqual({ ...held, status: "captured", refundedAmount: "2.50" })
  })

  test("calls off what never came", async () => {
    const attemptId = `FOREIGN-${++made}`
    expect(await (await about(attemptId))("Void")).toEqual({ attemptId, status: "voided", reason: "voided" })
  })

  test("reads what is wrong from typed faults", async () => {
    const ask = await about(`FOREIGN-${++made}`)
    const order = { orderId: "ORDER-3", amount: "10.00", currency: "USD" }
    expect(await faultOf(ask("GetPayment"))).toEqual({
      faultcode: "soap:Client.UnknownAttempt",
      code: "UnknownAttempt"
    })
    expect(await faultOf(ask("Authorise", { ...order, token: "tok_soap_down" }))).toEqual({
      faultcode: "soap:Server.Unavailable",
      code: "Unavailable"
    })
    await ask("Authorise", { ...order, token: "tok_ok" })
    expect(await faultOf(ask("Authorise", { ...order, amount: "11.00", token: "tok_ok" }))).toEqual({
      faultcode: "soap:Client.ConflictingRepeat",
      code: "ConflictingRepeat"
    })
    expect(await faultOf(ask("Refund", { refundId: "TOO-SOON", amount: "1.00", currency: "USD" }))).toEqual({
      faultcode: "soap:Client.RefundRefused",
      code: "RefundRefused"
    })
    const invalid = { faultcode: "soap:Client.InvalidRequest", code: "InvalidRequest" }
    for (const wrong of [
      { ...order, amount: "10.001" },
      { ...order, amount: "-1" },
      { ...order, amount: "1e3" },
      { ...order, currency: "XAU" },
      { ...order, orderId: "" },
      { ...order, orderId: "<a/>" },
      { amount: "10.00", currency: "USD" }
    ]) {
      expect(await faultOf(ask("ProcessPayment", wrong))).toEqual(invalid)
    }
    expect(await faultOf((await about(undefined))("GetPayment"))).toEqual(invalid)
    expect(await faultOf((await about("not an id"))("GetPayment"))).toEqual(invalid)
  })
})

test("what is no SOAP is answered by a fault, too", async () => {
  for (const [body, code] of [
    ["", "Client"],
    ['{"operation":"Capture"}', "Client"],
    [`<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`, "Client"],
    [`<Envelope xmlns="http://www.w3.org/2003/05/soap-envelope"><Body><x/></Body></Envelope>`, "VersionMismatch"]
  ] as const) {
    const answer = await fetch(endpoint, { method: "POST", body })
    expect(answer.status).toBe(500)
    expect(answer.headers.get("content-type")).toBe("text/xml; charset=utf-8")
    expect(await answer.text()).toContain(`<faultcode>soap:${code}</faultcode>`)
  }
  expect((await fetch(endpoint)).status).toBe(405)
})

test("what cannot be done is answered by a fault that says what is wrong, and nothing is charged", async () => {
  const attemptId = `FOREIGN-${++made}`
  const message = Envelope.write({
    namespace: Soap.namespace,
    headers: { [Soap.attemptHeader]: attemptId },
    name: "ProcessPayment",
    fields: { orderId: "ORDER-4", amount: "10.00", currency: "USD" }
  })
  const invalid = "Client.InvalidRequest"
  for (const [body, code, reason] of [
    [message.slice(0, -1), "Client", "proper closing"],
    [message.replaceAll("ProcessPayment", "StealPayment"), invalid, "There is no operation StealPayment: there are"],
    [
      message.replace(`ProcessPayment xmlns="${Soap.namespace}"`, `ProcessPayment xmlns="urn:another"`),
      invalid,
      "ProcessPayment has to be in the namespace"
    ],
    [message.replace(attemptId, ""), invalid, "The header AttemptId has to carry the attempt&apos;s id"],
    [message.replaceAll("AttemptId", "TryId"), invalid, "The header AttemptId has to carry the attempt&apos;s id"],
    [message.replaceAll("10.00", "ten"), invalid, "amount"],
    [message.replaceAll("orderId", "cartId"), invalid, "ProcessPayment is not as the WSDL has it"]
  ] as const) {
    expect(body).not.toBe(message)
    const answer = await fetch(endpoint, { method: "POST", body, headers: { SOAPAction: '""' } })
    expect([answer.status, answer.headers.get("content-type")]).toEqual([500, "text/xml; charset=utf-8"])
    const text = await answer.text()
    expect(text).toContain(`<faultcode>soap:${code}</faultcode>`)
    expect(/<faultstring>([^<]*)/.exec(text)?.[1]).toContain(reason)
  }
  expect(await faultOf((await about(attemptId))("GetPayment"))).toMatchObject({ code: "UnknownAttempt" })
})

describe("a foreign server, by the WSDL", () => {
  const attemptId = AttemptId.make("ATTEMPT-7")
  const order = { orderId: OrderId.make("ORDER-7"), amountMinor: 1_250, currency: "USD" } as const
  const token = PaymentToken.make("tok_ok")

  /** Answers as told, and remembers what it understood. */
  const withServer = async (
    answer: (operation: string) => unknown,
    then: (url: string, understood: Array<unknown>) => Promise<void>
  ) => {
    const understood: Array<unknown> = []
    const http = createServer()
    await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve))
    const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}/soap/payments`
    const handler = (operation: string) => (args: unknown, _: unknown, headers: unknown) => {
      understood.push([operation, args, headers])
      return answer(operation)
    }
    const port = Object.fromEntries(Soap.operations.map((operation) => [operation, handler(operation)]))
    soap.listen(http, "/soap/payments", { PaymentGateway: { PaymentGatewaySoap: port } }, Soap.wsdl(url))
    try {
      await then(url, understood)
    } finally {
      http.closeAllConnections()
      http.close()
    }
  }

  const gatewayAt = (url: string) =>
    SoapGateway.make(url).pipe(
      Effect.provide(FetchHttpClient.layer),
      Effect.withTracerEnabled(false),
      Effect.runPromise
    )
  const run = <A, E>(asked: Effect.Effect<A, E>) => asked.pipe(Effect.withTracerEnabled(false), Effect.runPromise)

  test("understands our requests, and we its answers", () =>
    withServer(
      (operation) =>
        operation === "Refund"
          ? { attemptId, refundId: "REFUND-7", amount: "1.00", currency: "USD" }
          : { attemptId, orderId: "ORDER-7", amount: "12.5", currency: "USD", status: "authorised" },
      async (url, understood) => {
        const gateway = await gatewayAt(url)
        const held = { status: "authorised", reason: null } as const
        expect(await run(gateway.authorise({ attemptId, ...order, token }))).toEqual(held)
        expect(await run(gateway.find(attemptId))).toEqual(held)
        expect(await run(gateway.capture(attemptId))).toEqual(held)
        expect(await run(gateway.void(attemptId))).toEqual(held)
        const refundId = RefundId.make("REFUND-7")
        await run(gateway.refund({ attemptId, refundId, amountMinor: 100, currency: "USD" }))
        const headers = { AttemptId: attemptId }
        expect(understood).toMatchObject([
          ["Authorise", { orderId: "ORDER-7", amount: "12.50", currency: "USD", token: "tok_ok" }, headers],
          ["GetPayment", null, headers],
          ["Capture", null, headers],
          ["Void", null, headers],
          ["Refund", { refundId: "REFUND-7", amount: "1.00", currency: "USD" }, headers]
        ])
      }
    ))

  test("its own faults tell nothing of the money, ours do", async () => {
    const outcome = async (fault: unknown) => {
      let tag = ""
      await withServer(
        () => {
          throw fault
        },
        async (url) => {
          const gateway = await gatewayAt(url)
          tag = (await run(Effect.flip(gateway.authorise({ attemptId, ...order, token }))))._tag
        }
      )
      return tag
    }
    const fault = (detail: object) => ({
      Fault: { faultcode: "soap:Server", faultstring: "no", detail, statusCode: 500 }
    })
    const ours = (code: string) =>
      fault({ GatewayFault: { attributes: { xmlns: Soap.namespace }, code, message: "no" } })
    expect(await outcome(new Error("a NullPointerException"))).toBe("GatewayUnknown")
    expect(await outcome(fault({ Exception: "java.lang.OutOfMemoryError" }))).toBe("GatewayUnknown")
    expect(await outcome(ours("Unavailable"))).toBe("GatewayDown")
    expect(await outcome(ours("InvalidRequest"))).toBe("GatewayDown")
    expect(await outcome(ours("ConflictingRepeat"))).toBe("GatewayUnknown")
    expect(await outcome(ours("Sunday"))).toBe("GatewayUnknown")
  })
})

describe("the WSDL", () => {
  const text = Soap.wsdl("http://localhost:8090/soap/payments")

  test("is what partners have: it changes only additively, and on purpose", () => {
    const golden = new URL("./golden/PaymentGateway.wsdl", import.meta.url)
    expect(text).toBe(readFileSync(golden, "utf8"))
  })

  test("says where it is served, and nothing that a caller slips in", async () => {
    const served = await fetch(`${endpoint}?WSDL`)
    expect(served.headers.get("content-type")).toBe("text/xml; charset=utf-8")
    expect(await served.text()).toBe(Soap.wsdl(endpoint))
    expect(Soap.wsdl('http://x"/><evil/>')).toContain('location="http://x/evil/"')
  })

  test("and the types of the code promise the same", () => {
    const enumerations = (after: string) =>
      [
        ...((text.split(after)[1] ?? "").split("</xs:restriction>")[0] ?? "").matchAll(/enumeration value="(\w+)"/g)
      ].map(([, value]) => value ?? "")
    expect<ReadonlyArray<string>>(enumerations('simpleType name="Status"')).toEqual(AttemptStatus.literals)
    expect<ReadonlyArray<string>>(enumerations('element name="code"')).toEqual(Soap.GatewayFault.fields.code.literals)
    const elements = (after: string) =>
      [...((text.split(after)[1] ?? "").split("</xs:sequence>")[0] ?? "").matchAll(/<xs:element name="(\w+)"/g)].map(
        ([, name]) => name ?? ""
      )
    for (const [element, schema] of [
      ['element name="ProcessPayment"', Soap.ProcessPayment],
      ['element name="Authorise"', Soap.Authorise],
      ['element name="Refund"', Soap.Refund],
      ['element name="RefundResponse"', Soap.Refunded],
      ['complexType name="Payment"', Soap.Payment]
    ] as const) {
      expect(elements(element)).toEqual(Object.keys(schema.fields))
    }
    for (const operation of Soap.operations) {
      expect(text).toContain(`soapAction="${Soap.soapAction(operation)}"`)
    }
    expect([...text.matchAll(/<soap:operation /g)]).toHaveLength(Soap.operations.length)
  })
})
