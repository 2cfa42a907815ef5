import { Effect, Schema } from "effect"
import type * as Ids from "@merkato/domain/kernel/Ids"
import { Policies } from "@merkato/infra/policy/Policies"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import {
  type AttemptNotFound,
  type GatewayAttempt,
  GatewayDown,
  GatewayUnknown,
  type PaymentGateway,
  PaymentGateways,
  type RefundRefused
} from "./PaymentGateways.ts"

/** The gateway did not answer, within what its policy allows: what it did, or knows, has to be found out later. */
export class NoAnswer extends Schema.TaggedError<NoAnswer>()("NoAnswer", {
  gateway: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `${this.gateway}: ${this.reason}`
  }
}

/**
 * What came of asking a gateway to hold money. `Answered`: it says how the attempt stands. `NotThere`: it was asked in
 * vain, and then said that it does not know the attempt; one under way may still reach it. `Refused`: nothing reached it,
 * or it worked on nothing; certain, as far as this call goes. `Doubtful`: nobody can tell.
 */
export type Asked =
  | { readonly _tag: "Answered"; readonly attempt: GatewayAttempt }
  | { readonly _tag: "NotThere" }
  | { readonly _tag: "Refused"; readonly reason: string; readonly retryAfterSeconds: number | undefined }
  | { readonly _tag: "Doubtful"; readonly reason: string }

const isDown = Schema.is(GatewayDown)
const isUnknown = Schema.is(GatewayUnknown)

/** Worth another attempt: neither the shopper's bank nor the gateway's books have spoken. */
const transient = (error: unknown): boolean => isDown(error) || isUnknown(error)

const inWords = (error: { readonly _tag: string; readonly message: string }): string =>
  "reason" in error && typeof error.reason === "string" ? error.reason : error.message

/** Every call to a gateway, under its policy. */
export const make = Effect.gen(function* () {
  const { inOrder } = yield* PaymentGateways
  const policies = yield* Policies
  const byName = new Map(inOrder.map((gateway) => [gateway.name, gateway]))

  /** An attempt may be at a gateway that this deployment has no more: then nobody can say how it stands. */
  const gatewayOf = (name: string): Effect.Effect<PaymentGateway, NoAnswer> => {
    const gateway = byName.get(name)
    return gateway === undefined
      ? Effect.fail(new NoAnswer({ gateway: name, reason: "there is no such gateway here" }))
      : Effect.succeed(gateway)
  }

  const guarded = <A, E extends { readonly _tag: string; readonly message: string }>(
    name: string,
    call: (gateway: PaymentGateway) => Effect.Effect<A, E>
  ) =>
    Effect.flatMap(gatewayOf(name), (gateway) =>
      policies
        .guard<E>(gateway.operation, { transient })(call(gateway))
        .pipe(Tracing.withSpan("Payments.gateway", { attributes: { gateway: name } }))
    )

  const noAnswer = (gateway: string) => (error: { readonly _tag: string; readonly message: string }) =>
    Effect.fail(new NoAnswer({ gateway, reason: inWords(error) }))

  /** How an attempt stands at a gateway; undefined when it has never heard of it. */
  const find = (name: string, attemptId: Ids.AttemptId): Effect.Effect<GatewayAttempt | undefined, NoAnswer> =>
    guarded(name, (gateway) => gateway.find(attemptId)).pipe(
      Effect.catch((error) => (isNotFound(error) ? Effect.succeed(undefined) : noAnswer(name)(error)))
    )

  const voidAttempt = (name: string, attemptId: Ids.AttemptId): Effect.Effect<GatewayAttempt, NoAnswer> =>
    guarded(name, (gateway) => gateway.void(attemptId)).pipe(Effect.catch(noAnswer(name)))

  const capture = (name: string, attemptId: Ids.AttemptId): Effect.Effect<GatewayAttempt, NoAnswer> =>
    guarded(name, (gateway) => gateway.capture(attemptId)).pipe(Effect.catch(noAnswer(name)))

  const refund = (
    name: string,
    request: Parameters<PaymentGateway["refund"]>[0]
  ): Effect.Effect<void, RefundRefused | NoAnswer> =>
    guarded(name, (gateway) => gateway.refund(request)).pipe(
      Effect.catch(
        (error): Effect.Effect<never, RefundRefused | NoAnswer> =>
          error._tag === "RefundRefused" ? Effect.fail(error) : noAnswer(name)(error)
      )
    )

  /**
   * Asks a gateway to hold money. An attempt whose end is not known is never followed by another charge: from then on the
   * gateway is asked what became of it. Certain is only what holds for every attempt of the call: what was started must
   * have ended as certainly refused, one by one. An attempt that was cut off has not.
   */
  const authorise = (name: string, request: Parameters<PaymentGateway["authorise"]>[0]): Effect.Effect<Asked> =>
    Effect.suspend(() => {
      let started = 0
      let refused = 0
      const charge = (gateway: PaymentGateway) =>
        Effect.suspend(() => {
          started += 1
          return Effect.tapError(gateway.authorise(request), (error) =>
            Effect.sync(() => {
              if (isDown(error)) refused += 1
            })
          )
        })
      return guarded(name, (gateway) =>
        Effect.suspend(
          (): ReturnType<PaymentGateway["find"]> =>
            started === refused ? charge(gateway) : gateway.find(request.attemptId)
        )
      ).pipe(
        Effect.map((attempt): Asked => ({ _tag: "Answered", attempt })),
        Effect.catch((error): Effect.Effect<Asked> => {
          if (isNotFound(error)) return Effect.succeed({ _tag: "NotThere" })
          const reason = inWords(error)
          if (started !== refused || error._tag === "NoAnswer") return Effect.succeed({ _tag: "Doubtful", reason })
          const retryAfterSeconds = error._tag === "CircuitOpen" ? error.retryAfterSeconds : undefined
          return Effect.succeed({ _tag: "Refused", reason, retryAfterSeconds })
        })
      )
    })

  return {
    /** Where an attempt begins. */
    first: inOrder[0].name,
    /** Where an attempt goes on that has left this one; undefined after the last. */
    after: (name: string): string | undefined => {
      const at = inOrder.findIndex((gateway) => gateway.name === name)
      return at === -1 ? undefined : inOrder[at + 1]?.name
    },
    authorise,
    find,
    void: voidAttempt,
    capture,
    refund
  }
})

export type GatewayCalls = Effect.Success<typeof make>

const isNotFound = (error: { readonly _tag: string }): error is AttemptNotFound => error._tag === "AttemptNotFound"
