// Gateways that do as a script says, and keep a book of their own. Their requests and answers can be lost, late or lies.
import { Deferred, Effect } from "effect"
import type { OperationName } from "@merkato/infra/policy/operations"
import {
  AttemptNotFound,
  type GatewayAttempt,
  GatewayDown,
  GatewayUnknown,
  type PaymentGateway,
  RefundRefused
} from "../src/payments/PaymentGateways.ts"

/**
 * What becomes of one request. `ok`: done and answered. `down`: refused, nothing done. `unknown`: nothing done, nothing
 * answered. `lost`: done, and the answer is lost. `late`: nothing answered, and done later (`arrive`). `silent`: done or
 * not as `lost`, and never answered: the caller's time runs out.
 */
export type Turn = "ok" | "down" | "unknown" | "lost" | "late" | "silent"

export const turns = ["ok", "down", "unknown", "lost", "late"] as const satisfies ReadonlyArray<Turn>

interface Entry {
  status: GatewayAttempt["status"]
  reason: string | null
  amountMinor: number
  readonly refunds: Map<string, number>
}

export interface ScriptedGateway extends PaymentGateway {
  /** What becomes of the next requests, one by one; then `usually`. */
  script: Array<Turn>
  usually: Turn
  declines: boolean
  refusesRefunds: boolean
  readonly book: Map<string, Entry>
  /** Every request that came, in order. */
  readonly asked: Array<string>
  /** Lets the requests that were late arrive now. */
  readonly arrive: () => void
  /** Called before each request is looked at. */
  before: (request: string) => Effect.Effect<void>
  readonly reset: () => void
}

const known = ({ status, reason }: Entry): GatewayAttempt => ({ status, reason })

export const make = (name: string, operation: OperationName): ScriptedGateway => {
  const book = new Map<string, Entry>()
  let late: Array<() => void> = []
  const turn = <A, E>(
    request: string,
    work: () => Effect.Effect<A, E>
  ): Effect.Effect<A, E | GatewayDown | GatewayUnknown> =>
    Effect.suspend(() => {
      gateway.asked.push(request)
      return gateway.before(request)
    }).pipe(
      Effect.andThen(
        Effect.suspend((): Effect.Effect<A, E | GatewayDown | GatewayUnknown> => {
          const next = gateway.script.shift() ?? gateway.usually
          const noAnswer = Effect.fail(new GatewayUnknown({ reason: `${next} answer` }))
          switch (next) {
            case "ok":
              return work()
            case "down":
              return Effect.fail(new GatewayDown({ reason: "connection refused" }))
            case "unknown":
              return noAnswer
            case "lost":
              return Effect.andThen(Effect.exit(work()), noAnswer)
            case "silent":
              return Effect.andThen(Effect.exit(work()), Effect.never)
            case "late":
              late.push(() => void Effect.runSync(Effect.exit(work())))
              return noAnswer
          }
        })
      )
    )
  const gateway: ScriptedGateway = {
    name,
    operation,
    script: [],
    usually: "ok",
    declines: false,
    refusesRefunds: false,
    book,
    asked: [],
    arrive: () => {
      const now = late
      late = []
      for (const request of now) request()
    },
    before: () => Effect.void,
    reset: () => {
      gateway.script = []
      gateway.usually = "ok"
      gateway.declines = false
      gateway.refusesRefunds = false
      gateway.before = () => Effect.void
      gateway.asked.length = 0
      book.clear()
      late = []
    },
    authorise: ({ attemptId, amountMinor }) =>
      turn("authorise", () => {
        const entry = book.get(attemptId) ?? {
          status: gateway.declines ? ("declined" as const) : ("authorised" as const),
          reason: gateway.declines ? "no funds" : null,
          amountMinor,
          refunds: new Map<string, number>()
        }
        book.set(attemptId, entry)
        return Effect.succeed(known(entry))
      }),
    find: (attemptId) =>
      turn("find", () => {
        const entry = book.get(attemptId)
        return entry === undefined ? Effect.fail(new AttemptNotFound()) : Effect.succeed(known(entry))
      }),
    capture: (attemptId) =>
      turn("capture", () => {
        const entry = book.get(attemptId)
        if (entry === undefined) return Effect.fail(new GatewayUnknown({ reason: "unknown attempt" }))
        if (entry.status === "authorised") entry.status = "captured"
        return Effect.succeed(known(entry))
      }),
    void: (attemptId) =>
      turn("void", () => {
        const entry = book.get(attemptId) ?? { status: "authorised", reason: null, amountMinor: 0, refunds: new Map() }
        book.set(attemptId, entry)
        if (entry.status === "authorised") Object.assign(entry, { status: "voided", reason: "voided" })
        return Effect.succeed(known(entry))
      }),
    refund: ({ attemptId, refundId, amountMinor }) =>
      turn("refund", () => {
        const entry = book.get(attemptId)
        const back = [...(entry?.refunds ?? [])].reduce((sum, [id, minor]) => (id === refundId ? sum : sum + minor), 0)
        if (gateway.refusesRefunds) return Effect.fail(new RefundRefused({ reason: "too late" }))
        if (entry?.status !== "captured" || back + amountMinor > entry.amountMinor) {
          return Effect.fail(new RefundRefused({ reason: "more than was captured" }))
        }
        entry.refunds.set(refundId, amountMinor)
        return Effect.void
      })
  }
  return gateway
}

/** Stops whoever comes by until it is opened, and tells when somebody has come. */
export const gate = Effect.gen(function* () {
  const arrived = yield* Deferred.make<void>()
  const opened = yield* Deferred.make<void>()
  return {
    pass: Effect.andThen(Deferred.succeed(arrived, undefined), Deferred.await(opened)),
    arrived: Deferred.await(arrived),
    open: Deferred.succeed(opened, undefined)
  }
})
