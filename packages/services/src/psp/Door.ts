import { Context, Effect, Fiber, Layer, Scope } from "effect"
import { HttpServerResponse } from "effect/http"
import { SqlError } from "effect/sql"
import { ServerStatus } from "@merkato/infra/http/BunHttpServer"
import { isUnreachable } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { type Conduct, Conducts, type Mode, type Operation } from "./Conduct.ts"
import type { GatewayName } from "./Psp.ts"

/** What a gateway has to say, before it is an HTTP response. */
export interface Answer {
  readonly status: number
  readonly body: string
}

/** One gateway's way of talking. */
export interface Door {
  readonly gateway: GatewayName
  readonly contentType: string
  readonly unavailable: Answer
  /** Well-formed, and of no kind that anybody asked for. */
  readonly misshapen: Answer
}

interface Request {
  readonly operation: Operation
  readonly attemptId: string
  /** Of an authorisation: built-in tokens tell the gateway how to behave. */
  readonly token: string | undefined
}

/** What a token tells the gateway to do, where the control door did not tell it anything. */
const modeOf = (gateway: GatewayName, token: string | undefined): Mode => {
  switch (token) {
    case "tok_soap_down":
      return gateway === "soap" ? "down" : "ok"
    case "tok_all_down":
      return "down"
    case "tok_timeout":
      return "silent"
    case "tok_lost":
      return "mute"
    default:
      return "ok"
  }
}

/** Why the bank refuses a token; null when it takes it. */
export const declineOf = (token: string): string | null =>
  ["tok_ok", "tok_lost", "tok_timeout", "tok_soap_down", "tok_all_down"].includes(token) ? null : "the bank refused"

/** How long the gateway is silent when told to be: longer than any caller waits, but not when the server wants to stop. */
const silence = Effect.flatMap(ServerStatus, ({ awaitDraining }) =>
  Effect.race(Effect.sleep("60 seconds"), awaitDraining)
)

/** Bun closes the connection of a response whose stream fails before its first byte; without a word, if it fails with none. */
const dropped = Effect.sync(() =>
  HttpServerResponse.raw(new Response(new ReadableStream({ start: (controller) => controller.error() })))
)

const defaultDelayMs = 1_000

/** Without its books a gateway cannot tell what became of a request. To its caller that is unknown. */
const withoutBooks = Effect.catchDefect((defect) =>
  SqlError.isSqlError(defect) && isUnreachable(defect)
    ? Effect.as(
        Effect.logWarning("The books of the payment gateways are away", defect.message),
        HttpServerResponse.empty({ status: 500 })
      )
    : Effect.die(defect)
)

/** Lets the gateways answer, or misbehave as told. */
export class Doors extends Context.Service<
  Doors,
  {
    readonly answer: (
      door: Door,
      request: Request,
      work: Effect.Effect<Answer>
    ) => Effect.Effect<HttpServerResponse.HttpServerResponse>
  }
>()("merkato/psp/Doors") {
  static readonly layer = Layer.effect(
    Doors,
    Effect.gen(function* () {
      const conducts = yield* Conducts
      const scope = yield* Scope.Scope
      // A gateway does not stop working on what it was given because the caller has hung up.
      const toTheEnd = <A>(work: Effect.Effect<A>) => Effect.flatMap(Effect.forkIn(work, scope), Fiber.join)

      const respond = (door: Door, { body, status }: Answer) =>
        HttpServerResponse.text(body, { status, contentType: door.contentType })

      const conductOf = Effect.fnUntraced(function* (door: Door, { operation, token }: Request) {
        const told = yield* conducts.next(door.gateway, operation)
        return told.mode === "ok" ? ({ mode: modeOf(door.gateway, token) } satisfies Conduct) : told
      })

      const answer = Tracing.fn("Psp.answer")(function* (door: Door, request: Request, work: Effect.Effect<Answer>) {
        const conduct: Conduct = yield* conductOf(door, request)
        yield* Effect.annotateCurrentSpan({
          "psp.gateway": door.gateway,
          "psp.operation": request.operation,
          "psp.mode": conduct.mode
        })
        switch (conduct.mode) {
          case "ok":
            return respond(door, yield* toTheEnd(work))
          case "down":
            return respond(door, door.unavailable)
          case "slow":
            return respond(door, yield* toTheEnd(Effect.andThen(Effect.sleep(conduct.delayMs ?? defaultDelayMs), work)))
          case "silent":
            return yield* Effect.andThen(silence, dropped)
          case "mute":
            yield* toTheEnd(work)
            return yield* Effect.andThen(silence, dropped)
          case "lost":
            yield* toTheEnd(work)
            return yield* dropped
          case "twice": {
            const [, second] = yield* toTheEnd(Effect.all([work, work], { concurrency: 2 }))
            return respond(door, second)
          }
          case "garbage":
            yield* toTheEnd(work)
            return respond(door, { status: 200, body: "\u0002\u0001 <-- ok?" })
          case "misshapen":
            yield* toTheEnd(work)
            return respond(door, door.misshapen)
          case "truncated": {
            const { body, status } = yield* toTheEnd(work)
            return respond(door, { status, body: body.slice(0, body.length / 2) })
          }
          case "foreign": {
            const { body, status } = yield* toTheEnd(work)
            return respond(door, { status, body: body.replaceAll(request.attemptId, "SOMEBODY-ELSES") })
          }
        }
      }, withoutBooks)

      return Doors.of({ answer })
    })
  )
}
