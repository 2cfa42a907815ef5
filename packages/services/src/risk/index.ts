import * as BoundedContext from "@merkato/infra/context/BoundedContext"
import { RiskRpc } from "@merkato/rpc/risk/RiskRpc"
import { expiry, Risk as RiskUseCases } from "./Risk.ts"
import { RiskHandlers } from "./RiskHandlers.ts"

/** Its rules come from `MERKATO_RISK_RULES`. */
export const Risk = BoundedContext.make("risk", {
  contract: RiskRpc,
  handlers: RiskHandlers,
  useCases: RiskUseCases.layer,
  topic: "fraud.events",
  migrations: new URL("./migrations", import.meta.url),
  needs: [],
  background: expiry
})
