import { Schema } from "effect"
import { AssessmentId, OrderId, UserId } from "../kernel/Ids.ts"

/** allow: the money may move. review: a person looks first, and the order is held meanwhile. block: no. */
export const Decision = Schema.Literals(["allow", "review", "block"])
export type Decision = typeof Decision.Type

/** The highest score there is. */
export const maxScore = 100

/** Points of one rule, and the score they add up to: 0 (nothing is odd) to 100. */
export const Points = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: maxScore }))

/** Every rule that can give points, by the name that reasons, metrics and runbooks use. */
export const RuleName = Schema.Literals([
  "velocity.user",
  "velocity.device",
  "amount.high",
  "amount.unusual",
  "mismatch.currency",
  "mismatch.device",
  "mismatch.regions",
  "device.missing",
  "device.new",
  "device.shared"
])
export type RuleName = typeof RuleName.Type

/** Why a score is what it is: a rule, what it gave, and what it saw, in words for operators. */
export const Reason = Schema.Struct({ rule: RuleName, points: Points, detail: Schema.String })
export type Reason = typeof Reason.Type

/** What was decided about an attempt to pay, once and for good. Reasons come with the weightiest first. */
export class Assessment extends Schema.Class<Assessment>("Assessment")({
  assessmentId: AssessmentId,
  orderId: OrderId,
  userId: UserId,
  score: Points,
  decision: Decision,
  reasons: Schema.Array(Reason),
  decidedAt: Schema.DateTimeUtcFromString
}) {}

/** No assessment has this id, or it is older than assessments are kept. */
export class AssessmentNotFound extends Schema.TaggedError<AssessmentNotFound>()(
  "AssessmentNotFound",
  { assessmentId: AssessmentId },
  { httpApiStatus: 404 }
) {
  override get message() {
    return `There is no assessment ${this.assessmentId}`
  }
}
