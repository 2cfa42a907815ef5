import { Context, Schema } from "effect"
import { Id, UserId } from "./Ids.ts"
import { defaultRegion, Region } from "./Region.ts"

/** What somebody is to the shop. `service` is another part of the shop itself. */
export const Role = Schema.Literals(["guest", "shopper", "admin", "service", "anonymous"])
export type Role = typeof Role.Type

/** Who is asking. `sessionId` is there when the token came from a sign-in. */
export class Principal extends Schema.Class<Principal>("Principal")({
  userId: UserId,
  role: Role,
  region: Region,
  sessionId: Schema.optionalKey(Id)
}) {}

export const anonymous = new Principal({ userId: UserId.make("anonymous"), role: "anonymous", region: defaultRegion })

/** The principal under which the shop's own background work runs. */
export const system = new Principal({ userId: UserId.make("system"), role: "service", region: defaultRegion })

/** What goes with a request from context to context: who asks, and the ids that tie its traces together. */
export interface RequestContextShape {
  readonly principal: Principal
  /** The caller's Correlation-Id, or one made at the edge. */
  readonly correlationId: string
  /** W3C trace context of the request, present even when the request is not sampled. */
  readonly traceParent: string
}

export const emptyTraceParent = "00-00000000000000000000000000000000-0000000000000000-00"

export const RequestContext = Context.Reference<RequestContextShape>("merkato/RequestContext", {
  defaultValue: () => ({ principal: system, correlationId: "", traceParent: emptyTraceParent })
})
