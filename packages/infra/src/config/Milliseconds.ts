import { Config, Schema } from "effect"
import { dayMs } from "@merkato/domain/kernel/Day"

const Milliseconds = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: dayMs }))

/** A setting in whole milliseconds, from one, so that nothing goes round without rest, to a day. */
export const milliseconds = (variable: string) => Config.schema(Milliseconds, variable)
