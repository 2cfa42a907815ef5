// The port to payment gateways, held against each of its sides over real HTTP: the test gateways as they should be, as
// they are told to misbehave, and servers that are no gateways at all.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test"
import { Effect, Exit, Fiber, Layer, Logger, type Redacted, Result, Scope } from "effect"
import { FetchHttpClient, HttpServer } from "effect/http"
import { SqlClient } from "effect/sql"
import { AttemptId, OrderId, RefundId } from "@merkato/domain/kernel/Ids"
import { type Currency, maxMinor } from "@merkato/domain/kernel/Money"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import * as Database from "@merkato/infra/postgres/Database"
import * as TestDatabase from "@merkato/infra/postgres/TestDatabase"
import { freePort } from "@merkato/infra/runtime/Ports"
import * as Envelope from "@merkato/infra/soap/Envelope"
import * as Soap from "@merkato/rpc/payments/PaymentGatewaySoap"
import * as PaymentProviders from "../src/paymentProviders.ts"
import type { PaymentGateway } from "../src/payments/PaymentGateways.ts"
import * as RestGateway from "../src/payments/RestGateway.ts"
import * as SoapGateway from "../src/payments/SoapGateway.ts"
import { gatewayRules } from "../../../tests/support/GatewayBooks.ts"

const scope = Scope.makeUnsafe()
let url: Redacted.Redacted | undefined
let baseUrl = ""

const quiet = <A, E>(effect: Effect.Effect<A, E>) =>
  effect.pipe(Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Effect.runPromise)

const inBooks = <A, E>(look: Effect.Effect<A, E, SqlClient.SqlClient>): Promise<A> => {
  if (url === undefined) throw new Error("there is no database")
  return quiet(Effect.provide(look, Database.layer({ url, maxConnections: 1, applicationName: "test" })))
}

beforeAll(
  () =>
    Effect.gen(function* () {
      const database = yield* TestDatabase.fresh
      url = database.url
      const services = yield* Layer.build(PaymentProviders.testGateways(database.url, { port: 0, drainTimeout: 200 }))
      const { address } = yield* Effect.provideContext(HttpServer.HttpServer, services)
      baseUrl = `http://127.0.0.1:${"port" in address ? address.port : 0}`
    }).pipe(Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Scope.provide(scope), Effect.runPromise),
  60_000
)

afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

/** The sides of the port, at a server that answers for both. */
const sides = {
  soap: (at: string) => SoapGateway.make(`${at}/soap/payments`),
  rest: (at: string) => RestGateway.make(at)
} as const
type Side = keyof typeof sides

const control = async (side: Side, conduct: object) => {
  const answer = await fetch(`${baseUrl}/control/${side}`, { method: "PUT", body: JSON.stringify(conduct) })
  expect(answer.status).toBe(200)
}

afterEach(async () => {
  await control("soap", { mode: "ok" })
  await control("rest", { mode: "ok" })
  const wrong = await inBooks(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const found: Array<unknown> = []
      for (const [what, violations] of gatewayRules(sql)) {
        const rows = yield* violations
        if (rows.length > 0) found.push([what, rows])
      }
      return found
    })
  )
  expect(wrong).toEqual([])
})

let made = 0
const order = (amountMinor = 1_250, token = "tok_ok", currency: Currency = "USD") => {
  const nth = ++made
  return {
    attemptId: AttemptId.make(`ATTEMPT-${nth}`),
    orderId: OrderId.make(`ORDER-${nth}`),
    amountMinor,
    currency,
    token: PaymentToken.make(token)
  }
}
const refundId = () => RefundId.make(`REFUND-${++made}`)

/** An answer, or the tag of the error. */
const told = <A, E extends { readonly _tag: string }>(asked: Effect.Effect<A, E>) =>
  Effect.map(Effect.result(asked), (result) => (Result.isSuccess(result) ? result.success : result.failure._tag))

const authorised = { status: "authorised", reason: null } as const
const captured = { status: "captured", reason: null } as const
const declined = { status: "declined", reason: "the bank refused" } as const
const voided = { status: "voided", reason: "voided" } as const

