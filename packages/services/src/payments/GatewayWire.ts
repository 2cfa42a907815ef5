import { Data, Effect } from "effect"
import type { AttemptId, RefundId } from "@merkato/domain/kernel/Ids"
import type { Currency } from "@merkato/domain/kernel/Money"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import {
  AttemptNotFound,
  type GatewayDown,
  type GatewayStatus,
  GatewayUnknown,
  type PaymentGateway,
  RefundRefused
} from "./PaymentGateways.ts"

/** What a gateway says of an attempt, in whatever protocol. One that was voided before it arrived has no order. */
export interface Reported {
  readonly attemptId: string
  readonly order: { readonly orderId: string; readonly amountMinor: number; readonly currency: Currency } | undefined
  readonly status: GatewayStatus
  readonly reason: string | null
}

export interface ReportedRefund {
  readonly attemptId: string
  readonly refundId: string
  readonly amountMinor: number
  readonly currency: Currency
}

/** A gateway refuses, in its own words, to do what it was asked. */
export class Refusal extends Data.TaggedError("Refusal")<{
  readonly code: "unknown_attempt" | "conflicting_repeat" | "refund_refused"
  readonly reason: string
}> {}

type Asked<A> = Effect.Effect<A, GatewayDown | GatewayUnknown | Refusal>

export interface AuthoriseRequest extends NonNullable<Parameters<PaymentGateway["authorise"]>[0]> {}
export interface RefundRequest extends NonNullable<Parameters<PaymentGateway["refund"]>[0]> {}

/** A gateway in its own protocol: each request sent once, each answer read, none of it believed yet. */
export interface GatewayWire {
  readonly name: string
  readonly operation: PaymentGateway["operation"]
  readonly authorise: (request: AuthoriseRequest) => Asked<Reported>
  readonly find: (attemptId: AttemptId) => Asked<Reported>
  readonly capture: (attemptId: AttemptId) => Asked<Reported>
  readonly void: (attemptId: AttemptId) => Asked<Reported>
  readonly refund: (request: RefundRequest) => Asked<ReportedRefund>
}

/** An answer that makes no sense leaves open what was done. */
export const senseless = (what: string) => new GatewayUnknown({ reason: `an answer that makes no sense: ${what}` })

/** The answer about another attempt is none. */
const about = (attemptId: AttemptId) => (reported: Reported) =>
  reported.attemptId === attemptId ? Effect.succeed(reported) : Effect.fail(senseless("about another attempt"))

/** Held is what was asked for, or it is not known what is. */
const asAsked =
  ({ amountMinor, currency, orderId }: AuthoriseRequest) =>
  (reported: Reported) => {
    const { order, status } = reported
    const same =
      order === undefined
        ? status === "voided"
        : order.orderId === orderId && order.amountMinor === amountMinor && order.currency === currency
    return same ? Effect.succeed(reported) : Effect.fail(senseless("another order or amount"))
  }

const found = ({ reason, status }: Reported) => ({ status, reason })

/** A refusal is no answer to what can be refused only by mistake: what the gateway did before is to be found out. */
const unexpected = ({ reason }: Refusal) => Effect.fail(new GatewayUnknown({ reason }))

/** The port over a protocol. What a gateway must say to be believed is the same for all of them. */
export const gatewayOf = (wire: GatewayWire): PaymentGateway => {
  const span = (operation: string) => ({ attributes: { "payment.gateway": wire.name, "payment.operation": operation } })
  return {
    name: wire.name,
    operation: wire.operation,
    authorise: (request) =>
      wire
        .authorise(request)
        .pipe(
          Effect.flatMap(about(request.attemptId)),
          Effect.flatMap(asAsked(request)),
          Effect.map(found),
          Effect.catchTag("Refusal", unexpected),
          Tracing.withSpan("PaymentGateway.authorise", span("authorise"))
        ),
    find: (attemptId) =>
      wire.find(attemptId).pipe(
        Effect.flatMap(about(attemptId)),
        Effect.map(found),
        Effect.catchTag(
          "Refusal",
          (refusal): Effect.Effect<never, AttemptNotFound | GatewayUnknown> =>
            refusal.code === "unknown_attempt" ? Effect.fail(new AttemptNotFound()) : unexpected(refusal)
        ),
        Tracing.withSpan("PaymentGateway.find", span("find"))
      ),
    capture: (attemptId) =>
      wire
        .capture(attemptId)
        .pipe(
          Effect.flatMap(about(attemptId)),
          Effect.map(found),
          Effect.catchTag("Refusal", unexpected),
          Tracing.withSpan("PaymentGateway.capture", span("capture"))
        ),
    void: (attemptId) =>
      wire
        .void(attemptId)
        .pipe(
          Effect.flatMap(about(attemptId)),
          Effect.map(found),
          Effect.catchTag("Refusal", unexpected),
          Tracing.withSpan("PaymentGateway.void", span("void"))
        ),
    refund: (request) =>
      wire.refund(request).pipe(
        Effect.flatMap((reported) => refundAsAsked(request, reported)),
        // Nothing was captured under an attempt that the gateway does not know; and what a conflict is about is not ours.
        Effect.catchTag("Refusal", ({ reason }) => Effect.fail(new RefundRefused({ reason }))),
        Tracing.withSpan("PaymentGateway.refund", span("refund"))
      )
  }
}

const refundAsAsked = (
  asked: {
    readonly attemptId: AttemptId
    readonly refundId: RefundId
    readonly amountMinor: number
    readonly currency: Currency
  },
  reported: ReportedRefund
): Effect.Effect<void, GatewayUnknown> =>
  reported.attemptId === asked.attemptId &&
  reported.refundId === asked.refundId &&
  reported.amountMinor === asked.amountMinor &&
  reported.currency === asked.currency
    ? Effect.void
    : Effect.fail(senseless("about another refund"))
