import { Context, type Effect, Schema } from "effect"
import type { AttemptId, OrderId, RefundId } from "@merkato/domain/kernel/Ids"
import type { Currency } from "@merkato/domain/kernel/Money"
import type { PaymentToken } from "@merkato/domain/payments/Payment"
import type { OperationName } from "@merkato/infra/policy/operations"

/** How an attempt stands at the gateway. A captured attempt stays captured when some or all of it is refunded. */
export const GatewayStatus = Schema.Literals(["authorised", "captured", "declined", "voided"])
export type GatewayStatus = typeof GatewayStatus.Type

export interface GatewayAttempt {
  readonly status: GatewayStatus
  readonly reason: string | null
}

/** The gateway refused to work on the request, or was not reached: certainly nothing was moved. */
export class GatewayDown extends Schema.TaggedError<GatewayDown>()("GatewayDown", { reason: Schema.String }) {}

/** The gateway was reached and did not answer in time, or not sensibly: what it did is unknown. */
export class GatewayUnknown extends Schema.TaggedError<GatewayUnknown>()("GatewayUnknown", { reason: Schema.String }) {}

/** The gateway has never heard of the attempt. */
export class AttemptNotFound extends Schema.TaggedError<AttemptNotFound>()("AttemptNotFound", {}) {}

/** The gateway refuses the refund for good: more than was captured, or nothing was. */
export class RefundRefused extends Schema.TaggedError<RefundRefused>()("RefundRefused", { reason: Schema.String }) {}

/**
 * A provider that moves money, as payments see it. The attempt id is its idempotency key (for a refund, the refund id):
 * every call may be repeated. A real provider is one more of these.
 */
export interface PaymentGateway {
  /** Recorded with the attempt, and part of metric labels; never renamed. */
  readonly name: string
  /** The policy that every call is made under: a circuit, a bulkhead and a retry budget of its own. */
  readonly operation: OperationName
  readonly authorise: (request: {
    readonly attemptId: AttemptId
    readonly orderId: OrderId
    readonly amountMinor: number
    readonly currency: Currency
    readonly token: PaymentToken
  }) => Effect.Effect<GatewayAttempt, GatewayDown | GatewayUnknown>
  readonly find: (attemptId: AttemptId) => Effect.Effect<GatewayAttempt, AttemptNotFound | GatewayDown | GatewayUnknown>
  readonly capture: (attemptId: AttemptId) => Effect.Effect<GatewayAttempt, GatewayDown | GatewayUnknown>
  /** Also for an attempt that never arrived: a late one is then refused. */
  readonly void: (attemptId: AttemptId) => Effect.Effect<GatewayAttempt, GatewayDown | GatewayUnknown>
  /** Gives back captured money, all or a part. */
  readonly refund: (request: {
    readonly attemptId: AttemptId
    readonly refundId: RefundId
    readonly amountMinor: number
    readonly currency: Currency
  }) => Effect.Effect<void, RefundRefused | GatewayDown | GatewayUnknown>
}

/** The gateways of a deployment, in the order in which they are tried. */
export class PaymentGateways extends Context.Service<
  PaymentGateways,
  { readonly inOrder: readonly [PaymentGateway, ...ReadonlyArray<PaymentGateway>] }
>()("merkato/payments/PaymentGateways") {}