/** Asks, and does not wait long. */
const impatiently = <A, E extends { readonly _tag: string }>(asked: Effect.Effect<A, E>) =>
  Effect.timeoutOption(told(asked), "200 millis")

/** Authorises without ever hearing an answer, until the gateway has it; a busy machine may not get as far the first time. */
const unheard = (gateway: PaymentGateway, request: ReturnType<typeof order>) =>
  Effect.gen(function* () {
    expect((yield* impatiently(gateway.authorise(request)))._tag).toBe("None")
    return yield* told(gateway.find(request.attemptId))
  }).pipe(
    Effect.repeat({ until: (found) => found !== "AttemptNotFound", times: 20 }),
    Effect.map((found) => expect(found).toEqual(authorised))
  )

/** A port at which nobody listens. */
const nobody = async () => `http://127.0.0.1:${await freePort()}`

/** A server that reads a request and does what it is told to its socket. */
const listening = <A>(
  answer: (socket: Bun.Socket, request: string) => void,
  then: (at: string) => Promise<A>,
  onClose: () => void = () => {}
) => {
  const server = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { data: (socket, data) => answer(socket, data.toString()), close: onClose }
  })
  return then(`http://127.0.0.1:${server.port}`).finally(() => server.stop(true))
}

const http = (status: string, body: string, ...headers: ReadonlyArray<string>) =>
  [`HTTP/1.1 ${status}`, ...headers, `Content-Length: ${Buffer.byteLength(body)}`, "", body].join("\r\n")

