import { writeFileSync } from "node:fs"
import { join } from "node:path"

/** A circuit that stays closed whatever happens. */
export const neverOpens = { failuresInARow: 1_000, failingRate: { share: 1, ofLast: 10_000, atLeast: 10_000 } }

/**
 * Lets a shop whose data is in this folder go on asking its payment gateways, however often they fail: where many shoppers
 * with gateways of their own moods share a process, one's trouble must not open the circuit for all.
 */
export const patientCircuits = (dataDir: string) =>
  writeFileSync(
    join(dataDir, "policies.json"),
    JSON.stringify({
      "payment.soap": { breaker: neverOpens, retryBudget: null },
      "payment.rest": { breaker: neverOpens, retryBudget: null }
    })
  )
