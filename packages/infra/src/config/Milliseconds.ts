import { Config, Schema } from "effect"

const Milliseconds = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 86_400_000 }))

/** A setting in whole milliseconds, from one, so that nothing goes round without rest, to a day. */
export const milliseconds = (variable: string) => Config.schema(Milliseconds, variable)
