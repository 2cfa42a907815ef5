import { Effect } from "effect"
import { RiskGroup } from "@merkato/rpc/risk/RiskRpc"
import { Risk } from "./Risk.ts"

export const RiskHandlers = RiskGroup.toLayer(
  Effect.gen(function* () {
    const risk = yield* Risk
    return RiskGroup.of({
      Assess: (attempt) => risk.assess(attempt),
      Get: ({ assessmentId }) => risk.get(assessmentId),
      List: (options) => risk.list(options)
    })
  })
)
