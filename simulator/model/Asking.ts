/** How those outside ask the shop for something, and when they ask again. */
import { Effect, Result } from "effect"
import * as Ids from "@merkato/domain/kernel/Ids"
import { defaultRegion } from "@merkato/domain/kernel/Region"
import { emptyTraceParent, Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"

/** How often somebody asks again before they let it be. What nobody can answer yet ends by itself. */
const patience = 4

/** Virtual milliseconds before somebody asks again for the first time; then four times as long each time. */
const againMs = 300

/** Answers that are none: the same request is sent again, under the same key. */
export const notAnswered: ReadonlySet<string> = new Set([
  "ServiceUnavailable",
  "RequestInProgress",
  "PaymentInProgress",
  "PaymentUnavailable"
])

/** One of a list, by chance. */
export const at = <A>(list: ReadonlyArray<A>, chance: number): A | undefined => list[Math.floor(chance * list.length)]

/** The shop sees somebody who asks for something; the correlation id finds what came of it. */
export const as =
  (userId: string, correlationId = "simulated") =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.provideService(effect, RequestContext, {
      principal: new Principal({
        userId: Ids.UserId.make(userId),
        role: userId.startsWith("ADMIN") ? "admin" : "shopper",
        region: defaultRegion
      }),
      correlationId,
      traceParent: emptyTraceParent
    })

const tagOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "_tag" in error ? String(error._tag) : "unknown"

/** Asks until there is an answer, or patience ends. Nothing more is known then than before. */
export const insist = <A, E, R>(request: Effect.Effect<A, E, R>): Effect.Effect<Result.Result<A, E>, never, R> =>
  Effect.gen(function* () {
    for (let tries = 1; ; tries++) {
      const answer = yield* Effect.result(request)
      if (Result.isSuccess(answer) || tries === patience || !notAnswered.has(tagOf(answer.failure))) return answer
      yield* Effect.sleep(againMs * 4 ** (tries - 1))
    }
  })