for (const side of ["soap", "rest"] as const)
  describe(side, () => {
    const at = <A, E>(base: string, does: (gateway: PaymentGateway) => Effect.Effect<A, E>) =>
      quiet(Effect.flatMap(sides[side](base), does).pipe(Effect.provide(FetchHttpClient.layer)))
    const run = <A, E>(does: (gateway: PaymentGateway) => Effect.Effect<A, E>) => at(baseUrl, does)

    test("money is held, taken, and given back in parts", () =>
      run((gateway) =>
        Effect.gen(function* () {
          const request = order(1_000)
          const { attemptId } = request
          expect(gateway.name).toBe(side)
          expect(yield* gateway.authorise(request)).toEqual(authorised)
          expect(yield* gateway.find(attemptId)).toEqual(authorised)
          expect(yield* gateway.capture(attemptId)).toEqual(captured)
          yield* gateway.refund({ attemptId, refundId: refundId(), amountMinor: 400, currency: "USD" })
          yield* gateway.refund({ attemptId, refundId: refundId(), amountMinor: 600, currency: "USD" })
          expect(yield* gateway.find(attemptId)).toEqual(captured)
          const more = gateway.refund({ attemptId, refundId: refundId(), amountMinor: 1, currency: "USD" })
          expect(yield* told(more)).toBe("RefundRefused")
        })
      ))

    test("every operation may be repeated, in a row and at once, and moves money once", () =>
      run((gateway) =>
        Effect.gen(function* () {
          const request = order(1_000)
          const { attemptId } = request
          const refund = { attemptId, refundId: refundId(), amountMinor: 600, currency: "USD" } as const
          const often = <A, E>(asked: Effect.Effect<A, E>) =>
            Effect.all([asked, asked, asked, asked, asked, asked, asked, asked], { concurrency: "unbounded" })
          const eight = <A>(answer: A) => Array.from({ length: 8 }, () => answer)
          expect<unknown>(yield* often(gateway.authorise(request))).toEqual(eight(authorised))
          expect(yield* gateway.authorise(request)).toEqual(authorised)
          expect<unknown>(yield* often(gateway.capture(attemptId))).toEqual(eight(captured))
          expect(yield* gateway.authorise(request)).toEqual(captured)
          yield* often(gateway.refund(refund))
          // 600 of 1,000 twice would have been refused.
          yield* gateway.refund(refund)
          const other = order()
          yield* gateway.authorise(other)
          expect<unknown>(yield* often(gateway.void(other.attemptId))).toEqual(eight(voided))
        })
      ))

    test("a repeat that says something else is not done, and not taken for the first", () =>
      run((gateway) =>
        Effect.gen(function* () {
          const request = order(1_000)
          const { attemptId } = request
          yield* gateway.authorise(request)
          for (const other of [
            { ...request, amountMinor: 1_001 },
            { ...request, currency: "EUR" as const },
            { ...request, orderId: OrderId.make("ANOTHER") }
          ]) {
            expect(yield* told(gateway.authorise(other))).toBe("GatewayUnknown")
          }
          expect(yield* gateway.capture(attemptId)).toEqual(captured)
          const refund = { attemptId, refundId: refundId(), amountMinor: 100, currency: "USD" } as const
          yield* gateway.refund(refund)
          const second = order(1_000)
          yield* gateway.authorise(second)
          yield* gateway.capture(second.attemptId)
          for (const other of [
            { ...refund, amountMinor: 101 },
            { ...refund, currency: "EUR" as const },
            { ...refund, attemptId: second.attemptId }
          ]) {
            expect(yield* told(gateway.refund(other))).toBe("RefundRefused")
          }
        })
      ))

    test("a refusal of the bank is final", () =>
      run((gateway) =>
        Effect.gen(function* () {
          for (const token of ["tok_declined", "tok_of_a_stranger"]) {
            const request = order(1_000, token)
            expect(yield* gateway.authorise(request)).toEqual(declined)
            expect(yield* gateway.capture(request.attemptId)).toEqual(declined)
            expect(yield* gateway.void(request.attemptId)).toEqual(declined)
            expect(yield* gateway.authorise({ ...request, token: PaymentToken.make("tok_ok") })).toEqual(declined)
          }
        })
      ))

    test("what it never heard of is not found, and nothing is taken or given back", () =>
      run((gateway) =>
        Effect.gen(function* () {
          const { attemptId } = order()
          expect(yield* told(gateway.find(attemptId))).toBe("AttemptNotFound")
          expect(yield* told(gateway.capture(attemptId))).toBe("GatewayUnknown")
          const refund = { attemptId, refundId: refundId(), amountMinor: 1, currency: "USD" } as const
          expect(yield* told(gateway.refund(refund))).toBe("RefundRefused")
          expect(yield* told(gateway.find(attemptId))).toBe("AttemptNotFound")
        })
      ))

    test("what is voided is never taken, and what is taken is not voided", () =>
      run((gateway) =>
        Effect.gen(function* () {
          const held = order()
          yield* gateway.authorise(held)
          expect(yield* gateway.void(held.attemptId)).toEqual(voided)
          expect(yield* gateway.capture(held.attemptId)).toEqual(voided)
          expect(yield* gateway.authorise(held)).toEqual(voided)
          const early = order()
          expect(yield* gateway.void(early.attemptId)).toEqual(voided)
          expect(yield* gateway.authorise(early)).toEqual(voided)
          expect(yield* gateway.find(early.attemptId)).toEqual(voided)
          const taken = order()
          yield* gateway.authorise(taken)
          yield* gateway.capture(taken.attemptId)
          expect(yield* gateway.void(taken.attemptId)).toEqual(captured)
        })
      ))

    test("what is asked at one moment is answered to each for itself", () =>
      run((gateway) =>
        Effect.gen(function* () {
          const plain = Array.from({ length: 12 }, (_, nth) =>
            order(1_000 + nth, "tok_ok", nth % 2 === 0 ? "USD" : "KWD")
          )
          const refused = order(500, "tok_declined")
          const [first, early] = [order(700), order(800)]
          yield* gateway.void(early.attemptId)
          const together = <A, B, E extends { readonly _tag: string }>(
            requests: ReadonlyArray<A>,
            ask: (request: A) => Effect.Effect<B, E>
          ) => Effect.forEach(requests, (request) => told(ask(request)), { concurrency: "unbounded" })
          const others = [refused, first, { ...first, amountMinor: 701 }, early]
          const answers = yield* together([...plain, ...others], gateway.authorise)
          expect(answers.slice(0, plain.length)).toEqual(plain.map(() => authorised))
          const [bank, ...same] = answers.slice(plain.length)
          expect(bank).toEqual(declined)
          // Either of the two for one attempt may be first; the other one is not the same request.
          expect(
            same.slice(0, 2).toSorted((a, b) => (typeof a === typeof b ? 0 : typeof a === "string" ? 1 : -1))
          ).toEqual([authorised, "GatewayUnknown"])
          expect(same[2]).toEqual(voided)
          const unheard = order().attemptId
          const ids = plain.map(({ attemptId }) => attemptId)
          expect(
            yield* together([...ids, ...ids, refused.attemptId, early.attemptId, unheard], gateway.capture)
          ).toEqual([...[...ids, ...ids].map(() => captured), declined, voided, "GatewayUnknown"])
        })
      ))

    test("only what was captured is given back", () =>
      run((gateway) =>
        Effect.gen(function* () {
          const { attemptId, ...request } = order()
          const refund = (currency: Currency = "USD") =>
            told(gateway.refund({ attemptId, refundId: refundId(), amountMinor: 1, currency }))
          yield* gateway.authorise({ attemptId, ...request })
          expect(yield* refund()).toBe("RefundRefused")
          yield* gateway.capture(attemptId)
          expect(yield* refund("EUR")).toBe("RefundRefused")
          expect(yield* refund()).toBeUndefined()
        })
      ))

    test("refunds at the same moment give back no more than was captured", () =>
      run((gateway) =>
        Effect.gen(function* () {
          const { attemptId, ...request } = order(1_000)
          yield* gateway.authorise({ attemptId, ...request })
          yield* gateway.capture(attemptId)
          const outcomes = yield* Effect.forEach(
            Array.from({ length: 20 }, refundId),
            (id) => told(gateway.refund({ attemptId, refundId: id, amountMinor: 150, currency: "USD" })),
            { concurrency: "unbounded" }
          )
          expect(outcomes.filter((outcome) => outcome === undefined)).toHaveLength(6)
          expect(outcomes.filter((outcome) => outcome === "RefundRefused")).toHaveLength(14)
        })
      ))

    test("amounts arrive exactly, in every number of decimals", async () => {
      const orders = [
        [1, "USD", "0.01"],
        [110, "EUR", "1.10"],
        [maxMinor, "GBP", "10000000000000.00"],
        [maxMinor - 1, "USD", "9999999999999.99"],
        [7, "JPY", "7"],
        [1_001, "KWD", "1.001"],
        [maxMinor - 1, "BHD", "999999999999.999"],
        [0, "USD", "0.00"]
      ] as const
      const requests = orders.map(([amountMinor, currency]) => order(amountMinor, "tok_ok", currency))
      await run((gateway) => Effect.forEach(requests, gateway.authorise))
      const booked = await inBooks(
        Effect.flatMap(
          SqlClient.SqlClient,
          (sql) => sql<{ id: string; amount: string; currency: string }>`
            select attempt_id as id, amount::text, currency from psp.attempts where gateway = ${side}`
        )
      )
      for (const [nth, [, currency, amount]] of orders.entries()) {
        const row = booked.find(({ id }) => id === requests[nth]?.attemptId)
        expect([row?.currency, Number(row?.amount)]).toEqual([currency, Number(amount)])
        expect(row?.amount.replace(/\.?0+$/, "")).toBe(amount.replace(/\.?0+$/, ""))
      }
    })

    test("it is a provider of its own: what it holds, the other has never heard of", () =>
      run((gateway) =>
        Effect.gen(function* () {
          const request = order()
          yield* gateway.authorise(request)
          const other = yield* sides[side === "soap" ? "rest" : "soap"](baseUrl)
          expect(yield* told(other.find(request.attemptId))).toBe("AttemptNotFound")
        }).pipe(Effect.provide(FetchHttpClient.layer))
      ))

    test("the built-in tokens do as the contract says", () =>
      run((gateway) =>
        Effect.gen(function* () {
          const soapDown = order(1_000, "tok_soap_down")
          expect(yield* told(gateway.authorise(soapDown))).toEqual(side === "soap" ? "GatewayDown" : authorised)
          const down = order(1_000, "tok_all_down")
          expect(yield* told(gateway.authorise(down))).toBe("GatewayDown")
          expect(yield* told(gateway.find(down.attemptId))).toBe("AttemptNotFound")
          const silent = order(1_000, "tok_timeout")
          expect((yield* impatiently(gateway.authorise(silent)))._tag).toBe("None")
          expect(yield* told(gateway.find(silent.attemptId))).toBe("AttemptNotFound")
          const lost = order(1_000, "tok_lost")
          yield* unheard(gateway, lost)
          // However often it is asked for, the answer to it is lost; to ask how it stands is another question.
          expect((yield* impatiently(gateway.authorise(lost)))._tag).toBe("None")
          expect(yield* gateway.capture(lost.attemptId)).toEqual(captured)
        })
      ))

    test("down: nothing was done, whatever was asked", async () => {
      const held = order()
      const { attemptId } = held
      await run((gateway) => gateway.authorise(held))
      await control(side, { mode: "down" })
      await run((gateway) =>
        Effect.gen(function* () {
          expect(yield* told(gateway.authorise(order()))).toBe("GatewayDown")
          expect(yield* told(gateway.find(attemptId))).toBe("GatewayDown")
          expect(yield* told(gateway.capture(attemptId))).toBe("GatewayDown")
          expect(yield* told(gateway.void(attemptId))).toBe("GatewayDown")
          const refund = { attemptId, refundId: refundId(), amountMinor: 1, currency: "USD" } as const
          expect(yield* told(gateway.refund(refund))).toBe("GatewayDown")
        })
      )
      await control(side, { mode: "ok" })
      expect<unknown>(await run((gateway) => gateway.find(attemptId))).toEqual(authorised)
    })

    for (const mode of ["lost", "garbage", "misshapen", "truncated", "foreign"])
      test(`${mode}: what was done is unknown until it is asked for`, async () => {
        const request = order()
        const { attemptId } = request
        const refund = { attemptId, refundId: refundId(), amountMinor: 1, currency: "USD" } as const
        const operations = ["authorise", "capture", "refund"]
        await control(side, { mode, operations })
        await run((gateway) =>
          Effect.gen(function* () {
            expect(yield* told(gateway.authorise(request))).toBe("GatewayUnknown")
            expect(yield* gateway.find(attemptId)).toEqual(authorised)
            expect(yield* told(gateway.capture(attemptId))).toBe("GatewayUnknown")
            expect(yield* gateway.find(attemptId)).toEqual(captured)
            expect(yield* told(gateway.refund(refund))).toBe("GatewayUnknown")
          })
        )
        await control(side, { mode, operations: ["find", "void"] })
        await run((gateway) =>
          Effect.gen(function* () {
            yield* gateway.refund(refund)
            expect(yield* told(gateway.find(attemptId))).toBe("GatewayUnknown")
            expect(yield* told(gateway.void(attemptId))).toBe("GatewayUnknown")
          })
        )
      })

    test("mute, and slow: it does the work though nobody waits for the answer", async () => {
      for (const conduct of [{ mode: "mute" }, { mode: "slow", delayMs: 400 }]) {
        const request = order()
        await control(side, { ...conduct, operations: ["authorise"] })
        await run((gateway) => unheard(gateway, request))
      }
    })

    test("silent: it does nothing", async () => {
      const request = order()
      await control(side, { mode: "silent", operations: ["authorise"] })
      await run((gateway) =>
        Effect.gen(function* () {
          expect((yield* impatiently(gateway.authorise(request)))._tag).toBe("None")
          expect(yield* told(gateway.find(request.attemptId))).toBe("AttemptNotFound")
        })
      )
    })

    test("slow: an authorisation that arrives after its void holds nothing", async () => {
      const request = order()
      await control(side, { mode: "slow", delayMs: 1_500, operations: ["authorise"] })
      await run((gateway) =>
        Effect.gen(function* () {
          const late = yield* Effect.forkChild(gateway.authorise(request))
          expect(yield* gateway.void(request.attemptId)).toEqual(voided)
          expect(yield* Fiber.join(late)).toEqual(voided)
        })
      )
    })

    test("twice: what is asked once and handled twice moves money once", async () => {
      const { attemptId, ...request } = order(1_000)
      await control(side, { mode: "twice" })
      await run((gateway) =>
        Effect.gen(function* () {
          expect(yield* gateway.authorise({ attemptId, ...request })).toEqual(authorised)
          expect(yield* gateway.capture(attemptId)).toEqual(captured)
          yield* gateway.refund({ attemptId, refundId: refundId(), amountMinor: 600, currency: "USD" })
          yield* gateway.refund({ attemptId, refundId: refundId(), amountMinor: 400, currency: "USD" })
          expect(yield* gateway.void(attemptId)).toEqual(captured)
        })
      )
    })

    describe("a server that is no gateway", () => {
      const outcome = (base: string, does: (gateway: PaymentGateway) => Effect.Effect<unknown, { _tag: string }>) =>
        at(base, (gateway) => told(does(gateway)))

      test("nobody takes the connection, or there is no such host: certainly nothing was sent", async () => {
        for (const base of [await nobody(), "http://nowhere.invalid"]) {
          expect(await outcome(base, (gateway) => gateway.authorise(order()))).toBe("GatewayDown")
          expect(await outcome(base, (gateway) => gateway.find(order().attemptId))).toBe("GatewayDown")
        }
      })

      for (const [what, answer, expected] of [
        ["503 in whatever words", http("503 Service Unavailable", "<h1>Busy</h1>"), "GatewayDown"],
        ["a page that is not found", http("404 Not Found", "<h1>Not found</h1>"), "GatewayUnknown"],
        ["an error", http("500 Internal Server Error", ""), "GatewayUnknown"],
        ["a bad gateway", http("502 Bad Gateway", "<h1>Bad Gateway</h1>"), "GatewayUnknown"],
        ["a page", http("200 OK", "<html><body>Welcome</body></html>", "Content-Type: text/html"), "GatewayUnknown"],
        ["nothing", http("200 OK", ""), "GatewayUnknown"],
        ["no content", "HTTP/1.1 204 No Content\r\n\r\n", "GatewayUnknown"],
        ["no HTTP", "220 mail.example.com ESMTP\r\n", "GatewayUnknown"],
        ["a connection that closes", "", "GatewayUnknown"],
        ["an answer that breaks off", "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", "GatewayUnknown"]
      ] as const)
        test(what, () =>
          listening(
            (socket) => {
              socket.write(answer)
              socket.end()
            },
            async (base) => {
              expect(await outcome(base, (gateway) => gateway.authorise(order()))).toBe(expected)
              expect(await outcome(base, (gateway) => gateway.find(order().attemptId))).toBe(expected)
            }
          )
        )

      test("what it says of another order, amount or currency, or at great length, is not believed", async () => {
        const request = order(1_250)
        const { attemptId, orderId } = request
        const answered = (changed: Partial<Record<"orderId" | "amount" | "currency", string>>, padding = "") => {
          const payment = { orderId, amount: "12.50", currency: "USD", ...changed }
          const body =
            side === "soap"
              ? Envelope.write({
                  namespace: Soap.namespace,
                  name: "AuthoriseResponse",
                  fields: { attemptId, ...payment, status: "authorised" }
                })
              : JSON.stringify({
                  attemptId,
                  ...payment,
                  amount: Number(payment.amount),
                  status: "authorised",
                  reason: null,
                  refundedAmount: 0
                })
          return listening(
            (socket) => socket.end(http("200 OK", `${body}${padding}`)),
            (base) => outcome(base, (gateway) => gateway.authorise(request))
          )
        }
        expect(await answered({})).toEqual(authorised)
        expect(await answered({ amount: "12.5" })).toEqual(authorised)
        expect(await answered({ orderId: "ANOTHER" })).toBe("GatewayUnknown")
        expect(await answered({ amount: "12.51" })).toBe("GatewayUnknown")
        expect(await answered({ amount: "12.501" })).toBe("GatewayUnknown")
        expect(await answered({ currency: "EUR" })).toBe("GatewayUnknown")
        expect(await answered({ currency: "XAU" })).toBe("GatewayUnknown")
        // What is longer than any answer is not read to its end, though it would make sense.
        expect(await answered({}, " ".repeat(1_000))).toEqual(authorised)
        expect(await answered({}, " ".repeat(100_000))).toBe("GatewayUnknown")
      })

      test("a redirect is not followed", async () => {
        const asked: Array<string> = []
        const server = Bun.serve({
          port: 0,
          hostname: "127.0.0.1",
          fetch: ({ url }) => {
            asked.push(new URL(url).pathname)
            return new Response("", { status: 307, headers: { location: "/elsewhere" } })
          }
        })
        const told = await outcome(server.url.origin, (gateway) => gateway.void(order().attemptId))
        await server.stop(true)
        expect(told).toBe("GatewayUnknown")
        expect(asked).toHaveLength(1)
        expect(asked).not.toContain("/elsewhere")
      })

      test("a request is sent once, whatever comes of it", () => {
        let asked = 0
        return listening(
          (socket) => {
            asked++
            socket.end()
          },
          async (base) => {
            expect(await outcome(base, (gateway) => gateway.capture(order().attemptId))).toBe("GatewayUnknown")
            expect(asked).toBe(1)
          }
        )
      })

      test("an interruption ends the request", () => {
        const heard = Promise.withResolvers<void>()
        const closed = Promise.withResolvers<void>()
        return listening(
          () => heard.resolve(),
          (base) =>
            at(base, (gateway) =>
              Effect.gen(function* () {
                const asking = yield* Effect.forkChild(gateway.authorise(order()))
                yield* Effect.promise(() => heard.promise)
                yield* Fiber.interrupt(asking)
                yield* Effect.promise(() => closed.promise)
              })
            ),
          closed.resolve
        )
      })
    })
  })

