import { Schema } from "effect"
import { Currency, Minor } from "../kernel/Money.ts"

/**
 * A minute is open until a payment is known that was made more than a minute after it; then it is closed, and corrected when
 * something comes late after all; and final when that is not done any more.
 */
export const MinuteState = Schema.Literals(["open", "closed", "final"])
export type MinuteState = typeof MinuteState.Type

/** How long a minute waits for others to be told first, in milliseconds. */
export const graceMs = 60_000

/** The most minutes that are told at once: a day's. */
export const maxMinutes = 1_440

/** Money that came and was given back, in minor units of a currency. */
export const Flow = Schema.Struct({
  payments: Schema.Int,
  revenueMinor: Minor,
  refunds: Schema.Int,
  refundsMinor: Minor
})
export type Flow = typeof Flow.Type

/** What a minute brought in a currency, by the time at which the money moved and not at which we heard of it. */
export class RevenueMinute extends Schema.Class<RevenueMinute>("RevenueMinute")({
  /** When it began. */
  minute: Schema.DateTimeUtcFromString,
  currency: Currency,
  state: MinuteState,
  ...Flow.fields,
  /** Of it, how many came when the minute was closed, and when the last of them did. */
  corrections: Schema.Int,
  correctedAt: Schema.NullOr(Schema.DateTimeUtcFromString),
  /** What came when the minute was final: not part of the above. */
  tooLate: Flow
}) {}

/** Minutes in a row, and the time of the newest payment or refund that is known: how far all of it is. */
export class RevenueStream extends Schema.Class<RevenueStream>("RevenueStream")({
  newest: Schema.NullOr(Schema.DateTimeUtcFromString),
  items: Schema.Array(RevenueMinute)
}) {}
