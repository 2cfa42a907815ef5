import { acknowledged } from "./Acknowledged.ts"
import { goods } from "./Goods.ts"
import type { Invariant } from "./Invariant.ts"
import { money } from "./Money.ts"
import { owners } from "./Owners.ts"
import { readModels } from "./ReadModels.ts"
import { rebuilt } from "./Rebuilt.ts"
import { refunds } from "./Refunds.ts"
import { sales } from "./Sales.ts"
import { story } from "./Story.ts"

/** Every promise that is checked after each run. */
export const invariants: ReadonlyArray<Invariant> = [
  ...goods,
  ...money,
  ...refunds,
  ...acknowledged,
  ...story,
  ...owners,
  ...rebuilt,
  ...readModels,
  ...sales
]
