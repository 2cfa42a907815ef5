import { Context, Effect, Layer, Schema } from "effect"
import { Forbidden, type ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { type Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"
import type { OrderStatus } from "@merkato/domain/orders/Order"

/** Everything that is asked permission for. */
export const Action = Schema.Literals([
  "product.write",
  "price.override",
  "flash_sale.write",
  "stock.adjust",
  "stock.reserve",
  "cart.create",
  "cart.use",
  "order.place",
  "order.read",
  "order.list",
  "order.pay",
  "order.cancel",
  "order.fulfil",
  "order.review",
  "payment.move",
  "risk.assess",
  "notification.read",
  "webhook.write",
  "webhook.use",
  "session.end",
  "ops.read"
])
export type Action = typeof Action.Type

/** What the decision is about, as far as it matters. */
export interface Resource {
  readonly ownerId?: string
  /** Of the order, for an action that its status decides about. */
  readonly status?: OrderStatus
}

export interface Question {
  readonly principal: Principal
  readonly action: Action
  readonly resource: Resource
}

/** `not_now`: who asks may do this, but not to an order in this status. */
export const Verdict = Schema.Literals(["allowed", "forbidden", "not_now"])
export type Verdict = typeof Verdict.Type

/**
 * Decides who may do what, for every door of the shop. Deny by default. Rules in TypeScript here; the same decisions by the
 * policies of an OPA elsewhere. Whose policies cannot be asked is told `ServiceUnavailable`: nobody is let through, and what
 * is said again later gets its answer then.
 */
export class Authorizer extends Context.Service<
  Authorizer,
  {
    readonly decide: (question: Question) => Effect.Effect<Verdict, ServiceUnavailable>
  }
>()("merkato/infra/Authorizer") {
  static readonly layerRules = Layer.succeed(Authorizer, { decide: (question) => Effect.succeed(decide(question)) })
}

type Roles = ReadonlyArray<Principal["role"]>

interface Rule {
  /** May do it to anything. */
  readonly anyones?: Roles
  /** May do it to what is their own. */
  readonly own?: Roles
  /** Of the order; without it any. */
  readonly statuses?: ReadonlyArray<OrderStatus>
}

/** The rules; those of `policy/authz.rego` are the same. */
const rules: Record<Action, Rule> = {
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
  "order.cancel": { anyones: ["admin", "service"], own: ["shopper"], statuses: ["PENDING"] },
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

const may = (roles: Roles | undefined, { role }: Principal): boolean => roles?.includes(role) === true

export const decide = ({ principal, action, resource: { ownerId, status } }: Question): Verdict => {
  const { anyones, own, statuses } = rules[action]
  if (!may(anyones, principal) && !(may(own, principal) && ownerId === principal.userId)) return "forbidden"
  return statuses === undefined || (status !== undefined && statuses.includes(status)) ? "allowed" : "not_now"
}

/** The verdict on the caller at hand. */
export const verdict = (
  action: Action,
  resource: Resource = {}
): Effect.Effect<Verdict, ServiceUnavailable, Authorizer> =>
  Effect.flatMap(Authorizer, (authorizer) =>
    Effect.flatMap(RequestContext, ({ principal }) => authorizer.decide({ principal, action, resource }))
  )

/** Whether the caller at hand may. */
export const allowed = (action: Action, resource: Resource = {}) =>
  Effect.map(verdict(action, resource), (given) => given === "allowed")

/** Goes on only for those who may. */
export const authorize = (
  action: Action,
  resource: Resource = {}
): Effect.Effect<void, Forbidden | ServiceUnavailable, Authorizer> =>
  Effect.flatMap(allowed(action, resource), (yes) => (yes ? Effect.void : Effect.fail(new Forbidden({ action }))))
