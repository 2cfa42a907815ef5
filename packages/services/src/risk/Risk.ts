import { Clock, Context, DateTime, Effect, Layer, Metric, Schema } from "effect"
import { dayMs } from "@merkato/domain/kernel/Day"
import type { NewEvent } from "@merkato/domain/kernel/Event"
import type { AssessmentId } from "@merkato/domain/kernel/Ids"
import type { Forbidden, InvalidValue, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { Assessment, AssessmentNotFound, type Decision } from "@merkato/domain/risk/Assessment"
import { OrderFlagged } from "@merkato/domain/risk/RiskEvents"
import { RiskRules } from "@merkato/domain/risk/RiskRules"
import { judge } from "@merkato/domain/risk/Score"
import { authorize, Authorizer } from "@merkato/infra/authorizer/Authorizer"
import * as JsonSetting from "@merkato/infra/config/JsonSetting"
import { sha256 } from "@merkato/infra/idempotency/Digest"
import * as Cursor from "@merkato/infra/paging/Cursor"
import { orUnavailable, retryLostRace } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import * as RiskStore from "./RiskStore.ts"

interface Assess extends Omit<RiskStore.Attempt, "device"> {
  readonly deviceId?: string
}

const listCursor = Cursor.make(Schema.Struct({ position: Schema.Int }))

// With its labels from the start: a metric that is given them at an update looks its series up anew every time.
const decided = (decision: Decision) =>
  Metric.counter("risk_decisions_total", {
    description: "Attempts to pay that were judged, by decision",
    incremental: true,
    attributes: { decision }
  })
const decisions = { allow: decided("allow"), review: decided("review"), block: decided("block") }
const rulesMatched = Metric.counter("risk_rules_matched_total", {
  description: "Rules that gave points to an attempt to pay, by rule and by what was decided in the end",
  incremental: true
})

/** Assessments that one statement of the expiry deletes at most. */
const expiryBatch = 1_000

/** The client's word for its device, made short and unreadable; somebody who names nothing has named none. */
const deviceOf = (deviceId: string | undefined): string | null => {
  const name = deviceId?.trim() ?? ""
  return name === "" ? null : sha256(name).slice(0, 32)
}

const flagOf = ({ assessmentId, decision, orderId, reasons, score, userId }: Assessment): NewEvent | undefined =>
  decision === "allow"
    ? undefined
    : OrderFlagged.of(assessmentId, 1, { assessmentId, orderId, userId, score, decision, reasons })

/** The use cases of risk: judging attempts to pay, and showing operators what was decided and why. */
export class Risk extends Context.Service<
  Risk,
  {
    assess(attempt: Assess): Effect.Effect<Assessment, Forbidden | ServiceUnavailable>
    get(assessmentId: AssessmentId): Effect.Effect<Assessment, Forbidden | AssessmentNotFound | ServiceUnavailable>
    list(options: {
      readonly limit: number
      readonly cursor?: string
      readonly decision?: Decision
    }): Effect.Effect<Cursor.Page<Assessment>, Forbidden | InvalidValue | ServiceUnavailable>
    /** Deletes a bounded number of assessments that are older than they are kept; true when there may be more. */
    readonly expire: Effect.Effect<boolean, ServiceUnavailable>
  }
>()("merkato/risk/Risk") {
  static readonly layer = Layer.effect(
    Risk,
    Effect.gen(function* () {
      const rules = yield* JsonSetting.read("MERKATO_RISK_RULES", RiskRules)
      const store = yield* RiskStore.make(rules)
      const authorizer = yield* Authorizer
      const orAway = orUnavailable("risk")

      const count = Effect.fnUntraced(function* ({ assessmentId, decision, orderId, reasons, score }: Assessment) {
        yield* Metric.update(decisions[decision], 1)
        yield* Effect.forEach(
          new Set(reasons.map(({ rule }) => rule)),
          (rule) => Metric.update(Metric.withAttributes(rulesMatched, { rule, decision }), 1),
          { discard: true }
        )
        if (decision === "allow") return
        yield* Effect.logInfo(`An attempt to pay is flagged: ${decision}, ${score} points`).pipe(
          Effect.annotateLogs({ orderId, assessmentId })
        )
      })

      const assess = Tracing.fn("Risk.assess")(
        function* ({ deviceId, ...rest }: Assess) {
          yield* Effect.annotateCurrentSpan({ orderId: rest.orderId, assessmentId: rest.assessmentId })
          yield* authorize("risk.assess")
          const attempt = { ...rest, device: deviceOf(deviceId) }
          const { assessmentId, orderId, userId } = attempt
          const now = yield* Clock.currentTimeMillis
          const { facts, found } = yield* retryLostRace(store.look(attempt, new Date(now)))
          if (found !== undefined) return found
          const assessment = new Assessment({
            assessmentId,
            orderId,
            userId,
            ...judge(rules, facts),
            decidedAt: DateTime.makeUnsafe(now)
          })
          if (yield* retryLostRace(store.insert(attempt, assessment, flagOf(assessment)))) {
            yield* count(assessment)
            return assessment
          }
          // A twin of this call was faster: what it decided holds.
          return (yield* store.find(assessmentId)) ?? (yield* Effect.die(new Error(`No assessment ${assessmentId}`)))
        },
        orAway,
        Effect.provideService(Authorizer, authorizer)
      )

      const get = Tracing.fn("Risk.get")(
        function* (assessmentId: AssessmentId) {
          yield* authorize("ops.read")
          return (yield* store.find(assessmentId)) ?? (yield* new AssessmentNotFound({ assessmentId }))
        },
        orAway,
        Effect.provideService(Authorizer, authorizer)
      )

      const list = Tracing.fn("Risk.list")(
        function* (options: { readonly limit: number; readonly cursor?: string; readonly decision?: Decision }) {
          yield* authorize("ops.read")
          const after = yield* listCursor.decode(options.cursor)
          const listed = yield* store.list(options.decision, after?.position, options.limit + 1)
          const { items, nextCursor } = Cursor.page(listed, options.limit, ({ position }) =>
            listCursor.encode({ position })
          )
          return { items: items.map(({ assessment }) => assessment), nextCursor }
        },
        orAway,
        Effect.provideService(Authorizer, authorizer)
      )

      const expire = Effect.gen(function* () {
        const oldest = (yield* Clock.currentTimeMillis) - rules.keptDays * dayMs
        return (yield* retryLostRace(store.expire(new Date(oldest), expiryBatch))) === expiryBatch
      }).pipe(orAway)

      return Risk.of({ assess, get, list, expire })
    })
  )
}

/** Deletes old assessments: every 5 minutes, and on at once while there are many. */
export const expiry = Effect.gen(function* () {
  const risk = yield* Risk
  return yield* Effect.forever(
    Effect.sleep("5 minutes").pipe(
      Effect.andThen(Effect.repeat(risk.expire, { while: (more) => more })),
      Effect.catchTag("ServiceUnavailable", (error) => Effect.logWarning("Expiry of assessments pauses", error))
    )
  )
}).pipe(Effect.withTracerEnabled(false))
