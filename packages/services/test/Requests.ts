import { Effect, Logger } from "effect"
import { UserId } from "@merkato/domain/kernel/Ids"
import type { Region } from "@merkato/domain/kernel/Region"
import { Principal, RequestContext, type Role } from "@merkato/domain/kernel/RequestContext"

/** Does something as somebody's request would, from the outside and untraced. */
export const as = (userId: string, role: Role = "shopper", region: Region = "us") =>
  Effect.provideService(RequestContext, {
    principal: new Principal({ userId: UserId.make(userId), role, region }),
    correlationId: `of-${userId}`,
    traceParent: "00-00000000000000000000000000000001-0000000000000001-00"
  })

/** Without logs and spans. */
export const quietly = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  effect.pipe(Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false))
