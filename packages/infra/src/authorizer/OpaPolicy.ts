import { Schema } from "effect"
import { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { Action, type Question, Verdict } from "./Authorizer.ts"

/** What the policy answers, as OPA's paths below `data`. */
export const verdictPath = "merkato/authz/verdict"
export const actionsPath = "merkato/authz/actions"

/** A question as the policy reads it: nothing of the caller but what the decision is made from. */
export const inputOf = ({ principal: { userId, role }, action, resource }: Question) => ({
  principal: { userId, role },
  action,
  resource
})

export const isVerdict = Schema.is(Verdict)

const isActions = Schema.is(Schema.Array(Schema.String))

/** Why a policy that says so of its actions is not for this shop; undefined when it is. */
export const unfit = (actions: unknown): string | undefined => {
  if (!isActions(actions)) return `it has no policy ${actionsPath}`
  const unknown = Action.literals.filter((action) => !actions.includes(action))
  return unknown.length === 0 ? undefined : `its policy knows nothing of ${unknown.join(", ")}`
}

/** Who cannot be asked lets nobody through. */
export const undecided = (retryAfterSeconds: number) =>
  new ServiceUnavailable({ service: "authorization", retryAfterSeconds })
