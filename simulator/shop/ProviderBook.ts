import type { GatewayAttempt } from "@merkato/services/payments/PaymentGateways"

/** A provider's own account of one attempt. */
export interface BookEntry {
  readonly attemptId: string
  readonly orderId: string
  readonly amountMinor: number
  status: "authorised" | "captured" | "declined" | "voided"
  reason: string | null
  /** Minor units given back, by refund id. */
  readonly refunds: Map<string, number>
  /** Refund ids that it has refused, for good. */
  readonly refused: Set<string>
}

/** Requests for one refund that a silent provider leaves without an answer: more than one call of the shop makes. */
const silentRequests = 6

/** The book of a payment provider: part of the world, so it outlives every process of the shop. */
export class ProviderBook {
  readonly entries = new Map<string, BookEntry>()
  /** Requests that it will still not answer, by refund id. */
  readonly silences = new Map<string, number>()

  constructor(readonly name: string) {}

  private static answer({ status, reason }: BookEntry): GatewayAttempt {
    return { status, reason }
  }

  /** Holds the money, once per attempt id however often it is asked. */
  authorise(request: {
    readonly attemptId: string
    readonly orderId: string
    readonly amountMinor: number
    readonly declined: boolean
  }): GatewayAttempt {
    const { attemptId, orderId, amountMinor, declined } = request
    const entry: BookEntry = this.entries.get(attemptId) ?? {
      attemptId,
      orderId,
      amountMinor,
      status: declined ? "declined" : "authorised",
      reason: declined ? "insufficient_funds" : null,
      refunds: new Map(),
      refused: new Set()
    }
    this.entries.set(attemptId, entry)
    return ProviderBook.answer(entry)
  }

  /** Whether it leaves this request unanswered. `falls`: asked for this refund for the first time, it falls silent. */
  isSilentAbout(refundId: string, falls: () => boolean): boolean {
    const left = this.silences.get(refundId) ?? (falls() ? silentRequests : 0)
    this.silences.set(refundId, Math.max(0, left - 1))
    return left > 0
  }

  find(attemptId: string): GatewayAttempt | undefined {
    const entry = this.entries.get(attemptId)
    return entry === undefined ? undefined : ProviderBook.answer(entry)
  }

  capture(attemptId: string): GatewayAttempt | undefined {
    const entry = this.entries.get(attemptId)
    if (entry?.status === "authorised") entry.status = "captured"
    return this.find(attemptId)
  }

  /** An attempt that never came is entered as voided, and a late authorisation finds it so. */
  void(attemptId: string): GatewayAttempt {
    const entry: BookEntry = this.entries.get(attemptId) ?? {
      attemptId,
      orderId: "",
      amountMinor: 0,
      status: "authorised",
      reason: null,
      refunds: new Map(),
      refused: new Set()
    }
    this.entries.set(attemptId, entry)
    if (entry.status === "authorised") {
      entry.status = "voided"
      entry.reason = "voided"
    }
    return ProviderBook.answer(entry)
  }

  /** Why it refuses, if it does. `unwilling`: asked for this refund for the first time, it refuses for a reason of its own. */
  refund(attemptId: string, refundId: string, amountMinor: number, unwilling = () => false): string | undefined {
    const entry = this.entries.get(attemptId)
    if (entry?.status !== "captured") return "nothing was captured"
    if (entry.refunds.has(refundId)) return undefined
    if (entry.refused.has(refundId)) return "refused before"
    const given = [...entry.refunds.values()].reduce((sum, each) => sum + each, 0)
    const refusal =
      given + amountMinor > entry.amountMinor
        ? "more than was captured"
        : unwilling()
          ? "the account is closed"
          : undefined
    if (refusal === undefined) entry.refunds.set(refundId, amountMinor)
    else entry.refused.add(refundId)
    return refusal
  }
}
