import { Schema } from "effect"
import { RpcGroup } from "effect/rpc"
import { AssessmentId, OrderId, UserId } from "@merkato/domain/kernel/Ids"
import { Currency, Minor } from "@merkato/domain/kernel/Money"
import { Forbidden, InvalidValue } from "@merkato/domain/kernel/Problem"
import { Region } from "@merkato/domain/kernel/Region"
import { Assessment, AssessmentNotFound, Decision } from "@merkato/domain/risk/Assessment"
import { Contract } from "../contract/Contract.ts"
import { command, page, paging, query } from "../contract/Operation.ts"

const Count = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1_000_000 }))

export const RiskGroup = RpcGroup.make(
  /**
   * Judges an attempt to pay. The assessment id is the idempotency key: a repeat gets the first answer, whatever the
   * rules or the user's haste have become, for as long as assessments are kept.
   */
  command("Assess", {
    payload: {
      assessmentId: AssessmentId,
      orderId: OrderId,
      userId: UserId,
      amountMinor: Minor,
      currency: Currency,
      /** Of the caller's token. */
      region: Region,
      /** Pieces in the order. */
      units: Count,
      lines: Count,
      /** What the client calls its device; kept only as a digest. */
      deviceId: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(128)))
    },
    success: Assessment,
    errors: [Forbidden]
  }),
  query("Get", {
    payload: { assessmentId: AssessmentId },
    success: Assessment,
    errors: [Forbidden, AssessmentNotFound]
  }),
  /** Newest first; those of one decision, or all. */
  query("List", {
    payload: { ...paging, decision: Schema.optionalKey(Decision) },
    success: page(Assessment),
    errors: [Forbidden, InvalidValue]
  })
)

export class RiskRpc extends Contract<RiskRpc>()("risk", RiskGroup) {}
