import { Context, Effect, Layer } from "effect"
import { beginOf, dayMs } from "@merkato/domain/kernel/Day"
import { type Forbidden, InvalidValue, type ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { type DailyRevenue, maxDays } from "@merkato/domain/payments/DailyRevenue"
import { authorize } from "@merkato/infra/authorizer/Authorizer"
import * as Provided from "@merkato/infra/context/Provided"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { RevenueByDay } from "./RevenueByDay.ts"

/** Tells what days brought; as old as events need to arrive. */
export class Revenue extends Context.Service<
  Revenue,
  {
    /** From the first day to the last one, both included, by region and currency; days without any are left out. */
    readonly daily: (days: {
      readonly first: string
      readonly last: string
    }) => Effect.Effect<ReadonlyArray<DailyRevenue>, Forbidden | InvalidValue | ServiceUnavailable>
  }
>()("merkato/payments/Revenue") {
  static readonly layer = Layer.effect(
    Revenue,
    Effect.gen(function* () {
      const byDay = yield* RevenueByDay
      const provided = yield* Provided.provided

      const daily = Tracing.fn("Revenue.daily")(function* ({
        first,
        last
      }: Parameters<Revenue["Service"]["daily"]>[0]) {
        yield* authorize("ops.read")
        if (beginOf(last) - beginOf(first) >= maxDays * dayMs) {
          return yield* new InvalidValue({ path: "last", reason: `more than ${maxDays} days after the first` })
        }
        return yield* byDay.between(first, last)
      }, provided)

      return Revenue.of({ daily })
    })
  )
}
