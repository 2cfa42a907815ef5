import { Schema } from "effect"
import { Currency, Minor } from "../kernel/Money.ts"
import { Region } from "../kernel/Region.ts"

const isDay = (text: string): boolean => {
  const time = Date.parse(`${text}T00:00:00Z`)
  return /^\d{4}-\d\d-\d\d$/.test(text) && !Number.isNaN(time) && new Date(time).toISOString().startsWith(text)
}

/** A day of the calendar, such as 2026-01-31. */
export const Day = Schema.String.check(Schema.makeFilter(isDay, { expected: "a day such as 2026-01-31" }))

/** The most days that are added up at once. */
export const maxDays = 366

/** What a day brought in a region, by its own midnights. Amounts in minor units of `currency`. */
export class DailyRevenue extends Schema.Class<DailyRevenue>("DailyRevenue")({
  day: Day,
  region: Region,
  currency: Currency,
  /** Orders whose money came that day. */
  orders: Schema.Int,
  revenueMinor: Minor,
  /** What was given back that day, of whichever day's orders. */
  refundsMinor: Minor
}) {}