describe("the control door", () => {
  const ask = async (path: string, init?: RequestInit) => {
    const answer = await fetch(`${baseUrl}${path}`, init)
    return { status: answer.status, body: await answer.json() }
  }
  const put = (path: string, body: unknown) => ask(path, { method: "PUT", body: JSON.stringify(body) })

  test("tells each gateway apart, counts down, and shows what is left", async () => {
    expect(await put("/control/soap", { mode: "down", forNext: 2, operations: ["find"] })).toMatchObject({
      status: 200
    })
    const find = () => fetch(`${baseUrl}/v1/attempts/X`).then(({ status }) => status)
    expect(await find()).toBe(404)
    expect((await put("/control/rest", { mode: "down", forNext: 2 })).status).toBe(200)
    expect(await find()).toBe(503)
    expect((await ask("/control/rest")).body).toEqual({ mode: "down", forNext: 1 })
    expect(await find()).toBe(503)
    expect((await ask("/control/rest")).body).toEqual({ mode: "ok" })
    expect(await find()).toBe(404)
    expect((await ask("/control/soap")).body).toEqual({ mode: "down", forNext: 2, operations: ["find"] })
    expect((await put("/control/rest", { mode: "down", rate: 0 })).status).toBe(200)
    expect(await find()).toBe(404)
    expect((await put("/control/rest", { mode: "down", rate: 0, rates: { find: 1 } })).status).toBe(200)
    expect(await find()).toBe(503)
    expect((await put("/control/rest", { mode: "down", rates: { find: 0 } })).status).toBe(200)
    expect(await find()).toBe(404)
  })

  test("refuses what it does not know", async () => {
    for (const [path, body] of [
      ["/control/card", { mode: "ok" }],
      ["/control/soap", { mode: "upside-down" }],
      ["/control/soap", { mode: "down", forNext: 0 }],
      ["/control/soap", { mode: "slow", delayMs: -1 }],
      ["/control/soap", { mode: "down", rates: { find: 2 } }],
      ["/control/soap", "down"]
    ] as const) {
      expect(await put(path, body)).toMatchObject({ status: 400, body: { code: "invalid_request" } })
    }
    expect((await ask("/control/soap")).body).toEqual({ mode: "ok" })
  })
})
