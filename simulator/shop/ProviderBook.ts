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

/** The book of a payment provider: part of the world, so it outlives every process of the shop. */
export class ProviderBook {
  readonly entries = new Map<string, BookEntry>()

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
