import { Context, Effect, Layer } from "effect"
import { Forbidden } from "@merkato/domain/kernel/Problem"
import { type Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"

/** Everything that is asked permission for. */
export type Action =
  | "product.write"
  | "price.override"
  | "flash_sale.write"
  | "stock.adjust"
  | "stock.reserve"
  | "cart.create"
  | "cart.use"
  | "order.place"
  | "order.read"
  | "order.list"
  | "order.pay"
  | "order.cancel"
  | "order.fulfil"
  | "order.review"
  | "payment.move"
  | "risk.assess"
  | "notification.read"
  | "webhook.write"
  | "webhook.use"
  | "session.end"
  | "ops.read"

/** What the decision is about, as far as it matters. */
export interface Resource {
  readonly ownerId?: string
}

export interface Question {
  readonly principal: Principal
  readonly action: Action
  readonly resource: Resource
}

/**
 * Decides who may do what, for every door of the shop. Deny by default. Rules in TypeScript here; a policy server with
 * the same decisions elsewhere.
 */
export class Authorizer extends Context.Service<
  Authorizer,
  {
    readonly allows: (question: Question) => Effect.Effect<boolean>
  }
>()("merkato/infra/Authorizer") {
  static readonly layerRules = Layer.succeed(Authorizer, { allows: (question) => Effect.succeed(decide(question)) })
}

/** The rules. Each says which roles may; those of shoppers and guests hold for what is their own. */
const rules: Record<
  Action,
  { readonly anyones?: ReadonlyArray<Principal["role"]>; readonly own?: ReadonlyArray<Principal["role"]> }
> = {
  "product.write": { anyones: ["admin"] },
  "price.override": { anyones: ["admin"] },
  "flash_sale.write": { anyones: ["admin"] },
  "stock.adjust": { anyones: ["admin", "service"] },
  "stock.reserve": { anyones: ["shopper", "admin", "service"] },
  "cart.create": { anyones: ["anonymous", "guest", "shopper", "admin"] },
  "cart.use": { own: ["guest", "shopper", "admin"] },
  "order.place": { anyones: ["shopper", "admin"] },
  "order.read": { anyones: ["admin", "service"], own: ["shopper"] },
  "order.list": { anyones: ["shopper", "admin"] },
  "order.pay": { own: ["shopper", "admin"] },
  "order.cancel": { anyones: ["admin", "service"], own: ["shopper"] },
  "order.fulfil": { anyones: ["admin"] },
  "order.review": { anyones: ["admin"] },
  "payment.move": { anyones: ["shopper", "admin", "service"] },
  "risk.assess": { anyones: ["shopper", "admin", "service"] },
  "notification.read": { anyones: ["shopper", "admin"] },
  // Who subscribes as an administrator hears of everybody's orders, others of their own.
  "webhook.write": { anyones: ["shopper", "admin"] },
  "webhook.use": { anyones: ["admin"], own: ["shopper"] },
  "session.end": { anyones: ["shopper", "admin"] },
  "ops.read": { anyones: ["admin", "service"] }
}

export const decide = ({ principal, action, resource }: Question): boolean => {
  const rule = rules[action]
  if (rule.anyones?.includes(principal.role) === true) return true
  return rule.own?.includes(principal.role) === true && resource.ownerId === principal.userId
}

/** Asks for the caller at hand. */
export const allowed = (action: Action, resource: Resource = {}): Effect.Effect<boolean, never, Authorizer> =>
  Effect.flatMap(Authorizer, (authorizer) =>
    Effect.flatMap(RequestContext, ({ principal }) => authorizer.allows({ principal, action, resource }))
  )

/** Goes on only for those who may. */
export const authorize = (action: Action, resource: Resource = {}): Effect.Effect<void, Forbidden, Authorizer> =>
  Effect.flatMap(allowed(action, resource), (yes) => (yes ? Effect.void : Effect.fail(new Forbidden({ action }))))
