import { UserId } from "@merkato/domain/kernel/Ids"
import { anonymous, Principal, Role, system } from "@merkato/domain/kernel/RequestContext"
import { OrderStatus } from "@merkato/domain/orders/Order"
import { Action, type Question, type Verdict } from "../src/authorizer/Authorizer.ts"

/**
 * Who may do what. `yes`: to whatever. `own`: to what is theirs. What is not here is not allowed.
 */
const may: Record<Action, Partial<Record<Role, "yes" | "own">>> = {
  "product.write": { admin: "yes" },
  "price.override": { admin: "yes" },
  "flash_sale.write": { admin: "yes" },
  "stock.adjust": { admin: "yes", service: "yes" },
  "stock.reserve": { shopper: "yes", admin: "yes", service: "yes" },
  "cart.create": { anonymous: "yes", guest: "yes", shopper: "yes", admin: "yes" },
  "cart.use": { guest: "own", shopper: "own", admin: "own" },
  "order.place": { shopper: "yes", admin: "yes" },
  "order.read": { shopper: "own", admin: "yes", service: "yes" },
  "order.list": { shopper: "yes", admin: "yes" },
  "order.pay": { shopper: "own", admin: "own" },
  "order.cancel": { shopper: "own", admin: "yes", service: "yes" },
  "order.fulfil": { admin: "yes" },
  "order.review": { admin: "yes" },
  "payment.move": { shopper: "yes", admin: "yes", service: "yes" },
  "notification.read": { shopper: "yes", admin: "yes" },
  "webhook.write": { shopper: "yes", admin: "yes" },
  "webhook.use": { shopper: "own", admin: "yes" },
  "session.end": { shopper: "yes", admin: "yes" },
  "risk.assess": { shopper: "yes", admin: "yes", service: "yes" },
  "ops.read": { admin: "yes", service: "yes" }
}

/** In which status of the order; what is not here, in any. */
const when: Partial<Record<Action, OrderStatus>> = { "order.cancel": "PENDING" }

const principalOf = (role: Role) =>
  role === "anonymous"
    ? anonymous
    : role === "service"
      ? system
      : new Principal({ userId: UserId.make("ME"), role, region: "us" })

export interface Case extends Question {
  readonly expected: Verdict
}

/** Every action, by everybody, on what is theirs, somebody else's and nobody's, in every status and in none. */
export const cases: ReadonlyArray<Case> = Action.literals.flatMap((action) =>
  Role.literals.flatMap((role) => {
    const principal = principalOf(role)
    return [principal.userId, "SOMEBODY", undefined].flatMap((ownerId) =>
      [...OrderStatus.literals, undefined].map((status): Case => {
        const permitted = may[action][role] === "yes" || (may[action][role] === "own" && ownerId === principal.userId)
        const timely = when[action] === undefined || when[action] === status
        return {
          principal,
          action,
          resource: {
            ...(ownerId === undefined ? {} : { ownerId }),
            ...(status === undefined ? {} : { status })
          },
          expected: permitted ? (timely ? "allowed" : "not_now") : "forbidden"
        }
      })
    )
  })
)
